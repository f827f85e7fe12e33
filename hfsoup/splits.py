"""Which splits of a dataset choose, report, and settle batch norms."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from difflib import get_close_matches

from hfsoup.errors import UsageError
from hfsoup.request import Request

Note = Callable[[str], None]


def split_names(splits: Sequence[str], request: Request) -> tuple[str, str | None]:
    """The split that selects, and the one that reports or None where the first is to be halved."""
    usual = [name for name in ("validation", "valid", "val", "dev", "test") if name in splits]
    name = request.split or (usual[0] if usual else "validation")
    test = request.test_split or ("test" if "test" in splits and name != "test" else None)
    _there(name, splits, request, "--split")
    if test:
        _there(test, splits, request, "--test-split")
    if name == test:
        raise UsageError(f"the split {name!r} cannot both select and report", hint="leave out --test-split to halve it")
    return name, test


def calibration_name(splits: Sequence[str], request: Request, selection: str, note: Note) -> str:
    """The split to estimate batch norms on: the one asked for, else the training split, else the one that selects."""
    name = request.calibration_split or ("train" if "train" in splits else selection)
    _there(name, splits, request, "--calibration-split")
    if name == selection:
        note("there is no training split, so batch norms, alignments and merges look at the images that select")
    return name


def _there(name: str, splits: Sequence[str], request: Request, option: str) -> None:
    """Refuse a split that the dataset lacks, with the nearest one that it has."""
    if name not in splits:
        near = [*get_close_matches(name, splits, 1, 0.4), *splits, "NAME"][0]
        what = f"there is no split {name!r}; this dataset has {', '.join(splits)}"
        raise UsageError(what, where=request.dataset, hint=f"{option} {near}")
