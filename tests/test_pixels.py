"""Prepared images are kept as bytes wherever the processor's last steps are a function of a byte, and lose no bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from datasets import Dataset
from family import NAMES, SIDE, Family
from odd import odd_images
from shell import run
from test_bad_data import RAW, write

from hfsoup.data.decoding import decode
from hfsoup.data.images import load_images
from hfsoup.data.pixels import decode_table, expand, expand_tensor
from hfsoup.data.request import Request

SQUARE = {"size": {"height": SIDE, "width": SIDE}}
CROPPED = {"size": {"shortest_edge": SIDE + 4}, "crop_size": {"height": SIDE, "width": SIDE}}
UNEVEN = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
PROCESSORS: dict[str, tuple[str, dict[str, Any]]] = {
    "ViT": ("ViT", SQUARE),
    "ViT with a mean a channel": ("ViT", SQUARE | UNEVEN),
    "ViT without rescale": ("ViT", SQUARE | {"do_rescale": False}),
    "ViT without normalize": ("ViT", SQUARE | {"do_normalize": False}),
    "ViT without both": ("ViT", SQUARE | {"do_rescale": False, "do_normalize": False}),
    "ViT with a channel that is lost": ("ViT", SQUARE | {"image_std": [0.5, 1e30, 0.5]}),
    "ViT that turns black and white around": ("ViT", SQUARE | {"rescale_factor": -1 / 255}),
    "BEiT": ("Beit", CROPPED | {"size": SQUARE["size"], "do_center_crop": True}),
    "BiT": ("Bit", CROPPED),
    "CLIP": ("CLIP", CROPPED),
    "ConvNeXT": ("ConvNext", {"size": {"shortest_edge": SIDE}, "crop_pct": 0.8}),
    "DeiT": ("DeiT", CROPPED | {"size": SQUARE["size"]}),
    "EfficientNet": ("EfficientNet", SQUARE | {"rescale_offset": True}),
    "LeViT": ("Levit", CROPPED),
    "MobileNetV2": ("MobileNetV2", CROPPED),
    "MobileViT": ("MobileViT", CROPPED),
    "Perceiver": ("Perceiver", SQUARE | {"crop_size": {"height": SIDE + 8, "width": SIDE + 8}}),
    "PoolFormer": ("PoolFormer", CROPPED | {"crop_pct": 0.9}),
    "SigLIP": ("Siglip", SQUARE),
}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache for this test alone."""
    monkeypatch.setenv("HFSOUP_CACHE", str(tmp_path / "cache"))


def processor(kind: str, **options: Any) -> Any:
    return getattr(transformers, f"{kind}ImageProcessorPil")(**options)


def process(processor: Any, pictures: Any) -> Any:
    """What an image processor makes of each picture."""
    return np.concatenate(
        [np.asarray(processor(images=[one], return_tensors="pt")["pixel_values"], np.float32) for one in pictures]
    )


def require_equal_bits(found: Any, wanted: Any) -> None:
    assert found.dtype == wanted.dtype == np.float32
    assert np.array_equal(found.view(np.uint32), wanted.view(np.uint32))


@pytest.mark.parametrize("name", PROCESSORS)
def test_pixels_are_kept_in_a_byte_each_and_are_those_of_the_processor(name: str, data: Path, images: Any) -> None:
    """The file has one byte a value, and what is read of it is what the processor gives, bit for bit."""
    kind, options = PROCESSORS[name]
    made = processor(kind, **options)
    found = load_images(Request(str(data), allow_duplicates=True), made, NAMES).selection.pixels
    wanted = process(made, images["validation"]["image"][:])
    require_equal_bits(found[:], wanted)
    assert np.load(found.path, mmap_mode="r").dtype == np.uint8
    assert found.path.stat().st_size <= wanted.size + 128


def test_odd_pictures_lose_no_bit(tmp_path: Path) -> None:
    """Every mode, depth and container is the processor's, bit for bit, in a crop and with a mean a channel."""
    odd, made = odd_images(), processor("CLIP", **CROPPED, **UNEVEN)
    rows = [{"image": {"bytes": cell, "path": None}, "label": n % 6} for n, cell in enumerate(odd.values())]
    parts = {"validation": rows, "test": rows[:12]}
    where = write({part: Dataset.from_list(some, features=RAW) for part, some in parts.items()}, tmp_path / "d")
    found = load_images(Request(str(where), allow_duplicates=True), made, NAMES).selection.pixels
    require_equal_bits(found[:], process(made, [decode(cell).picture for cell in odd.values()]))
    assert found.table


class Blurred(transformers.ViTImageProcessorPil):
    """Resizes in float where a picture is bright, as some processors do with all."""

    least = -1.0

    def __call__(self, images: Any, **options: Any) -> Any:
        made = super().__call__(images, **options)
        for n, one in enumerate(made["pixel_values"]):
            if one.mean() > self.least:
                made["pixel_values"][n] = (one + one.roll(1, dims=2)) / 2
        return made


@pytest.mark.parametrize("share", [1.0, 0.5, 0.02], ids=["all", "half", "one"])
def test_pixels_that_are_no_bytes_are_float32(share: float, data: Path, images: Any) -> None:
    """The first such image makes the file float32, also if others were written as bytes before."""
    made, plain = Blurred(**SQUARE), process(processor("ViT", **SQUARE), images["validation"]["image"][:])
    made.least = float(np.quantile(plain.mean(axis=(1, 2, 3)), 1 - share)) - 1e-4
    found = load_images(Request(str(data), allow_duplicates=True), made, NAMES).selection.pixels
    wanted = process(made, images["validation"]["image"][:])
    require_equal_bits(found[:], wanted)
    require_equal_bits(np.load(found.path), wanted)
    again = load_images(Request(str(data), allow_duplicates=True), made, NAMES).selection.pixels
    assert (again, again.table) == (found, None)


def test_some_rows_are_those_of_all(data: Path) -> None:
    """A slice, single images and rows in any order, in memory and on a device, are the same images."""
    found = load_images(
        Request(str(data), allow_duplicates=True), processor("ViT", **SQUARE, **UNEVEN), NAMES
    ).selection.pixels
    whole, rows = found[:], np.array([7, 3, 3, 59])
    assert (len(found), found.shape) == (60, whole.shape)
    require_equal_bits(found[rows], whole[rows])
    require_equal_bits(found[5:9], whole[5:9])
    require_equal_bits(found[-1], whole[-1])
    require_equal_bits(np.asarray(found), whole)
    require_equal_bits(found.load(rows, torch.device("cpu")).numpy(), whole[rows])
    assert found.table
    table, stored = decode_table(found.table), np.load(found.path)
    require_equal_bits(expand(stored, table), whole)
    require_equal_bits(expand_tensor(torch.from_numpy(stored), table).numpy(), whole)


def test_a_bake_is_the_same_with_bytes_as_with_float32(
    family: Family, data: Path, tmp_path: Path, alone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scores, decisions, probabilities and soup do not change; where float32 is kept, a note says so."""
    found = {}
    for way in ("bytes", "floats"):
        monkeypatch.setenv("HFSOUP_CACHE", str(tmp_path / f"cache-{way}"))
        if way == "floats":
            monkeypatch.setattr("hfsoup.data.preprocessing.make_table", lambda _: None)
        done = run("bake", *family.words, "--recipe", "greedy", "--dataset", data, "--output", way, "--json", "-")
        assert done.code == 0, done.err
        assert ("cached as float32, 3.1 kB each" in done.err) == (way == "floats"), done.err
        found[way] = {key: value for key, value in done.json.items() if key not in ("seconds", "soup")}
        found[way]["soup"] = done.json["soup"] | {"path": ""}
        found[way]["predictions"] = Path(way, "evaluation.json").read_bytes()
    assert found["bytes"] == found["floats"]
    sizes = [sum(f.stat().st_size for f in (tmp_path / f"cache-{way}" / "images").glob("*.npy")) for way in found]
    assert 3.8 < sizes[1] / sizes[0] <= 4
