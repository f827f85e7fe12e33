"""Along the arc between two ingredients instead of the chord."""

from __future__ import annotations

import numpy as np

from hfsoup.merges import Array, Context, Tensors, Weights, merge

STRAIGHT = 0.9995


@merge(
    "slerp",
    paper="doi:10.1145/325165.325242",
    summary="spherical interpolation, tensor by tensor; more than two ingredients one after the other",
    elementwise=False,
)
def slerp(tensors: Tensors, weights: Weights, context: Context) -> Array:  # noqa: ARG001
    """Interpolate to each ingredient in turn, in the order given, by its share of the weight so far.

    Two tensors a, b at angle φ give (sin((1−t)φ)·a + sin(tφ)·b)/sin φ, and (1−t)·a + t·b where |cos φ| > 0.9995.
    """
    shares = iter(weights)
    merged, sum_so_far = np.zeros(0), 0.0
    for tensor, share in zip(tensors, shares, strict=True):
        following, sum_so_far = tensor.astype(np.float64), sum_so_far + share
        merged = following if sum_so_far == share else _interpolate(merged, following, share / sum_so_far)
    return merged


def _interpolate(a: Array, b: Array, t: float) -> Array:
    lengths = float(np.linalg.norm(a)) * float(np.linalg.norm(b))
    cosine = float(np.clip((a * b).sum() / lengths, -1, 1)) if lengths else 1.0
    if abs(cosine) > STRAIGHT:
        return (1 - t) * a + t * b
    angle = np.arccos(cosine)
    arc: Array = (np.sin((1 - t) * angle) * a + np.sin(t * angle) * b) / np.sin(angle)
    return arc
