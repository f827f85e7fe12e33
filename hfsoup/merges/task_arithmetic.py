"""The base plus the sum of what each fine-tuning changed."""

from __future__ import annotations

from hfsoup.merges import Array, Context, Tensors, Weights, add_to_base, merge, task_vectors


@merge(
    "task-arithmetic",
    paper="arXiv:2212.04089",
    citation=("Ilharco et al., Editing models with task arithmetic, ICLR 2023, https://arxiv.org/abs/2212.04089"),
    summary="the base plus --scale times the sum of the task vectors θᵢ − θ0",
    needs_base=True,
)
def task_arithmetic(tensors: Tensors, weights: Weights, context: Context, *, scale: float | None = None) -> Array:
    """θ0 + λΣτᵢ; without a scale λ = 1/k, which gives the mean."""
    return add_to_base(task_vectors(tensors, context), weights, context, scale)
