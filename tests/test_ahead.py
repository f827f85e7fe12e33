"""What is done while ingredients are still on their way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset, DatasetDict, Image
from family import NAMES, SIDE, Family
from huggingface_hub import HfApi
from misbehave import blobs, fault, forget, process
from shell import bake, refused

from hfsoup.localhub import LocalHub

WORDS = ("kit/vit-1", "kit/vit-10", "--dataset", "kit/shapes", "--output", "soup")


@pytest.fixture
def slow(plain_http: None, on_hub: LocalHub, signed_in: LocalHub, alone: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A Hub that makes the last ingredient wait, and a bake for which any pull is long enough."""
    monkeypatch.setattr("hfsoup.baking.prefetch.MIN_BYTES", 0)
    monkeypatch.setenv("HFSOUP_CACHE", str(alone / "cache"))
    forget("kit/vit-1", "kit/vit-10")
    with fault(on_hub, "vit-10/resolve/.*model.safetensors", method="GET", stall=3, times=1):
        yield on_hub


def test_images_are_prepared_while_weights_are_pulled(
    slow: LocalHub, vit: Family, data: Path, alone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are there before the last ingredient, and the soup is that of folders that were here all along."""
    # The time of a file is then that of its making, and not of its last use.
    monkeypatch.setattr("hfsoup.data.preprocessing.mark_used", lambda path: None)
    found = bake(*WORDS)
    prepared = [path.stat().st_mtime for path in (alone / "cache" / "images").glob("*.npy")]
    assert len(prepared) == 2
    assert max(prepared) < blobs("kit/vit-10")["model.safetensors"].stat().st_mtime
    here = bake(vit.words[0], vit.words[3], "--dataset", data, "--output", "here")
    assert found["soup"]["sha256"] == here["soup"]["sha256"]


def test_ingredients_that_are_here_are_scored_while_others_are_pulled(
    slow: LocalHub, vit: Family, data: Path, alone: Path
) -> None:
    """What was scored before a pull failed is not scored again, and counts in the bake that scored it."""
    here = (vit.words[0], vit.words[3], "--dataset", data, "--output", "here", "--no-race")
    whole = bake(*here)["images_forwarded"]
    assert bake(*WORDS, "--no-race", "--batch-size", 32)["images_forwarded"] == whole
    slow.clear_faults()
    forget("kit/vit-10")
    words = (*WORDS, "--no-race", "--batch-size", 16, "--overwrite")
    with fault(slow, "vit-10/resolve/.*model.safetensors", method="GET", stall=5, status=404):
        refused("bake", *words, code=1)
    assert bake(*words)["images_forwarded"] == whole - 60


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
def test_what_goes_wrong_ahead_is_told_once_in_its_turn(slow: LocalHub, images: Any, alone: Path) -> None:
    """An image that cannot be decoded ends the bake after the pull, with the ordinary error."""
    parts = DatasetDict(
        {name: images[name].cast_column("image", Image(decode=False)) for name in ("validation", "test")}
    )
    torn = {**parts["test"][0], "image": {"bytes": b"torn", "path": None}}
    parts["test"] = Dataset.from_list([torn, *list(parts["test"])[1:]], features=parts["test"].features)
    DatasetDict({n: rows.cast_column("image", Image()) for n, rows in parts.items()}).push_to_hub("kit/torn")
    told = refused("bake", *WORDS[:3], "kit/torn", *WORDS[4:], code=1)
    assert told.count("1 of 72 images cannot be decoded") == 1
    assert blobs("kit/vit-10")["model.safetensors"].is_file()


@pytest.fixture(scope="module")
def large(on_hub: LocalHub, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Three ResNets of 16 MB each on the Hub, by their glob: more than is waited for without doing anything."""
    from transformers import ResNetConfig, ResNetForImageClassification, ViTImageProcessorPil

    shape = {"embedding_size": 16, "hidden_sizes": [16, 640], "depths": [1, 1], "layer_type": "basic"}
    api = HfApi(token=on_hub.token)
    for n in range(3):
        folder = tmp_path_factory.mktemp("large") / f"large-{n}"
        ResNetForImageClassification(ResNetConfig(**shape, id2label=dict(enumerate(NAMES)))).save_pretrained(folder)
        ViTImageProcessorPil(size={"height": SIDE, "width": SIDE}).save_pretrained(folder)
        api.create_repo(f"kit/large-{n}")
        api.upload_folder(repo_id=f"kit/large-{n}", folder_path=folder)
    return "kit/large-*"


def test_a_first_bake_in_a_new_process_with_an_empty_cache(large: str, on_hub: LocalHub, tmp_path: Path) -> None:
    """Images are prepared while the libraries are being imported and 48 MB are pulled, and nothing gets in the way."""
    done = process(on_hub, tmp_path, "bake", large, "--dataset", "kit/shapes", "--output", "soup")
    assert (done.code, "Traceback" in done.err) == (0, False), done.err
    assert "Pulled 3 checkpoints, 4" in done.err
    assert (tmp_path / "soup" / "model.safetensors").is_file()


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
def test_what_no_one_foresaw_ahead_is_no_concern_of_the_bake(slow: LocalHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error in the thread that works ahead neither ends the bake nor is printed: all is done in its turn."""
    monkeypatch.setattr("hfsoup.baking.prefetch.read_class_names", lambda *_, **__: {}[0])
    assert bake(*WORDS)["soup"]["score"] > 0
