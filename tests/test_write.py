"""What stands on the disk after a bake, and after one that failed."""

from __future__ import annotations

import hashlib
import json
import os
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3
from family import Family, copy_model, logits, put_weights, weights
from safetensors import safe_open
from shell import bake, refused
from transformers import pipeline

import hfsoup


def test_a_folder_that_pipeline_loads(family: Family, alone: Path, images: Any) -> None:
    """Config, weights, processor, card and record are there, and transformers needs nothing else."""
    bake(*family.words, "--output", "soup")
    names = {"config.json", "model.safetensors", "preprocessor_config.json", "README.md", "soup.json"}
    assert {p.name for p in Path("soup").iterdir()} == names
    found = pipeline("image-classification", "./soup")(images["test"]["image"][0], top_k=6)
    best = logits(Path("soup"), [images["test"]["image"][0]]).argmax().item()
    assert found[0]["label"] == json.loads(Path("soup/config.json").read_text())["id2label"][str(best)]


def test_the_hash_is_that_of_the_weights(vit: Family, alone: Path) -> None:
    """The JSON names the sha256 of model.safetensors, soup.json that of every file beside it."""
    found = bake(*vit.words, "--output", "soup")["soup"]["sha256"]
    assert found == hashlib.sha256(Path("soup/model.safetensors").read_bytes()).hexdigest()
    files = json.loads(Path("soup/soup.json").read_text())["files"]
    assert files["model.safetensors"] == found
    for name, sha256 in files.items():
        assert sha256 == hashlib.sha256(Path("soup", name).read_bytes()).hexdigest(), name
    assert {*files, "soup.json"} == {path.name for path in Path("soup").iterdir()}


def test_one_metadata_key(vit: Family, alone: Path) -> None:
    """The weights say format pt and nothing else, so that equal tensors are equal files."""
    bake(*vit.words, "--output", "soup")
    with safe_open("soup/model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}


def test_an_output_that_is_there_is_not_touched(vit: Family, alone: Path) -> None:
    """A folder or file of that name is an error, and stays as it is."""
    Path("soup").mkdir()
    Path("soup/mine.txt").write_text("mine")
    assert "exists already" in refused("bake", *vit.words, "--output", "soup", code=1)
    assert [p.name for p in alone.rglob("*")] == ["soup", "mine.txt"]


def test_without_output_the_next_free_name_is_taken(vit: Family, alone: Path) -> None:
    """soup, then soup-2."""
    assert [bake(*vit.words)["soup"]["path"] for _ in range(2)] == ["soup", "soup-2"]


def test_a_failing_average_leaves_nothing(vit: Family, alone: Path) -> None:
    """An error in the last tensor leaves neither the folder nor a temporary one."""
    broken = copy_model(vit.folders[1], alone / "broken")
    state = weights(broken)
    state["vit.layernorm.weight"][-1] = float("nan")
    put_weights(broken, state)
    refused("bake", vit.words[0], broken, "--output", "out/soup", code=1)
    assert list((alone / "out").iterdir()) == []


@pytest.mark.parametrize("step", ["write_configs", "card", "rename"])
def test_an_interrupted_write_leaves_nothing(step: str, vit: Family, alone: Path, monkeypatch: Any) -> None:
    """Whichever step is the last that ran, there is no folder or a whole one."""

    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    target = {
        "write_configs": "hfsoup.averaging.writer.write_configs",
        "card": "hfsoup.reports.card.render.render_card",
        "rename": "pathlib.Path.rename",
    }
    with monkeypatch.context() as patch:
        patch.setattr(target[step], interrupted)
        with pytest.raises(KeyboardInterrupt):
            hfsoup.bake(*vit.words, output="soup")
    assert list(alone.iterdir()) == []
    hfsoup.bake(*vit.words, output="soup")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_a_clear_error(vit: Family, alone: Path) -> None:
    """No right to write is told with the folder's name."""
    Path("locked").mkdir(mode=0o500)
    assert "locked/soup" in refused("bake", *vit.words, "--output", "locked/soup", code=1)


def test_an_output_below_a_file_is_a_clear_error(vit: Family, alone: Path) -> None:
    """A path through a file cannot be created."""
    Path("file").write_text("")
    assert "cannot be created" in refused("bake", *vit.words, "--output", "file/soup", code=1)


def test_the_config_is_the_first_ingredients(vit: Family, alone: Path) -> None:
    """All but dtype and where it came from is as the first ingredient says."""
    bake(*vit.words, "--output", "soup")
    first, found = (json.loads((f / "config.json").read_text()) for f in (vit.folders[0], Path("soup")))
    skipped = ("dtype", "torch_dtype", "_name_or_path")
    assert {k: v for k, v in found.items() if k not in skipped} == {k: v for k, v in first.items() if k not in skipped}
    assert found["dtype"] == "float32"


def test_the_record_is_complete(vit: Family, data: Path, alone: Path) -> None:
    """soup.json holds ingredients with file hashes, coefficients, splits, decisions, hashes and versions."""
    found = bake(*vit.words, "--dataset", data, "--seed", 3, "--output", "soup")
    lock = json.loads(Path("soup/soup.json").read_text())
    assert lock["trace"] == [{"alpha": None, **decision, "walk": ""} for decision in found["trace"]]
    assert lock["options"]["seed"] == 3
    assert [i["coefficient"] for i in lock["ingredients"]] == [i["weight"] for i in found["ingredients"]]
    for entry, folder in zip(lock["ingredients"], vit.folders, strict=True):
        (file,) = entry["files"]
        content = (folder / "model.safetensors").read_bytes()
        assert file == {
            "name": "model.safetensors",
            "size": len(content),
            "sha256": hashlib.sha256(content).hexdigest(),
            "blake3": blake3(content).hexdigest(),
        }
    assert lock["test"]["soup"]["value"] == found["soup"]["test"]
    assert lock["versions"]["torch"] == version("torch")


def test_a_soup_in_memory_is_saved_and_used(vit: Family, data: Path, images: Any, alone: Path) -> None:
    """hfsoup.bake writes nothing by itself; save and pipeline do what they say."""
    soup = hfsoup.bake(*vit.words, dataset=str(data))
    assert list(alone.iterdir()) == []
    assert soup.path is None
    guess = soup.pipeline()(images["test"]["image"][0])
    assert list(alone.iterdir()) == []
    saved = soup.save("soup")
    assert saved.path == Path("soup")
    assert saved.pipeline()(images["test"]["image"][0]) == guess
    assert saved.score == soup.score
    assert sum(soup.mix.coefficients) == pytest.approx(1)


def test_no_ingredient_is_changed(family: Family, data: Path, alone: Path) -> None:
    """A bake reads its ingredients and leaves every byte and time as it was."""
    files = [p for folder in family.folders for p in folder.iterdir()]
    before = [(p.read_bytes(), p.stat().st_mtime_ns) for p in files]
    bake(*family.words, "--dataset", data, "--output", "soup")
    assert [(p.read_bytes(), p.stat().st_mtime_ns) for p in files] == before
