"""The base plus a multiple of what the fine-tunings changed on average."""

from __future__ import annotations

from hfsoup.merges import Array, Context, Tensors, Weights, add_to_base, merge, task_vectors


@merge(
    "task-arithmetic",
    paper="arXiv:2212.04089",
    citation=("Ilharco et al., Editing models with task arithmetic, ICLR 2023, https://arxiv.org/abs/2212.04089"),
    summary="the base plus --scale times the mean of the task vectors θᵢ − θ0; at 1 the mean, beyond it extrapolated",
    needs_base=True,
)
def task_arithmetic(tensors: Tensors, weights: Weights, context: Context, *, scale: float = 1.0) -> Array:
    """θ0 + λτ̄ with τ̄ the mean of the task vectors; the paper's λ multiplies their sum, and is λ/k of this one."""
    return add_to_base(task_vectors(tensors, context), weights, context, scale)
