"""The tensors of one ingredient in memory: read from its files, run as a network, written to hfsoup's cache."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from hfsoup.checkpoints.architecture import build_config, map_to_model_names
from hfsoup.checkpoints.classifier import Classifier, build_model
from hfsoup.checkpoints.processor import load_image_processor
from hfsoup.checkpoints.reader import Weights
from hfsoup.checkpoints.safetensors_io import FLOATS, STORED, to_float, to_stored, write_tensors
from hfsoup.checkpoints.timm_config import list_libraries
from hfsoup.checkpoints.types import Ingredient, WeightFile, describe_file
from hfsoup.ingredients.family import Family
from hfsoup.networks.network import Network
from hfsoup.utils.cache import cached_folder
from hfsoup.utils.hashing import hash_json
from hfsoup.utils.version import __version__

LIBRARIES = ("torch", "numpy", "transformers", "accelerate")
StoredTensors = dict[str, tuple[str, NDArray[Any]]]
"""The dtype of safetensors and the array as it is stored, by name."""


def read_tensors(family: Family, ingredient: Ingredient) -> StoredTensors:
    """The family's tensors of an ingredient, from files that still are the ones that were hashed."""
    weights = Weights(ingredient)
    try:
        found = {spec.name: weights.read_stored(spec.name) for spec in family.tensors}
        weights.require_unchanged()
    finally:
        weights.close()
    return found


def read_reordered(family: Family, i: int) -> StoredTensors:
    """The tensors of ingredient i, its classes in the order of the first one's."""
    found, order = read_tensors(family, family.ingredients[i]), family.orders[i]
    for name, axis in family.class_axes.items() if order else ():
        dtype, array = found[name]
        found[name] = dtype, array.take(np.asarray(order), axis=axis)
    return found


def to_torch(stored: StoredTensors) -> dict[str, torch.Tensor]:
    """The same as torch tensors, floats as float32 and integers as they are."""
    return {
        name: torch.from_numpy(np.array(to_float(array, dtype), np.float32 if dtype in FLOATS else None))
        for name, (dtype, array) in stored.items()
    }


def from_torch(tensors: Mapping[str, torch.Tensor], dtypes: Mapping[str, str]) -> StoredTensors:
    """Tensors as a file stores them, in the order and the dtypes of `dtypes`."""
    arrays = {name: tensors[name].detach().cpu().numpy() for name in dtypes}
    return {
        name: (dtype, to_stored(arrays[name].astype(np.float64), dtype))
        if dtype in FLOATS
        else (dtype, arrays[name].astype(STORED[dtype]))
        for name, dtype in dtypes.items()
    }


def load_network(
    family: Family,
    tensors: Mapping[str, torch.Tensor],
    where: str,
    *,
    place: Callable[[nn.Module], nn.Module],
    config: dict[str, Any] | None = None,
) -> Network:
    """The classifier of a family in float32 and in evaluation mode, called with prepared images.

    Args:
        family: gives the architecture and the image processor.
        tensors: the weights by the names of the family's files; floats in float32.
        where: the checkpoint, for errors.
        place: moves the model to its device.
        config: the ingredient's own config, where it differs from the family's.

    Raises:
        SoupError: the tensors do not fill the model.
    """
    built = build_model(build_config(config or family.config), dict(tensors), torch.float32, where)
    names, model = map_to_model_names(built, tensors), place(built).eval()
    processor = load_image_processor(family.processor_ingredient.processor_folder)
    classify = Classifier(model, processor, torch.float32, where)
    return Network(model, names, lambda images: classify(images).logits)


def cache_tensors(
    kind: str,
    family: Family,
    facts: list[Any],
    build: Callable[[], StoredTensors],
    *,
    name: str = "model.safetensors",
    fresh: bool = False,
) -> WeightFile:
    """A safetensors file in hfsoup's cache; `build` makes its tensors unless the cache has the file.

    Args:
        kind: the part of the cache.
        family: the ingredients that the tensors are made from.
        facts: what the tensors depend on besides the family's tensor names and the versions of hfsoup and libraries.
        build: makes the tensors.
        name: of the file.
        fresh: make the tensors again, whatever the cache has.
    """
    versions = [__version__, *(version(library) for library in (*LIBRARIES, *list_libraries(family.config)))]
    key = hash_json(kind, facts, [spec.name for spec in family.tensors], versions)
    folder = cached_folder(kind, key, lambda folder: write_tensors(folder / name, build()), fresh=fresh)
    return describe_file(folder / name)
