"""Preparation: images a second that are decoded, processed, compared and written, against a bare Pillow loop."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from bench_bake import SIDE, jpegs
from checkpoints import PROCESSOR, remove
from setting import Setting
from timing import Row, here, medians

SECTION = "prepare"
TO = 64
NOTE = (
    f"Images a second, hfsoup's over the loop's: more is better. JPEGs of {SIDE} pixels to {TO}. The loop opens, "
    "converts, resizes and normalizes on one processor and keeps nothing; hfsoup also hashes every picture, "
    "compares it with its bytes and a table, and writes the file of pixels."
)


def run(setting: Setting) -> Iterator[Row]:
    """The section's rows."""
    import pyarrow.parquet as parquet
    from transformers import ViTImageProcessorPil

    from hfsoup.data.preprocessing import prepare_images

    home = setting.home / "prepare"
    table = parquet.read_table(jpegs(home / "data", setting) / "validation-00000-of-00001.parquet")
    given = [row["bytes"] for row in table.column("image").to_pylist()]
    values: dict[str, Any] = {k: v for k, v in PROCESSOR.items() if k != "image_processor_type"}
    processor: Any = ViTImageProcessorPil(**values, size={"height": TO, "width": TO})
    place = home / "pixels"

    def ours() -> None:
        shutil.rmtree(place, ignore_errors=True)
        prepare_images(range(len(given)), lambda: iter(given), processor, content="x", where="", home=place)

    mine, bare = medians([here(ours), here(lambda: loop(given))], setting.repeats)
    yield Row(
        SECTION, f"{len(given):,} images", "bare Pillow loop", bare.wall / mine.wall, cpu=bare.cpu / mine.cpu,
        times=(mine, bare),
    )  # fmt: skip
    yield Row(
        SECTION,
        f"bytes kept for each image of 3 x {TO} x {TO}",
        "float32",
        measure_share(place, len(given)),
        target="0.25",
    )
    remove(home)


def measure_share(place: Path, count: int) -> float:
    """The share of what float32 numbers would take."""
    return sum(path.stat().st_size for path in place.glob("*.npy")) / (count * 3 * TO * TO * 4)


def loop(given: list[bytes]) -> float:
    """As little as has to be done, image by image."""
    from PIL import Image

    total = 0.0
    for data in given:
        picture = Image.open(io.BytesIO(data)).convert("RGB").resize((TO, TO), Image.Resampling.BILINEAR)
        total += float((np.asarray(picture, np.float32) / np.float32(127.5) - 1)[0, 0, 0])
    return total
