"""Metrics: each is one number of predictions and labels. One file a metric; a new file here is a new metric.

A metric gets two arrays whose first axis is over images: for single-label models class indices, for multi-label models
0 or 1 for every class. One that is registered with `needs="probabilities"` gets probabilities of every class, images ×
classes, as its first array.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hfsoup.utils.errors import SoupError
from hfsoup.utils.registry import Entry, Registry

Labels = NDArray[np.int64]
Predictions = NDArray[Any]
Rows = NDArray[np.int64]
PREDICTIONS, PROBABILITIES = "predictions", "probabilities"


@dataclass(frozen=True, kw_only=True)
class MetricEntry(Entry):
    """A metric.

    Attributes:
        tasks: the names of the tasks that it scores.
        needs: `predictions` or `probabilities`.
        larger_is_better: else its number is negated, as scikit-learn's scorers do, so that the largest is the best.
        top: how many of the likeliest classes of an image a single-label prediction has; with more than one the
            predictions are images × classes.
        counts: whether it is the share of images that are predicted right, so that a search may stop early.
        on_rows: takes the same arrays and returns the function of row numbers that has this metric of those images,
            where that is faster than the metric itself, for the 1,000 draws of a bootstrap.
    """

    tasks: tuple[str, ...] = ("single-label",)
    needs: str = PREDICTIONS
    larger_is_better: bool = True
    top: int = 1
    counts: bool = False
    on_rows: Callable[[Predictions, Labels], Callable[[Rows], float]] | None = None


METRICS = Registry("metric", "hfsoup.data.metrics", MetricEntry, "hfsoup.metrics")
metric = METRICS.register


def check_predictions(predictions: Any, references: Any) -> tuple[Labels, Labels]:
    """Class indices of predictions and references, if a metric of them means anything.

    Args:
        predictions: whole numbers from 0 on, images × classes named.
        references: whole numbers from 0 on, one per image.

    Raises:
        SoupError: there are none, they are floats, missing or negative, or their counts differ.
    """
    found = []
    for name, given, axes in (("predictions", predictions, 2), ("references", references, 1)):
        array = np.asarray(given)
        if array.ndim != axes or not array.size:
            raise SoupError(f"expected {name} with {axes} axes, found the shape {array.shape}")
        if array.dtype.kind not in "iu":
            raise SoupError(f"expected whole numbers as {name}, found {array.dtype}")
        if array.min() < 0:
            raise SoupError(f"expected classes from 0 on as {name}, found {array.min()}")
        found.append(array.astype(np.int64))
    if len(found[0]) != len(found[1]):
        raise SoupError(f"expected one prediction a reference, found {len(found[0])} for {len(found[1])}")
    return found[0], found[1]
