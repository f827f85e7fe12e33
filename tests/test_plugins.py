"""Recipes and merges of other packages: the example of the documentation, and packages that do not work."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from family import Family, weights
from pages import ROOT, blocks, text_of

BLOCKS = dict(blocks(text_of("plugins.md"), "toml", "py"))


def install(site: Path, name: str, module: str, groups: dict[str, dict[str, str]]) -> None:
    """What pip leaves of a package of one module."""
    info = site / f"{name.replace('-', '_')}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    lines = [f"[{group}]\n" + "\n".join(f"{k} = {v}" for k, v in points.items()) for group, points in groups.items()]
    (info / "entry_points.txt").write_text("\n".join(lines))
    (site / f"{name.replace('-', '_')}.py").write_text(module)


def hfsoup(site: Path, *words: object) -> subprocess.CompletedProcess[str]:
    """Type `hfsoup WORDS...` where the packages in `site` are installed."""
    paths = os.pathsep.join([str(site), str(ROOT), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "hfsoup", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": paths}, check=False)


@pytest.fixture
def example(tmp_path: Path) -> Path:
    """The package of `plugins.md`, installed."""
    project = tomllib.loads(BLOCKS["toml"])["project"]
    install(tmp_path / "site", project["name"], BLOCKS["py"], project["entry-points"])
    return tmp_path / "site"


def test_the_example_is_short() -> None:
    """Both files together are under 40 lines."""
    assert len((BLOCKS["toml"] + BLOCKS["py"]).splitlines()) < 40


def test_the_example_is_listed_with_where_it_comes_from(example: Path) -> None:
    """A line for the merge and one for the recipe, each with package and version; hfsoup's own are hfsoup's."""
    done = hfsoup(example, "recipes")
    assert done.returncode == 0, done.stderr
    lines = {line.split()[0]: line for line in done.stdout.splitlines() if len(line.split()) > 2}
    assert "soup-extras 1.0" in lines["trimmed"]
    assert "soup-extras 1.0" in lines["best-few"]
    assert " hfsoup " in lines["greedy"]


def test_the_example_bakes_and_is_verified(example: Path, vit: Family, data: Path, alone: Path) -> None:
    """Both work together, the soup is the median, the record names the package, and verify bakes it again."""
    done = hfsoup(example, "bake", *vit.words[:3], "--merge", "trimmed", "--trim", "0.4", "--output", "soup")
    assert done.returncode == 0, done.stderr
    stacked = {name: [weights(f)[name].numpy() for f in vit.folders[:3]] for name in weights(Path("soup"))}
    assert all(np.array_equal(t.numpy(), np.median(stacked[n], axis=0)) for n, t in weights(Path("soup")).items())
    assert json.loads(Path("soup/soup.json").read_text())["versions"]["soup-extras"] == "1.0"
    assert hfsoup(example, "verify", "soup").returncode == 0
    words = ("--recipe", "best-few", "--merge", "trimmed", "--dataset", data, "--output", "two", "--json", "-")
    done = hfsoup(example, "bake", *vit.words, *words)
    assert done.returncode == 0, done.stderr
    found = sorted(json.loads(done.stdout)["ingredients"], key=lambda i: i["score"])
    assert [i["used"] for i in found] == [False, False, True, True]


def test_without_its_package_a_soup_cannot_be_verified(example: Path, vit: Family, alone: Path) -> None:
    """The error names the merge and lists those that there are."""
    assert hfsoup(example, "bake", *vit.words[:2], "--merge", "trimmed", "--output", "soup").returncode == 0
    done = hfsoup(alone, "verify", "soup")
    assert done.returncode == 2
    assert "no merge called 'trimmed'; known: " in done.stderr


TRIM = """
import numpy as np
from hfsoup.merges import merge
from hfsoup.recipes import recipe

BIBTEX = "@article{trim,\\n  title = {Trimmed},\\n}"

@merge("trimmed", paper="arXiv:1803.01498", summary="the mean without the extremes", citation=BIBTEX)
def trimmed(tensors, weights, context, *, trim: float = 0.25, density: float = 1.0):
    \"\"\"The mean without the extremes.

    Args:
        trim: the share left out at either end
    \"\"\"
    stacked = np.sort([tensor.astype(np.float64) for tensor in tensors], axis=0)
    cut = int(trim * len(stacked))
    return density * stacked[cut : len(stacked) - cut].mean(axis=0)

@recipe("firsts", paper="", summary="the first ones", needs_data=False, evaluations=lambda k, *, firsts: k + firsts)
def firsts(search, *, firsts: int = 2):
    return search.mix(tuple(range(firsts)))
"""


@pytest.fixture
def trim(tmp_path: Path) -> Path:
    """A package whose merge and recipe have arguments of their own."""
    points = {f"hfsoup.{kind}": {"x": "soup_trim"} for kind in ("merges", "recipes")}
    install(tmp_path / "site", "soup-trim", TRIM, points)
    return tmp_path / "site"


def test_arguments_of_a_plug_in_are_flags(trim: Path, vit: Family, alone: Path) -> None:
    """They are in the help and in soup.json, change the soup, are cited, and are baked again by verify and the card."""
    for words in (("recipes",), ("bake", "--help-all")):
        shown = " ".join(hfsoup(trim, *words).stdout.split())
        assert "--trim" in shown
        assert "--firsts" in shown
    words = ("--recipe", "firsts", "--firsts", 4, "--merge", "trimmed")
    for name, more in (("own", ()), ("none", ("--trim", 0)), ("half", ("--trim=0", "--density", "0.5"))):
        done = hfsoup(trim, "bake", *vit.words, *words, *more, "--output", name, "--save-config", f"{name}.yaml")
        assert done.returncode == 0, done.stderr
    stacked = {n: np.sort([weights(f)[n].numpy() for f in vit.folders[:4]], axis=0) for n in weights(Path("own"))}
    for name, cut, share in (("own", 1, 1.0), ("none", 0, 1.0), ("half", 0, 0.5)):
        for tensor, found in weights(Path(name)).items():
            mean = stacked[tensor].astype(np.float64)[cut : 4 - cut].mean(axis=0)
            assert np.array_equal(found.numpy(), (share * mean).astype(np.float32))
        options = json.loads((Path(name) / "soup.json").read_text())["options"]
        assert (options["trim"], options["firsts"]) == (cut / 4, 4)
    assert "@article{trim" in (card := Path("none/README.md").read_text())
    assert "--trim 0.0" in card
    assert hfsoup(trim, "verify", "half").returncode == 0
    assert hfsoup(trim, "bake", "none.yaml", "--output", "again").returncode == 0
    assert Path("again/model.safetensors").read_bytes() == Path("none/model.safetensors").read_bytes()
    assert hfsoup(trim, "bake", *vit.words, "--merge", "trimmed", "--dry-run").returncode == 0


def test_arguments_of_a_plug_in_from_python(trim: Path, vit: Family, alone: Path) -> None:
    """The same keywords in `hfsoup.bake` and `hfsoup.search`."""
    script = f"""
import hfsoup
from pathlib import Path
folders = {[str(folder) for folder in vit.folders]!r}
hfsoup.bake(*folders, merge="trimmed", trim=0.25).save("baked")
files = [Path(folder) / "model.safetensors" for folder in folders]
found = hfsoup.search("uniform", files, merge="trimmed", trim=0.25).state_dict()
from safetensors.torch import load_file
assert all(found[name].equal(tensor) for name, tensor in load_file("baked/model.safetensors").items())
for wrong in ({{"trim": "much"}}, {{"trm": 0.1}}, {{"recipe": "firsts", "firsts": True}}):
    try:
        hfsoup.bake(*folders, merge="trimmed", **wrong)
    except hfsoup.SoupError as error:
        print(error)
"""
    Path("script.py").write_text(script)
    paths = os.pathsep.join([str(trim), str(ROOT)])
    done = subprocess.run(
        [sys.executable, "script.py"], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": paths}
    )
    assert done.returncode == 0, done.stderr
    assert "expected trim to be float, found 'much'" in done.stdout
    assert "there is no option 'trm'\n  try: trim" in done.stdout
    assert "expected firsts to be int, found True" in done.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--merge", "trimmed", "--trimm", 0.1), "--trim"),
        (("--merge", "trimmed", "--trim", "much"), "--trim"),
        (("--trim", 0.1), "error: the merge mean does not use --trim\n  try: --merge trimmed"),
        (("--merge", "trimmed", "--outliers", 0.1), "the merge trimmed does not use --outliers"),
        (("--merge", "trimmed", "--density", 2), "density must be over 0 and at most 1, found 2.0"),
    ],
)
def test_a_wrong_argument_is_a_short_block(
    trim: Path, vit: Family, alone: Path, words: tuple[Any, ...], said: str
) -> None:
    """Exit code 2, at most six lines, and what would be right."""
    done = hfsoup(trim, "bake", *vit.words[:2], *words)
    assert done.returncode == 2
    assert said in done.stderr
    assert len(done.stderr.splitlines()) <= 6
    assert "Traceback" not in done.stderr


def test_a_wrong_argument_in_a_file(trim: Path, vit: Family, alone: Path) -> None:
    """The line, and the nearest name."""
    for key, said in (
        ("trmi: 0.1", "there is no option 'trmi'\n  in:  soup.yaml, line 3\n  try: trim\n"),
        ("trim: x", "line 3"),
    ):
        Path("soup.yaml").write_text(f"ingredients: [{vit.words[0]}, {vit.words[1]}]\nmerge: trimmed\n{key}\n")
        done = hfsoup(trim, "bake", "soup.yaml")
        assert done.returncode == 2
        assert said in done.stderr


METRICS = """
import numpy as np
from hfsoup.data.metrics import metric

@metric("log_loss", paper="", needs="probabilities", larger_is_better=False)
def log_loss(probabilities, labels):
    \"\"\"The mean negative logarithm of what the true class is given.\"\"\"
    return -np.log(probabilities[np.arange(len(labels)), labels]).mean()

@metric("first_class", summary="the recall of class 0")
def first_class(predictions, labels):
    return (predictions[labels == 0] == 0).mean()
"""


def test_a_metric_of_a_plug_in(tmp_path: Path, vit: Family, data: Path, alone: Path) -> None:
    """It is listed, selects and reports with an interval, is verified, and one that is to be small is negated."""
    install(tmp_path / "site", "soup-metrics", METRICS, {"hfsoup.metrics": {"x": "soup_metrics"}})
    site = tmp_path / "site"
    shown = " ".join(hfsoup(site, "recipes").stdout.split())
    assert "log_loss the mean negative logarithm of what the true class is given soup-metrics 1.0" in shown.lower()
    for name in ("log_loss", "first_class"):
        words = ("--dataset", data, "--metric", name, "--output", name, "--json", f"{name}.json")
        done = hfsoup(site, "bake", *vit.words[:3], *words)
        assert done.returncode == 0, done.stderr
        found = json.loads(Path(f"{name}.json").read_text())
        low, high = found["soup"]["ci95"]
        assert low <= found["soup"]["test"] <= high
        assert found["soup"]["score"] >= max(i["score"] for i in found["ingredients"])
        assert (found["soup"]["score"] < 0) == (name == "log_loss")
        assert json.loads((Path(name) / "soup.json").read_text())["versions"]["soup-metrics"] == "1.0"
        card, c = (Path(name) / "README.md").read_text(), found["comparison"]
        assert f"| difference | {c['soup']['value'] - c['best']['value']:+.4f} |" in card
        assert f"| {c['soup']['value']:.4f} | {c['ci95'][0]:.4f} to {c['ci95'][1]:.4f} |" in card
        assert " points" not in card + done.stderr
    assert hfsoup(site, "verify", "log_loss", "--scores").returncode == 0
    done = hfsoup(alone, "verify", "log_loss", "--scores")
    assert (done.returncode, "or a metric of a package that is not installed" in done.stderr) == (2, True)
    done = hfsoup(site, "bake", *vit.words[:2], "--dataset", data, "--metric", "log_los")
    assert "there is no metric 'log_los'" in done.stderr
    assert "try: --metric log_loss" in done.stderr


NETWORKS = """
import numpy as np
from hfsoup.merges import merge
from hfsoup.networks.alignment.groups import Group, Member
from hfsoup.networks.alignment.tables import permutations
from hfsoup.networks.importance import kind

@permutations("convnext", paper="arXiv:2201.03545")
@permutations("convnext-too")
def groups(shapes, config):
    up = "layers.0.pwconv1"
    return (Group("up", shapes[f"{up}.weight"][0], (Member(f"{up}.weight"), Member("layers.0.pwconv2.weight", 1))),)

@kind("ones")
def ones(subject, images, seed):
    return {name: np.ones(tuple(p.shape), np.float32) for name, p in subject.parameters().items()}

@merge("by-ones", summary="the mean, by way of an importance", importance="ones")
def by_ones(tensors, weights, context):
    return sum(w * t.astype(float) * i for w, t, i in zip(weights, tensors, context.importance))
"""


def test_an_architecture_and_an_importance_of_a_plug_in(tmp_path: Path, vit: Family, data: Path, alone: Path) -> None:
    """`hfsoup.align` finds the groups by the model type, and a merge gets the importance that it names."""
    networks, merge, module = NETWORKS.partition('@merge("by-ones"')
    points = {f"hfsoup.{kind}": {"x": "soup_networks"} for kind in ("alignment", "importance")}
    install(tmp_path / "site", "soup-networks", networks, points)
    install(
        tmp_path / "site", "by-ones", networks.split("\n@")[0] + merge + module, {"hfsoup.merges": {"x": "by_ones"}}
    )
    install(tmp_path / "site", "odd", "raise ImportError", {"hfsoup.importance": {"x": "odd"}})
    script = """
import hfsoup, torch
up, down = torch.randn(4, 3), torch.randn(3, 4)
first = {"layers.0.pwconv1.weight": up, "layers.0.pwconv2.weight": down}
order = [2, 0, 3, 1]
other = {"layers.0.pwconv1.weight": up[order], "layers.0.pwconv2.weight": down[:, order]}
for name in ("convnext", "convnext-too"):
    found = hfsoup.align([first, other], name, method="weights")
    assert all(found[1][key].equal(tensor) for key, tensor in first.items())
"""
    Path("script.py").write_text(script)
    paths = os.pathsep.join([str(tmp_path / "site"), str(ROOT)])
    done = subprocess.run(
        [sys.executable, "script.py"], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": paths}
    )
    assert done.returncode == 0, done.stderr
    words = ("--dataset", data, "--recipe", "uniform", "--merge", "by-ones", "--output", "soup")
    done = hfsoup(tmp_path / "site", "bake", *vit.words[:2], *words)
    assert done.returncode == 0, done.stderr
    assert "the plug-in odd 1.0 does not work" in done.stderr
    versions = json.loads(Path("soup/soup.json").read_text())["versions"]
    assert (versions["soup-networks"], versions["by-ones"]) == ("1.0", "1.0")
    assert hfsoup(tmp_path / "site", "verify", "soup").returncode == 0


CUT = """
import numpy as np
from hfsoup.merges import merge

@merge("cut")
def cut(tensors, weights, context, *, most: float | None = None):
    return SCALE * np.mean([np.asarray(tensor, np.float64) for tensor in tensors], axis=0)
"""


def test_a_plug_in_with_a_default_of_none_is_verified(tmp_path: Path, vit: Family, alone: Path) -> None:
    """soup.json holds the None of an argument that was not given, and verify and a file take it."""
    install(tmp_path / "site", "cut", CUT.replace("SCALE", "1"), {"hfsoup.merges": {"x": "cut"}})
    assert hfsoup(tmp_path / "site", "bake", *vit.words[:2], "--merge", "cut", "--output", "soup").returncode == 0
    assert json.loads(Path("soup/soup.json").read_text())["options"]["most"] is None
    done = hfsoup(tmp_path / "site", "verify", "soup")
    assert done.returncode == 0, done.stderr


def test_a_changed_plug_in_is_scored_anew(tmp_path: Path, vit: Family, data: Path, alone: Path) -> None:
    """Cached scores are those of the code that made them, also where its version is the same."""
    words = ("bake", *vit.words[:2], "--dataset", data, "--recipe", "uniform", "--merge", "cut", "--json", "-")
    found = []
    for scale in ("1", "-1"):
        install(tmp_path / scale, "cut", CUT.replace("SCALE", scale), {"hfsoup.merges": {"x": "cut"}})
        done = hfsoup(tmp_path / scale, *words, "--output", f"soup{scale}")
        assert done.returncode == 0, done.stderr
        found.append(json.loads(done.stdout)["soup"]["test"])
    assert found[0] != found[1]


def test_arguments_of_what_a_notebook_registers_may_stand_in_a_file(vit: Family, alone: Path) -> None:
    """As of an installed plug-in."""
    text = "ingredients: " + json.dumps([str(folder) for folder in vit.folders[:2]]) + "\nmerge: cut\nmost: 2\n"
    Path("soup.yaml").write_text(text)
    script = CUT.replace("SCALE", "1") + "\nimport hfsoup\nprint(hfsoup.bake('soup.yaml').options.parameters)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-1:] == ["{'most': 2.0}"], done.stderr


BROKEN = {
    "raises": "class Odd(Exception): pass\nraise Odd('on\\nits own terms')",
    "leaves": "import sys\nsys.exit(3)",
    "misspelt": "from hfsoup.merges import mergee",
    "syntax": "def (",
    "argument": (
        "from hfsoup.merges import merge\n"
        "@merge('listed')\ndef listed(tensors, weights, context, *, of: list = []):\n    return 0"
    ),
    "takes-over": (
        "from hfsoup.merges import merge\n"
        "@merge('mean', paper='', summary='')\ndef mean(tensors, weights, context):\n    return 0 * next(iter(tensors))"
    ),
}


def test_plug_ins_that_do_not_work_break_nothing(example: Path, vit: Family, alone: Path) -> None:
    """Each is named in a note of one line, others work, and no bake is another one for it."""
    for name, module in BROKEN.items():
        install(example, name, module, {"hfsoup.merges": {"x": name.replace("-", "_")}})
    install(example, "gone", "", {"hfsoup.recipes": {"x": "no_such_module"}})
    done = hfsoup(example, "recipes")
    assert done.returncode == 0, done.stderr
    notes = [line for line in done.stderr.splitlines() if line.startswith("note ")]
    assert len(notes) == len(done.stderr.splitlines()) == len(BROKEN) + 1
    assert all(any(f"plug-in {name} 1.0 does not work" in note for note in notes) for name in (*BROKEN, "gone"))
    assert "there already, from hfsoup" in done.stderr
    assert "trimmed" in done.stdout
    for merge in ("mean", "trimmed"):
        done = hfsoup(example, "bake", *vit.words[:3], "--merge", merge, "--output", merge)
        assert done.returncode == 0, done.stderr
    assert hfsoup(alone, "verify", "mean").returncode == 0
