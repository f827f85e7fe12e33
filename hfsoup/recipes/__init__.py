"""Recipes: each decides how much of which ingredient a soup has. One file a recipe; a new file here is a new recipe."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hfsoup.utils.registry import Entry, Registry


@dataclass(frozen=True, kw_only=True)
class RecipeEntry(Entry):
    """A recipe.

    Attributes:
        needs_data: whether it needs scores, and so a dataset.
        needs_base: whether it needs the model that the ingredients were fine-tuned from.
        evaluations: the most mixes that it scores of k ingredients, its result included; called with k by position
            and the recipe's keyword-only arguments by name. None where unknown.
        logits: whether it reads the ingredients' logits.
        epochs: how often it goes over half of the selection split to learn from it.
        extrapolates: whether its soup is drawn past the mean, away from the base, where that is known.
        warning: a sentence for cards.
    """

    needs_data: bool = True
    needs_base: bool = False
    evaluations: Callable[..., int] | None = None
    logits: bool = False
    epochs: int = 0
    extrapolates: bool = False
    warning: str = ""

    def count_evaluations(self, ingredients: int, parameters: dict[str, Any]) -> int | None:
        """The most mixes that it scores, where that is known."""
        return None if self.evaluations is None else self.evaluations(ingredients, **parameters)


RECIPES = Registry(
    "recipe", "hfsoup.recipes", RecipeEntry, aliases={"linear": "uniform", "average": "uniform", "swa": "latest"}
)
recipe = RECIPES.register
