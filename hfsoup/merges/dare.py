"""Drop changes at random, and rescale the rest."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from hfsoup.merges import Array, Context, Tensors, Weights, add_to_base, merge, task_vectors


@merge(
    "dare",
    paper="arXiv:2311.03099",
    citation=(
        "Yu et al., Language models are super Mario: absorbing abilities from homologous models as a free "
        "lunch, ICML 2024, https://arxiv.org/abs/2311.03099"
    ),
    summary="task arithmetic with changes dropped at random; the --density share that is kept is divided by it",
    needs_base=True,
    elementwise=False,
)
def dare(
    tensors: Tensors,
    weights: Weights,
    context: Context,
    *,
    scale: float = 1.0,
    density: float = 0.5,
    seed: int = 0,
) -> Array:
    """θ0 + λ times the mean of τᵢ ⊙ Bernoulli(d)/d for the density d = 1 − p."""
    tasks = zip(context.members, task_vectors(tensors, context), strict=True)
    rest = (task * _draw_mask(task.shape, f"{seed} {place} {context.name}", density) / density for place, task in tasks)
    return add_to_base(rest, weights, context, scale)


def _draw_mask(shape: tuple[int, ...], key: str, density: float) -> NDArray[np.bool_]:
    """Which elements stay: the same for one key of seed, ingredient and tensor, whatever else is in the mix.

    Raw draws of a bit generator are the same in every version of numpy, those of distributions are not.
    """
    lot = hashlib.sha256(key.encode()).digest()
    drawn = np.random.PCG64(int.from_bytes(lot, "big")).random_raw(int(np.prod(shape)))
    stays: NDArray[np.bool_] = (np.asarray(drawn) >> np.uint64(11)).reshape(shape) < density * 2.0**53
    return stays
