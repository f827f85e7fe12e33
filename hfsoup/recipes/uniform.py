"""The mean of all ingredients."""

from __future__ import annotations

from hfsoup.recipes import recipe
from hfsoup.searching import Search


@recipe(
    "uniform",
    paper="arXiv:2203.05482",
    summary="the mean of all ingredients above the floor; needs no data",
    needs_data=False,
    evaluations=lambda k, _: k + 1,
)
def uniform(search: Search) -> tuple[int, ...]:
    """Take every ingredient, the best ones first where there is a cap."""
    return search.ranked[: search.cap]
