"""Nothing that a record says grants trust: every field stands in a row of SECURITY.md, and every row has a test."""

from __future__ import annotations

import ast
import json
import re
import shutil
import time
import typing
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
from family import Family, copy_model
from huggingface_hub import HfApi
from pydantic import BaseModel
from shell import bake, refused, run

from hfsoup.checkpoints.inspection import FOREIGN
from hfsoup.localhub import LocalHub
from hfsoup.options.config_file import SCHEMA
from hfsoup.options.options import option_fields
from hfsoup.provenance import manifest
from hfsoup.provenance.manifest import Manifest
from hfsoup.provenance.predictions import TestPredictions
from hfsoup.utils.hashing import hash_file
from hfsoup.utils.text import quoted

TESTS = Path(__file__).parent
SECURITY = (TESTS.parent / ".github/SECURITY.md").read_text("utf-8")
HOSTILE = "<script>alert(1)</script>\x1b[2J\u202e{{ 7 * 7 }}|`[x](javascript:1)"
Record = dict[str, Any]
Change = Callable[[Record], object]


def rows(section: str) -> list[tuple[list[str], str]]:
    """The fields and the test of every row of a table in SECURITY.md."""
    text = SECURITY.split(f"### {section}\n", 1)[1].split("\n### ", 1)[0]
    cells = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("|")][2:]
    return [(re.findall(r"`([^`]+)`", row[0]), row[-1].strip("`")) for row in cells]


def models(hint: Any) -> list[tuple[type[BaseModel], str]]:
    """The models in a type, with what stands between a field of the type and theirs."""
    if isinstance(hint, type) and issubclass(hint, BaseModel):
        return [(hint, "")]
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return models(inner[0])
    between = ".*" if origin in (list, dict) else ""
    return [(model, between + rest) for each in inner for model, rest in models(each)]


def leaves(model: type[BaseModel], above: str = "") -> Iterator[str]:
    """The paths of all values that a model has fields for."""
    for name, field in model.model_fields.items():
        found = models(field.annotation)
        for inner, between in found:
            yield from leaves(inner, f"{above}{name}{between}.")
        if not found:
            yield above + name


def keys(*files: str) -> set[str]:
    """The keys that files of hfsoup read from what they call a card, a config or values."""
    names = {
        "card",
        "read_card(ingredient)",
        "config",
        "self.config",
        "values",
        "found",
        "below",
        "quantized",
        "mapping",
    }
    names |= {"arguments", "described", "found.data_config", "read_image_settings(config) or {}"}
    names |= {"read_model_config(path, where=f'{ingredient}, config.json')"}
    names |= {"parse(text, MAX_VALUES)", "read_json(index, where=where)"}
    read: set[str] = set()
    for file in (path for pattern in files for path in (TESTS.parent / "hfsoup").glob(pattern)):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            key: ast.expr | None = None
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "get":
                key, owner = (node.args or [None])[0], node.func.value
            elif isinstance(node, ast.Subscript):
                key, owner = node.slice, node.value
            if isinstance(key, ast.Constant) and isinstance(key.value, str) and ast.unparse(owner) in names:
                read.add(key.value)
    return read


FIELDS: dict[str, Callable[[], set[str]]] = {
    "soup.json": lambda: set(leaves(Manifest)),
    "evaluation.json": lambda: set(leaves(TestPredictions)),
    "A YAML file": lambda: set(SCHEMA.model_fields) | {"anchors, aliases, merge keys, tags, depth"},
    "Cards": lambda: keys("ingredients/cards.py", "data/files.py"),
    "config.json, adapter_config.json, preprocessor_config.json and indexes": lambda: (
        (keys("checkpoints/**/*.py", "ingredients/headers.py", "ingredients/pull.py", "data/tasks/*.py") - {"A", "B"})
        | set(FOREIGN)
    ),
}


@pytest.mark.parametrize("section", FIELDS)
def test_every_field_stands_in_one_row(section: str) -> None:
    """A new field without a row, one in two rows, and a row of a field that there is not, are told."""
    fields = FIELDS[section]() - {"anchors, aliases, merge keys, tags, depth"}
    patterns = [(pattern, n) for n, (names, _) in enumerate(rows(section)) for pattern in names]
    homes = {field: {n for pattern, n in patterns if fnmatchcase(field, pattern)} for field in fields}
    assert {field: found for field, found in homes.items() if len(found) != 1} == {}
    known = fields | ({"tags"} if section == "Cards" else set())
    assert [pattern for pattern, _ in patterns if not any(fnmatchcase(field, pattern) for field in known)] == []


@pytest.mark.parametrize("named", re.findall(r"`(test_\w+\.py::\w+)`", SECURITY))
def test_every_row_has_its_test(named: str) -> None:
    """SECURITY.md names tests that there are."""
    file, _, test = named.partition("::")
    assert f"\ndef {test}(" in (TESTS / file).read_text("utf-8")


@pytest.fixture(scope="module")
def whole(on_hub: LocalHub, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A soup of ingredients and a dataset on the Hub."""
    folder = tmp_path_factory.mktemp("whole") / "soup"
    words = ("kit/vit-*", "--dataset", "kit/shapes", "--accept", ">", "--ensemble", "--shifts")
    bake(*words, "--output", folder)
    return folder


@pytest.fixture
def soup(whole: Path, alone: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(whole, "soup"))


def changed(folder: Path, change: Change) -> None:
    """Change a soup's record; its config is left out, which is another text now."""
    record = json.loads((folder / "soup.json").read_text())
    record["config"] = None
    change(record)
    (folder / "soup.json").write_text(json.dumps(record))


def put(path: str | tuple[Any, ...], value: Any) -> Change:
    """Set one field, by its path: with dots, or of names that may have some."""

    def change(record: Any) -> None:
        *above, last = path.split(".") if isinstance(path, str) else path
        for part in above:
            record = record[int(part) if isinstance(record, list) else part]
        record[int(last) if isinstance(record, list) else last] = value

    return change


def spread(value: Any) -> Any:
    """Every text within a value made hostile, every number huge."""
    if isinstance(value, dict):
        return {name: spread(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [spread(inner) for inner in value]
    return HOSTILE if isinstance(value, str) else value if isinstance(value, (bool, type(None))) else value + 10**9


def test_what_is_only_shown_is_only_text(soup: Path) -> None:
    """Markup, control characters and templates stay text in report and terminal, and `verify` does not mind them."""

    def change(record: Record) -> None:
        for name in ("hfsoup", "patterns", "versions", "trace", "attempts", "numbers", "ensemble", "shifts"):
            record[name] = spread(record.get(name, {"other": 1.0}))
        record["test"] |= {"verdict": HOSTILE, "ci95": [-1e300, 1e300], "mcnemar_p": -7.0, "ece": 1e300, "choices": 9}
        record["dataset"] |= {"backend": HOSTILE, "labels": HOSTILE, "threshold": 1e300}
        record["adapter"] = {"rank": 10**9, "error": 1e300, "worst": -1.0, "layer": HOSTILE}
        for shift in record["shifts"]:
            shift["revision"], shift["test"]["choices"] = "0" * 40, 9
            shift["images"]["images"] = 9
        record["ensemble"]["choices"] = 9

    changed(soup, change)
    done = run("report", soup, "--no-images")
    assert done.code == 0, done.err
    page = Path("report.html").read_text()
    assert page.count("<script") == 1
    assert "&lt;script&gt;" in page
    assert "49" not in re.findall(r"\{\{[^}]*\}\}|49\|`", page)
    assert not {"\x1b", "\u202e"} & set(page + done.err)
    done = run("verify", soup)
    assert done.code == 0, done.err
    assert not {"\x1b", "\u202e"} & set(done.out + done.err)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("recipe", "pruned"),
        ("recipe", HOSTILE),
        ("merge", "ties"),
        ("dataset.metric", "f1_macro"),
        ("dataset.metric", HOSTILE),
        ("dataset.config", "other"),
        ("dataset.mapping", {"a": 0}),
        ("dataset.task", "multi-label"),
        ("options.labels", "/etc/hosts.csv"),
        ("options.recipe", "uniform"),
        ("options.dataset", "kit/other"),
        ("config", "ingredients: [evil/model]\n"),
    ],
)
def test_a_record_cannot_contradict_itself(path: str, value: Any, soup: Path) -> None:
    """What is shown is what is baked and scored again; what differs from the options is named."""
    changed(soup, put(path, value))
    block = refused("verify", soup, "--scores", code=1)
    assert "this is not what its record says" in block
    assert path.rpartition(".")[2].removeprefix("options") in block


def test_options_grant_nothing(soup: Path, on_hub: LocalHub) -> None:
    """Options that a record does not have are refused, trust is not taken over, and odd values are one clear block."""
    record = json.loads((soup / "soup.json").read_text())
    unrecorded = [f.name for f in option_fields() if not f.metadata["recorded"]]
    assert {"push", "output", "overwrite", "device", "create_pr"} <= set(unrecorded)
    for name in unrecorded:
        changed(soup, put(f"options.{name}", True if name in ("overwrite", "create_pr") else "kit/taken"))
        assert f"expected options that soup.json records, found '{name}'" in refused("verify", soup, code=2)
        (soup / "soup.json").write_text(json.dumps(record))
    odd: dict[str, Any] = {"margin": 10**400, "weights_file": "../x.safetensors", "merge": "os.system", "seed": 10**400}
    odd |= {"dataset": "x@" * 2000, "batch_size": 0, "exclude": [HOSTILE], "nothing_of_ours": 1, "state_dict_key": ""}
    for name, value in odd.items():
        changed(soup, put(f"options.{name}", value))
        done = run("verify", soup)
        assert done.code in ((0,) if name == "exclude" else (1, 2)), (name, done.err)
        assert "Traceback" not in done.err
        assert not {"\x1b", "\u202e"} & set(done.err)
        (soup / "soup.json").write_text(json.dumps(record))
    changed(soup, lambda r: r["options"].update(trust_remote_metric=True, batch_size=10**12))
    on_hub.forget_requests()
    done = run("verify", soup, "--scores")
    assert done.code == 0, done.err
    assert not [seen for seen in on_hub.requests if "spaces" in seen.path]


PLACES = [
    pytest.param("revision", "main", "soup.json is damaged", id="a branch"),
    pytest.param("revision", "f" * 39, "soup.json is damaged", id="a part of a commit"),
    pytest.param("id", "https://elsewhere.example/a/b", "not a repository name", id="another host"),
    pytest.param("id", "kit/../../api/whoami-v2", "", id="a way out"),
    pytest.param("id", "user:hf_token@elsewhere.example/x", "not a repository name", id="a login"),
    pytest.param("id", "/etc", "/etc@", id="a folder with a commit"),
    pytest.param("id", "x" * 4000, "not a repository name", id="no name at all"),
    pytest.param("id", HOSTILE, "not a repository name", id="markup"),
]


@pytest.mark.parametrize(("key", "value", "said"), PLACES)
def test_a_place_is_a_commit_on_the_hub(
    key: str, value: str, said: str, soup: Path, on_hub: LocalHub, signed_in: LocalHub, vit: Family
) -> None:
    """Anything else is refused; a repository's record names no folder of this disk, whether there is one or not."""
    changed(soup, put(f"ingredients.0.{key}", value))
    block = refused("verify", soup, code=1)
    assert said in block
    assert not {"\x1b", "\u202e"} & set(block)
    if (key, value) != ("revision", "main"):
        return
    api = HfApi(token=on_hub.token)
    api.create_repo("kit/record", exist_ok=True)
    for folder in (vit.words[0], "/no/such/folder"):
        changed(soup, lambda r, name=folder: r["ingredients"][0].update(id=name, revision=None))
        api.upload_file(path_or_fileobj=soup / "soup.json", path_in_repo="soup.json", repo_id="kit/record")
        block = refused("verify", "kit/record", code=2)
        assert f"the record of this repository names folders of this disk, such as {quoted(folder)}" in block
        assert "--allow-local-paths" in block
    for share in ("//elsewhere.example/share/model", r"\\elsewhere.example\share\model"):
        changed(soup, lambda r, name=share: r["ingredients"][0].update(id=name, revision=None))
        assert "a folder of another machine, which is not opened" in refused("verify", soup, code=1)
    api.delete_repo("kit/record")


def test_a_dataset_is_a_commit_on_the_hub(soup: Path, data: Path, signed_in: LocalHub, on_hub: LocalHub) -> None:
    """A branch is refused; a folder of the same name is not read; without the right hash no image is shown, nor why."""
    changed(soup, put("dataset.revision", "main"))
    assert "soup.json is damaged" in refused("verify", soup, code=1)
    assert "soup.json is damaged" in refused("report", soup, code=1)
    revision = HfApi().dataset_info("kit/shapes").sha
    shutil.copytree(data, "kit/shapes")
    (Path("kit/shapes") / "test-00000-of-00001.parquet").write_bytes(b"not the dataset")
    changed(soup, put("dataset.revision", revision))
    assert run("verify", soup, "--scores").code == 0
    assert run("report", soup, "-o", "right.html").code == 0
    assert 'class="tile"' in Path("right.html").read_text()
    api = HfApi(token=on_hub.token)
    api.create_repo("kit/hidden-data", repo_type="dataset", private=True, exist_ok=True)
    for n, (name, commit) in enumerate(
        (("kit/hidden-data", "0" * 40), (str(data), None), ("/etc", None), ("~x/y", None))
    ):
        changed(soup, lambda r, name=name, commit=commit: r["dataset"].update(id=name, revision=commit))
        done = run("report", soup, "-o", f"{n}.html")
        assert done.code == 0, done.err
        page = Path(f"{n}.html").read_text()
        assert 'class="tile"' not in page
        assert "The images could not be read again" in page
        for word in ("private", "no such", "token", "hosts", "passwd", "revision "):
            assert word not in page.split("could not be read again")[1][:300]
    api.delete_repo("kit/hidden-data", repo_type="dataset")
    predictions = json.loads((soup / "evaluation.json").read_text())
    for key, value in (("part", "../../etc"), ("column", HOSTILE), ("rows", [10**15] * len(predictions["rows"]))):
        (soup / "evaluation.json").write_text(json.dumps({**predictions, key: value}))
        digest = hash_file(soup / "evaluation.json")
        changed(soup, lambda r, digest=digest: r["files"].update({"evaluation.json": digest}))
        changed(soup, lambda r: r["dataset"].update(id="kit/shapes", revision=revision))
        assert run("report", soup, "-o", "odd.html", "--overwrite").code == 0
        assert 'class="tile"' not in Path("odd.html").read_text()


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "a/../../b", "a//b", "C:\\x", ".hidden", "a\nb"])
def test_a_file_is_inside_the_folder(name: str, soup: Path, on_hub: LocalHub, signed_in: LocalHub) -> None:
    """Only plain names are in a record, and nothing is pulled of a repository that its record does not name."""
    changed(soup, lambda record: record["files"].update({name: "0" * 64}))
    assert "soup.json is damaged: files" in refused("verify", soup, code=1)
    assert "soup.json is damaged: files" in refused("report", soup, code=1)
    if name != "../outside":
        return
    changed(soup, lambda record: record["files"].pop(name))
    (soup / "huge.bin").write_bytes(bytes(100_000))
    api = HfApi(token=on_hub.token)
    api.create_repo("kit/stuffed")
    api.upload_folder(repo_id="kit/stuffed", folder_path=soup)
    on_hub.forget_requests()
    assert "huge.bin: not part of the soup" in refused("verify", "kit/stuffed", code=1)
    assert [seen.path for seen in on_hub.requests if "huge" in seen.path or "safetensors" in seen.path] == []
    api.delete_repo("kit/stuffed")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e308, -1.0, 0.0, 10**400])
@pytest.mark.parametrize("path", ["ingredients", "tensors"])
def test_a_coefficient_is_only_a_number(path: str, value: float, soup: Path) -> None:
    """Whatever it is, the average differs, and that is all."""
    record = json.loads((soup / "soup.json").read_text())
    used = next(n for n, ingredient in enumerate(record["ingredients"]) if ingredient["coefficient"])
    if path == "ingredients":
        path = f"ingredients.{used}.coefficient"
    changed(soup, put(path, value if path != "tensors" else {"classifier.bias": [value] * 4, HOSTILE: [1.0] * 4}))
    block = refused("verify", soup, code=1)
    assert not {"\x1b", "\u202e"} & set(block)


@pytest.mark.parametrize(
    "path", ["score.value", "score.correct", "test.soup.value", "test.best.correct", "test.soup.total"]
)
def test_a_score_is_compared(path: str, soup: Path) -> None:
    """`verify --scores` names the score that is another now; a report shows what is recorded."""
    changed(soup, put(path, 1 if path.endswith(("correct", "total")) else 0.999))
    assert " now, " in refused("verify", soup, "--scores", code=1)
    assert run("report", soup, "--no-images").code == 0


@pytest.mark.parametrize("key", ["fingerprint", "images"])
def test_a_split_is_compared(key: str, soup: Path) -> None:
    """So does it with the splits."""
    changed(soup, put(f"dataset.selection.{key}", "0" * 64 if key == "fingerprint" else 7))
    assert "the selection split differs from the one that was scored" in refused("verify", soup, "--scores", code=1)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("classifier.bias", "AAAA", "soup.json is damaged"),
        ("classifier.bias", "<not base64>", "soup.json is damaged"),
        ("classifier.bias", "AAAAAA==" * 9, "soup.json is damaged"),
        ("classifier.bias", "AAAAAA==", "1 statistics of 'classifier.bias', which has"),
        (HOSTILE, "AAAAAA==", "which has no channels"),
    ],
)
def test_statistics_fit_their_tensors(name: str, text: str, said: str, soup: Path) -> None:
    """Bytes that are no numbers, or of no tensor of that size, are refused before anything is written."""
    split = json.loads((soup / "soup.json").read_text())["dataset"]["selection"]
    changed(soup, put("batch_norm", {"modes": {}, "calibration": split, "statistics": {name: text}}))
    block = refused("verify", soup, code=1)
    assert said in block
    assert not {"\x1b", "\u202e"} & set(block)


WORK: dict[str, Any] = {
    "alignment": {"method": "weights", "seed": 0, "images": None, "copies": ["0" * 64] * 3, "fitted": None},
    "importance": {"kind": "os.system", "seed": 1, "images": None, "files": ["0" * 64]},
    "distillation": {
        "members": [0, 1], "start": [0.5, 0.5, 0.0, 0.0], "base": 0.0, "before": None, "images": None,
        "epochs": 10**9, "seed": 0, "weights": "0" * 64,
    },
}  # fmt: skip


@pytest.mark.parametrize("name", WORK)
def test_work_is_done_again_only_as_the_options_say(name: str, soup: Path) -> None:
    """An alignment, an estimate or a training that the options do not ask for is not begun."""
    record = json.loads((soup / "soup.json").read_text())
    value = dict(WORK[name])
    if name != "alignment":
        value["images"] = record["dataset"]["test"]
    if name == "distillation":
        value["before"] = record["score"]
    changed(soup, put(name, value))
    block = refused("verify", soup, code=1)
    assert "this is not what its record says" in block
    changed(soup, put(name, {**value, "seed": "0"}))
    assert "soup.json is damaged" in refused("verify", soup, code=1)


def test_an_alignment_has_a_copy_of_each(soup: Path) -> None:
    """Fewer or more, or an unknown method, are damage."""
    for change in ({"copies": []}, {"method": "os.system"}):
        changed(soup, put("alignment", {**WORK["alignment"], **change}))
        assert "soup.json is damaged" in refused("verify", soup, code=1)


def test_predictions_have_a_size(soup: Path, on_hub: LocalHub, signed_in: LocalHub) -> None:
    """Classes and cells beyond any model's are refused, and a larger file is not even pulled."""
    whole = json.loads((soup / "evaluation.json").read_text())
    count = len(whole["rows"])
    many = {"classes": ["x"] * (1 << 18)}
    wide: Record = {"classes": ["x"] * (1 << 17), **{name: [[0]] * 2000 for name in ("labels", "soup", "best")}}
    huge = {"rows": [*whole["rows"][1:], 10**400]}
    others = ({"best_ingredient": 10**9}, {"labels": [10**9] * count})
    bins = whole["calibration"]["soup"]
    wrong = ({"count": [10**15] * 15}, {"right": [10**15] * 15}, {"confidence": [1e308] * 15}, {"count": []})
    calibrations = [{"calibration": {"soup": bins | one, "best": bins}} for one in wrong]
    for change in (many, {**wide, "rows": list(range(2000))}, huge, *others, *calibrations):
        (soup / "evaluation.json").write_text(json.dumps({**whole, **change}))
        digest = hash_file(soup / "evaluation.json")
        changed(soup, lambda r, digest=digest: r["files"].update({"evaluation.json": digest}))
        assert "evaluation.json" in refused("report", soup, code=1)
    (soup / "evaluation.json").write_bytes(b" " * (25 << 20))
    assert "evaluation.json is over the limit" in refused("report", soup, code=1)


def test_a_record_has_a_size(soup: Path, monkeypatch: pytest.MonkeyPatch, signed_in: LocalHub) -> None:
    """One that is larger is not read, and not pulled."""
    api = HfApi(token=signed_in.token)
    api.create_repo("kit/long")
    api.upload_folder(repo_id="kit/long", folder_path=soup)
    monkeypatch.setattr(manifest, "MAX_BYTES", 100)
    signed_in.forget_requests()
    for command in ("verify", "report"):
        assert "soup.json is over the limit of 100 bytes" in refused(command, "kit/long", code=1)
        assert "soup.json is over the limit of 100 bytes" in refused(command, soup, code=1)
    assert not [seen for seen in signed_in.requests if "resolve" in seen.path]
    api.delete_repo("kit/long")


@pytest.mark.parametrize(
    ("wish", "flag"),
    [
        ("push: kit/taken", "--push kit/taken"),
        ("push: kit/taken\nprivate: false\ncreate_pr: true\nrevision: x\ncollection: true", "--push kit/taken"),
        ("output: mine\noverwrite: true", "--overwrite"),
        ("metric: kit/stranger\ntrust-remote-metric: true", "--trust-remote-metric"),
    ],
    ids=["push", "pull request", "overwrite", "trust"],
)
def test_a_file_asks_for_what_only_a_flag_allows(
    wish: str, flag: str, vit: Family, data: Path, alone: Path, on_hub: LocalHub, signed_in: LocalHub
) -> None:
    """A file cannot push, replace a folder or run a script; the flag that allows it is told, and nothing is asked."""
    Path("mine").mkdir()
    Path("mine/thesis.txt").write_text("years of work")
    Path("soup.yaml").write_text(f"ingredients: [{vit.words[0]}, {vit.words[1]}]\ndataset: {data}\n{wish}\n")
    on_hub.forget_requests()
    block = refused("bake", "soup.yaml", code=2)
    assert "only you can allow that" in block
    assert f"hfsoup bake soup.yaml {flag}, if you mean it" in block
    assert on_hub.requests == []
    assert Path("mine/thesis.txt").read_text() == "years of work"


def test_a_flag_repeats_what_a_file_asks_for(vit: Family, alone: Path, on_hub: LocalHub, signed_in: LocalHub) -> None:
    """With the flag it is done, where the flag says."""
    Path("soup.yaml").write_text(f"ingredients: [{vit.words[0]}, {vit.words[1]}]\npush: kit/asked\nprivate: true\n")
    found = bake("soup.yaml", "--push", "kit/meant")
    assert found["pushed"]["repo"] == "kit/meant"
    api = HfApi(token=on_hub.token)
    assert api.model_info("kit/meant").private
    assert not api.repo_exists("kit/asked")
    api.delete_repo("kit/meant")


def laughs(step: str) -> str:
    """YAML in which every line holds the one before nine times."""
    lines = [f"x{n}: &x{n} {step.format(','.join([f'*x{n - 1}'] * 9))}" for n in range(1, 10)]
    return "\n".join(["x0: &x0 {a: b, c: d}", *lines])


YAML = {
    "a list of lists": laughs("[{}]"),
    "merge keys": laughs("{{<<: [{}]}}"),
    "deep brackets": "x: " + "[" * 2000,
    "deep dashes": "x:\n  " + "- " * 2000,
    "many": "x: [" + "a," * 21_000 + "]",
    "itself": "x: &x [*x]",
    "an empty number": 'x: !!int ""',
    "a date of no calendar": "x: !!timestamp never",
    "an object": "x: !!python/object/apply:os.system [touch marker]",
    "a number of many digits": "x: " + "1" * 6000,
}


@pytest.mark.parametrize("text", YAML.values(), ids=YAML.keys())
def test_yaml_costs_little(text: str, vit: Family, images: Any, alone: Path) -> None:
    """As a card it says nothing, as a dataset's card or a file it is refused, each within a second or two of work."""
    copies = [copy_model(folder, alone / f"m-{n}") for n, folder in enumerate(vit.folders[:2])]
    for copy in copies:
        (copy / "README.md").write_text(f"---\nlicense: mit\n{text}\n---\n")
    began = time.process_time()
    found = bake("./m-0", "./m-1", "--output", "soup")
    assert found["soup"]["sha256"]
    Path("soup.yaml").write_text(f"ingredients: [./m-0, ./m-1]\n{text}\n")
    refused("bake", "soup.yaml", "--output", "other", code=2)
    (alone / "d").mkdir()
    images["test"].to_parquet(alone / "d/test-0.parquet")
    (alone / "d/README.md").write_text(f"---\n{text}\n---\n")
    if text not in (YAML["many"], YAML["deep brackets"]):
        done = run("bake", "./m-0", "./m-1", "--dataset", "./d", "--output", "third")
        assert done.code in (1, 2), done.err
        assert "Traceback" not in done.err
    assert not Path("marker").exists()
    assert time.process_time() - began < 20


def test_a_private_base_is_of_one_owner(on_hub: LocalHub, signed_in: LocalHub, vit: Family, alone: Path) -> None:
    """A stranger's card or adapter cannot mix a private model of yours into a soup; you can, and your own cards may."""
    from test_adapters import KINDS, adapt

    mine, theirs = HfApi(token=on_hub.token), HfApi(token=on_hub.add_user("stranger"))
    mine.create_repo("kit/secret", private=True)
    mine.upload_folder(repo_id="kit/secret", folder_path=vit.folders[2])
    card = b"---\nbase_model: kit/secret\n---\n"
    for api, owner in ((theirs, "stranger"), (mine, "kit")):
        for n in (0, 1):
            api.create_repo(f"{owner}/tuned-{n}")
            api.upload_folder(repo_id=f"{owner}/tuned-{n}", folder_path=vit.folders[n])
            api.upload_file(path_or_fileobj=card, path_in_repo="README.md", repo_id=f"{owner}/tuned-{n}")
    words = ("--merge", "task-arithmetic", "--output", "soup")
    block = refused("bake", "stranger/tuned-0", "stranger/tuned-1", *words, code=2)
    assert "names the private repository kit/secret as its base; only you can allow that" in block
    assert "--base kit/secret, if you mean it" in block
    assert not Path("soup").exists()
    for given in (("kit/tuned-0", "kit/tuned-1"), ("stranger/tuned-0", "stranger/tuned-1", "--base", "kit/secret")):
        done = run("bake", *given, *words, "--overwrite")
        assert done.code == 0, done.err
    adapt(vit.folders[2], alone / "lora", 0, "kit/secret", **KINDS["linear"][1])
    theirs.create_repo("stranger/lora")
    theirs.upload_folder(repo_id="stranger/lora", folder_path=alone / "lora")
    block = refused("bake", "stranger/lora", "kit/vit-1", code=2)
    assert "names the private repository kit/secret as its base" in block
    for api, owner in ((theirs, "stranger"), (mine, "kit")):
        for model in list(api.list_models(author=owner)):
            if model.id.rpartition("/")[2] in ("tuned-0", "tuned-1", "secret", "lora"):
                api.delete_repo(model.id)


VALUES: dict[type, list[Any]] = {
    str: ["x" * 4000, "", HOSTILE, "/etc/passwd", "~/.ssh", "https://elsewhere.example/a", "../../x", "//elsewhere/x"],
    int: [-1, 0, 10**18, 10**400],
    float: [float("nan"), float("inf"), 1e308, -1.0, 10**400],
    list: [[], [0] * 1000, [HOSTILE]],
    dict: [{}, {HOSTILE: HOSTILE}],
    bool: [1],
    type(None): ["x", 5, "/etc/passwd"],
}  # fmt: skip


def spots(value: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Where a record holds which value; of a list the first."""
    if above:
        yield above, value
    inner = value.items() if isinstance(value, dict) else enumerate(value[:1]) if isinstance(value, list) else ()
    for name, one in inner:
        yield from spots(one, (*above, name))


@pytest.mark.soak
@pytest.mark.parametrize(
    ("file", "field"),
    [("soup.json", name) for name in Manifest.model_fields]
    + [("evaluation.json", n) for n in TestPredictions.model_fields],
)
def test_no_value_of_a_field_does_harm(file: str, field: str, soup: Path, signed_in: LocalHub) -> None:
    """`verify` and `report` hold or end with one clear block; they ask for what the record was made of, and no more."""
    plain = json.loads((soup / file).read_text())
    record = json.loads((soup / "soup.json").read_text())
    signed_in.forget_requests()
    for place, old in spots({field: plain.get(field)}):
        for value in VALUES[type(old)]:
            one = json.loads(json.dumps(plain))
            put(place, value)(one)
            (soup / file).write_text(json.dumps(one))
            if file == "evaluation.json":
                record["files"][file] = hash_file(soup / file)
                (soup / "soup.json").write_text(json.dumps(record))
            for words in (("verify", soup, "--scores"), ("report", soup, "-o", "r.html", "--overwrite")):
                done = run(*words)
                assert done.code in (0, 1, 2), (place, value, done.err)
                assert "Traceback" not in done.err, (place, value, done.err)
                assert all(c.isprintable() or c == "\n" for c in done.out + done.err), (place, value)
    known = re.compile(r"(vit-\d+|shapes)(/|$|\?)|/api/(models|datasets)/x{80,}|xet|lfs")
    assert [seen.path for seen in signed_in.requests if not known.search(seen.path)] == []
