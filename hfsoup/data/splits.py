"""Which splits of a dataset are for selection, test and calibration; stratified halves and limits of one."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from difflib import get_close_matches

import numpy as np
from numpy.typing import NDArray

from hfsoup.data.request import NO_SPLIT, Request
from hfsoup.utils.errors import UsageError
from hfsoup.utils.progress import Notify
from hfsoup.utils.text import one_line

UNSEEN = "a dataset with a split that these models were not trained on"


def is_training(split: str) -> bool:
    """Whether the name of a split is that of a training split: train, training, train_small, my-train …"""
    return any(word.startswith("train") for word in re.split(r"[^a-z]+", split.casefold()))


def describe_training_split(title: str) -> str:
    """A warning about scores on a split that is named like a training split."""
    return (
        f"The models may have been trained on the images of {one_line(title, 60)!r}: what they score there says "
        "nothing of images that they have not seen."
    )


def choose_splits(splits: Sequence[str], request: Request) -> tuple[str, str | None]:
    """The selection split, and the test split or None if the first is to be halved.

    A training split is taken only if it is asked for.

    Raises:
        UsageError: there is no such split, or one is asked for as both.
    """
    usual = [name for name in ("validation", "valid", "val", "dev", "test") if name in splits]
    name = request.split or (usual[0] if usual else "validation")
    test = request.test_split or ("test" if "test" in splits and name != "test" else None)
    if test == NO_SPLIT and NO_SPLIT not in splits:
        test = None
    require_split(name, splits, request, "--split")
    if test:
        require_split(test, splits, request, "--test-split")
    if name == test:
        hint = f"--test-split {NO_SPLIT} halves it"
        raise UsageError(f"the split {name!r} cannot be both selection and test", where=request.dataset, hint=hint)
    return name, test


def choose_calibration_split(
    splits: Sequence[str], request: Request, selection: str, test: str | None, note: Notify
) -> str:
    """The split to estimate batch norms on: the one asked for, else the training split, else the selection split.

    Args:
        splits: those of the dataset.
        request: the one that is asked for.
        selection: the selection split.
        test: the test split; None where the selection split is halved.
        note: called where the selection split has to do.

    Raises:
        UsageError: there is no such split, or it is the test split.
    """
    name = request.calibration_split or ("train" if "train" in splits and test != "train" else selection)
    require_split(name, splits, request, "--calibration-split", fit=[split for split in splits if split != test])
    if name == test:
        other = "train" if "train" in splits and test != "train" else selection
        what = f"the split {name!r} cannot be both for calibration and for test"
        raise UsageError(what, where=request.dataset, hint=f"--calibration-split {other}")
    if name == selection:
        note("there is no training split, so batch norms, alignments and merges use the selection images")
    return name


def require_split(
    name: str, splits: Sequence[str], request: Request, option: str, *, fit: Sequence[str] | None = None
) -> None:
    """Refuse a split that the dataset lacks, with the nearest name among those that are `fit` as the hint.

    By default those are all but the training splits.
    """
    if name not in splits:
        fit = [split for split in splits if not is_training(split)] if fit is None else fit
        near = [*get_close_matches(name, fit, 1, 0.4), *fit]
        hint = f"{option} {near[0]}" if near else UNSEEN
        what = f"there is no split {name!r}; this dataset has {one_line(', '.join(splits))}"
        raise UsageError(what, where=request.dataset, hint=hint)


def halve(labels: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Two halves with the same share of every class, or set of classes: every second row in a fixed shuffled order."""
    order = np.concatenate(_group_by_class(labels))
    return np.sort(order[0::2]), np.sort(order[1::2])


def limit_rows(labels: NDArray[np.int64], limit: int) -> NDArray[np.int64]:
    """At most `limit` rows, every class, or set of classes, in about its share; always the same rows."""
    if labels.ndim > 1:
        # There may be as many sets as rows, so rows are drawn evenly from the order of their sets.
        order, count = np.concatenate(_group_by_class(labels)), min(limit, len(labels))
        return np.sort(order[np.arange(count) * len(order) // count])
    seats = [((n + 0.5) / len(rows), row) for rows in _group_by_class(labels) for n, row in enumerate(rows.tolist())]
    return np.sort(np.array([row for _, row in sorted(seats)[:limit]], np.int64))


def _group_by_class(labels: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """The rows of each class, shuffled by a hash of the row, so that the order is the same everywhere."""
    keys = np.array([int.from_bytes(hashlib.sha256(b"%d" % row).digest()[:8], "big") for row in range(len(labels))])
    values, places = np.unique(labels, axis=0, return_inverse=True)
    groups = [np.flatnonzero(places.ravel() == n) for n in range(len(values))]
    return [rows[np.argsort(keys[rows], kind="stable")] for rows in groups]
