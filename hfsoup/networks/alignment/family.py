"""The aligned copies of a family's ingredients, and the network that is fitted to them, as files in hfsoup's cache."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from hfsoup.checkpoints.architecture import build_config, map_to_model_names
from hfsoup.checkpoints.classifier import Classifier, build_model
from hfsoup.checkpoints.processor import load_image_processor
from hfsoup.checkpoints.safetensors_io import FLOATS, to_stored, write_tensors
from hfsoup.checkpoints.timm_config import list_libraries
from hfsoup.checkpoints.types import Ingredient, describe_file
from hfsoup.ingredients.family import Alignment, Family
from hfsoup.networks.alignment.fitting import fit_layers
from hfsoup.networks.alignment.groups import Group, permute_group
from hfsoup.networks.alignment.matching import match_units
from hfsoup.networks.alignment.tables import find_groups, find_steps
from hfsoup.networks.ingredient_tensors import StoredTensors, read_reordered, read_tensors, to_torch
from hfsoup.networks.network import Network
from hfsoup.utils.cache import cached_folder
from hfsoup.utils.hashing import hash_json
from hfsoup.utils.threads import single_threaded
from hfsoup.utils.version import __version__

if TYPE_CHECKING:
    from hfsoup.data.dataset_split import Split

MADE = "model.safetensors"
LIBRARIES = ("torch", "numpy", "scipy", "transformers")
Advance = Callable[[int], None]


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
    """A family whose ingredients are copies in the basis of the first one, in the order of its classes.

    Args:
        family: ingredients of an architecture whose permutation groups are known.
        method: `weights` or `activations`.
        seed: of the order in which groups are matched by weights.
        images: what activations are compared and layers fitted on; labels are not looked at.
        fitted: also fit one network to all of them.
        device: where the networks run; None where there are no images.
        fresh: make everything again, whatever the cache holds.
        advance: told of every ingredient and of every layer.

    Raises:
        SoupError: the architecture is not known, or only its groups are where a fit is asked for.
    """
    shapes = {spec.name: spec.shape for spec in family.tensors}
    kind = str(family.config["model_type"])
    groups = find_groups(kind, shapes, build_config(family.config).to_dict())
    steps = find_steps(kind, shapes) if fitted else ()
    work = Aligner(family, method, seed, images, device, fresh)
    ingredients = [family.reference]
    for i in range(1, len(family)):
        ingredients.append(work.copy(i, groups))
        advance(1)
    alignment = Alignment(method, seed, family.ingredients, family.orders, images)
    found = replace(
        family, ingredients=tuple(ingredients), orders=(None,) * len(family), class_axes={}, alignment=alignment
    )
    if not fitted:
        return found
    return replace(found, alignment=replace(alignment, fitted=work.fit(ingredients, steps, advance)))


class Aligner:
    """What the ingredients of one family are read, compared and written with."""

    def __init__(
        self, family: Family, method: str, seed: int, images: Split | None, device: torch.device | None, fresh: bool
    ) -> None:
        self._family, self._method, self._seed, self._images = family, method, seed, images
        self._device, self._fresh = device, fresh

    def copy(self, i: int, groups: tuple[Group, ...]) -> Ingredient:
        """Ingredient i in the basis of the first one."""
        family = self._family

        def build(folder: Path) -> None:
            first, other = read_reordered(family, 0), read_reordered(family, i)
            network, pixels = (self._network(first), self._pixels()) if self._method == "activations" else (None, None)
            with single_threaded():
                orders = match_units(to_torch(first), to_torch(other), groups, self._seed, network, pixels)
            arrays = {name: array for name, (_, array) in other.items()}
            for group, order in orders:
                arrays = permute_group(arrays, group, order)
            write_tensors(folder / MADE, {name: (other[name][0], array) for name, array in arrays.items()})

        facts = [family.orders[i], [family.ingredients[n].content for n in (0, i)]]
        return self._kept("aligned", facts, build, family.ingredients[i])

    def fit(self, ingredients: list[Ingredient], steps: Any, advance: Advance) -> Ingredient:
        """The network that is fitted to aligned ingredients, in the dtypes of the family."""
        family = self._family
        dtypes = {spec.name: spec.dtype for spec in family.tensors}

        def build(folder: Path) -> None:
            stored = [read_reordered(family, 0), *(read_tensors(family, ingredient) for ingredient in ingredients[1:])]
            with single_threaded():
                states = [to_torch(one) for one in stored]
                found = fit_layers(self._network(stored[0]), states, steps, self._pixels(), advance=advance)
            arrays = {
                name: to_stored(tensor.cpu().double().numpy(), dtypes[name])
                if dtypes[name] in FLOATS
                else stored[0][name][1]
                for name, tensor in found.items()
            }
            write_tensors(folder / MADE, {name: (dtypes[name], array) for name, array in arrays.items()})

        facts = [[ingredient.content for ingredient in ingredients], sorted(dtypes.items())]
        return self._kept("fitted", facts, build, family.reference)

    def _kept(self, what: str, facts: list[Any], build: Callable[[Path], None], like: Ingredient) -> Ingredient:
        """An ingredient of one file in the cache, known by all that its content depends on."""
        images = self._images and [self._images.fingerprint, self._images.pixels.name]
        versions = [__version__, *(version(name) for name in (*LIBRARIES, *list_libraries(self._family.config)))]
        names = [spec.name for spec in self._family.tensors]
        key = hash_json(what, facts, self._method, self._seed, images, names, str(self._device), versions)
        made = cached_folder("aligned", key, build, fresh=self._fresh)
        return replace(like, weights=(describe_file(made / MADE),), names={})

    def _network(self, stored: StoredTensors) -> Network:
        """The family's model, which runs in float32."""
        family = self._family
        config = build_config(family.config)
        model = build_model(config, to_torch(stored), torch.float32, str(family.reference))
        model = model.to(self._device or torch.device("cpu")).eval()
        processor = load_image_processor(family.processor_ingredient.processor_folder)
        classify = Classifier(model, processor, torch.float32, str(family.reference))
        return Network(model, map_to_model_names(model, stored), lambda pixels: classify(pixels).logits)

    def _pixels(self) -> torch.Tensor:
        if self._images is None:
            return torch.empty(0)
        pixels = np.load(self._images.pixels)
        return torch.from_numpy(pixels[np.random.default_rng(self._seed).permutation(len(pixels))])
