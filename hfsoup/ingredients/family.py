"""Ingredients that may be averaged together, and what belongs to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from hfsoup.checkpoints.types import Ingredient, TensorSpec

if TYPE_CHECKING:
    from hfsoup.checkpoints.types import Ingredient, WeightFile
    from hfsoup.data.images import Split


@dataclass(frozen=True)
class Base:
    """The model that the ingredients were fine-tuned from.

    `names` are its own names of the family's tensors that it has in the same shape and for the same classes, `lacking`
    the floats among the others; `order` takes the reference's class c to its row, None where the order is the same.
    """

    ingredient: Ingredient
    names: dict[str, str]
    lacking: tuple[str, ...] = ()
    order: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Alignment:
    """How the ingredients of a family came into the first one's basis.

    `method` and `seed` say how units were matched, `images` which ones were looked at without their labels. `originals`
    are the ingredients as they were pulled, `orders` those of their classes, which the aligned copies have no more;
    `fitted` is the network that was fitted to all of them, if one was.
    """

    method: str
    seed: int
    originals: tuple[Ingredient, ...]
    orders: tuple[tuple[int, ...] | None, ...]
    images: Split | None = None
    fitted: Ingredient | None = None


@dataclass(frozen=True)
class Family:
    """Ingredients that may be averaged, in the order given; the first one is the reference.

    `orders[i]` takes the reference's class c to ingredient i's row, or is None where the labels are in the same order;
    `heads` names the tensors whose axis runs over the classes; `shards` are the reference's tensors, file by file, with
    the dtype of the soup. `kept` are tensors that are the reference's own in every mix; `processed_by` is the index of
    the ingredient whose image processor is the soup's. `dropped` are tensors that the classifier does not have,
    `dtypes` the float types where ingredients differ in them, and `skipped` those left out, each with the reason;
    `wrappers` are ingredients with what a wrapper had added to the names of their tensors, `custom` those that name
    code of their own.
    `base` is there where recipe or merge need it, `importance` once it was estimated for a merge; `alignment` is set
    once the ingredients were permuted: then they are copies in the cache.
    """

    ingredients: tuple[Ingredient, ...]
    config: dict[str, Any]
    labels: tuple[str, ...]
    shards: tuple[tuple[TensorSpec, ...], ...]
    orders: tuple[tuple[int, ...] | None, ...]
    heads: dict[str, int] = field(default_factory=dict)
    kept: frozenset[str] = frozenset()
    processed_by: int = 0
    dropped: tuple[str, ...] = ()
    dtypes: tuple[str, ...] = ()
    skipped: tuple[tuple[Ingredient, str], ...] = ()
    custom: tuple[Ingredient, ...] = ()
    base: Base | None = None
    alignment: Alignment | None = None
    importance: Importance | None = None
    wrappers: tuple[tuple[Ingredient, str], ...] = ()

    @property
    def fitted(self) -> Ingredient | None:
        """The network that takes the place of every average, where one was fitted."""
        return self.alignment.fitted if self.alignment else None

    @property
    def processing(self) -> Ingredient:
        """The ingredient whose image processor is the soup's."""
        return self.ingredients[self.processed_by]

    @property
    def reference(self) -> Ingredient:
        """The first ingredient: its layout, config and processor are the soup's."""
        return self.ingredients[0]

    @property
    def tensors(self) -> tuple[TensorSpec, ...]:
        """Every tensor of the reference."""
        return tuple(spec for shard in self.shards for spec in shard)

    @property
    def has_batch_norm(self) -> bool:
        """Whether the model keeps statistics of its activations."""
        return any(spec.name.endswith("running_var") for spec in self.tensors)

    def __len__(self) -> int:
        return len(self.ingredients)


@dataclass(frozen=True)
class Importance:
    """What was estimated for a merge.

    `images` are those that were looked at, without their labels; `files` hold what came of it in hfsoup's cache, one
    for each ingredient, its classes in the order of the family's reference.
    """

    kind: str
    seed: int
    images: Split
    files: tuple[WeightFile, ...]

    def told(self, ingredients: Sequence[Ingredient]) -> list[Ingredient]:
        """The ingredients with what was estimated of them in the place of their weights."""
        pairs = zip(ingredients, self.files, strict=True)
        return [replace(ingredient, weights=(file,), adapter=None) for ingredient, file in pairs]
