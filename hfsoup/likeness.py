"""Images that look alike though their pixels differ: resized, recompressed or recoloured copies."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

ROWS, COLUMNS = 8, 9
STEP = 256
# An image with fewer brightness steps than this is too plain to be told from another plain one.
STEPS = 12


def alike(first: Path, second: Path) -> list[tuple[int, int]]:
    """Places in `second` whose picture has the same difference hash as one in `first`, with that one's place.

    The hash says for each of 8 × 8 places of a 9 × 8 thumbnail whether brightness rises to the right (dHash).

    Args:
        first: a .npy file of prepared pixels, images × channels × height × width.
        second: another. Inputs that are no pictures any more, such as patches, are never alike.
    """
    if any(np.load(path, mmap_mode="r").ndim != 4 for path in (first, second)):
        return []
    known = {h: n for n, h in reversed(list(enumerate(_hashes(first)))) if h is not None}
    return [(known[h], n) for n, h in enumerate(_hashes(second)) if h in known]


def _hashes(path: Path) -> Sequence[bytes | None]:
    pixels = np.load(path, mmap_mode="r")
    found: list[bytes | None] = []
    for at in range(0, len(pixels), STEP):
        small = _thumbnails(np.asarray(pixels[at : at + STEP]).mean(axis=1))
        rises = small[:, :, 1:] > small[:, :, :-1]
        telling = (small[:, :, 1:] != small[:, :, :-1]).sum(axis=(1, 2)) >= STEPS
        found += [np.packbits(rise).tobytes() if tells else None for rise, tells in zip(rises, telling, strict=True)]
    return found


def _thumbnails(grey: NDArray[np.float32]) -> NDArray[np.float32]:
    """Images × height × width averaged down to images × 8 × 9; smaller ones are repeated up first."""
    _, height, width = grey.shape
    grey = grey.repeat(-(-ROWS // height), axis=1).repeat(-(-COLUMNS // width), axis=2)
    edges = [
        np.linspace(0, size, parts, endpoint=False).astype(int)
        for size, parts in zip(grey.shape[1:], (ROWS, COLUMNS), strict=True)
    ]
    sums = np.add.reduceat(np.add.reduceat(grey, edges[0], axis=1), edges[1], axis=2)
    areas = np.outer(*(np.diff([*e, size]) for e, size in zip(edges, grey.shape[1:], strict=True)))
    thumbnails: NDArray[np.float32] = (sums / areas).astype(np.float32)
    return thumbnails
