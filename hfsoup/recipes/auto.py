"""The best of uniform, greedy and pruned."""

from __future__ import annotations

from hfsoup.averaging.mix import Mix
from hfsoup.recipes import greedy, pruned, recipe
from hfsoup.recipes._search import Search
from hfsoup.recipes.uniform import uniform

WALKS = {"uniform": uniform, "greedy": greedy.greedy, "pruned": pruned.pruned}


@recipe(
    "auto",
    paper="arXiv:2203.05482",
    summary="uniform, greedy and pruned, which share their scores; keeps what scores best on the selection split",
    evaluations=lambda k, rules: greedy.count_evaluations(k, rules) + pruned.count_evaluations(k, rules) - k,
    choices=len(WALKS),
    reads=("passes", "keep_best"),
)
def auto(search: Search) -> Mix:
    """Run all three; of equal ones the first stays."""
    found = [search.run(name, walk) for name, walk in WALKS.items()]
    return max(found, key=lambda mix: search.score(mix).key)
