"""Test images that are also among those that a soup was chosen or trained with: equal ones and near copies."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hfsoup.data.labels import format_rows
from hfsoup.data.preprocessing import PreparedImages
from hfsoup.data.request import Request
from hfsoup.utils.errors import SoupError
from hfsoup.utils.progress import Notify

SHARED = 0.01
"""The largest share of test images that may be among the selection images; public test sets have a few duplicates."""
ROWS, COLUMNS = 8, 9
STEP = 256
# An image with fewer brightness steps than this is too plain to be compared.
STEPS = 12
SAME = 0.99


def find_near_copies(first: Path, second: Path) -> list[tuple[int, int]]:
    """Places in `second` whose picture is a near copy of one in `first`, with that one's place.

    Candidates have the same difference hash: for each of 8 × 8 places of a 9 × 8 thumbnail, whether brightness rises to
    the right (dHash). A pair counts if the correlation of its brightness is also at least 0.99, so that simple pictures
    of one kind, such as digits, are not taken for copies.

    Args:
        first: a .npy file of prepared pixels, images × channels × height × width.
        second: another. Inputs that are no pictures any more, such as patches, are never alike.
    """
    one, two = np.load(first, mmap_mode="r"), np.load(second, mmap_mode="r")
    if one.ndim != 4 or two.ndim != 4 or one.shape[1:] != two.shape[1:]:
        return []
    known = {h: n for n, h in reversed(list(enumerate(_hash_images(one)))) if h is not None}
    pairs = [(known[h], n) for n, h in enumerate(_hash_images(two)) if h in known]
    return [(a, b) for a, b in pairs if _correlate(one[a], two[b]) >= SAME]


def _correlate(one: NDArray[np.float32], two: NDArray[np.float32]) -> float:
    """The correlation of the brightness of two pictures."""
    a, b = (picture.mean(axis=0, dtype=np.float64).ravel() for picture in (one, two))
    a, b = a - a.mean(), b - b.mean()
    return float(a @ b / max(np.sqrt((a @ a) * (b @ b)), np.finfo(np.float64).tiny))


def _hash_images(pixels: NDArray[np.float32]) -> Sequence[bytes | None]:
    found: list[bytes | None] = []
    for at in range(0, len(pixels), STEP):
        small = _shrink(np.asarray(pixels[at : at + STEP]).mean(axis=1))
        rises = small[:, :, 1:] > small[:, :, :-1]
        telling = (small[:, :, 1:] != small[:, :, :-1]).sum(axis=(1, 2)) >= STEPS
        found += [np.packbits(rise).tobytes() if tells else None for rise, tells in zip(rises, telling, strict=True)]
    return found


def _shrink(grey: NDArray[np.float32]) -> NDArray[np.float32]:
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


def check_leakage(
    used: PreparedImages, test: PreparedImages, request: Request, *, note: Notify, use: str = "selection"
) -> None:
    """Compare the test images with those that were used before: decoded pixels by a hash, near copies as well.

    Args:
        used: the images that a soup was chosen or trained with.
        test: the test images.
        request: whether duplicates are allowed, and the dataset's name for errors.
        note: called with what was found.
        use: `selection` or `training`, for messages.

    Raises:
        SoupError: more than one test image in a hundred is among the others, pixel for pixel, and that is not allowed.
    """
    known = set(used.digests)
    shared = [row for row, digest in zip(test.rows, test.digests, strict=True) if digest in known]
    similar = [test.rows[n] for _, n in find_near_copies(used.path, test.path) if test.rows[n] not in set(shared)]
    if similar:
        note(f"{len(similar)} of {len(test.rows)} test images look like a {use} image ({format_rows(similar)})")
    if not shared:
        return
    text = f"{len(shared)} of {len(test.rows)} test images are also {use} images ({format_rows(shared)})"
    many = len(shared) > SHARED * len(test.rows)
    if many and not request.allow_duplicates:
        hint = "remove the duplicates, or --allow-duplicates if the score may be too high"
        raise SoupError(f"{text}, at most {SHARED:.0%} may be", where=request.dataset, hint=hint)
    note(f"{text}; that is more than {SHARED:.0%}, which --allow-duplicates allows" if many else text)
