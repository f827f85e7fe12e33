"""Leave out the smallest and the largest changes of every tensor."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hfsoup.merges import Array, Context, add_to_base, magnitudes, merge, task_vectors


@merge(
    "breadcrumbs",
    paper="arXiv:2312.06795",
    summary="task arithmetic without the largest (--outliers) and smallest changes of each tensor, --density kept",
    needs_data=False,
    needs_base=True,
    elementwise=False,
    density=0.1,
    reads=("scale", "density", "outliers"),
)
def breadcrumbs(tensors: Iterable[NDArray[Any]], weights: Sequence[float], context: Context) -> Array:
    """θ0 + λΣ mᵢ ⊙ τᵢ, where mᵢ keeps the `density` share of |τᵢ| next below the `outliers`; λ = 1/k unless given."""
    return add_to_base(_mask_tasks(task_vectors(tensors, context), context), weights, context)


def _mask_tasks(tasks: Iterable[Array], context: Context) -> Iterator[Array]:
    for task in tasks:
        keep, largest = int(context.density * task.size), int(context.outliers * task.size)
        begin = max(task.size - keep - largest, 0)
        if not keep:
            yield np.zeros_like(task)
            continue
        sizes, ends = magnitudes(task), [begin, begin + keep - 1]
        # Equal magnitudes stay or go together, so that no order among them counts.
        low, high = np.partition(sizes, ends, axis=None)[ends]
        yield np.where((sizes >= low) & (sizes <= high), task, 0)
