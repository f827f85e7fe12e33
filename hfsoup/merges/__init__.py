"""Merges: each combines one tensor of every ingredient into one. One file a merge; a new file here is a new merge.

A merge gets the ingredients' tensors one after the other, their weights, which sum to one, and a `Context`. It returns
float64 in the shape it was given and never writes into an input. One ingredient alone is never merged: it stays as it
is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hfsoup.utils.registry import Registry

Array = NDArray[np.float64]
EMPTY: NDArray[Any] = np.empty(0)


@dataclass(frozen=True)
class Context:
    """What a merge may know beside values and weights.

    Args:
        name: the tensor's name; of the first one where several neighbours are merged as one.
        members: the places of the ingredients that take part, among all that were given.
        base: the base's values, for merges that are registered with `needs_base`.
        scale: λ of the task vectors; None leaves it to the merge.
        density: the share of a task vector that is kept, over 0 and at most 1.
        outliers: the share of a task vector that is too large to be kept.
        seed: for what is drawn by lot.
        cut: for the place of an ingredient, the smallest magnitude, in float32, in its task vector's `density` share of
            largest ones, over all tensors that it has in common with the base.
        importance: for merges that are registered with a kind of importance, what that says of the values, for
            each ingredient of the mix in turn: of the block where the merge is elementwise, else of the whole tensor,
            in a shape of its own. Where it says nothing the tensor is averaged, and no merge is asked.
    """

    name: str = ""
    members: tuple[int, ...] = ()
    base: NDArray[Any] = field(default_factory=lambda: EMPTY)
    scale: float | None = None
    density: float = 1.0
    outliers: float = 0.0
    seed: int = 0
    cut: Callable[[int], float] = lambda _: 0.0
    importance: Iterable[NDArray[Any]] | None = None


PLAIN = Context()
Merge = Callable[[Iterable[NDArray[Any]], Sequence[float], Context], Array]
MERGES: Registry[Merge] = Registry("merge", "hfsoup.merges")
merge = MERGES.register


def task_vectors(tensors: Iterable[NDArray[Any]], context: Context) -> Iterator[Array]:
    """τᵢ = θᵢ − θ0 in float64."""
    for tensor in tensors:
        yield np.subtract(tensor, context.base, dtype=np.float64)


def add_to_base(tasks: Iterable[Array], weights: Sequence[float], context: Context) -> Array:
    """θ0 + λΣτᵢ, where a weight counts as a multiple of the mean one.

    Without a scale λ is one over the number of ingredients: what was trained for one task is averaged, not summed up.
    """
    total = np.zeros(context.base.shape)
    for task, weight in zip(tasks, weights, strict=True):
        total += task * weight
    if context.scale is not None:
        total *= context.scale * len(weights)
    total += context.base
    return total


def magnitudes(task: Array) -> NDArray[np.float32]:
    """|τ| as it is ranked: in float32."""
    sizes: NDArray[np.float32] = np.abs(task).astype(np.float32)
    return sizes
