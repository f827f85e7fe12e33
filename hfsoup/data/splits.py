"""Which splits of a dataset choose, report, and settle batch norms."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from difflib import get_close_matches

import numpy as np
from numpy.typing import NDArray

from hfsoup.data.request import NO_SPLIT, Request
from hfsoup.utils.errors import UsageError
from hfsoup.utils.text import one_line

Note = Callable[[str], None]
UNSEEN = "a dataset with a split that these models were not trained on"


def is_training(split: str) -> bool:
    """Whether a split is called like one that models are trained on: train, training, train_small, my-train …"""
    return any(word.startswith("train") for word in re.split(r"[^a-z]+", split.casefold()))


def describe_training_split(title: str) -> str:
    """What to know of scores on a split that is called like one to train on."""
    return (
        f"The models may have been trained on the images of {one_line(title, 60)!r}: what they score there says "
        "nothing of images that they have not seen."
    )


def choose_splits(splits: Sequence[str], request: Request) -> tuple[str, str | None]:
    """The split that selects, and the one that reports or None where the first is to be halved.

    One that models are trained on is taken only where it is asked for.
    """
    usual = [name for name in ("validation", "valid", "val", "dev", "test") if name in splits]
    name = request.split or (usual[0] if usual else "validation")
    test = request.test_split or ("test" if "test" in splits and name != "test" else None)
    if test == NO_SPLIT and NO_SPLIT not in splits:
        test = None
    _require_split(name, splits, request, "--split")
    if test:
        _require_split(test, splits, request, "--test-split")
    if name == test:
        hint = f"--test-split {NO_SPLIT} halves it"
        raise UsageError(f"the split {name!r} cannot both select and report", where=request.dataset, hint=hint)
    return name, test


def choose_calibration_split(splits: Sequence[str], request: Request, selection: str, note: Note) -> str:
    """The split to estimate batch norms on: the one asked for, else the training split, else the one that selects."""
    name = request.calibration_split or ("train" if "train" in splits else selection)
    _require_split(name, splits, request, "--calibration-split", trained=True)
    if name == selection:
        note("there is no training split, so batch norms, alignments and merges look at the images that select")
    return name


def _require_split(name: str, splits: Sequence[str], request: Request, option: str, *, trained: bool = False) -> None:
    """Refuse a split that the dataset lacks, with the nearest one that it has.

    One that models are trained on is no hint, unless it is to be one that they were `trained` on.
    """
    if name not in splits:
        fit = [split for split in splits if trained or not is_training(split)]
        near = [*get_close_matches(name, fit, 1, 0.4), *fit]
        hint = f"{option} {near[0]}" if near else UNSEEN
        what = f"there is no split {name!r}; this dataset has {one_line(', '.join(splits))}"
        raise UsageError(what, where=request.dataset, hint=hint)


def halve(labels: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Two halves with the same share of every class or set: one after the other, in a fixed shuffled order, in turn."""
    order = np.concatenate(_group_by_class(labels))
    return np.sort(order[0::2]), np.sort(order[1::2])


def limit_rows(labels: NDArray[np.int64], limit: int) -> NDArray[np.int64]:
    """At most `limit` rows, every class or set in about its share, always the same ones."""
    if labels.ndim > 1:
        # Sets may be as many as rows: they are drawn evenly from their order.
        order, count = np.concatenate(_group_by_class(labels)), min(limit, len(labels))
        return np.sort(order[np.arange(count) * len(order) // count])
    seats = [((n + 0.5) / len(rows), row) for rows in _group_by_class(labels) for n, row in enumerate(rows.tolist())]
    return np.sort(np.array([row for _, row in sorted(seats)[:limit]], np.int64))


def _group_by_class(labels: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """The rows of each class, in an order that is shuffled by a hash of the row and so the same everywhere."""
    keys = np.array([int.from_bytes(hashlib.sha256(b"%d" % row).digest()[:8], "big") for row in range(len(labels))])
    values, places = np.unique(labels, axis=0, return_inverse=True)
    groups = [np.flatnonzero(places.ravel() == n) for n in range(len(values))]
    return [rows[np.argsort(keys[rows], kind="stable")] for rows in groups]
