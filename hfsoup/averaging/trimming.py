"""The smallest of the largest changes of a whole ingredient."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from threading import Lock

import numpy as np

from hfsoup.merges import Array, magnitudes


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
