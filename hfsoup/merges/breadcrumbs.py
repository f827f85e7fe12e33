"""Leave out the smallest and the largest changes of every tensor."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from hfsoup.merges import Array, Context, Tensors, Weights, add_to_base, magnitudes, merge, task_vectors


@merge(
    "breadcrumbs",
    paper="arXiv:2312.06795",
    citation=(
        "Davari and Belilovsky, Model breadcrumbs: scaling multi-task model merging with sparse masks, ECCV "
        "2024, https://arxiv.org/abs/2312.06795"
    ),
    summary="task arithmetic without the largest (--outliers) and smallest changes of each tensor, --density kept",
    needs_base=True,
    elementwise=False,
)
def breadcrumbs(
    tensors: Tensors,
    weights: Weights,
    context: Context,
    *,
    scale: float = 1.0,
    density: float = 0.1,
    outliers: float = 0.01,
) -> Array:
    """θ0 + λ times the mean of mᵢ ⊙ τᵢ, where mᵢ keeps the `density` share of |τᵢ| next below the `outliers`."""
    return add_to_base(_mask_tasks(task_vectors(tensors, context), density, outliers), weights, context, scale)


def _mask_tasks(tasks: Iterable[Array], density: float, outliers: float) -> Iterator[Array]:
    for task in tasks:
        keep, largest = int(density * task.size), int(outliers * task.size)
        begin = max(task.size - keep - largest, 0)
        if not keep:
            yield np.zeros_like(task)
            continue
        sizes, ends = magnitudes(task), [begin, begin + keep - 1]
        # Equal magnitudes stay or go together, so that no order among them counts.
        low, high = np.partition(sizes, ends, axis=None)[ends]
        yield np.where((sizes >= low) & (sizes <= high), task, 0)
