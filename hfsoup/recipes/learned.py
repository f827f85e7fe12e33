"""Weights that are learned."""

from __future__ import annotations

from hfsoup.averaging.mix import Mix
from hfsoup.recipes import recipe
from hfsoup.recipes._search import Search

EPOCHS = 5


@recipe(
    "learned",
    paper="arXiv:2203.05482",
    summary="weights learned by gradient descent on half of the selection split, scored on its other half",
    evaluations=lambda k, _: k + 2,
    learns=EPOCHS,
    reads=("per_tensor",),
)
def learned(search: Search) -> Mix:
    """Take the weights that were learned, whatever they score; the mean is scored beside them."""
    kept = search.ranked[: search.cap]
    found = search.learn(kept)
    search.attempt("uniform", search.mix(kept))
    search.attempt("learned", found)
    return found
