"""The record of a network that was trained on its ingredients' answers, and its place beside them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from hfsoup.averaging.mix import Mix
from hfsoup.checkpoints.types import Ingredient
from hfsoup.ingredients.family import Family
from hfsoup.utils.text import format_count

if TYPE_CHECKING:
    from hfsoup.data.dataset_split import Split
    from hfsoup.evaluation.scores import Score

VIEWS = 8
"""Every image is seen in so many forms; after that they come again, and what was said of them is known."""


@dataclass(frozen=True)
class Distillation:
    """A network in hfsoup's cache, trained to match the mean of the logits of `members`. It is no average of weights.

    `start` is the mix whose weights it began with, and `before` that one's score on the selection split; `images` were
    seen `epochs` times without their labels, in an order of `seed`.
    """

    ingredient: Ingredient
    members: tuple[int, ...]
    start: Mix
    before: Score
    images: Split
    epochs: int
    seed: int

    @property
    def said(self) -> str:
        """What was done, in words that card, screen and report share."""
        return describe_distillation(len(self.members), len(self.images), self.epochs)

    def to_json(self) -> dict[str, Any]:
        """What `--json` says of it."""
        return {
            "said": self.said,
            "members": list(self.members),
            "start": list(self.start.coefficients),
            "start_score": self.before.value,
            "images": len(self.images),
            "epochs": self.epochs,
            "seed": self.seed,
        }


def describe_distillation(members: int, images: int, epochs: int) -> str:
    """What a training was, in words."""
    return (
        f"trained to match the mean logits of {members} ingredients on {images:,} images without labels for"
        f" {format_count(epochs, 'epoch')}; these weights are no average"
    )


def append_member(family: Family, made: Ingredient) -> tuple[Family, Mix]:
    """The family with the trained network as one ingredient more, and the mix that is this one alone."""
    whole = replace(
        family, ingredients=(*family.ingredients, made), orders=(*family.orders, None), alignment=None, importance=None
    )
    return whole, Mix.of((len(family),), len(whole))


def count_forwarded(images: int, epochs: int, members: int) -> int:
    """Images that a training forwards, by members and network: the members see every form once."""
    return images * (epochs + members * min(epochs, VIEWS))
