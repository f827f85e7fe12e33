"""The mean with weights that are given, or that follow from the scores."""

from __future__ import annotations

from math import exp, inf

from hfsoup.averaging.mix import Mix
from hfsoup.recipes import recipe
from hfsoup.recipes._search import Search
from hfsoup.utils.errors import UsageError


def parse_weights(text: str) -> tuple[float, ...]:
    """The numbers between commas.

    Raises:
        UsageError: they are no numbers, or cannot be weights.
    """
    try:
        found = tuple(float(number) for number in text.split(","))
    except ValueError as error:
        raise UsageError(f"expected weights as in 0.5,0.3,0.2, found {text!r}") from error
    if not (sum(found) < inf and sum(found) > 0 <= min(found)):
        raise UsageError(f"weights must not be negative, nor all 0, found {found}")
    return found


@recipe(
    "weighted",
    paper="arXiv:2203.05482",
    summary="all, with the weights that --weights gives, or with weights that grow with the selection score",
    needs_data=False,
    evaluations=lambda k, /, **_: k + 1,
)
def weighted(search: Search, *, weights: str | None = None, temperature: float = 0.01) -> Mix:
    """Take the given weights, in any scale, or wᵢ ∝ exp((mᵢ − max m)/T) of the scores m."""
    given, members = parse_weights(weights) if weights is not None else None, search.ranked[: search.cap]
    if given is None:
        scores = {i: search.score(search.mix((i,))).value for i in members}
        best = max(scores.values())
        return search.weighted({i: exp((m - best) / temperature) for i, m in scores.items()})
    if len(given) != len(search.names):
        what = f"{len(given)} weights for {len(search.names)} ingredients"
        raise UsageError(what, hint="one weight for each, in the order of the ingredients")
    if not any(given[i] for i in members):
        raise UsageError("every ingredient that is left weighs 0", hint="other --weights, or a lower --min-score")
    return search.weighted({i: given[i] for i in members})
