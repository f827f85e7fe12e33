"""The record of a distilled network, and the family with it as one ingredient more."""

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
"""The views of every image; from then on views repeat, and the ingredients' logits are known."""


@dataclass(frozen=True)
class Distillation:
    """A network in hfsoup's cache that was trained to match the mean logits of `members`.

    `start` is the mix that the training started from, and `before` its score on the selection split; `images` were seen
    `epochs` times without their labels, in an order drawn from `seed`.
    """

    ingredient: Ingredient
    members: tuple[int, ...]
    start: Mix
    before: Score
    images: Split
    epochs: int
    seed: int

    @property
    def description(self) -> str:
        """The training in words, for card, screen and report."""
        return describe_distillation(len(self.members), len(self.images), self.epochs)

    def to_json(self) -> dict[str, Any]:
        """The record in `--json`."""
        return {
            "said": self.description,
            "members": list(self.members),
            "start": list(self.start.coefficients),
            "start_score": self.before.value,
            "images": len(self.images),
            "epochs": self.epochs,
            "seed": self.seed,
        }


def describe_distillation(members: int, images: int, epochs: int) -> str:
    """A training in words."""
    return (
        f"trained to match the mean logits of {members} ingredients on {images:,} images without labels for"
        f" {format_count(epochs, 'epoch')}; these weights are not an average"
    )


def append_member(family: Family, member: Ingredient) -> tuple[Family, Mix]:
    """The family with one more ingredient, and the mix of this one alone."""
    whole = replace(
        family,
        ingredients=(*family.ingredients, member),
        orders=(*family.orders, None),
        alignment=None,
        importance=None,
    )
    return whole, Mix.of((len(family),), len(whole))


def count_forwarded(images: int, epochs: int, members: int) -> int:
    """Images that a training forwards through members and network; members see every view once."""
    return images * (epochs + members * min(epochs, VIEWS))
