"""Weights learned by gradient descent."""

from __future__ import annotations

from hfsoup.averaging.mix import Mix
from hfsoup.recipes import recipe
from hfsoup.recipes._search import Search

EPOCHS = 5


@recipe(
    "learned",
    paper="arXiv:2203.05482",
    summary="weights learned by gradient descent on half of the selection split, scored on its other half",
    evaluations=lambda k, /, **_: k + 2,
    epochs=EPOCHS,
)
def learned(search: Search, *, per_tensor: bool = False, free: bool = False) -> Mix:
    """Take the learned weights, whatever they score; the mean is scored too.

    They are the shares of an average, or with `free` sum to one with any sign, which reaches past the ingredients.
    """
    members = search.ranked[: search.cap]
    found = search.learn(members, per_tensor=per_tensor, free=free)
    search.attempt("uniform", search.mix(members))
    search.attempt("learned", found)
    return found
