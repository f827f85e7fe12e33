"""The images that a network is trained on, without their labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from hfsoup.data.images import DatasetSplit, Split, cut_splits, open_scored_splits
from hfsoup.data.leakage import check_leakage
from hfsoup.data.preprocessing import Advance
from hfsoup.data.request import Request
from hfsoup.data.source import open_dataset
from hfsoup.data.splits import choose_calibration_split, limit_rows
from hfsoup.utils.errors import UsageError


def load_unlabelled(
    request: Request,
    processor: Any,
    classes: Sequence[str],
    most: int,
    *,
    note: Callable[[str], None] = lambda _: None,
    advance: Advance = lambda _: None,
) -> Split:
    """At most `most` images of the calibration split, drawn without a look at their labels.

    Raises:
        UsageError: no such split, or it is the one that reports.
        SoupError: more than one test image in a hundred is among them, or there are too few to train on.
    """
    with open_dataset(request) as source:
        splits, quiet = list(source.split_files), lambda _: None
        parts, selection, test = open_scored_splits(source, request, classes, quiet)
        name = choose_calibration_split(splits, request, selection, quiet)
        if name == test:
            hint = "--calibration-split train"
            raise UsageError(f"the split {name!r} cannot both train and report", where=request.dataset, hint=hint)
        if name == selection:
            note("the images that select train too, without their labels, which flatters their score")
        else:
            parts[name] = DatasetSplit(source, name, request, classes, note, scored=False, most=most)
        first, last = cut_splits(parts, selection, test)
        rows = first[2] if name == selection else np.arange(len(parts[name].labels))
        rows = rows[limit_rows(np.zeros(len(rows), np.int64), most)]
        if len(rows) < 2:
            raise UsageError(f"expected at least 2 images to train on, found {len(rows)}", where=request.dataset)
        split, seen = parts[name].prepare(processor, name, rows, None, advance)
        part, title, reporting = last
        check_leakage(
            seen,
            part.prepare(processor, title, reporting, request.limit)[1],
            request,
            note=note,
            role="train",
        )
        source.files.require_unchanged()
    return split
