"""The mean of each weight by its importance to every ingredient."""

from __future__ import annotations

import numpy as np

from hfsoup.merges import Array, Context, Tensors, Weights, merge


@merge(
    "fisher",
    paper="arXiv:2111.09832",
    citation=(
        "Matena and Raffel, Merging models with Fisher-weighted averaging, NeurIPS 2022, "
        "https://arxiv.org/abs/2111.09832"
    ),
    summary="the mean of each weight by how much every ingredient depends on it, estimated on training images",
    importance="fisher",
)
def fisher(tensors: Tensors, weights: Weights, context: Context, *, normalise: bool = False) -> Array:
    """Σ wᵢFᵢθᵢ / Σ wᵢFᵢ, where Fᵢ is the diagonal of ingredient i's Fisher information; Σ wᵢθᵢ where all F are 0.

    Args:
        normalise: divide each F by its L2 norm over all tensors, as fusion-bench does by default: an ingredient that is
            less sure of its predictions has a larger F, and would else count for more everywhere
    """
    top = bottom = mean = np.zeros(())
    known = zip(tensors, weights, context.importance or (), context.members, strict=True)
    for tensor, weight, importance, place in known:
        norm = context.importance_norm(place) if normalise else 1.0
        share = np.multiply(importance, weight / (norm or 1.0), dtype=np.float64)
        top, bottom, mean = top + share * tensor, bottom + share, mean + np.multiply(tensor, weight, dtype=np.float64)
    merged: Array = np.divide(top, bottom, out=mean, where=bottom > 0)
    return merged
