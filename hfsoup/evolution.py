"""CMA-ES, by the cmaes library: ask for points, tell their values, and draw the next ones nearer to the best."""

from __future__ import annotations

from collections.abc import Callable


def evolve(value: Callable[[list[float]], float], size: int, *, budget: int, seed: int) -> None:
    """Ask `value` of `budget` points, each drawn where earlier ones were high (arXiv:1604.00772).

    Args:
        value: how good a point is; the first ones are drawn from a normal distribution of variance 1 about the origin.
        size: the number of coordinates.
        budget: the number of points.
        seed: of the draws.
    """
    import numpy as np
    from cmaes import CMA

    strategy = CMA(mean=np.zeros(size), sigma=1.0, seed=seed)
    for begin in range(0, budget, strategy.population_size):
        points = [strategy.ask() for _ in range(min(strategy.population_size, budget - begin))]
        told = [(point, -value(point.tolist())) for point in points]
        if len(told) == strategy.population_size:
            strategy.tell(told)
