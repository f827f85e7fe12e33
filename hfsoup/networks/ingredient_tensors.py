"""One ingredient's tensors, whole and in memory, as its files hold them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hfsoup.checkpoints.reader import Weights
from hfsoup.checkpoints.safetensors_io import FLOATS, to_float
from hfsoup.checkpoints.types import Ingredient
from hfsoup.ingredients.family import Family

StoredTensors = dict[str, tuple[str, NDArray[Any]]]


def read_tensors(family: Family, ingredient: Ingredient) -> StoredTensors:
    """The family's tensors of an ingredient, dtype and array by name, from files that are the ones that were hashed."""
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
    """The same as torch tensors of float32 and of whole numbers."""
    return {
        name: torch.from_numpy(np.array(to_float(array, dtype), np.float32 if dtype in FLOATS else None))
        for name, (dtype, array) in stored.items()
    }
