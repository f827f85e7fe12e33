"""Other images, calibration and the ensemble, each against its plain definition."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from family import Family, accuracy, logits
from PIL import Image, ImageEnhance, ImageFilter
from shell import bake, refused, run

import hfsoup


def compressed(picture: Image.Image, _: int) -> Image.Image:
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=7)
    return Image.open(io.BytesIO(file.getvalue()))


def noisy(picture: Image.Image, row: int) -> Image.Image:
    drawn = np.random.Generator(np.random.PCG64([row, 3])).standard_normal((*picture.size, 3), np.float32)
    return Image.fromarray((np.asarray(picture) + 0.16 * 255 * drawn).round().clip(0, 255).astype(np.uint8))


PLAIN: dict[str, Callable[[Image.Image, int], Image.Image]] = {
    "noise 3": noisy,
    "blur 3": lambda picture, _: picture.filter(ImageFilter.GaussianBlur(16 / 32)),
    "contrast 2": lambda picture, _: ImageEnhance.Contrast(picture).enhance(0.3),
    "jpeg 3": compressed,
}


def error(found: torch.Tensor, labels: list[int]) -> float:
    """The calibration error, bin by bin."""
    sure, classes = found.softmax(1).max(1)
    total = 0.0
    for n in range(15):
        held = [i for i in range(len(labels)) if n / 15 < sure[i] <= (n + 1) / 15]
        right = sum(int(classes[i]) == labels[i] for i in held)
        total += abs(right - sum(float(sure[i]) for i in held))
    return total / len(labels)


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory, images: Any) -> Path:
    """The training images, as the test split of another dataset."""
    folder = tmp_path_factory.mktemp("other") / "sketches"
    folder.mkdir()
    images["train"].select(range(60)).to_parquet(folder / "test-00000-of-00001.parquet")
    return folder


def test_corruptions_are_those_of_the_table(vit: Family, data: Path, images: Any, alone: Path) -> None:
    """Twelve shifts; accuracies of soup and best ingredient are those of transformers on images changed by hand."""
    found = bake(*vit.words, "--dataset", data, "--shifts", "--output", "soup")
    rows = {row["name"]: row["test"] for row in found["shifts"]}
    assert list(rows) == [f"{kind} {n}" for kind in ("noise", "blur", "contrast", "jpeg") for n in (1, 2, 3)]
    labels = torch.tensor(images["test"]["label"][:])
    for name, change in PLAIN.items():
        changed = [change(picture, row) for row, picture in enumerate(images["test"]["image"][:])]
        for side, folder in (("soup", Path("soup")), ("best", Path(found["best_ingredient"]["id"]))):
            said = logits(folder, changed).argmax(1)
            assert rows[name][side]["correct"] == int((said == labels).sum()), name
    assert len({row["soup"]["value"] for row in rows.values()}) > 3
    assert json.loads(Path("soup/soup.json").read_text())["shifts"] == found["shifts"]
    assert "| jpeg 3 | 72 |" in Path("soup/README.md").read_text()
    again = bake(*vit.words, "--dataset", data, "--shifts", "--no-resume", "--output", "again")
    assert again["shifts"] == found["shifts"]


def test_corruptions_are_of_the_half_that_reports(resnet: Family, data: Path, alone: Path) -> None:
    """Where one split is halved, and with re-estimated batch norms too."""
    words = ("--dataset", data / "test-00000-of-00001.parquet", "--bn", "recalibrate", "--shifts")
    found = bake(*resnet.words[:2], *words, "--recipe", "uniform", "--output", "soup")
    assert [row["images"]["images"] for row in found["shifts"]] == [36] * 12
    assert found["shifts"][0]["test"]["soup"]["value"] != found["shifts"][2]["test"]["soup"]["value"]


def test_the_ensemble_is_the_mean_of_the_logits(family: Family, data: Path, images: Any, alone: Path) -> None:
    """Of the ingredients that were used, on the test split; calibration errors are those of the models themselves."""
    found = bake(*family.words, "--recipe", "uniform", "--bn", "average", "--dataset", data, "--ensemble")
    pictures, labels = images["test"]["image"][:], images["test"]["label"][:]
    mean = torch.stack([logits(folder, pictures).double() for folder in family.folders]).mean(0)
    ensemble = found["ensemble"]
    assert ensemble["members"] == 4
    assert ensemble["best"]["correct"] == sum((mean.argmax(1) == torch.tensor(labels)).tolist())
    assert ensemble["best_ece"] == pytest.approx(error(mean, labels), abs=1e-5)
    assert found["soup"]["ece"] == pytest.approx(error(logits(Path("soup"), pictures), labels), abs=1e-5)
    best = Path(found["best_ingredient"]["id"])
    assert found["best_ingredient"]["ece"] == pytest.approx(error(logits(best, pictures), labels), abs=1e-5)
    text = Path("soup/README.md").read_text()
    assert "costs 4 times as much at inference" in text
    assert f"this soup {found['soup']['ece']:.4f}, best ingredient {found['best_ingredient']['ece']:.4f}" in text


def test_another_dataset_is_scored_recorded_and_asked_for_again(
    vit: Family, data: Path, other: Path, images: Any, alone: Path
) -> None:
    """Command line, Python and the config in the record say the same; no path is in the card, and it verifies."""
    words = [*vit.words, "--dataset", data, "--eval", f"sketch={other}", "--eval", f"same={data}"]
    found = bake(*words, "--output", "soup")
    sketch, same = found["shifts"]
    assert (sketch["name"], sketch["images"]["images"], sketch["images"]["name"]) == ("sketch", 60, "test")
    assert sketch["test"]["soup"]["value"] == pytest.approx(accuracy(Path("soup"), images["train"].select(range(60))))
    assert same["test"]["soup"]["value"] == found["soup"]["test"]
    text = Path("soup/README.md").read_text()
    assert "| sketch (sketches, *test*) | 60 |" in text
    assert str(other) not in text
    config = yaml.safe_load(json.loads(Path("soup/soup.json").read_text())["config"])
    assert config["eval"] == ["sketch=sketches", f"same={data.name}"]
    assert "--eval sketch=sketches --eval same=" in text
    assert run("verify", "soup", "--scores").code == 0
    Path("soup.yaml").write_text(yaml.safe_dump({**config, "ingredients": vit.words, "dataset": str(data)}))
    Path(data.name).symlink_to(data)
    Path("sketches").symlink_to(other)
    assert [row["test"] for row in bake("soup.yaml", "--output", "filed")["shifts"]] == [sketch["test"], same["test"]]
    soup = hfsoup.bake(*vit.words, dataset=str(data), eval=[f"sketch={other}"])
    assert [shift.comparison.soup.correct for shift in soup.evaluation.shifts] == [sketch["test"]["soup"]["correct"]]


def test_another_dataset_of_training_images_alone_is_told_beside_its_score(
    vit: Family, data: Path, images: Any, tmp_path: Path, alone: Path
) -> None:
    """Screen, card and report say what such a score is worth, and the metadata of the card has none of it."""
    (tmp_path / "seen").mkdir()
    images["train"].select(range(60)).to_parquet(tmp_path / "seen" / "train-00000-of-00001.parquet")
    words = ("--dataset", data, "--eval", f"again={tmp_path / 'seen'}", "--output", "soup")
    done = run("bake", *vit.words[:2], *words)
    assert done.code == 0, done.err
    run("report", "soup", "-o", "report.html", "--no-images")
    told = "The models may have been trained on the images of 'again: seen, train'"
    card = Path("soup/README.md").read_text()
    assert told in done.err
    assert told in card.replace("\\", "")
    assert told.replace("'", "&#39;") in Path("report.html").read_text() or told in Path("report.html").read_text()
    assert "train" not in card.split("---")[1]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["sketch"], "expected NAME=DATASET"),
        (["a=x", "a=y"], "two datasets are called 'a'"),
        (["seen={data}/validation-00000-of-00001.parquet"], "are also selection images"),
    ],
    ids=["no name", "double", "selection images"],
)
def test_a_dataset_that_cannot_report_is_refused(
    given: list[str], said: str, vit: Family, data: Path, alone: Path
) -> None:
    """A name that is missing or stands twice, and images that chose the soup."""
    words = [word for text in given for word in ("--eval", text.format(data=data))]
    done = run("bake", *vit.words, "--dataset", data, *words)
    assert said in done.err
    assert done.code == (1 if "select" in said else 2)
    assert "needs" in refused("bake", *vit.words, "--recipe", "greedy", code=2)
