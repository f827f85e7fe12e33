"""Bad usage and bad inputs: one clear block on standard error, exit code 1 or 2, never a traceback."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from family import Family, copy_model, edit_json
from huggingface_hub import HfApi
from misbehave import fault
from shell import bake, refused, run

import hfsoup
from hfsoup.localhub import LocalHub
from hfsoup.utils.cache import cache_root


@pytest.mark.parametrize(
    ("pattern", "code", "text"),
    [
        ("kit/nothing-*", 2, "nothing matches 'kit/nothing-*'"),
        ("./nothing-*", 2, "try: ls .\n"),
        ("/no where/run-*", 2, "try: ls '/no where'\n"),
        ("*/vit-1", 2, "expected a glob with a fixed owner"),
        (
            "vit-*",
            2,
            "expected a glob with a fixed owner, as in org/model-*; found 'vit-*'\n  try: 'ORG/vit-*', or a folder",
        ),
        ("kit/vit-1@nowhere", 1, "no such revision"),
        ("kit/vit-1@step-*", 2, "nothing matches"),
        ("kit/absent", 1, "no such repository"),
        ("nobody/vit-*", 2, "nothing matches"),
        ("kit/vit-1@" + "0" * 40, 1, "no such revision"),
        ("kit/a b", 1, "not a repository name"),
        ("", 1, ""),
        ("@main", 1, ""),
        ("~nosuchuser/x", 2, "nothing matches '~nosuchuser/x'"),
    ],
)
def test_a_pattern_that_matches_nothing(pattern: str, code: int, text: str, on_hub: LocalHub, alone: Path) -> None:
    """The pattern is named and nothing is written."""
    assert text in refused("bake", pattern, "--output", "soup", code=code)
    assert list(alone.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--recipe", "gredy"], "known: auto, greedy, greedy-random, "),
        (["--merge", "median"], "known: breadcrumbs, dare, "),
        (["--recipe", "gredy"], "weighted, wise-ft\n  try: --recipe greedy\n"),
        (["--merge", "task_arithmetic"], "try: --merge task-arithmetic\n"),
        (["--merge", "linear"], "try: --merge mean\n"),
        (["--recipe", "linear"], "try: --recipe uniform\n"),
        (["--merge", "passthrough"], "try: hfsoup recipes\n"),
        (["--recipe", "ties"], "ties is a merge, not a recipe\n  try: --merge ties\n"),
        (["--merge", "pruned"], "pruned is a recipe, not a merge\n  try: --recipe pruned\n"),
        (["--base", "org/start"], "neither recipe nor merge"),
        (["--recipe", "greedy"], "needs data"),
        (["--min-score", "0.5"], "needs scores"),
        (["--margin", "1"], "needs scores"),
        (
            ["--dtype", "int8"],
            "dtype must be one of float64, float32, float16, bfloat16, found 'int8'\n  try: --dtype ",
        ),
        (["--passes", "0"], "passes must be at least 1"),
        (["--max-ingredients", "0"], "max-ingredients must be at least 1"),
        (["--accept", "="], "accept must be"),
        (["--batch-size", "0"], "batch-size must be at least 1"),
        (["--bn", "magic"], "bn must be one of average, recalibrate, auto"),
        (["--limit", "9", "--split", "all"], "expected a dataset with --split, --limit, found none"),
        (["--private", "--revision", "x"], "expected a repository to push to with --private, --revision, found none"),
        (["--weights", "1,2"], "the recipe uniform does not use --weights\n  try: --recipe weighted"),
        (["--density", "0.5"], "the merge mean does not use --density\n  try: --merge "),
        (["--dataset", ""], "the dataset has no name"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_options_at_odds(words: list[str], text: str, vit: Family, alone: Path) -> None:
    """A wrong option is told before anything is read, with what would be right."""
    assert text in refused("bake", *vit.words, *words, "--output", "soup", code=2)
    assert list(alone.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--limit", "1"], "limit must be at least 2"),
        (["--metric", "acuracy"], "balanced_accuracy"),
        (["--processor-from", "kit/vit-9"], "\n  try: --processor-from "),
        (["--device", "warp"], "warp"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_options_of_the_data(words: list[str], text: str, vit: Family, data: Path, alone: Path) -> None:
    """The same with a dataset."""
    assert text in refused("bake", *vit.words, "--dataset", data, *words, "--output", "soup", code=2)


@pytest.mark.parametrize("words", [["bake"], ["bake", "x", "--nonsense"], ["frobnicate"], ["bake", "x", "--seed", "x"]])
def test_wrong_usage_ends_with_two(words: list[str], alone: Path) -> None:
    """What the parser refuses is told on standard error."""
    done = run(*words)
    assert done.code == 2
    assert done.out == ""
    assert "Traceback" not in done.err


def test_a_dataset_that_is_not_there(on_hub: LocalHub, vit: Family, alone: Path) -> None:
    """A missing Hub dataset is an error with its name."""
    assert "kit/absent" in refused("bake", *vit.words, "--dataset", "kit/absent", "--output", "soup", code=1)


def test_a_dataset_that_is_none(vit: Family, alone: Path) -> None:
    """A folder and a file without images are errors with their names."""
    Path("empty").mkdir()
    Path("text.parquet").write_text("no parquet")
    assert "./empty" in refused("bake", *vit.words, "--dataset", "./empty", "--output", "soup", code=2)
    assert "./text.parquet" in refused("bake", *vit.words, "--dataset", "./text.parquet", "--output", "soup", code=2)


@pytest.mark.parametrize("words", [("{}",), ("./{}*",), ("--dataset", "{}"), ("--output", "{}")])
def test_a_path_that_is_no_text_is_refused(words: tuple[str, ...], vit: Family, alone: Path) -> None:
    """Linux takes any bytes; no record could name them, so nothing is baked first."""
    name = os.fsdecode(b"model-\xff")
    copy_model(vit.folders[0], alone / name)
    block = refused("bake", *vit.words[:2], *(word.format(name) for word in words), code=2)
    assert "expected a path in UTF-8" in block
    assert "model-\\udcff" in block
    assert [path.name for path in alone.iterdir()] == [name]


def test_a_folder_that_is_no_model(alone: Path) -> None:
    """A folder without config.json is named as such."""
    Path("empty").mkdir()
    for name in ("./empty", "empty", "empty/"):
        assert "found no config.json" in refused("bake", name, code=2)


def test_another_model_type_is_all_that_is_said(vit: Family, resnet: Family, alone: Path) -> None:
    """One line for an ingredient of another type, not one for every tensor, and no hint that would not help it."""
    other = copy_model(resnet.folders[0], alone / "other")
    edit_json(other / "preprocessor_config.json", rescale_factor=0.5)
    text = refused("bake", *vit.words[:2], resnet.words[0], other, code=1)
    assert text.splitlines()[-1].endswith("try: --on-mismatch skip-ingredient leaves out ingredients that do not fit")
    compared = [line.strip() for line in text.splitlines()[1:-1]]
    assert compared == [f"{name}: model type resnet, expected vit" for name in (resnet.words[0], other)]


def test_a_model_without_weights(vit: Family, alone: Path) -> None:
    """The files that are there are listed."""
    copy_model(vit.folders[0], alone / "bare")
    Path("bare/model.safetensors").unlink()
    block = refused("bake", "./bare", code=1)
    assert "expected model.safetensors or pytorch_model.bin" in block
    assert "preprocessor_config.json" in block


@pytest.mark.parametrize("content", [b"", b"version https://git-lfs.github.com/spec/v1\n", b"\xff" * 64])
def test_broken_safetensors(content: bytes, vit: Family, alone: Path) -> None:
    """Weights that are none are named by folder and file."""
    copy_model(vit.folders[0], alone / "broken")
    Path("broken/model.safetensors").write_bytes(content)
    block = refused("bake", vit.words[0], "./broken", "--output", "soup", code=1)
    assert "broken, model.safetensors" in block
    assert not Path("soup").exists()


@pytest.mark.parametrize("change", ["../outside.safetensors", "/etc/passwd", "absent.safetensors", ""])
def test_an_index_that_points_elsewhere(change: str, vit: Family, alone: Path) -> None:
    """Only files beside the index are shards."""
    folder = copy_model(vit.folders[0], alone / "sharded")
    (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
    copy_model(vit.folders[0], alone / "x")
    (alone / "x" / "model.safetensors").rename(alone / "outside.safetensors")
    index = {"weight_map": {"classifier.bias": change}} if change else {}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "index" in refused("bake", folder, "--output", "soup", code=1)


def test_a_model_without_a_processor_cannot_be_scored(vit: Family, data: Path, alone: Path) -> None:
    """The error says how to add one."""
    for n in (0, 1):
        copy_model(vit.folders[n], alone / f"m-{n}")
        Path(f"m-{n}/preprocessor_config.json").unlink()
    block = refused("bake", "./m-*", "--dataset", data, "--output", "soup", code=1)
    assert "image processor" in block
    bake("./m-*", "--output", "soup")


def test_weights_that_do_not_fill_the_model(vit: Family, data: Path, alone: Path) -> None:
    """Ingredients that all lack a tensor would leave random weights in the model: an error that names it."""
    from family import put_weights, weights

    for n in (0, 1):
        folder = copy_model(vit.folders[n], alone / f"m-{n}")
        put_weights(folder, {k: v for k, v in weights(folder).items() if k != "classifier.bias"})
    block = refused("bake", "./m-*", "--dataset", data, "--output", "soup", code=1)
    assert "classifier.bias" in block


def test_the_hub_cannot_be_reached(alone: Path, monkeypatch: Any) -> None:
    """A refused connection is a clear error with the address, not a page of retries."""
    from huggingface_hub import HfApi

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{probe.getsockname()[1]}"
        for place in ("ingredients.resolve", "hub.client"):
            monkeypatch.setattr(f"hfsoup.{place}.hub_api", lambda: HfApi(endpoint=url))
        assert f"nothing listens at {url}" in refused("bake", "kit/vit-1", code=1)


@pytest.mark.parametrize("status", [401, 403, 404, 500, 503])
def test_the_hub_refuses(status: int, on_hub: LocalHub, alone: Path) -> None:
    """Any status of the listing is one block with the repository's name."""
    on_hub.fault(r"/api/models/kit/vit-1", status=status, headers={"Retry-After": "0"})
    try:
        assert "kit/vit-1" in refused("bake", "kit/vit-1", "--output", "soup", code=1)
    finally:
        on_hub.clear_faults()


def test_debug_shows_the_traceback(alone: Path) -> None:
    """--debug lets the error through."""
    with pytest.raises(hfsoup.SoupError):
        run("--debug", "bake", "./absent")


def test_a_dataset_folder_that_is_not_there(vit: Family, alone: Path) -> None:
    """It is called a folder, since that is what was typed."""
    words = ("bake", *vit.words, "--dataset", "/no/where", "--output", "soup")
    assert "there is no such folder: '/no/where'" in refused(*words, code=1)


def test_an_interrupt_ends_with_130(vit: Family, alone: Path, monkeypatch: Any) -> None:
    """Ctrl-C leaves nothing behind and shows no traceback."""

    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("hfsoup.baking.gather.check_compatibility", interrupted)
    done = run("bake", *vit.words, "--output", "soup")
    assert (done.code, done.out) == (130, "")
    assert "downloads and scores are kept" in done.err
    assert "Traceback" not in done.err
    assert list(alone.iterdir()) == []


def test_json_to_a_file(vit: Family, alone: Path) -> None:
    """--json FILE writes the object there and nothing to standard output."""
    done = run("bake", *vit.words, "--output", "soup", "--json", "result.json")
    assert done.out == ""
    assert json.loads(Path("result.json").read_text())["soup"]["path"] == "soup"


def test_json_that_cannot_be_written(vit: Family, alone: Path) -> None:
    """A missing folder is told before any work; a disk that is full at the end is one block, and the soup is there."""
    block = refused("bake", *vit.words, "--output", "soup", "--json", "absent/result.json", code=2)
    assert "there is no folder" in block
    assert f"try: mkdir -p {alone / 'absent'}" in block
    assert "found a folder" in refused("bake", *vit.words, "--output", "soup", "--json", ".", code=2)
    assert list(alone.iterdir()) == []
    assert "/dev/full" in refused("bake", *vit.words, "--output", "soup", "--json", "/dev/full", code=1)
    assert Path("soup/model.safetensors").exists()


def test_files_and_folders_that_are_not_there_are_told_with_the_next_command(vit: Family, alone: Path) -> None:
    """A config file in no folder, and a push of no folder or of one beside the soup."""
    assert "try: mkdir -p nowhere" in refused("init", "org/model-*", "-o", "nowhere/soup.yaml", code=1)
    block = refused("push", "soup", "org/soup", code=1)
    assert "found no such folder" in block
    assert "try: hfsoup bake … --output soup" in block
    bake(*vit.words[:2], "--output", "soup-2")
    assert "try: hfsoup push soup-2 org/soup" in refused("push", "soup", "org/soup", code=1)


def test_two_that_differ_are_not_told_to_leave_one_out(vit: Family, resnet: Family, alone: Path) -> None:
    """--on-mismatch skip-ingredient is advice where more than one is left."""
    assert "skip-ingredient" not in refused("bake", vit.words[0], resnet.words[0], code=1)
    assert "skip-ingredient" in refused("bake", *vit.words[:2], resnet.words[0], code=1)
    bad = copy_model(vit.folders[2], alone / "bad", quantization_config={"quant_method": "awq"})
    assert "leaves them out" not in refused("bake", vit.words[0], bad, code=1)
    assert "leaves them out" in refused("bake", *vit.words[:2], bad, code=1)


def test_a_licence_that_the_hub_does_not_list_is_noted(vit: Family, alone: Path) -> None:
    """With the nearest one that it lists; those of the list, and of the ingredients, are not doubted."""
    done = run("bake", *vit.words[:2], "--license", "mitt", "--output", "soup")
    assert (done.code, "the Hub may refuse the licence 'mitt'" in done.err) == (0, True)
    assert "the nearest is mit\n" in done.err
    assert "the Hub may refuse" not in run("bake", *vit.words[:2], "--license", "mit", "--output", "other").err


def test_usage_is_that_of_the_command(alone: Path) -> None:
    """However it was started, a usage error names hfsoup."""
    words = [sys.executable, "-m", "hfsoup", "bake", "--nonsense"]
    err = subprocess.run(words, capture_output=True, text=True, check=False).stderr
    assert "Usage: hfsoup bake" in err
    assert "python -m" not in err


def test_a_dataset_without_data_is_named_as_it_was_given(vit: Family, signed_in: LocalHub, alone: Path) -> None:
    """The temporary folder that stands for the repository is in no error."""
    HfApi(token=signed_in.token).create_repo("kit/empty", repo_type="dataset", exist_ok=True)
    block = refused("bake", *vit.words[:2], "--dataset", "kit/empty", code=2)
    assert "kit/empty" in block
    assert str(cache_root()) not in block


def test_quiet(vit: Family, data: Path, alone: Path) -> None:
    """--quiet prints nothing when all is well."""
    done = run("bake", *vit.words, "--dataset", data, "--output", "soup", "--quiet")
    assert (done.code, done.out, done.err) == (0, "", "")


def test_screen(vit: Family, data: Path, alone: Path) -> None:
    """The screen tells every ingredient, every decision, the comparison and the line to use the soup."""
    done = run("bake", *vit.words, "--dataset", data, "--output", "soup")
    assert done.code == 0
    for name in ("vit-1", "vit-2", "vit-3", "vit-10"):
        assert name in done.err
    assert len(re.findall(r"\b(?:not )?added +\S*vit-", done.err)) == 3
    assert "best ingredient" in done.err
    assert 'pipeline("image-classification", "soup")' in done.err


def test_eval(vit: Family, data: Path, images: Any, alone: Path) -> None:
    """`hfsoup eval` scores one model as a bake does and writes no folder."""
    from family import accuracy

    done = run("eval", vit.words[1], "--dataset", data, "--json", "-")
    assert done.code == 0, done.err
    assert "Compared the weights" not in done.err
    assert done.json["score"] == pytest.approx(accuracy(vit.folders[1], images["validation"]))
    assert done.json["test"] == pytest.approx(accuracy(vit.folders[1], images["test"]))
    assert list(alone.iterdir()) == []
    assert "dataset" in refused("eval", vit.words[1], code=2)


def test_recipes_lists_all() -> None:
    """Every recipe and merge stands in the list with its paper."""
    from hfsoup.merges import MERGES
    from hfsoup.recipes import RECIPES

    done = run("recipes")
    assert done.code == 0
    assert all(entry.name in done.out and entry.paper in done.out for entry in (*RECIPES, *MERGES))


def test_python_refuses_what_the_command_line_refuses(vit: Family) -> None:
    """hfsoup.bake lists the options there are."""
    with pytest.raises(hfsoup.SoupError, match="no option 'recipes'\n  try: recipe"):
        hfsoup.bake(*vit.words, recipes="greedy")
    with pytest.raises(hfsoup.SoupError, match="no ingredients"):
        hfsoup.bake()


def test_errors_survive_the_way_between_processes() -> None:
    """An error keeps kind, words and exit code when it is pickled."""
    import pickle

    from hfsoup.utils.errors import HubError, MismatchError, SoupError, UsageError

    for kind in (SoupError, UsageError, MismatchError, HubError):
        error = kind("what", where="where", hint="hint")
        copy = pickle.loads(pickle.dumps(error))
        assert type(copy) is kind
        assert (str(copy), copy.exit_code) == (str(error), error.exit_code)


@pytest.mark.parametrize(
    "words",
    [["--recipe", "nope"], ["--recipe", "greedy"], ["--merge", "nope"], ["--merge", "mean", "--base", "kit/vit-1"]],
    ids=" ".join,
)
def test_what_cannot_be_is_told_before_the_hub_is_asked(
    words: list[str], on_hub: LocalHub, signed_in: LocalHub
) -> None:
    """Nothing is listed or pulled for a command that is wrong in itself."""
    on_hub.forget_requests()
    refused("bake", "kit/vit-*", *words, code=2)
    assert on_hub.requests == []


@pytest.fixture(scope="module")
def kinds(on_hub: LocalHub) -> LocalHub:
    """The Hub with a Space kit/show beside models and datasets."""
    from huggingface_hub import HfApi

    HfApi(token=on_hub.token).create_repo("kit/show", repo_type="space", space_sdk="gradio")
    return on_hub


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (
            ["bake", "kit/shapes", "kit/vit-1"],
            "no model\n  in:  kit/shapes\n  try: --dataset kit/shapes; models: hf models list --author kit\n",
        ),
        (["bake", "kit/show", "kit/vit-1"], "expected a model, found a Space"),
        (["bake", "kit/shapes@step-*", "kit/vit-1"], "expected a model, found a dataset"),
        (["bake", "kit/shapes@main", "kit/vit-1"], "expected a model, found a dataset"),
        (["bake", "kit/shapes/checkpoint-*"], "expected a model, found a dataset"),
        (["check", "kit/shapes"], "expected a model, found a dataset"),
        (
            ["eval", "kit/vit-1", "--dataset", "kit/vit-2"],
            "a model of that name, and no dataset\n  in:  kit/vit-2\n  try: hf datasets list --author kit\n",
        ),
        (["bake", "kit/vit-*", "--dataset", "kit/show", "--dry-run"], "expected a dataset, found a Space"),
        (["bake", "kit/vit-*", "--dataset", "kit/vit-1@main"], "expected a dataset, found a model"),
        (["bake", "kit/nothing", "kit/vit-1"], "there is no such repository, or it is private"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_name_of_another_kind(words: list[str], text: str, kinds: LocalHub, signed_in: LocalHub, alone: Path) -> None:
    """Where the Hub has the name as a dataset, model or Space, that is what was found, with what to type for it."""
    assert text in refused(*words, code=1)


def test_a_hub_that_cannot_say_what_a_name_is(kinds: LocalHub, signed_in: LocalHub, alone: Path) -> None:
    """The question after other kinds changes nothing where it fails, and is not repeated."""
    kinds.forget_requests()
    with fault(kinds, "/api/(datasets|spaces)/kit/shapes", status=500):
        assert "there is no such repository" in refused("bake", "kit/shapes", "kit/vit-1", code=1)
    asked = [r.path for r in kinds.requests if "kit/shapes" in r.path]
    assert len(asked) == 3, asked


def test_a_good_name_is_asked_after_as_one_kind(kinds: LocalHub, signed_in: LocalHub, alone: Path) -> None:
    """Other kinds cost a request only where a name is wrong."""
    kinds.forget_requests()
    bake("kit/vit-1", "kit/vit-2", "--output", "soup")
    assert not [r.path for r in kinds.requests if r.path.startswith(("/api/datasets", "/api/spaces"))]


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (
            ["--labels", "absent.json"],
            2,
            "No such file or directory\n  in:  absent.json\n  try: ls .\n",
        ),
        (["--labels", "clases.json"], 2, "try: --labels classes.json\n"),
        (["--labels", "classes.json"], 2, "expected a class name or number for each class, found none"),
        (["--labels", "by-nam"], 2, "found 'by-nam'\n  try: --labels by-name\n"),
        (["--labels", "by-nmber"], 2, "try: --labels by-number\n"),
        (["--dataset", "./model"], 2, "expected a dataset, found a model: 'README.md', 'config.json'"),
        (["--eval", "other=./model"], 2, "expected a dataset, found a model"),
        (["--eval", "./model"], 2, "expected NAME=DATASET"),
        (["--dataset", "./picturs"], 1, "there is no such folder: './picturs'\n  try: --dataset pictures\n"),
        (["--eval", "other=/no/where"], 1, "there is no such folder: '/no/where'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_data_on_this_disk_is_looked_at_before_the_hub(
    words: list[str], code: int, text: str, kinds: LocalHub, signed_in: LocalHub, vit: Family, alone: Path
) -> None:
    """A file of labels or a folder that is not there, or is none, costs no request."""
    Path("classes.json").write_text("{}")
    Path("pictures").mkdir()
    copy_model(vit.folders[0], alone / "model")
    kinds.forget_requests()
    given = [] if "--dataset" in words else ["--dataset", "kit/shapes"]
    assert text in refused("bake", "kit/vit-*", *given, *words, "--output", "soup", code=code)
    assert kinds.requests == []


def test_data_beside_a_model_is_data(vit: Family, data: Path, alone: Path) -> None:
    """A folder of parquet files that holds a model too is a dataset where one is expected."""
    import shutil

    shutil.copytree(data, "both")
    shutil.copytree(vit.folders[0], "both", dirs_exist_ok=True)
    bake(*vit.words, "--dataset", "./both", "--output", "soup")


@pytest.mark.parametrize("name", ["kit/vit-*", "./run"])
def test_eval_scores_one_model(name: str, kinds: LocalHub, signed_in: LocalHub, vit: Family, alone: Path) -> None:
    """A glob or a run of several has no one score: refused before anything is pulled."""
    Path("run").mkdir()
    for n in (0, 1):
        copy_model(vit.folders[n], alone / f"run/checkpoint-{n}")
    block = refused("eval", name, "--dataset", "kit/shapes", code=2)
    assert "error: expected one model, found " in block
    assert "try: hfsoup eval " in block


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["kit/vit-*", "--dataset", "hf.co/datasets/kit/shapes"], "found an address\n"),
        (["kit/vit-*", "--dataset", "https://huggingface.co/datasets/kit/shapes/tree/main"], "found an address\n"),
        (["kit/vit-*", "--dataset", "datasets/kit/shapes"], "found an address\n"),
        (["hf.co/datasets/kit/shapes", "kit/vit-1"], "expected a model, found the address of a dataset\n"),
        (
            ["kit/vit-1", "https://hf.co/datasets/kit/shapes/viewer"],
            "expected a model, found the address of a dataset\n",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_the_address_of_a_dataset(words: list[str], text: str, kinds: LocalHub, alone: Path) -> None:
    """The name that it leads to is what to type."""
    block = refused("bake", *words, "--output", "soup", code=2)
    assert text in block
    assert block.endswith("  try: --dataset kit/shapes\n")


def test_a_folder_of_data_where_a_model_belongs(vit: Family, data: Path, alone: Path) -> None:
    """Files of data in a folder, or one folder further down, are offered as the dataset that they are."""
    import shutil

    shutil.copytree(data, "flat")
    shutil.copytree(data, "deep/data")
    for name in ("flat", "deep"):
        block = refused("bake", f"./{name}", vit.words[0], "--output", "soup", code=2)
        assert block.endswith(f"  try: --dataset {name}\n")


def test_a_weight_file_that_is_not_there(alone: Path) -> None:
    """A file's name is not looked for on the Hub."""
    assert "there is no such file\n  in:  a.safetensors" in refused("check", "a.safetensors", "--weights", code=2)


@pytest.mark.parametrize(
    ("place", "code", "text"),
    [
        ("kit/absent", 1, "there is no such repository"),
        ("kit/vit-1", 1, "expected a dataset, found a model"),
        ("./odd", 2, "expected a split called test, or a single one, found"),
    ],
)
def test_a_further_dataset_is_looked_at_before_anything_is_pulled(
    place: str, code: int, text: str, kinds: LocalHub, signed_in: LocalHub, data: Path, alone: Path
) -> None:
    """What --eval names is told to be wrong in time, by a dry run too, not once everything is scored."""
    import shutil

    Path("odd/data").mkdir(parents=True)
    for split in ("red", "blue"):
        shutil.copyfile(next(data.rglob("test*.parquet")), f"odd/data/{split}-00000-of-00001.parquet")
    for more in ([], ["--dry-run"]):
        kinds.forget_requests()
        words = ("kit/vit-*", "--dataset", data, "--eval", f"other={place}", "--output", "soup", *more)
        assert text in refused("bake", *words, code=code)
        assert not [r.path for r in kinds.requests if r.path.endswith(".safetensors") and r.status == 200]


def test_an_endpoint_without_its_scheme(alone: Path, monkeypatch: Any) -> None:
    """The address that was meant is what to type."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "hub.example:8080")
    block = refused("bake", "kit/vit-1", "kit/vit-2", "--output", "soup", code=1)
    assert "expected HF_ENDPOINT to begin with http:// or https://, found 'hub.example:8080'" in block
