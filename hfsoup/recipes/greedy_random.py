"""Greedy, with the others in random order."""

from __future__ import annotations

from random import Random

from hfsoup.averaging.mix import Mix
from hfsoup.recipes import recipe
from hfsoup.recipes._search import Search
from hfsoup.recipes.greedy import count_evaluations, grow_mix
from hfsoup.recipes.pruned import CITATION


@recipe(
    "greedy-random",
    paper="arXiv:2301.10092",
    citation=CITATION,
    summary="as greedy, but the others come in an order shuffled by --seed",
    evaluations=count_evaluations,
)
def greedy_random(search: Search, *, passes: int = 1) -> Mix:
    """Start at the best ingredient; the order of the others does not depend on their scores."""
    best, *others = search.ranked
    others.sort()
    Random(search.rules.seed).shuffle(others)  # noqa: S311 - an order, not a secret
    return grow_mix(search, best, others, passes)
