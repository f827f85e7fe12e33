"""The weighted arithmetic mean."""

from __future__ import annotations

import numpy as np

from hfsoup.merges import Array, Context, Tensors, Weights, merge


@merge(
    "mean",
    paper="arXiv:2203.05482",
    citation=(
        "Wortsman et al., Model soups: averaging weights of multiple fine-tuned models improves accuracy "
        "without increasing inference time, ICML 2022, https://arxiv.org/abs/2203.05482"
    ),
    summary="the arithmetic mean, weighted by the mix",
)
def mean(tensors: Tensors, weights: Weights, context: Context) -> Array:  # noqa: ARG001
    """Sum wᵢθᵢ in float64, one tensor at a time; equal weights are summed first and scaled once."""
    equal = len(set(weights)) == 1
    shares = (t if equal else np.multiply(t, w, dtype=np.float64) for t, w in zip(tensors, weights, strict=True))
    # Zero is a part of the sum, so that no order of adding and taking away gives another sign of zero.
    total: Array = np.asarray(np.add(next(shares), 0.0, dtype=np.float64))
    for share in shares:
        total += share
    if equal:
        total *= weights[0]
    return total
