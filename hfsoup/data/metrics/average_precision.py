"""Mean average precision, which needs no threshold."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from hfsoup.data.metrics import PROBABILITIES, Labels, Predictions, Rows, metric


def average_precision_on_rows(predictions: Predictions, labels: Labels) -> Callable[[Rows], float]:
    """The same of any of the images, which are ranked only once."""
    images, classes = labels.shape
    order = np.argsort(-predictions.T, axis=1, kind="stable").astype(np.int32)
    ranked = np.take_along_axis(predictions.T, order, 1)
    whose, places = np.nonzero(np.take_along_axis(labels.T, order, 1))
    # Images of one probability are above the threshold together: each has the precision at the last of them.
    last = np.ones(ranked.shape, bool)
    last[:, :-1] = ranked[:, :-1] != ranked[:, 1:]
    ends = np.minimum.accumulate(np.where(last, np.arange(images), images)[:, ::-1], axis=1)[:, ::-1][whose, places]
    begins = np.searchsorted(whose, np.arange(classes))[whose]
    upto = np.searchsorted(whose * images + places, whose * images + ends, side="right")

    def value(rows: Rows) -> float:
        often = np.bincount(rows, minlength=images).astype(np.int32)
        true = often[order[whose, places]]
        above = np.concatenate([[0], true.cumsum()])
        named = often.take(order).cumsum(axis=1, dtype=np.int32)[whose, ends]
        precision = (above[upto] - above[begins]) / np.maximum(named, 1)
        present = np.bincount(whose, true, classes)
        gained = np.bincount(whose, true * precision, classes)
        return float((gained[present > 0] / present[present > 0]).mean()) if present.any() else 0.0

    return value


@metric(
    "average_precision",
    summary="the mean over classes of the average precision of their probabilities",
    tasks=("multi-label",),
    needs=PROBABILITIES,
    on_rows=average_precision_on_rows,
)
def average_precision(predictions: Predictions, labels: Labels) -> float:
    """The mean over classes of Σ (Rₙ − Rₙ₋₁)·Pₙ over the thresholds n; a class that no image has is left out."""
    return average_precision_on_rows(predictions, labels)(np.arange(len(labels)))
