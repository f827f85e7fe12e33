"""Drop changes by lot, and enlarge the rest."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hfsoup.merges import Array, Context, add_to_base, merge, task_vectors


@merge(
    "dare",
    paper="arXiv:2311.03099",
    summary="task arithmetic with changes dropped by lot, --density of them kept and divided by it",
    needs_data=False,
    needs_base=True,
    elementwise=False,
    density=0.5,
    reads=("scale", "density"),
)
def dare(tensors: Iterable[NDArray[Any]], weights: Sequence[float], context: Context) -> Array:
    """θ0 + λΣ τᵢ ⊙ Bernoulli(d)/d for the density d = 1 − p; λ = 1/k unless given."""
    tasks = zip(context.members, task_vectors(tensors, context), strict=True)
    kept = (task * _draw_mask(place, task.shape, context) / context.density for place, task in tasks)
    return add_to_base(kept, weights, context)


def _draw_mask(place: int, shape: tuple[int, ...], context: Context) -> NDArray[np.bool_]:
    """Which elements stay: the same for one seed, tensor and ingredient, whatever else is in the mix.

    Raw draws of a bit generator are the same in every version of numpy, those of distributions are not.
    """
    lot = hashlib.sha256(f"{context.seed} {place} {context.name}".encode()).digest()
    drawn = np.random.PCG64(int.from_bytes(lot, "big")).random_raw(int(np.prod(shape)))
    stays: NDArray[np.bool_] = (np.asarray(drawn) >> np.uint64(11)).reshape(shape) < context.density * 2.0**53
    return stays
