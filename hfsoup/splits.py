"""Which splits of a dataset choose, report, and settle batch norms."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from difflib import get_close_matches

from hfsoup.errors import UsageError
from hfsoup.names import flat
from hfsoup.request import NO_SPLIT, Request

Note = Callable[[str], None]
UNSEEN = "a dataset with a split that these models were not trained on"


def is_training(split: str) -> bool:
    """Whether a split is called like one that models are trained on: train, training, train_small, my-train …"""
    return any(word.startswith("train") for word in re.split(r"[^a-z]+", split.casefold()))


def trained_on(title: str) -> str:
    """What to know of scores on a split that is called like one to train on."""
    return (
        f"The models may have been trained on the images of {flat(title, 60)!r}: what they score there says nothing of "
        "images that they have not seen."
    )


def split_names(splits: Sequence[str], request: Request) -> tuple[str, str | None]:
    """The split that selects, and the one that reports or None where the first is to be halved.

    One that models are trained on is taken only where it is asked for.
    """
    usual = [name for name in ("validation", "valid", "val", "dev", "test") if name in splits]
    name = request.split or (usual[0] if usual else "validation")
    test = request.test_split or ("test" if "test" in splits and name != "test" else None)
    if test == NO_SPLIT and NO_SPLIT not in splits:
        test = None
    _there(name, splits, request, "--split")
    if test:
        _there(test, splits, request, "--test-split")
    if name == test:
        hint = f"--test-split {NO_SPLIT} halves it"
        raise UsageError(f"the split {name!r} cannot both select and report", where=request.dataset, hint=hint)
    return name, test


def calibration_name(splits: Sequence[str], request: Request, selection: str, note: Note) -> str:
    """The split to estimate batch norms on: the one asked for, else the training split, else the one that selects."""
    name = request.calibration_split or ("train" if "train" in splits else selection)
    _there(name, splits, request, "--calibration-split", trained=True)
    if name == selection:
        note("there is no training split, so batch norms, alignments and merges look at the images that select")
    return name


def _there(name: str, splits: Sequence[str], request: Request, option: str, *, trained: bool = False) -> None:
    """Refuse a split that the dataset lacks, with the nearest one that it has.

    One that models are trained on is no hint, unless it is to be one that they were `trained` on.
    """
    if name not in splits:
        fit = [split for split in splits if trained or not is_training(split)]
        near = [*get_close_matches(name, fit, 1, 0.4), *fit]
        hint = f"{option} {near[0]}" if near else UNSEEN
        what = f"there is no split {name!r}; this dataset has {flat(', '.join(splits))}"
        raise UsageError(what, where=request.dataset, hint=hint)
