"""What a card says of its ingredients and of how they were made one, in sentences."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from hfsoup.checkpoints.dtypes import FLOAT_NAMES
from hfsoup.networks.importance import KINDS
from hfsoup.reports.card.formatting import escape_markdown
from hfsoup.utils.text import join_names, shorten_names

if TYPE_CHECKING:
    from hfsoup.checkpoints.types import Ingredient
    from hfsoup.ingredients.family import Alignment, Base, Importance
    from hfsoup.provenance.result import BakeResult


def describe_preparation(soup: BakeResult, names: list[str]) -> Iterator[str]:
    """How the ingredients were brought together where they differ."""
    family = soup.family
    if family.alignment:
        yield _describe_alignment(family.alignment, names[0])
    if family.importance:
        yield _describe_importance(family.importance)
    if family.reference_only:
        yield (
            f"The ingredients' classes differ. The head is that of {names[0]} in every mix, and in the score of every"
            " ingredient alone; only the other tensors were averaged."
        )
    if soup.images and soup.images.learning:
        yield from _describe_learning(soup)
    if soup.options.processor_from:
        yield f"Image processor: that of {names[family.processor_index]}, for every score and for this model."
    if family.base:
        yield from _describe_base(soup, family.base)
    if family.dropped:
        dropped = escape_markdown(join_names(family.dropped, 6), 600)
        yield f"Tensors that the classifier does not have were left out: {dropped}."
    if family.dtypes:
        yield f"The ingredients' weights are stored in {' and '.join(FLOAT_NAMES[dtype] for dtype in family.dtypes)}."
    if family.skipped:
        left_out = ", ".join(name_ingredients(*(i for i, _ in family.skipped)))
        yield f"Given, but unlike the others and left out: {left_out}."


def _describe_learning(soup: BakeResult) -> Iterator[str]:
    """What the weights are that were learned, and what for."""
    if soup.mix.tensors:
        yield (
            f"{len(soup.mix.tensors)} tensors have weights of their own, which `soup.json` holds. The table gives their"
            " mean by size, the least and the largest; everything else, batch-norm statistics included, has the mean."
        )
    if soup.options.merge != "mean":
        yield f"The weights were learned for the mean, and are here those of the merge {soup.options.merge}."


def _describe_base(soup: BakeResult, base: Base) -> Iterator[str]:
    """The base, and what of it is in the soup."""
    mix, share = soup.mix, ""
    if mix.base > 0:
        share = f" It weighs {mix.base:g} beside the ingredients."
    elif mix.base:
        share = (
            f" The weights were extrapolated from it through the merge of the ingredients, to α = {mix.alpha:g} in"
            " θ₀ + α(θ − θ₀); α was chosen on the selection split."
        )
    revision, (name,) = base.ingredient.source.revision, name_ingredients(base.ingredient)
    commit = f" at commit `{revision}`" if revision else ", a local folder"
    yield f"Base, which the ingredients were fine-tuned from: {name}{commit}.{share}"
    if base.lacking:
        names = escape_markdown(join_names(base.lacking, 6), 600)
        yield f"Averaged over the ingredients alone, for the base has none that fit: {names}."


def _describe_alignment(found: Alignment, first: str) -> str:
    """How the ingredients came into one basis, and whether what is shipped is an average at all."""
    how = "the products of their weights"
    if found.method == "activations":
        how = f"the correlations of their activations on {_describe_images(found)}"
    text = f"The ingredients were aligned: the units of each were put in the order of those of {first} by {how}."
    if not found.fitted:
        return text
    return (
        f"{text} Then one network was fitted to all of them, layer by layer, by ridge regression on"
        f" {_describe_images(found)}. Its weights are new ones, learnt from images, not an average of the ingredients'."
    )


def _describe_importance(found: Importance) -> str:
    """What the merge knows of every ingredient besides its weights."""
    what = KINDS.get(found.kind).summary
    return f"The merge weighs every ingredient by {what}, estimated on {_describe_images(found)}."


def _describe_images(found: Alignment | Importance) -> str:
    name = escape_markdown(found.images and found.images.name)
    return f"{len(found.images or ())} images of *{name}*, without their labels"


def name_ingredients(*ingredients: Ingredient) -> list[str]:
    """Ingredients as cards call them, among each other: the rest of a folder's path is the user's own business."""
    return list(map(escape_markdown, shorten_names([(i.id, i.source.revision) for i in ingredients])))
