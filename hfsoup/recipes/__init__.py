"""Recipes: each decides how much of which ingredient a soup has. One file a recipe; a new file here is a new recipe."""

from __future__ import annotations

from collections.abc import Callable

from hfsoup.registry import Registry
from hfsoup.searching import Search
from hfsoup.types import Mix

Recipe = Callable[[Search], Mix]
RECIPES: Registry[Recipe] = Registry("recipe", "hfsoup.recipes")
recipe = RECIPES.register
