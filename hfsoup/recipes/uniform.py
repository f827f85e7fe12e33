"""The mean of all ingredients."""

from __future__ import annotations

from hfsoup.averaging.mix import Mix
from hfsoup.recipes import recipe
from hfsoup.recipes._search import Search


@recipe(
    "uniform",
    paper="arXiv:2203.05482",
    summary="the mean of all ingredients above the floor; needs no data",
    needs_data=False,
    evaluations=lambda k: k + 1,
)
def uniform(search: Search) -> Mix:
    """Take every ingredient, the best ones first where there is a cap."""
    return search.mix(search.ranked[: search.cap])
