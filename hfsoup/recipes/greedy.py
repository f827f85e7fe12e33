"""Start with the best ingredient and keep each further one that does not lower the score."""

from __future__ import annotations

from hfsoup.averaging.mix import Mix
from hfsoup.recipes import recipe
from hfsoup.recipes._search import Search


def count_evaluations(k: int, *, passes: int) -> int:
    """Every ingredient alone, then in each pass those not yet in; a further pass follows only a gain."""
    return k + sum(max(k - n, 0) for n in range(1, passes + 1))


@recipe(
    "greedy",
    paper="arXiv:2203.05482",
    summary="from the best ingredient on, best first, keep each that does not lower the selection score",
    evaluations=count_evaluations,
)
def greedy(search: Search, *, passes: int = 1) -> Mix:
    """Algorithm 1 of the paper; later passes try again what is not yet in."""
    best, *others = search.ranked
    return grow_mix(search, best, others, passes)


def grow_mix(search: Search, best: int, others: list[int], passes: int) -> Mix:
    """Offer `others` in order to the mix that starts as `best`, until a pass changes nothing or the cap is reached."""
    search.start((best,))
    for _ in range(passes):
        before = search.current
        for ingredient in others:
            if ingredient not in search.current and len(search.current) < search.cap:
                search.offer("add", ingredient)
        if search.current == before:
            break
    return search.mix(search.current)
