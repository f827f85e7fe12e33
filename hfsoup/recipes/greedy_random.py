"""Greedy, with the order of the others drawn by lot."""

from __future__ import annotations

from random import Random

from hfsoup.recipes import recipe
from hfsoup.recipes.greedy import at_most, grow
from hfsoup.searching import Search
from hfsoup.types import Mix


@recipe(
    "greedy-random",
    paper="arXiv:2301.10092",
    summary="as greedy, but the others come in an order shuffled by --seed",
    evaluations=at_most,
    reads=("passes",),
)
def greedy_random(search: Search) -> Mix:
    """Start at the best ingredient; the order of the others does not depend on their scores."""
    best, *others = search.ranked
    others.sort()
    Random(search.rules.seed).shuffle(others)  # noqa: S311 - an order, not a secret
    return grow(search, best, others)
