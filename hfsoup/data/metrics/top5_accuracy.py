"""The share of images whose true class is among the five likeliest."""

from __future__ import annotations

from hfsoup.data.metrics import Labels, Predictions, metric


@metric("top5_accuracy", summary="the share of images whose true class is among the five likeliest", top=5, counts=True)
def top5_accuracy(predictions: Predictions, labels: Labels) -> float:
    """Images × 5 class indices, of which one may be the true one."""
    return float((predictions == labels[:, None]).any(axis=1).mean())
