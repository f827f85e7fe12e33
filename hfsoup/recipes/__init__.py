"""Recipes: each decides how much of which ingredient a soup has. One file a recipe; a new file here is a new recipe."""

from __future__ import annotations

from collections.abc import Callable

from hfsoup.averaging.mix import Mix
from hfsoup.recipes._search import Search
from hfsoup.utils.registry import Registry

Recipe = Callable[[Search], Mix]
RECIPES: Registry[Recipe] = Registry("recipe", "hfsoup.recipes")
recipe = RECIPES.register
