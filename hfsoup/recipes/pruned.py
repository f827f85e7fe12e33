"""Start with all ingredients and drop each one whose absence does not lower the score."""

from __future__ import annotations

from hfsoup.averaging.mix import Mix
from hfsoup.recipes import recipe
from hfsoup.recipes._search import Search

CITATION = (
    "Dansereau, Sobral, Bhogal and Zalai, Model soups to increase inference without increasing compute "
    "time, 2023, https://arxiv.org/abs/2301.10092"
)


def count_evaluations(k: int, *, passes: int, keep_best: bool) -> int:  # noqa: ARG001 - the recipe's own
    """Every ingredient alone, all together, then in each pass those that are left."""
    return k + 1 + sum(max(k - n, 0) for n in range(passes))


@recipe(
    "pruned",
    paper="arXiv:2301.10092",
    citation=CITATION,
    summary="from all ingredients on, worst first, drop each whose absence does not lower the selection score",
    evaluations=count_evaluations,
)
def pruned(search: Search, *, passes: int = 1, keep_best: bool = False) -> Mix:
    """Never empties the mix; the best ingredient may go too unless `keep_best`."""
    search.start(search.ranked[: search.cap])
    protected = search.ranked[:1] if keep_best else ()
    for _ in range(passes):
        before = search.current
        for ingredient in reversed(before):
            if len(search.current) > 1 and ingredient not in protected:
                search.offer("drop", ingredient)
        if search.current == before:
            break
    return search.mix(search.current)
