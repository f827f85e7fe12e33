"""The scripts under scripts/examples, run as a reader would."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from family import Family

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
