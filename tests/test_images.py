"""Where images come from and how a dataset becomes two splits."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, DatasetDict, Image, Value
from family import NAMES, Family, accuracy
from hypothesis import given
from hypothesis import strategies as st
from shell import bake, refused, run
from transformers import ViTForImageClassification

from hfsoup.data.splits import halve, limit_rows
from hfsoup.localhub import LocalHub


@pytest.fixture
def wanted(vit: Family, images: Any) -> list[float]:
    """The validation accuracies of the first two ViTs, counted without hfsoup."""
    return [accuracy(folder, images["validation"]) for folder in vit.folders[:2]]


def imagefolder(images: Any, folder: Path) -> Path:
    """One folder of PNGs a class a split."""
    for split in ("validation", "test"):
        for n, row in enumerate(images[split]):
            home = folder / split / NAMES[row["label"]]
            home.mkdir(parents=True, exist_ok=True)
            row["image"].save(home / f"{n:03}.png")
    return folder


def on_disk(images: Any, folder: Path) -> Path:
    DatasetDict({name: images[name] for name in ("validation", "test")}).save_to_disk(folder)
    return folder


@pytest.mark.parametrize("kind", ["hub", "parquet", "imagefolder", "disk"])
def test_a_source_of_images_gives_the_same_scores(
    kind: str, vit: Family, data: Path, images: Any, wanted: list[float], alone: Path, request: pytest.FixtureRequest
) -> None:
    """A Hub id, a folder of parquet files, an imagefolder and a saved dataset all hold the same images."""
    match kind:
        case "hub":
            request.getfixturevalue("on_hub")
            where: Any = "kit/shapes"
        case "parquet":
            where = data
        case "imagefolder":
            where = imagefolder(images, alone / "pictures")
        case _:
            where = on_disk(images, alone / "disk")
    found = bake(*vit.words[:2], "--dataset", where, "--output", "soup")
    assert [i["score"] for i in found["ingredients"]] == pytest.approx(wanted)
    assert found["soup"]["test"] == pytest.approx(accuracy(Path("soup"), images["test"]))


def test_a_single_parquet_file_is_halved(vit: Family, data: Path, alone: Path) -> None:
    """One file has one split: a stratified half selects, the other reports, and card, screen and record say so."""
    file = data / "test-00000-of-00001.parquet"
    done = run("bake", *vit.words[:2], "--dataset", file, "--output", "soup", "--json", "-")
    assert done.code == 0, done.err
    assert "is for selection, the other for test" in done.err
    lock = json.loads(Path("soup/soup.json").read_text())["dataset"]
    assert [lock[part]["images"] for part in ("selection", "test")] == [36, 36]
    assert [lock[part]["name"] for part in ("selection", "test")] == [
        "validation[first half]",
        "validation[second half]",
    ]
    assert lock["selection"]["fingerprint"] != lock["test"]["fingerprint"]
    assert "is for selection, the other for test" in Path("soup/README.md").read_text()


def test_halves_of_one_split_of_several(vit: Family, images: Any, alone: Path) -> None:
    """Without a test split the selection split is halved, and the same way each time."""
    DatasetDict({"validation": images["validation"], "train": images["test"]}).save_to_disk(alone / "d")
    words = (*vit.words[:2], "--recipe", "uniform", "--dataset", "./d")
    first, second = (bake(*words, "--output", f"s{n}") for n in (0, 1))
    assert first["soup"]["test"] == second["soup"]["test"]
    assert first["images_forwarded"] == 30 * 3 + 30 * 2


def test_the_test_split_is_not_touched_by_the_search(vit: Family, data: Path, alone: Path) -> None:
    """The test split is forwarded for the soup and the best ingredient alone."""
    found = bake(*vit.words, "--recipe", "uniform", "--dataset", data, "--output", "soup")
    assert found["images_forwarded"] == 60 * 5 + 72 * 2


@pytest.mark.parametrize(
    ("words", "texts"),
    [
        (["--split", "dev"], ["there is no split 'dev'", "validation", "test"]),
        (["--split", "validaton"], ["try: --split validation\n"]),
        (["--test-split", "holdout"], ["there is no split 'holdout'", "try: --test-split "]),
        (["--test-split", "tset"], ["try: --test-split test\n"]),
        (["--split", "test", "--test-split", "test"], ["cannot be both selection and test"]),
        (["--image-column", "picture"], ["there is no column 'picture'", "image (Image)", "label (ClassLabel)"]),
        (["--label-column", "breed"], ["there is no column 'breed'", "--label-column"]),
        (["--dataset-config", "large"], ["datasets cannot load this", "try: --dataset-config default"]),
    ],
    ids=["split", "near split", "test split", "near test split", "both", "image column", "label column", "config"],
)
def test_what_is_not_there_is_wrong_usage(
    words: list[str], texts: list[str], vit: Family, data: Path, alone: Path
) -> None:
    """The error names what there is and the option to change."""
    block = refused("bake", *vit.words[:2], "--dataset", data, *words, "--output", "soup", code=2)
    assert all(text in block for text in texts), block


def two_columns(images: Any, folder: Path) -> Path:
    """A dataset with two image columns and two label columns; the second of each is the real one."""
    parts = DatasetDict()
    for name in ("validation", "test"):
        rows = images[name]
        features = rows.features.copy()
        features["mask"], features["photo"], features["shade"] = Image(), Image(), ClassLabel(names=["a", "b"])
        black = [picture.point(lambda _: 0) for picture in rows["image"][:]]
        columns = {"mask": black, "photo": rows["image"][:], "shade": [0] * len(rows), "label": rows["label"][:]}
        del features["image"]
        parts[name] = Dataset.from_dict(columns, features=features)
    parts.save_to_disk(folder)
    return folder


def test_columns_are_chosen_by_option_where_there_are_several(
    vit: Family, images: Any, wanted: list[float], alone: Path
) -> None:
    """Two Image columns are an error that names them, until --image-column and --label-column choose."""
    where = two_columns(images, alone / "two")
    block = refused("bake", *vit.words[:2], "--dataset", where, "--output", "soup", code=2)
    assert "expected one column of Image, found 2" in block
    assert "mask (Image), photo (Image)" in block
    words = ("--image-column", "photo", "--label-column", "label")
    found = bake(*vit.words[:2], "--dataset", where, *words, "--output", "soup")
    assert [i["score"] for i in found["ingredients"]] == pytest.approx(wanted)


def test_columns_are_found_by_their_type(vit: Family, images: Any, wanted: list[float], alone: Path) -> None:
    """Any names will do where there is one column of each kind."""
    parts = {n: images[n].rename_columns({"image": "pixels", "label": "kind"}) for n in ("validation", "test")}
    DatasetDict(parts).save_to_disk(alone / "d")
    found = bake(*vit.words[:2], "--dataset", "./d", "--output", "soup")
    assert [i["score"] for i in found["ingredients"]] == pytest.approx(wanted)


def test_a_column_of_names_works_as_labels(vit: Family, images: Any, wanted: list[float], alone: Path) -> None:
    """Labels may be class names in a plain column, if it is named."""
    parts = DatasetDict()
    for name in ("validation", "test"):
        rows = images[name]
        texts = [NAMES[n] for n in rows["label"][:]]
        parts[name] = rows.remove_columns("label").add_column("name", texts)
    parts.save_to_disk(alone / "d")
    found = bake(*vit.words[:2], "--dataset", "./d", "--label-column", "name", "--output", "soup")
    assert [i["score"] for i in found["ingredients"]] == pytest.approx(wanted)


@pytest.mark.parametrize("bad", [-1, 6], ids=["minus one", "too large"])
def test_labels_out_of_range_are_refused(bad: int, vit: Family, images: Any, alone: Path) -> None:
    """A class that the model does not have is an error, not a wrong answer."""
    parts = DatasetDict()
    for name in ("validation", "test"):
        rows = images[name].cast_column("label", Value("int64"))
        labels = [bad, *rows["label"][1:]]
        parts[name] = rows.remove_columns("label").add_column("label", labels)
    parts.save_to_disk(alone / "d")
    block = refused("bake", *vit.words[:2], "--dataset", "./d", "--label-column", "label", "--output", "s", code=1)
    assert "labels outside 0 to 5" in block


def test_missing_labels_are_refused(vit: Family, images: Any, alone: Path) -> None:
    """A row without a label is an error that names the split and the column."""
    parts = DatasetDict()
    for name in ("validation", "test"):
        rows = images[name]
        columns = {"image": rows["image"][:], "label": [None, *rows["label"][1:]]}
        parts[name] = Dataset.from_dict(columns, features=rows.features)
    parts.save_to_disk(alone / "d")
    block = refused("bake", *vit.words[:2], "--dataset", "./d", "--output", "s", code=1)
    assert "rows without a label" in block
    assert "column label" in block


def test_a_corrupt_image_is_named(vit: Family, images: Any, alone: Path) -> None:
    """An image that cannot be decoded is an error with its rows, split and column."""
    where = imagefolder(images, Path("pictures"))
    next((where / "validation" / "fig").iterdir()).write_bytes(b"\x89PNG\r\n\x1a\n not a picture")
    block = refused("bake", *vit.words[:2], "--dataset", where, "--output", "soup", code=1)
    assert "cannot be decoded" in block
    assert "split validation, column image" in block


def test_an_empty_split_is_refused(vit: Family, images: Any, alone: Path) -> None:
    """Nothing is scored on no images."""
    Path("d").mkdir()
    images["validation"].to_parquet("d/validation-00000-of-00001.parquet")
    images["test"].select([]).to_parquet("d/test-00000-of-00001.parquet")
    block = refused("bake", *vit.words[:2], "--dataset", "./d", "--output", "s", code=2)
    assert "the split is empty" in block
    assert "./d, split test" in block


@pytest.mark.parametrize("damage", ["an empty split", "no JSON", "no data"])
def test_a_damaged_saved_dataset_is_a_clear_error(damage: str, vit: Family, images: Any, alone: Path) -> None:
    """A folder of save_to_disk that datasets cannot load is told by its name."""
    test = images["test"].select([]) if damage == "an empty split" else images["test"]
    DatasetDict({"validation": images["validation"], "test": test}).save_to_disk(alone / "d")
    if damage == "no JSON":
        Path("d/dataset_dict.json").write_text("{")
    if damage == "no data":
        next(Path("d/test").glob("*.arrow")).unlink()
    assert "./d" in refused("bake", *vit.words[:2], "--dataset", "./d", "--output", "s", code=2)


def test_limit_bounds_both_splits(vit: Family, data: Path, alone: Path) -> None:
    """--limit 12 forwards 12 images a mix and records the cut."""
    found = bake(*vit.words, "--recipe", "uniform", "--dataset", data, "--limit", 12, "--output", "soup")
    assert found["images_forwarded"] == 12 * 7
    lock = json.loads(Path("soup/soup.json").read_text())["dataset"]
    assert lock["selection"]["rule"] == "12 of 60 rows of the split 'validation'"


def test_grey_and_palette_images_are_taken(vit: Family, images: Any, alone: Path) -> None:
    """Images of any mode are shown to the model as RGB."""
    parts = DatasetDict()
    for name in ("validation", "test"):
        rows = images[name]
        modes = ["L", "P", "RGBA", "LA"]
        pictures = [p.convert(modes[n % 4]) for n, p in enumerate(rows["image"][:])]
        parts[name] = Dataset.from_dict({"image": pictures, "label": rows["label"][:]}, features=rows.features)
    parts.save_to_disk(alone / "d")
    bake(*vit.words[:2], "--dataset", "./d", "--output", "soup")


def test_images_are_decoded_once(vit: Family, data: Path, alone: Path, monkeypatch: Any) -> None:
    """A second bake on the same images decodes none of them, and scores the same."""
    monkeypatch.setenv("HFSOUP_CACHE", str(alone / "cache"))
    first = bake(*vit.words[:2], "--dataset", data, "--output", "one")
    monkeypatch.setattr("hfsoup.data.preprocessing.decode", None)
    second = bake(*vit.words[:2], "--dataset", data, "--output", "two")
    assert second["soup"]["test"] == first["soup"]["test"]


def test_the_dataset_is_pinned(on_hub: LocalHub, vit: Family, alone: Path) -> None:
    """soup.json and the card name the commit of a Hub dataset."""
    bake(*vit.words[:2], "--dataset", "kit/shapes", "--output", "soup")
    lock = json.loads(Path("soup/soup.json").read_text())["dataset"]
    assert len(lock["revision"]) == 40
    assert lock["revision"][:12] in Path("soup/README.md").read_text()


@pytest.mark.parametrize("size", [1, 7, 60, 64])
def test_the_batch_size_changes_no_score(size: int, vit: Family, data: Path, wanted: list[float], alone: Path) -> None:
    """Short last batches count in full, filled-up rows not at all."""
    found = bake(*vit.words[:2], "--dataset", data, "--batch-size", size, "--output", "soup")
    assert [i["score"] for i in found["ingredients"]] == pytest.approx(wanted)


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> tuple[dict[str, int], Counter[int]]:
    """A device on which so many images as `room` says fit into one forward pass, and how often each size was tried."""
    room, tried, forward = {"images": 20}, Counter[int](), ViTForImageClassification.forward

    def tight(self: Any, pixel_values: torch.Tensor, **rest: Any) -> Any:
        tried[len(pixel_values)] += 1
        if len(pixel_values) > room["images"]:
            raise torch.OutOfMemoryError("out of memory")
        return forward(self, pixel_values=pixel_values, **rest)

    monkeypatch.setattr(ViTForImageClassification, "forward", tight)
    monkeypatch.setattr("hfsoup.evaluation.batches.MOST", {"cpu": 64})
    return room, tried


def test_a_batch_that_memory_does_not_hold_is_halved(
    wanted: list[float], memory: Any, vit: Family, data: Path, alone: Path
) -> None:
    """The size is found once, before the first score; the scores are those of any other size."""
    _, tried = memory
    found = bake(*vit.words[:2], "--dataset", data, "--output", "soup", "--no-race")
    assert [i["score"] for i in found["ingredients"]] == pytest.approx(wanted)
    assert (tried[64], tried[32], tried.keys()) == (1, 1, {64, 32, 16, 1})


def test_where_not_one_image_fits_the_error_says_so(memory: Any, vit: Family, data: Path, alone: Path) -> None:
    """Nor where the size is given and too large."""
    room, _ = memory
    words = (*vit.words[:2], "--dataset", data, "--output", "soup")
    assert "batch of 32 images" in refused("bake", *words, "--batch-size", 32, code=1)
    room["images"] = 0
    assert "batch of 1 image\n" in refused("bake", *words, code=1)


LABELS = st.lists(st.integers(0, 4), min_size=2, max_size=80).map(np.array)


@given(LABELS)
def test_halves_are_stratified(labels: Any) -> None:
    """Two disjoint halves of all rows, equal to within one image in total and in every class."""
    first, second = halve(labels)
    assert sorted([*first, *second]) == list(range(len(labels)))
    assert len(first) - len(second) in (0, 1)
    a, b = Counter(labels[first].tolist()), Counter(labels[second].tolist())
    assert all(abs(a[c] - b[c]) <= 1 for c in range(5))


@given(LABELS, st.integers(2, 60))
def test_a_limit_keeps_every_class_in_its_share(labels: Any, limit: int) -> None:
    """At most that many distinct rows, each class within one of its exact share."""
    rows = limit_rows(labels, limit)
    assert len(rows) == min(limit, len(labels)) == len(set(rows.tolist()))
    assert (np.diff(rows) > 0).all()
    kept, whole = Counter(labels[rows].tolist()), Counter(labels.tolist())
    share = len(rows) / len(labels)
    assert all(abs(kept[c] - share * n) <= 1 for c, n in whole.items())


@given(LABELS, st.integers(2, 30))
def test_cuts_are_the_same_every_time(labels: Any, limit: int) -> None:
    """Nothing random is in them."""
    assert all(np.array_equal(a, b) for a, b in zip(halve(labels), halve(labels.copy()), strict=True))
    assert np.array_equal(limit_rows(labels, limit), limit_rows(labels.copy(), limit))
