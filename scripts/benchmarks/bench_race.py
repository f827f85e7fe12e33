"""Exact racing: images forwarded with and without it, and that nothing else differs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from checkpoints import perturbed, remove
from setting import Setting
from timing import Row

import hfsoup

SECTION = "race"
COUNT = 8
BATCH = 32
NOTE = (
    "A small ViT trained on scikit-learn's digits and their negatives, and eight disturbed copies of it. Compared are "
    "decisions, coefficients and the sha256 of the soup."
)


def run(setting: Setting) -> Iterator[Row]:
    """The section's rows."""
    home = setting.home / "race"
    folders, data = models(home), dataset(home / "data")
    for recipe in ("greedy", "pruned"):
        raced, full = (soup(folders, data, home, recipe, race=race) for race in (True, False))
        share = raced["images_forwarded"] / full["images_forwarded"]
        what = f"images forwarded, {recipe} over {COUNT}"
        yield Row(SECTION, what, f"--no-race ({full['images_forwarded']:,} images)", share)
        yield Row(SECTION, f"what differs, {recipe}", "--no-race", differing(raced, full), target="nothing")
    remove(home)


def models(home: Path) -> list[Path]:
    """A family with the scores of real fine-tunings: all good, some better, one of them bad."""
    from transformers import AutoModelForImageClassification

    from hfsoup.cli.demo.digits import SIZE, pretrain

    pretrain("vit", home / "start")
    model = AutoModelForImageClassification.from_pretrained(home / "start")
    strengths = [0.06 + 0.03 * n for n in range(COUNT - 1)] + [0.6]
    return [perturbed(model, home / f"vit-{n}", s, n, SIZE["vit"]) for n, s in enumerate(strengths)]


def dataset(folder: Path) -> Path:
    """The digits as they are and as negatives, under the twenty classes that the model knows."""
    from datasets import ClassLabel, concatenate_datasets

    from hfsoup.cli.demo.digits import NAMES, make_digits

    folder.mkdir()
    classes = ClassLabel(names=[*NAMES, *(f"{name}-swapped" for name in NAMES)])
    for name in ("validation", "test"):
        plain = make_digits()[name].cast_column("label", classes)
        swapped = plain.map(_negative, features=plain.features)
        concatenate_datasets([plain, swapped]).to_parquet(folder / f"{name}-00000-of-00001.parquet")
    return folder


def _negative(row: dict[str, Any]) -> dict[str, Any]:
    from PIL import ImageOps

    return {"image": ImageOps.invert(row["image"]), "label": row["label"] + 10}


def soup(folders: list[Path], data: Path, home: Path, recipe: str, *, race: bool) -> dict[str, Any]:
    """What a bake says of itself."""
    output = home / f"{recipe}-{race}"
    options: dict[str, Any] = {"recipe": recipe, "dataset": str(data), "output": str(output), "batch_size": BATCH}
    return hfsoup.bake(*map(str, folders), **options, race=race, resume=False, device="cpu").to_json()


def differing(raced: dict[str, Any], full: dict[str, Any]) -> str:
    """Which of decisions, mix and sha256 are not the same."""

    def decisions(found: dict[str, Any]) -> list[tuple[Any, ...]]:
        return [(d["step"], d["action"], d["ingredient"], d["accepted"]) for d in found["trace"]]

    def mix(found: dict[str, Any]) -> list[tuple[str, float]]:
        return [(i["id"], i["weight"]) for i in found["ingredients"]]

    same = {
        "decisions": decisions(raced) == decisions(full),
        "mix": mix(raced) == mix(full),
        "sha256": raced["soup"]["sha256"] == full["soup"]["sha256"],
    }
    return ", ".join(name for name, equal in same.items() if not equal) or "nothing"
