"""The unweighted mean over classes of the harmonic mean of precision and recall."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hfsoup.data.metrics import Labels, Predictions, metric


@metric("f1_macro", summary="the mean over classes of F1", tasks=("single-label", "multi-label"))
def f1_macro(predictions: Predictions, labels: Labels) -> float:
    """2·tp / (2·tp + fp + fn) of each class that some image has or is predicted to have, averaged.

    The number is scikit-learn's `f1_score`, which takes a hundred times as long in each of a bootstrap's draws.
    """
    right, named = count_classes(predictions, labels)
    return float(np.mean(2 * right[named > 0] / named[named > 0])) if named.any() else 0.0


def count_classes(predictions: Predictions, labels: Labels) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """For each class the images of which it is rightly predicted, and those that have it plus those predicted."""
    if labels.ndim == 2:
        return (predictions * labels).sum(axis=0), predictions.sum(axis=0) + labels.sum(axis=0)
    size = 1 + int(max(predictions.max(), labels.max()))
    right = np.bincount(labels[predictions == labels], minlength=size)
    return right, np.bincount(predictions, minlength=size) + np.bincount(labels, minlength=size)
