"""F1, counted over all classes together."""

from __future__ import annotations

from hfsoup.data.metrics import Labels, Predictions, metric
from hfsoup.data.metrics.f1_macro import count_classes


@metric("f1_micro", summary="F1, counted over all classes together", tasks=("multi-label",))
def f1_micro(predictions: Predictions, labels: Labels) -> float:
    """2·tp / (2·tp + fp + fn); 0 where there is nothing to count."""
    right, named = count_classes(predictions, labels)
    return float(2 * right.sum() / max(named.sum(), 1))
