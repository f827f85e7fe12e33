"""The weighted arithmetic mean."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hfsoup.merges import Array, Context, merge


@merge("mean", paper="arXiv:2203.05482", summary="the arithmetic mean, weighted by the mix", needs_data=False)
def mean(tensors: Iterable[NDArray[Any]], weights: Sequence[float], context: Context) -> Array:  # noqa: ARG001
    """Sum wᵢθᵢ in float64, one tensor at a time; equal weights are summed first and scaled once."""
    blocks, equal = iter(tensors), len(set(weights)) == 1
    first = next(blocks)
    # Zero comes first, so that no order of adding and taking away gives another sign of zero.
    total = np.zeros(first.shape, np.float64)
    for tensor, weight in zip(chain([first], blocks), weights, strict=True):
        total += tensor if equal else np.multiply(tensor, weight, dtype=np.float64)
    if equal:
        total *= weights[0]
    return total
