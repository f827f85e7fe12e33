"""Weights fitted by an evolution strategy."""

from __future__ import annotations

from collections.abc import Callable
from math import exp

from hfsoup.averaging.mix import Mix
from hfsoup.recipes import recipe
from hfsoup.recipes._search import Search

PLACES = 4


def count_evaluations(k: int, *, budget: int) -> int:
    """Every ingredient alone, all together, then the budget."""
    return k + 1 + budget


@recipe(
    "search",
    paper="arXiv:1604.00772",
    citation="Hansen, The CMA evolution strategy: a tutorial, 2016, https://arxiv.org/abs/1604.00772",
    summary="weights fitted to the selection split by CMA-ES in --budget mixes; its score there is the most optimistic",
    evaluations=count_evaluations,
    package="cmaes",
    warning="The weights were fitted to the selection split, so the score there is more optimistic than others",
)
def search(search: Search, *, budget: int = 50) -> Mix:
    """Draw points x, weigh the ingredients by softmax(x) to four places, and keep the best mix of all."""
    members = search.ranked[: search.cap]
    search.attempt("uniform", search.mix(members))
    search.attempt("best ingredient", search.mix(members[:1]))

    def value(point: list[float]) -> float:
        powers = [exp(x - max(point)) for x in point]
        weights = {i: round(power / sum(powers), PLACES) for i, power in zip(members, powers, strict=True)}
        return search.attempt(f"draw {len(search.attempts) - 1}", search.weighted(weights)).key

    if len(members) > 1:
        evolve_points(value, len(members), budget=budget, seed=search.rules.seed)
    return max(search.attempts, key=lambda attempt: attempt.score.key).mix


def evolve_points(value: Callable[[list[float]], float], size: int, *, budget: int, seed: int) -> None:
    """Evaluate `value` at `budget` points, each drawn where earlier ones were high (arXiv:1604.00772).

    Args:
        value: how good a point is; the first ones are drawn from a normal distribution of variance 1 about the origin.
        size: the number of coordinates.
        budget: the number of points.
        seed: of the draws.
    """
    import numpy as np
    from cmaes import CMA

    strategy = CMA(mean=np.zeros(size), sigma=1.0, seed=seed % (1 << 32))
    for begin in range(0, budget, strategy.population_size):
        points = [strategy.ask() for _ in range(min(strategy.population_size, budget - begin))]
        values = [(point, -value(point.tolist())) for point in points]
        if len(values) == strategy.population_size:
            strategy.tell(values)
