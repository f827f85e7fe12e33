"""Trim, elect signs and merge: each weight moves in the direction of the larger total change."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hfsoup.merges import Array, Context, magnitudes, merge, task_vectors


@merge(
    "ties",
    paper="arXiv:2306.01708",
    citation=(
        "Yadav et al., TIES-Merging: resolving interference when merging models, NeurIPS 2023, "
        "https://arxiv.org/abs/2306.01708"
    ),
    summary="the base plus the mean of the largest changes of each ingredient that agree in sign",
    needs_base=True,
)
def ties(
    tensors: Iterable[NDArray[Any]],
    weights: Sequence[float],
    context: Context,
    *,
    scale: float = 1.0,
    density: float = 0.2,
) -> Array:
    """θ0 + λ·mean of the τᵢ, trimmed to their largest, that have the sign of the trimmed sum.

    As in the paper and its code the largest are those of the whole ingredient, not of each tensor. Where nothing is
    left, or the sum is 0, the base stays.
    """
    up, down, risers, fallers = np.zeros((4, *context.base.shape))
    for place, task, weight in zip(context.members, task_vectors(tensors, context), weights, strict=True):
        task *= weight * (magnitudes(task) >= context.threshold(place, density))
        up += np.maximum(task, 0)
        down += np.minimum(task, 0)
        risers += weight * (task > 0)
        fallers += weight * (task < 0)
    sums = up + down
    merged: Array = np.divide(up, risers, out=np.zeros_like(sums), where=sums > 0)
    np.divide(down, fallers, out=merged, where=sums < 0)
    return context.base + scale * merged
