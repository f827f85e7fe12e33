"""The share of images whose likeliest class is the true one."""

from __future__ import annotations

from hfsoup.data.metrics import Labels, Predictions, metric


@metric("accuracy", summary="the share of images whose likeliest class is the true one", counts=True)
def accuracy(predictions: Predictions, labels: Labels) -> float:
    """Right answers over images."""
    return float((predictions == labels).mean())
