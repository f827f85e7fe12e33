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
def fisher(tensors: Tensors, weights: Weights, context: Context) -> Array:
    """Σ wᵢFᵢθᵢ / Σ wᵢFᵢ, where Fᵢ is the diagonal of ingredient i's Fisher information; Σ wᵢθᵢ where all F are 0."""
    top = bottom = mean = np.zeros(())
    for tensor, weight, importance in zip(tensors, weights, context.importance or (), strict=True):
        share = np.multiply(importance, weight, dtype=np.float64)
        top, bottom, mean = top + share * tensor, bottom + share, mean + np.multiply(tensor, weight, dtype=np.float64)
    merged: Array = np.divide(top, bottom, out=mean, where=bottom > 0)
    return merged
