"""The mean of directions on the sphere, and of lengths."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hfsoup.merges import Array, Context, Tensors, Weights, merge

STEPS, CLOSE = 100, 1e-10


@merge(
    "karcher",
    paper="doi:10.1002/cpa.3160300502",
    summary="the Karcher mean on the sphere, tensor by tensor, as long as the ingredients on average",
    elementwise=False,
)
def karcher(tensors: Tensors, weights: Weights, context: Context) -> Array:  # noqa: ARG001
    """The direction with the least weighted sum of squared angles to the ingredients' tensors; zeros have none."""
    given = [tensor.astype(np.float64) for tensor in tensors]
    lengths = [float(np.linalg.norm(tensor)) for tensor in given]
    long = [n for n, length in enumerate(lengths) if length]
    if not long:
        return given[0]
    units, shares = [given[n] / lengths[n] for n in long], np.array([weights[n] for n in long])
    length = float(np.dot(weights, lengths))
    return length * _find_direction(units, shares / shares.sum())


def _find_direction(units: Sequence[Array], shares: NDArray[np.float64]) -> Array:
    """Start at the plain mean and follow the mean of the tangents until it vanishes."""
    mean = sum((share * unit for unit, share in zip(units, shares, strict=True)), np.zeros_like(units[0]))
    start = float(np.linalg.norm(mean))
    mean = mean / start if start > CLOSE else units[0]
    for _ in range(STEPS):
        tangent = np.zeros_like(mean)
        for unit, share in zip(units, shares, strict=True):
            cosine = float((mean * unit).sum())
            away = unit - cosine * mean
            sine = float(np.linalg.norm(away))
            if sine > CLOSE:
                tangent += share * np.arctan2(sine, cosine) / sine * away
        step = float(np.linalg.norm(tangent))
        if step < CLOSE:
            break
        mean = np.cos(step) * mean + np.sin(step) / step * tangent
        mean /= np.linalg.norm(mean)
    return mean
