"""Copies of a family's ingredients that are aligned with the first one, and the network fitted to these copies."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from hfsoup.checkpoints.architecture import build_config
from hfsoup.checkpoints.types import Ingredient
from hfsoup.ingredients.family import Alignment, Family
from hfsoup.networks.alignment.fitting import fit_layers
from hfsoup.networks.alignment.groups import Group, Step, permute_group
from hfsoup.networks.alignment.matching import match_units
from hfsoup.networks.alignment.tables import find_groups, find_steps
from hfsoup.networks.ingredient_tensors import (
    StoredTensors,
    cache_tensors,
    from_torch,
    load_network,
    read_reordered,
    read_tensors,
    to_torch,
)
from hfsoup.networks.network import Network
from hfsoup.utils.progress import Advance
from hfsoup.utils.threads import single_threaded

if TYPE_CHECKING:
    from hfsoup.data.dataset_split import Split


def align_family(
    family: Family,
    *,
    method: str,
    seed: int,
    images: Split | None,
    fitted: bool,
    device: torch.device | None,
    fresh: bool = False,
    advance: Advance = lambda _: None,
) -> Family:
    """The family with copies of its ingredients whose units and classes are in the order of the first one's.

    Args:
        family: ingredients of an architecture whose permutation groups are known.
        method: `weights` or `activations`.
        seed: of the order in which groups are matched by weights.
        images: what activations are compared on and layers are fitted on; labels are not used.
        fitted: also fit one network to all of them.
        device: where the networks run; None where there are no images.
        fresh: make everything again, whatever the cache has.
        advance: called with 1 after every ingredient and every layer.

    Raises:
        SoupError: the permutation groups of the architecture are not known, or, for a fit, its layers are not.
    """
    shapes = {spec.name: spec.shape for spec in family.tensors}
    architecture = str(family.config["model_type"])
    groups = find_groups(architecture, shapes, build_config(family.config).to_dict())
    steps = find_steps(architecture, shapes) if fitted else ()
    aligner = _Aligner(family, method, seed, images, device, fresh)
    ingredients = [family.reference]
    for i in range(1, len(family)):
        ingredients.append(aligner.align_ingredient(i, groups))
        advance(1)
    alignment = Alignment(method, seed, family.ingredients, family.orders, images)
    if fitted:
        alignment = replace(alignment, fitted=aligner.fit_network(ingredients, steps, advance))
    return replace(
        family, ingredients=tuple(ingredients), orders=(None,) * len(family), class_axes={}, alignment=alignment
    )


@dataclass(frozen=True)
class _Aligner:
    """What all ingredients of one family are aligned with; fields as the arguments of `align_family`."""

    family: Family
    method: str
    seed: int
    images: Split | None
    device: torch.device | None
    fresh: bool

    def align_ingredient(self, i: int, groups: Sequence[Group]) -> Ingredient:
        """A copy of ingredient i whose units are in the order of the first one's."""
        family = self.family

        def build() -> StoredTensors:
            first, other = read_reordered(family, 0), read_reordered(family, i)
            network, pixels = (self._network(first), self._pixels()) if self.method == "activations" else (None, None)
            with single_threaded():
                orders = match_units(to_torch(first), to_torch(other), groups, self.seed, network, pixels)
            arrays = {name: array for name, (_, array) in other.items()}
            for group, order in orders:
                arrays = permute_group(arrays, group, order)
            return {name: (other[name][0], array) for name, array in arrays.items()}

        facts = ["copy", repr(groups), family.orders[i], [family.ingredients[n].content for n in (0, i)]]
        return self._cache(facts, build, family.ingredients[i])

    def fit_network(self, ingredients: Sequence[Ingredient], steps: Sequence[Step], advance: Advance) -> Ingredient:
        """The network that is fitted to aligned ingredients, in the dtypes of the family."""
        family = self.family
        dtypes = {spec.name: spec.dtype for spec in family.tensors}

        def build() -> StoredTensors:
            stored = [read_reordered(family, 0), *(read_tensors(family, ingredient) for ingredient in ingredients[1:])]
            with single_threaded():
                states = [to_torch(one) for one in stored]
                found = fit_layers(self._network(stored[0]), states, steps, self._pixels(), advance=advance)
            return from_torch(found, dtypes)

        facts = ["fit", repr(steps), [ingredient.content for ingredient in ingredients], sorted(dtypes.items())]
        return self._cache(facts, build, family.reference)

    def _cache(self, facts: list[Any], build: Callable[[], StoredTensors], like: Ingredient) -> Ingredient:
        """An ingredient with the config of another and one weight file in the cache."""
        images = self.images and [self.images.fingerprint, self.images.pixels.name]
        facts = [*facts, self.method, self.seed, images, str(self.device), version("scipy")]
        file = cache_tensors("aligned", self.family, facts, build, fresh=self.fresh)
        return replace(like, weights=(file,), names={})

    def _network(self, stored: StoredTensors) -> Network:
        """The family's model with the weights of one ingredient."""
        device = self.device or torch.device("cpu")
        return load_network(
            self.family, to_torch(stored), str(self.family.reference), place=lambda model: model.to(device)
        )

    def _pixels(self) -> torch.Tensor:
        """All images in random order."""
        if self.images is None:
            return torch.empty(0)
        order = np.random.default_rng(self.seed % (1 << 64)).permutation(len(self.images))
        return torch.from_numpy(self.images.pixels[order])
