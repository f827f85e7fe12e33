"""The unweighted mean over classes of the share of their images that are right."""

from __future__ import annotations

import numpy as np

from hfsoup.data.metrics import Labels, Predictions, metric


@metric("balanced_accuracy", summary="the mean over classes of the share of their images that are right")
def balanced_accuracy(predictions: Predictions, labels: Labels) -> float:
    """Recall of each class that occurs, averaged."""
    right = predictions == labels
    return float(np.mean([right[labels == c].mean() for c in np.unique(labels)]))
