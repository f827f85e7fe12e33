"""The mean with weights that are given, or that follow from the scores."""

from __future__ import annotations

from math import exp

from hfsoup.averaging.mix import Mix
from hfsoup.recipes import recipe
from hfsoup.recipes._search import Search
from hfsoup.utils.errors import UsageError


@recipe(
    "weighted",
    paper="arXiv:2203.05482",
    summary="all, with the weights that --weights gives, or with weights that grow with the selection score",
    needs_data=False,
    evaluations=lambda k, _: k + 1,
    reads=("weights", "temperature"),
)
def weighted(search: Search) -> Mix:
    """Take the given weights, in any scale, or wᵢ ∝ exp((mᵢ − max m)/T) of the scores m."""
    given, kept = search.rules.weights, search.ranked[: search.cap]
    if given is None:
        scores = {i: search.score(search.mix((i,))).value for i in kept}
        best = max(scores.values())
        return search.weighted({i: exp((m - best) / search.rules.temperature) for i, m in scores.items()})
    if len(given) != len(search.names):
        what = f"{len(given)} weights for {len(search.names)} ingredients"
        raise UsageError(what, hint="one weight for each, in the order of the ingredients")
    if not any(given[i] for i in kept):
        raise UsageError("every ingredient that is left weighs 0", hint="other --weights, or a lower --min-score")
    return search.weighted({i: given[i] for i in kept})
