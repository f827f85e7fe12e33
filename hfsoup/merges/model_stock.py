"""As far from the base as the fine-tunings agree."""

from __future__ import annotations

import numpy as np

from hfsoup.merges import Array, Context, Tensors, Weights, merge, task_vectors

SINGULAR = 1e-6


@merge(
    "model-stock",
    paper="arXiv:2403.19522",
    citation=(
        "Jang, Yun and Han, Model Stock: all we need is just a few fine-tuned models, ECCV 2024, "
        "https://arxiv.org/abs/2403.19522"
    ),
    summary="between base and mean, tensor by tensor nearer the mean the more the changes agree",
    needs_base=True,
    elementwise=False,
)
def model_stock(tensors: Tensors, weights: Weights, context: Context) -> Array:
    """t·θ̄ + (1 − t)·θ0 with t = k·c/(1 + (k − 1)·c), c the mean cosine between two τ; the base where t has no value."""
    mean, units, count = np.zeros(context.base.shape), np.zeros(context.base.shape), len(weights)
    lengths = 0
    for task, weight in zip(task_vectors(tensors, context), weights, strict=True):
        length = float(np.linalg.norm(task))
        mean += task * weight
        if length:
            units += task / length
            lengths += 1
    # |Σu|² is one for each unit vector, and twice the cosine of every pair.
    cosine = float((units**2).sum() - lengths) / (count * (count - 1))
    below = 1 + (count - 1) * cosine
    share = count * cosine / below if abs(below) > SINGULAR else 0.0
    return context.base + share * mean
