"""Weigh the main directions of what fine-tuning changed against the rest, also in a single ingredient."""

from __future__ import annotations

from math import ceil, sqrt

import numpy as np

from hfsoup.merges import Array, Context, Tensors, Weights, merge, task_vectors


@merge(
    "monosoup",
    paper="arXiv:2602.09689",
    citation=(
        "Abdollahpoorrostam, Dimitriadis, Hazimeh and Frossard, Model soups need only one ingredient, 2026, "
        "https://arxiv.org/abs/2602.09689"
    ),
    summary="the base plus the change of each matrix, main directions and the rest reweighted; also of one ingredient",
    needs_base=True,
    elementwise=False,
    changes_single=True,
)
def monosoup(tensors: Tensors, weights: Weights, context: Context) -> Array:
    """θ0 + (1 − λ)τₕ + λτₗ, where τₕ has the k largest singular values of the mean task vector τ̄ = UΣVᵀ, τₗ the rest.

    k = ⌈exp H⌉, the effective rank, with H the entropy of σ/Σσ; λ = ρ + (1 − ρ)√(1 − P), where P is the share of Σσ² in
    the first k and ρ = (σₖ₊₁/σ₁)². As in its authors' code a kernel is a matrix of a row for each output channel, and a
    tensor with fewer than two dimensions stays the mean. The paper is of one ingredient; several are one by their mean.
    """
    mean = np.zeros(context.base.shape)
    for task, weight in zip(task_vectors(tensors, context), weights, strict=True):
        mean += task * weight
    if len(context.shape) < 2 or not np.isfinite(mean).all() or not mean.any():
        return context.base + mean
    left, sizes, right = np.linalg.svd(mean.reshape(context.shape[0], -1), full_matrices=False)
    shares = sizes[sizes > 0] / sizes.sum()
    # Rounding must not make a rank of 3.0000000000001 four.
    rank = min(ceil(float(np.exp(-(shares * np.log(shares)).sum())) - 1e-9), len(sizes))
    energy = float((sizes[:rank] ** 2).sum() / (sizes**2).sum())
    decay = float(sizes[rank] / sizes[0]) ** 2 if rank < len(sizes) else 0.0
    low = min(decay + (1 - decay) * sqrt(max(1 - energy, 0.0)), 1.0)
    factors = np.where(np.arange(len(sizes)) < rank, 1 - low, low)
    changed: Array = (left * (sizes * factors)) @ right
    return context.base + changed.reshape(mean.shape)
