"""The best of uniform, greedy and pruned."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from hfsoup.averaging.mix import Mix
from hfsoup.recipes import greedy, pruned, recipe
from hfsoup.recipes._search import Search
from hfsoup.recipes.uniform import uniform

WALKS = ("uniform", "greedy", "pruned")


def count_evaluations(k: int, *, passes: int, keep_best: bool) -> int:
    """Those of greedy and pruned, which share the scores of every ingredient alone."""
    return (
        greedy.count_evaluations(k, passes=passes) + pruned.count_evaluations(k, passes=passes, keep_best=keep_best) - k
    )


@recipe(
    "auto",
    paper="arXiv:2203.05482",
    summary="uniform, greedy and pruned, which share their scores; keeps what scores best on the selection split, "
    "extrapolated where a base is known",
    evaluations=count_evaluations,
    extrapolates=True,
)
def auto(search: Search, *, passes: int = 1, keep_best: bool = False) -> Mix:
    """Run all three; of equal ones the first stays."""
    walks: dict[str, Callable[[Search], Mix]] = {
        "uniform": uniform,
        "greedy": partial(greedy.greedy, passes=passes),
        "pruned": partial(pruned.pruned, passes=passes, keep_best=keep_best),
    }
    found = [search.run(name, walks[name]) for name in WALKS]
    return max(found, key=lambda mix: search.score(mix).key)
