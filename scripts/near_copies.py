"""Measure how many near copies hfsoup finds, and how many different images it takes for copies.

    python scripts/near_copies.py DATASET [--side 40] [--quality 92] [--size 32]

Every image of the selection split is resized to `--side` pixels and saved as a JPEG of `--quality`; then both are
processed to `--size` pixels as ingredients do it. What is printed: the share of these copies that is found, and the
pairs of selection and test images that are taken for copies, row by row, to look at.
"""

from __future__ import annotations

import argparse
import io
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from datasets import load_dataset
from PIL import Image
from transformers import ViTImageProcessorPil

sys.path.insert(1, str(Path(__file__).parents[1]))

from hfsoup.data.leakage import find_near_copies
from hfsoup.data.pixels import PixelFile

BATCH = 500


def main() -> None:
    """Measure one dataset."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", help="a name on the Hub, or a folder, with splits validation and test")
    parser.add_argument("--side", type=int, default=40)
    parser.add_argument("--quality", type=int, default=92)
    parser.add_argument("--size", type=int, default=32)
    args = parser.parse_args()
    processor = ViTImageProcessorPil(size={"height": args.size, "width": args.size})
    selection, test = (load_dataset(args.dataset, split=name)["image"][:] for name in ("validation", "test"))
    copies = [save_copy(picture, args.side, args.quality) for picture in selection]
    with tempfile.TemporaryDirectory() as scratch:
        files = [PixelFile(Path(scratch) / f"{n}.npy") for n in range(3)]
        for file, pictures in zip(files, (selection, test, copies), strict=True):
            np.save(file.path, process(processor, pictures))
        found = sum(a == b for a, b in find_near_copies(files[0], files[2]))
        alike = find_near_copies(files[0], files[1])
    print(
        f"copies of {args.side} pixels, JPEG {args.quality}: {found} of {len(copies)} found, {found / len(copies):.2%}"
    )
    print(f"selection and test: {len(alike)} of {len(selection) * len(test):,} pairs taken for copies, rows {alike}")


def save_copy(picture: Any, side: int, quality: int) -> Any:
    """A picture resized and saved as a JPEG."""
    saved = io.BytesIO()
    picture.convert("RGB").resize((side, side)).save(saved, "JPEG", quality=quality)
    return Image.open(saved)


def process(processor: Any, pictures: list[Any]) -> np.ndarray[Any, Any]:
    """The pixels of pictures, images × channels × height × width."""
    blocks = [pictures[at : at + BATCH] for at in range(0, len(pictures), BATCH)]
    return np.concatenate(
        [processor([p.convert("RGB") for p in b], return_tensors="np")["pixel_values"] for b in blocks]
    )


if __name__ == "__main__":
    main()
