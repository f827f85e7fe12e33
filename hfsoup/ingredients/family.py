"""A family: ingredients that can be averaged together, and what was found out about them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from hfsoup.checkpoints.types import Ingredient, TensorSpec

if TYPE_CHECKING:
    from hfsoup.checkpoints.types import WeightFile
    from hfsoup.data.dataset_split import Split


@dataclass(frozen=True)
class Base:
    """The model that the ingredients were fine-tuned from.

    `names` are its names of the family's tensors that it has in the same shape and for the same classes, `lacking` the
    other float tensors. `order` is its row for each class of the reference, None if the order is the same.
    """

    ingredient: Ingredient
    names: dict[str, str]
    lacking: tuple[str, ...] = ()
    order: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Alignment:
    """How the units of the ingredients were matched to those of the first one.

    `method` and `seed` are those of the matching, `images` the unlabelled images that it used. `originals` are the
    ingredients before it, `orders` the orders of their classes, which all aligned copies have in common. `fitted` is
    the network that was fitted to all of them, if one was.
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

    Args:
        ingredients: the checkpoints.
        config: the reference's config.json.
        labels: the reference's class names, in the order of its head's rows.
        shards: the reference's tensors, file by file, with the dtype of the soup.
        orders: for each ingredient the row of every class of the reference; None where the order is the same.
        class_axes: the axis that runs over the classes, for every tensor that has one and must be reordered.
        reference_only: tensors that every mix takes from the reference.
        processor_index: the ingredient whose image processor is the soup's.
        dropped: names of tensors that the classifier does not have.
        dtypes: the float types, where the ingredients differ in them.
        skipped: ingredients that were left out, each with the reason.
        custom: ingredients whose files name code of their own, which is never run.
        base: the model that the ingredients started from, where the recipe or merge needs it.
        alignment: how the units of the ingredients were permuted; they are then copies in the cache.
        importance: what was estimated for a merge.
        wrappers: ingredients with the prefix that a wrapper had added to the names of their tensors.
        weights_apart: whether the weights are too far apart to be averaged, as far as they were compared.
        task_cosine: the mean cosine between the task vectors, where the base is known.
    """

    ingredients: tuple[Ingredient, ...]
    config: dict[str, Any]
    labels: tuple[str, ...]
    shards: tuple[tuple[TensorSpec, ...], ...]
    orders: tuple[tuple[int, ...] | None, ...]
    class_axes: dict[str, int] = field(default_factory=dict)
    reference_only: frozenset[str] = frozenset()
    processor_index: int = 0
    dropped: tuple[str, ...] = ()
    dtypes: tuple[str, ...] = ()
    skipped: tuple[tuple[Ingredient, str], ...] = ()
    custom: tuple[Ingredient, ...] = ()
    base: Base | None = None
    alignment: Alignment | None = None
    importance: Importance | None = None
    wrappers: tuple[tuple[Ingredient, str], ...] = ()
    weights_apart: bool = False
    task_cosine: float | None = None

    @property
    def fitted(self) -> Ingredient | None:
        """The network that replaces every average, if one was fitted."""
        return self.alignment.fitted if self.alignment else None

    @property
    def processor_ingredient(self) -> Ingredient:
        """The ingredient whose image processor is the soup's."""
        return self.ingredients[self.processor_index]

    @property
    def reference(self) -> Ingredient:
        """The first ingredient: the soup has its config and the layout of its files."""
        return self.ingredients[0]

    @property
    def tensors(self) -> tuple[TensorSpec, ...]:
        """Every tensor of the reference."""
        return tuple(spec for shard in self.shards for spec in shard)

    @property
    def content(self) -> list[Any]:
        """What identifies all tensors that averages may use: hashes of files, and the names that are taken of them."""
        more = [one for one in (self.base and self.base.ingredient, self.fitted) if one]
        estimates = self.importance.files if self.importance else ()
        return [*(one.content for one in (*self.ingredients, *more)), [file.blake3 for file in estimates]]

    @property
    def has_batch_norm(self) -> bool:
        """Whether the model has running statistics of batch norms."""
        return any(spec.name.endswith("running_var") for spec in self.tensors)

    def __len__(self) -> int:
        return len(self.ingredients)


@dataclass(frozen=True)
class Importance:
    """What was estimated for a merge, such as Fisher information.

    `images` are the unlabelled images that it used; `files` hold the estimates in hfsoup's cache, one for each
    ingredient, with the classes in the order of the reference.
    """

    kind: str
    seed: int
    images: Split
    files: tuple[WeightFile, ...]

    def replace_weights(self, ingredients: Sequence[Ingredient]) -> list[Ingredient]:
        """The ingredients, each with its estimates in place of its weights."""
        pairs = zip(ingredients, self.files, strict=True)
        return [replace(ingredient, weights=(file,), adapter=None) for ingredient, file in pairs]
