"""The line from the base through a soup: beyond the soup it is extrapolated."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from hfsoup.averaging.mix import Mix
from hfsoup.recipes._search import Search

STEPS = 5
"""Mixes beyond the soup that are scored: α = 1.2, 1.4 … 2."""
SHARES = tuple(-n / STEPS for n in range(1, STEPS + 1))
"""Of the base in each."""
NAME = "past the mean"


def extrapolate(search: Search, name: str, recipe: Callable[[Search], Mix]) -> Mix:
    """(1 − α)θ0 + αθ with θ the mix that a recipe finds and the α in 1, 1.2 … 2 that scores best.

    Of equal scores the one with the lowest cross-entropy is taken, else the one nearest to θ, so that the soup never
    scores less on the selection split than θ does.

    Args:
        search: what the recipe may call, with a base.
        name: of the recipe, under which its mix is listed where it lists none itself; the mix beyond is listed if it
            is taken.
        recipe: finds the mix.
    """
    found = recipe(search)
    if not search.attempts:
        search.attempt(name, found)
    drawn = search.walk(NAME, partial(Search.follow_line, action="extrapolate", mix=found, shares=SHARES))
    if drawn != found:
        search.attempt(NAME, drawn)
    return drawn
