"""Where the largest changes of a whole ingredient begin."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from threading import Lock

import numpy as np

from hfsoup.merges import Array, magnitudes


class Thresholds:
    """For each ingredient the smallest magnitude among the largest of its task vector, found when first asked for.

    Memory: one float32 for every weight of one ingredient, while it is looked at.

    Args:
        task: gives the whole task vector of the ingredient in a place, in pieces.
        density: the share that is kept; at least one element is.
    """

    def __init__(self, task: Callable[[int], Iterable[Array]], density: float) -> None:
        self._task, self._density = task, density
        self._found: dict[int, float] = {}
        self._lock = Lock()

    def __call__(self, place: int) -> float:
        """The magnitude, in float32, from which on elements are kept; equal ones all are."""
        with self._lock:
            if place not in self._found:
                sizes = np.concatenate([np.zeros(0, np.float32), *(magnitudes(t).ravel() for t in self._task(place))])
                first = len(sizes) - max(int(self._density * len(sizes)), 1)
                self._found[place] = float(np.partition(sizes, first)[first]) if len(sizes) else 0.0
            return self._found[place]
