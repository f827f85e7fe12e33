"""Recipes: each decides which ingredients a soup has. One file a recipe; a new file here is a new recipe."""

from __future__ import annotations

from collections.abc import Callable

from hfsoup.registry import Registry
from hfsoup.searching import Search

Recipe = Callable[[Search], tuple[int, ...]]
RECIPES: Registry[Recipe] = Registry("recipe", "hfsoup.recipes")
recipe = RECIPES.register
