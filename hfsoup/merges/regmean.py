"""Each linear layer as close as possible to the outputs of the ingredients' layers."""

from __future__ import annotations

import numpy as np

from hfsoup.merges import Array, Context, Tensors, Weights, merge

ALPHA, RIDGE = 0.9, 1e-10


@merge(
    "regmean",
    paper="arXiv:2212.09849",
    citation=(
        "Jin, Ren, Preotiuc-Pietro and Cheng, Dataless knowledge fusion by merging weights of language "
        "models, ICLR 2023, https://arxiv.org/abs/2212.09849"
    ),
    summary="linear layers by regression on what reaches them on training images; everything else averaged",
    elementwise=False,
    importance="gram",
)
def regmean(tensors: Tensors, weights: Weights, context: Context) -> Array:
    """(Σ wᵢGᵢ)⁻¹ Σ wᵢGᵢWᵢ for weights W, inputs × outputs, and Gram matrices G of a layer's inputs.

    Off the diagonal G is multiplied by the paper's α, here 0.9, as in experiments of its authors. A ridge of 1e-10 of
    the mean diagonal sets to Σ wᵢWᵢ what the images do not determine, such as weights of inputs that are always 0.
    """
    total = crossed = mean = np.zeros((), np.float64)
    for tensor, weight, gram in zip(tensors, weights, context.importance or (), strict=True):
        shape, rows = tensor.shape, tensor.reshape(-1, len(gram)).T.astype(np.float64)
        shrunk = weight * np.where(np.eye(len(gram), dtype=bool), gram, ALPHA * gram.astype(np.float64))
        total, crossed, mean = total + shrunk, crossed + shrunk @ rows, mean + weight * rows
    ridge = RIDGE * float(total.trace()) / len(total) or 1.0
    solved = np.linalg.solve(total + ridge * np.eye(len(total)), crossed + ridge * mean)
    return np.asarray(solved.T.reshape(shape), np.float64)
