"""The scripts under scripts/examples, run as a reader would."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from family import CONFIGS, SIDE, Family
from huggingface_hub import HfApi
from shell import run
from transformers import AutoConfig, AutoModelForImageClassification, ViTImageProcessorPil

from hfsoup.localhub import LocalHub

EXAMPLES = Path(__file__).parents[1] / "scripts" / "examples"


def example(name: str, *words: object) -> str:
    """What an example prints; it must end well."""
    command = [sys.executable, str(EXAMPLES / f"{name}.py"), *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_bake_from_python(vit: Family, data: Path, alone: Path) -> None:
    """It prints the soup with the weights and leaves a complete folder."""
    said = example("bake_from_python", *vit.words, "--dataset", data, "--output", "pets-soup")
    assert "<Soup: greedy" in said
    assert "6 classes" in said
    assert Path("pets-soup/soup.json").is_file()


def test_any_torch_model(alone: Path) -> None:
    """The soup it finds is better than the best ingredient, as it prints."""
    lines = example("any_torch_model").splitlines()
    best, soup = (float(line.rpartition(" ")[2]) for line in lines[-2:])
    assert soup < best


def test_soup_of_one_run(alone: Path) -> None:
    """The Trainer ends with a soup in its folder."""
    said = example("soup_of_one_run", "runs/vit-0")
    assert "<Soup: greedy" in said
    assert Path("runs/vit-0/soup/preprocessor_config.json").is_file()


def strangers(images: Any) -> None:
    """A small network in first.th, its shuffled copy in second.th, and the images in the folder shapes."""
    sys.path.insert(0, str(EXAMPLES))
    from align_resnet20 import ResNet
    from align_resnet20 import images as pixels
    from test_alignment import shuffled

    torch.manual_seed(0)
    model, rows = ResNet(6, 1, 8), images["train"]
    given, labels = pixels(rows), torch.tensor(rows["label"][:])
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(30):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(given), labels).backward()
        optimizer.step()
    torch.save({"state_dict": model.state_dict()}, "first.th")
    torch.save({"state_dict": shuffled(model.state_dict(), "padded-resnet", {})}, "second.th")
    for split in images:
        images[split].to_parquet(f"shapes/{split}-00000-of-00001.parquet")


def test_align_resnet20(images: Any, alone: Path) -> None:
    """Of a network and its shuffled copy, what is fitted is as good as they are, as it prints; the average is not."""
    strangers(images)
    lines = example("align_resnet20", "shapes", "first.th", "second.th").splitlines()
    scores = {name: float(score) for name, _, score in (line.rpartition(": ") for line in lines)}
    assert scores["first.th"] == scores["second.th"] > 60
    assert scores["fitted"] > 0.9 * scores["first.th"]
    assert scores["average"] < 0.7 * scores["first.th"]


def test_distill_resnet20(images: Any, alone: Path) -> None:
    """Trained on what a network and its copy say, what it makes keeps their accuracy, and it prints the comparison."""
    strangers(images)
    lines = example("distill_resnet20", "shapes", "first.th", "second.th", "--epochs", 2).splitlines()
    scores = {
        name: float(score)
        for name, _, score in (line.rpartition(": ") for line in lines)
        if score[:1].isdigit() and "%" not in score
    }
    assert scores["ensemble"] == scores["first.th"] > 60
    assert scores["distilled"] > 0.9 * scores["first.th"]
    assert "p = " in lines[-1]
    assert Path("distilled.th").is_file()


def test_every_example_is_run() -> None:
    """An example without a test here fails this one."""
    assert {f"test_{path.stem}" for path in EXAMPLES.glob("*.py")} <= globals().keys()


def test_the_notebook(hub: LocalHub, images: Any, alone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its cells run from the first to the last: train, check, bake, use, push; it is stored without outputs."""
    monkeypatch.setenv("HF_TOKEN", hub.token)
    images.push_to_hub("kit/notebook-shapes", token=hub.token)
    given = {"DATASET": "kit/notebook-shapes", "BASE": make_base(hub), "LEARNING_RATES": [1e-3, 2e-3]}
    given |= {"EPOCHS": 1, "PUSH_TO": "kit/notebook-soup"}
    names: dict[str, Any] = {}
    cells = json.loads((EXAMPLES / "model_soup.ipynb").read_text())["cells"]
    for cell in (cell for cell in cells if cell["cell_type"] == "code"):
        assert cell["outputs"] == []
        lines = "".join(cell["source"]).splitlines()
        for line in (line for line in lines if line.startswith("!")):
            first, *words = shlex.split(line[1:])
            assert (first, run(*words).code) == ("hfsoup", 0)
        exec("\n".join(line for line in lines if line[:1] not in "!%" or not line), names)
        if "parameters" in cell["metadata"].get("tags", ()):
            assert given.keys() <= names.keys()
            names |= given
    assert len(names["soup"].family) == 2
    assert HfApi(token=hub.token).model_info("kit/notebook-soup").pipeline_tag == "image-classification"
    for kind, name in (("model", "soup"), ("model", "base"), ("dataset", "shapes")):
        HfApi(token=hub.token).delete_repo(f"kit/notebook-{name}", repo_type=kind)


def make_base(hub: LocalHub) -> str:
    """A small ViT with another head on the Hub; its name."""
    config = AutoConfig.for_model("vit", **CONFIGS["vit"], num_labels=3)
    processor = ViTImageProcessorPil(size={"height": SIDE, "width": SIDE})
    for part in (AutoModelForImageClassification.from_config(config), processor):
        part.push_to_hub("kit/notebook-base", token=hub.token)
    return "kit/notebook-base"
