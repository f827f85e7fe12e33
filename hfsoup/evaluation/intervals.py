"""Intervals and paired tests on one split: pure functions of counts and predictions."""

from __future__ import annotations

from collections.abc import Callable
from math import exp, lgamma, log, sqrt
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from hfsoup.data.metrics import Rows
from hfsoup.evaluation.scores import ALPHA, Bounds

DRAWS = 1000


def wilson_interval(*, correct: int, total: int) -> Bounds:
    """Wilson's score interval of a share, which covers it with 95 %."""
    share, z = correct / total, NormalDist().inv_cdf(1 - ALPHA / 2)
    centre = (share + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    return max(0.0, centre - half), min(1.0, centre + half)


def mcnemar_test(*, only_first: int, only_second: int) -> float:
    """McNemar's exact two-sided p-value: how likely a split at least this uneven is where neither is better.

    Equal to scipy's `binomtest(only_first, only_first + only_second)` to twelve digits; the last ones would not be
    those of existing records.

    Args:
        only_first: images that only the first of the two has right.
        only_second: images that only the second has right.
    """
    n, k = only_first + only_second, min(only_first, only_second)
    if n == 0:
        return 1.0
    logs = [lgamma(n + 1) - lgamma(i + 1) - lgamma(n - i + 1) - n * log(2) for i in range(k + 1)]
    return min(1.0, 2 * sum(map(exp, logs)))


def draw_bootstrap(first: Callable[[Rows], float], second: Callable[[Rows], float], images: int) -> NDArray[np.float64]:
    """Paired bootstrap draws of two models' values and of their difference, draws × 3.

    Both are drawn on the same images each time, from a fixed seed.

    Args:
        first: the first model's value on some of the images, an image as often as its row is given.
        second: the second model's.
        images: how many there are.
    """
    generator = np.random.Generator(np.random.PCG64(0))
    draws = np.empty((DRAWS, 3))
    for row in draws:
        drawn = generator.integers(0, images, images)
        a, b = first(drawn), second(drawn)
        row[:] = a, b, a - b
    return draws


def percentile_intervals(draws: NDArray[np.float64]) -> list[Bounds]:
    """The percentile interval of each column, which covers 95 %."""
    low, high = np.percentile(draws, [50 * ALPHA, 100 - 50 * ALPHA], axis=0).tolist()
    return list(zip(low, high, strict=True))
