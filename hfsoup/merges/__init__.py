"""Merges: each combines one tensor of every ingredient into one. One file a merge; a new file here is a new merge.

A merge gets the ingredients' tensors one after the other, their weights, which sum to one, and a `Context`; its
keyword-only arguments are options of the user. It returns float64 in the shape it was given and never writes into an
input. One ingredient alone stays as it is, but for merges that are registered with `changes_single`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hfsoup.utils.registry import Entry, Registry

Array = NDArray[np.float64]
Tensors = Iterable[NDArray[Any]]
Weights = Sequence[float]
EMPTY: NDArray[Any] = np.empty(0)


@dataclass(frozen=True)
class Context:
    """What a merge may know besides values, weights and its own arguments.

    Args:
        name: the tensor's name; of the first one where several neighbours are merged as one.
        members: the places of the ingredients that take part, among all that were given.
        base: the base's values, for merges that are registered with `needs_base`.
        threshold: for the place of an ingredient and a density, the smallest magnitude, in float32, in that share of
            its task vector's largest ones, over all tensors that it has in common with the base.
        importance: for merges that are registered with a kind of importance, the importance of the values, for each
            ingredient of the mix in turn: of the block where the merge is elementwise, else of the whole tensor, in a
            shape of its own. A tensor without importance is averaged, and the merge is not called.
        importance_norm: for the place of an ingredient, the L2 norm of its importance over all tensors.
        shape: the tensor's shape, for merges of whole tensors, whose values may come as one row.
    """

    name: str = ""
    members: tuple[int, ...] = ()
    base: NDArray[Any] = field(default_factory=lambda: EMPTY)
    threshold: Callable[[int, float], float] = lambda *_: 0.0
    importance: Iterable[NDArray[Any]] | None = None
    importance_norm: Callable[[int], float] = lambda _: 1.0
    shape: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class MergeEntry(Entry):
    """A merge.

    Attributes:
        needs_data: accepted for symmetry with recipes; a merge never looks at data.
        elementwise: whether any block of a tensor may be merged by itself; else the merge gets whole tensors.
        needs_base: whether it needs the model that the ingredients were fine-tuned from.
        importance: the kind of importance that it needs of every ingredient, which is estimated on images.
        changes_single: whether it also changes an ingredient that was given alone.
    """

    needs_data: bool = False
    elementwise: bool = True
    needs_base: bool = False
    importance: str = ""
    changes_single: bool = False


PLAIN = Context()
MERGES = Registry(
    "merge",
    "hfsoup.merges",
    MergeEntry,
    # mergekit's names of the same, and what an average is called.
    aliases={"linear": "mean", "average": "mean", "nuslerp": "slerp", "dare_linear": "dare"},
)
merge = MERGES.register


def task_vectors(tensors: Tensors, context: Context) -> Iterator[Array]:
    """τᵢ = θᵢ − θ0 in float64."""
    for tensor in tensors:
        yield np.subtract(tensor, context.base, dtype=np.float64)


def add_to_base(tasks: Iterable[Array], weights: Weights, context: Context, scale: float) -> Array:
    """θ0 + λ·Σ wᵢτᵢ, where the weights sum to one: at λ = 1 the mean of the task vectors, however many there are."""
    total = np.zeros(context.base.shape)
    for task, weight in zip(tasks, weights, strict=True):
        total += task * weight
    total *= scale
    total += context.base
    return total


def magnitudes(task: Array) -> NDArray[np.float32]:
    """|τ| as it is ranked: in float32."""
    sizes: NDArray[np.float32] = np.abs(task).astype(np.float32)
    return sizes
