"""Test images that are also among those that a soup was chosen or trained with: equal ones and near copies."""

from __future__ import annotations

import json

import numpy as np
from numpy.typing import NDArray

from hfsoup.data.labels import format_rows
from hfsoup.data.pixels import PixelFile
from hfsoup.data.preprocessing import PreparedImages
from hfsoup.data.request import Request
from hfsoup.utils.cache import cache_root, make_write_error, mark_used
from hfsoup.utils.errors import SoupError
from hfsoup.utils.hashing import hash_json, read_sealed, write_sealed
from hfsoup.utils.progress import Notify

FORMAT = 1
"""Of what is cached; another number where other pictures become near copies."""
SHARED = 0.01
"""The largest share of test images that may be among the selection images; public test sets have a few duplicates."""
SIDE = 16
STEP = 256
# An image with fewer brightness steps than this is too plain to be compared.
STEPS = 64
SAME = 0.97


def find_near_copies(first: PixelFile, second: PixelFile) -> list[tuple[int, int]]:
    """Places in `second` whose picture is a near copy of one in `first`, with that one's place.

    Two pictures are near copies if the changes of brightness from place to place in their 16 × 16 thumbnails correlate
    with at least 0.97: resizing, compression, brightness and tint hardly change these. On CIFAR-10, copies that were
    resized to 40 pixels and saved as JPEG at quality 92 are all found; of 25 million pairs of its images, three are
    taken for copies, and are (`scripts/near_copies.py`).

    Args:
        first: prepared images.
        second: another. Inputs that are no pictures any more, such as patches, are never alike.
    """
    if len(first.shape) != 4 or first.shape[1:] != second.shape[1:]:
        return []
    known = np.concatenate([_describe(first[at : at + STEP]) for at in range(0, len(first), STEP)])
    pairs = []
    for at in range(0, len(second), STEP):
        block = _describe(second[at : at + STEP])
        nearest = (block @ known.T).argmax(axis=1)
        alike = (block.astype(np.float64) * known[nearest]).sum(axis=1) >= SAME
        pairs += [(int(nearest[n]), at + int(n)) for n in np.flatnonzero(alike)]
    return pairs


def _find_cached_copies(first: PreparedImages, second: PreparedImages) -> list[tuple[int, int]]:
    """As `find_near_copies`; the same images are compared once, so that a second bake need not read them for this."""
    home = cache_root() / "copies"
    sides = [(one.blake3, one.pixels.table and one.pixels.table.hex()) for one in (first, second)]
    path = home / f"{hash_json(FORMAT, sides)[:32]}.json"
    if (text := read_sealed(path)) is not None:
        mark_used(path)
        return [(a, b) for a, b in json.loads(text)]
    found = find_near_copies(first.pixels, second.pixels)
    try:
        write_sealed(path, json.dumps(found))
    except OSError as error:
        raise make_write_error(home, error) from error
    return found


def _describe(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """Unit vectors, one an image: changes of brightness to the right and downwards; zeros if it is too plain."""
    small = _shrink(pixels.mean(axis=1))
    changes = np.stack([np.diff(small, axis=2).reshape(len(small), -1), np.diff(small, axis=1).reshape(len(small), -1)])
    plain = (changes != 0).sum(axis=(0, 2)) < STEPS
    # Without their means, pictures that only grow brighter to one side are not alike.
    changes -= changes.mean(axis=2, keepdims=True)
    vectors = np.concatenate(changes, axis=1)
    vectors[plain] = 0
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    found: NDArray[np.float32] = vectors / np.maximum(lengths, np.finfo(np.float32).tiny)
    return found


def _shrink(grey: NDArray[np.float32]) -> NDArray[np.float32]:
    """Images × height × width averaged down to images × 16 × 16; smaller ones are repeated up first."""
    _, height, width = grey.shape
    grey = grey.repeat(-(-SIDE // height), axis=1).repeat(-(-SIDE // width), axis=2)
    edges = [np.linspace(0, size, SIDE, endpoint=False).astype(int) for size in grey.shape[1:]]
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
        use: `selection`, `calibration` or `training`, for messages.

    Raises:
        SoupError: more than one test image in a hundred is among the others, pixel for pixel or as a near copy, and
            that is not allowed.
    """
    known, total = set(used.digests), len(test.rows)
    shared = [row for row, digest in zip(test.rows, test.digests, strict=True) if digest in known]
    similar = [test.rows[n] for _, n in _find_cached_copies(used, test) if test.rows[n] not in set(shared)]
    found = [f"{len(shared)} of {total} test images are also {use} images ({format_rows(shared)})"] if shared else []
    if similar:
        found.append(f"{len(similar)} of {total} test images look like a {use} image ({format_rows(similar)})")
    if not found:
        return
    text, many = "; ".join(found), len(shared) + len(similar) > SHARED * total
    if many and not request.allow_duplicates:
        hint = "remove the duplicates, or --allow-duplicates if the score may be too high"
        raise SoupError(f"{text}, at most {SHARED:.0%} may be", where=request.dataset, hint=hint)
    note(f"{text}; that is more than {SHARED:.0%}, which --allow-duplicates allows" if many else text)
