"""The tensors of one ingredient, whichever of its files they are in."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hfsoup.checkpoints.half_floats import HALVES, widen
from hfsoup.checkpoints.safetensors_io import FLOATS, STORED, TensorFile, to_float
from hfsoup.checkpoints.types import Ingredient
from hfsoup.utils.errors import SoupError
from hfsoup.utils.hashing import stamp_file
from hfsoup.utils.scratch import Scratch


class Weights:
    """The tensors of one ingredient, over all of its files, by the names of its family; open until `close`."""

    def __init__(self, ingredient: Ingredient) -> None:
        self.ingredient = ingredient
        self._files = [TensorFile(w.path, f"{ingredient}, {w.name}") for w in ingredient.weights]
        homes = {name: (file, spec) for file in self._files for name, spec in file.tensors.items()}
        names = ingredient.names or dict(zip(homes, homes, strict=True))
        self.homes = {name: homes[in_file] for name, in_file in names.items()}

    def read(self, name: str, begin: int, count: int) -> NDArray[Any]:
        """`count` elements from `begin` on, flat, which may run into adjacent tensors; bfloat16 as float32."""
        file, spec = self.homes[name]
        block = file.read(spec, begin, count)
        return to_float(block, spec.dtype) if spec.dtype in FLOATS else block

    def read_reused(self, name: str, begin: int, count: int, scratch: Scratch) -> NDArray[Any]:
        """The same of floats, float16 as float32 too, in scratch memory: valid until this thread reads again."""
        file, spec = self.homes[name]
        stored = STORED[spec.dtype]
        block = file.read(spec, begin, count, scratch.array(f"stored {spec.dtype}", stored, count))
        return widen(block, spec.dtype, scratch.array("wide", np.float32, count)) if spec.dtype in HALVES else block

    def read_stored(self, name: str) -> tuple[str, NDArray[Any]]:
        """The dtype of a tensor, and the whole tensor in its shape as it is stored (bfloat16 as its uint16 bits)."""
        file, spec = self.homes[name]
        return spec.dtype, file.read(spec, 0, prod(spec.shape)).reshape(spec.shape)

    def __contains__(self, name: str) -> bool:
        return name in self.homes

    def are_adjacent(self, name: str, following: str) -> bool:
        """Whether `following` begins in the file where `name` ends, in the same dtype."""
        (file, spec), (home, other) = self.homes[name], self.homes[following]
        return file is home and spec.stop == other.start and spec.dtype == other.dtype

    def find_file(self, name: str) -> str:
        """The name of the file that a tensor is in."""
        file = self.homes[name][0]
        return next(w.name for w, f in zip(self.ingredient.weights, self._files, strict=True) if f is file)

    def require_unchanged(self) -> None:
        """Fail if a file changed after it was hashed."""
        for file, weights in zip(self._files, self.ingredient.weights, strict=True):
            if not file.stamp == stamp_file(weights.path) == weights.stamp:
                what = "the file changed while it was in use"
                raise SoupError(what, where=file.name, hint="the same command again, once nothing writes to it")

    def close(self) -> None:
        """Release the files."""
        for file in self._files:
            file.close()
