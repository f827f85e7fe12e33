"""One tensor of every ingredient becomes one: by the merge, or by the rules for what a merge does not combine."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from math import fsum, sqrt
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hfsoup.merges import EMPTY, MERGES, PLAIN, Array, Context, magnitudes
from hfsoup.merges.mean import mean

Read = Callable[[str], Iterable[NDArray[Any]]]
NONE: Mapping[str, Any] = {}
STATISTICS = ("running_mean", "running_var")


@dataclass(frozen=True)
class BaseTensor:
    """The base in one mix: the same block of its tensor of a name, None where it has none that fits, and its share."""

    read: Callable[[str], NDArray[Any] | None]
    share: float = 0.0


NO_BASE = BaseTensor(lambda _: None)


class Thresholds:
    """For each ingredient the smallest magnitude among the largest of its task vector, computed once.

    Memory: one float32 for every weight of one ingredient, while that is computed.

    Args:
        task: gives the whole task vector of the ingredient in a place, in pieces.
    """

    def __init__(self, task: Callable[[int], Iterable[Array]]) -> None:
        self._task = task
        self._found: dict[tuple[int, float], float] = {}
        self._lock = Lock()

    def __call__(self, place: int, density: float) -> float:
        """The magnitude, in float32, from which on elements are among the `density` share; at least one element is."""
        with self._lock:
            if (place, density) not in self._found:
                sizes = np.concatenate([np.zeros(0, np.float32), *(magnitudes(t).ravel() for t in self._task(place))])
                first = len(sizes) - max(int(density * len(sizes)), 1)
                self._found[place, density] = float(np.partition(sizes, first)[first]) if len(sizes) else 0.0
            return self._found[place, density]


class ImportanceNorms:
    """For each ingredient the L2 norm of its importance over all tensors, computed once.

    Args:
        read: gives the importance of the ingredient in a place, in pieces that are always the same.
    """

    def __init__(self, read: Callable[[int], Iterable[NDArray[Any]]]) -> None:
        self._read = read
        self._found: dict[int, float] = {}
        self._lock = Lock()

    def __call__(self, place: int) -> float:
        """The norm, in float64."""
        with self._lock:
            if place not in self._found:
                squares = (float(np.square(piece, dtype=np.float64).sum()) for piece in self._read(place))
                self._found[place] = sqrt(fsum(squares))
            return self._found[place]


def combine(
    name: str,
    read: Read,
    weights: Sequence[float],
    merge: str,
    *,
    floats: bool,
    root: BaseTensor = NO_BASE,
    context: Context = PLAIN,
    parameters: Mapping[str, Any] = NONE,
) -> NDArray[Any]:
    """One tensor of every member into one.

    Floats go through the merge, except batch-norm statistics: running_mean is averaged and running_var pooled as
    Σwᵢ(σᵢ² + (μᵢ − μ̄)²), the variance of all that the ingredients saw. Integers are counters: the largest stays. What
    the base lacks, or importance says nothing of, is averaged. What has a negative coefficient or share has no part in
    batch-norm statistics.

    Args:
        name: the tensor's name.
        read: gives that tensor, or the same block of it, of every member with a coefficient, and of others by name.
        weights: the members' coefficients.
        merge: the name of the merge; `mean` of one ingredient that stays as it is.
        floats: whether the tensor holds floats.
        root: the base, where there is one.
        context: what else the merge may know.
        parameters: the merge's own arguments.
    """
    if not floats:
        largest: NDArray[Any] = np.asarray(np.maximum.reduce(list(read(name))))
        return largest
    chosen, base = MERGES.get(merge), root.read(name)
    share = root.share if base is not None else 0.0
    if name.endswith(STATISTICS):
        # Beyond the ingredients there are no images whose statistics could be pooled.
        share, weights = max(share, 0.0), _drop_negative(weights)
    shares = [*(w * (1 - share) for w in weights), share] if share else weights

    def everyone(name: str) -> Iterable[NDArray[Any]]:
        own = root.read(name) if share else None
        return read(name) if own is None else chain(read(name), [own])

    if name.endswith("running_var"):
        centres = list(everyone(name.removesuffix("var") + "mean"))
        centre = mean(centres, shares, context)
        return mean([v + (m - centre) ** 2 for v, m in zip(everyone(name), centres, strict=True)], shares, context)
    lacking = (chosen.needs_base and base is None) or (chosen.importance and context.importance is None)
    if lacking or merge == "mean" or name.endswith("running_mean"):
        return mean(everyone(name), shares, context)
    known = replace(context, base=EMPTY if base is None else base)
    merged: NDArray[Any] = chosen.function(read(name), weights, known, **parameters)
    return merged if base is None or not share else (1 - share) * merged + share * base


def _drop_negative(weights: Sequence[float]) -> Sequence[float]:
    """Weights with 0 for those that are negative, so that they still sum to one."""
    if min(weights) >= 0:
        return weights
    positive = [max(weight, 0.0) for weight in weights]
    return [weight / sum(positive) for weight in positive]
