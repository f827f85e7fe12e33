"""The weighted arithmetic mean."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hfsoup.merges import Array, merge


@merge("mean", paper="arXiv:2203.05482", summary="the arithmetic mean, weighted by the mix", needs_data=False)
def mean(tensors: Sequence[NDArray[np.floating]], weights: Sequence[float]) -> Array:
    """Sum wᵢθᵢ in float64; equal weights are summed first and scaled once."""
    total = np.zeros(tensors[0].shape, np.float64)
    if len(set(weights)) == 1:
        for tensor in tensors:
            total += tensor
        total *= weights[0]
        return total
    for tensor, weight in zip(tensors, weights, strict=True):
        total += weight * tensor.astype(np.float64)
    return total
