"""A mix and a merge become tensors, block by block, straight from the ingredients' files."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hfsoup.errors import SoupError
from hfsoup.hashing import stamp
from hfsoup.merges import MERGES, Array
from hfsoup.names import flat
from hfsoup.tensorfile import FLOATS, TensorFile, to_float, to_stored
from hfsoup.types import Family, Ingredient, Mix, TensorSpec

if TYPE_CHECKING:
    from types import TracebackType

BLOCK = 1 << 16
Emit = Callable[[TensorSpec, int, NDArray[Any]], None]
Read = Callable[[str], Sequence[NDArray[np.floating]]]


def combine(
    name: str, tensors: Sequence[NDArray[Any]], weights: Sequence[float], merge: str, others: Read
) -> NDArray[Any]:
    """One tensor of every member into one.

    Floats go through the merge, except batch-norm statistics: running_mean is averaged and running_var pooled as
    Σwᵢ(σᵢ² + (μᵢ − μ̄)²), the variance of all that the ingredients saw. Integers are counters: the largest stays.

    Args:
        name: the tensor's name.
        tensors: that tensor, or the same block of it, of every member with a coefficient.
        weights: the members' coefficients.
        merge: the name of the merge.
        others: reads the same block of another tensor of the same shape from every member.
    """
    if not np.issubdtype(tensors[0].dtype, np.floating):
        largest: NDArray[Any] = np.asarray(np.maximum.reduce(tensors))
        return largest
    mean = MERGES.get("mean").function
    if name.endswith("running_var"):
        centres = others(name.removesuffix("var") + "mean")
        centre = mean(centres, weights)
        return mean([v + (m - centre) ** 2 for v, m in zip(tensors, centres, strict=True)], weights)
    if name.endswith("running_mean"):
        return mean(tensors, weights)
    return MERGES.get(merge).function(tensors, weights)


class Weights:
    """All tensors of one ingredient, over its files."""

    def __init__(self, ingredient: Ingredient) -> None:
        self.ingredient = ingredient
        self._files = [TensorFile(w.path, f"{ingredient}, {w.name}") for w in ingredient.weights]
        self._homes = {name: (file, spec) for file in self._files for name, spec in file.tensors.items()}

    def read(self, name: str, begin: int, count: int) -> NDArray[Any]:
        """A block of a tensor, floats as numbers and everything else as stored."""
        file, spec = self._homes[name]
        block = file.read(spec, begin, count)
        return to_float(block, spec.dtype) if spec.dtype in FLOATS else block

    def home(self, name: str) -> str:
        """The name of the file that a tensor is in."""
        file = self._homes[name][0]
        return next(w.name for w, f in zip(self.ingredient.weights, self._files, strict=True) if f is file)

    def unchanged(self) -> None:
        """Fail if a file is not the one that was hashed any more."""
        for file, weights in zip(self._files, self.ingredient.weights, strict=True):
            if not file.stamp == stamp(weights.path) == weights.stamp:
                what = "the file changed while it was in use, so nothing read from it counts"
                raise SoupError(what, where=file.name, hint="the same command again, once nobody writes to it")

    def close(self) -> None:
        """Release the files."""
        for file in self._files:
            file.close()


class Averager:
    """The ingredients' files, held open so that mix after mix can be formed from them.

    Args:
        family: what may be averaged.
        merge: the name of the merge.
        dtype: the safetensors name of the float type to write; None keeps the reference's.
    """

    def __init__(self, family: Family, merge: str = "mean", dtype: str | None = None) -> None:
        self.family, self.merge, self.dtype = family, MERGES.get(merge), dtype
        self._weights = [Weights(ingredient) for ingredient in family.ingredients]

    def __enter__(self) -> Averager:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for weights in self._weights:
            weights.close()

    def stored_as(self, spec: TensorSpec) -> str:
        """The dtype that a tensor is written in."""
        return self.dtype if self.dtype and spec.dtype in FLOATS else spec.dtype

    def average(self, mix: Mix, emit: Emit, specs: Sequence[TensorSpec] | None = None) -> None:
        """Form the tensors `specs` of `mix`, or all; `emit(spec, begin, block)` gets each block, from several threads.

        `block` holds the elements from `begin` on, one-dimensional, as they are stored in a file (bfloat16 as uint16).
        """
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for _ in pool.map(lambda job: self._block(mix, emit, *job), self._jobs(specs or self.family.tensors)):
                pass
        for i in {*mix.members, *((0,) if self.family.kept else ())}:
            self._weights[i].unchanged()

    def _jobs(self, specs: Sequence[TensorSpec]) -> Iterator[tuple[TensorSpec, int, int]]:
        for spec in specs:
            count = int(np.prod(spec.shape, dtype=np.int64))
            whole = spec.name in self.family.heads or not self.merge.elementwise
            step = max(count, 1) if whole else BLOCK
            for begin in range(0, count, step) or (0,):
                yield spec, begin, min(step, count - begin)

    def _block(self, mix: Mix, emit: Emit, spec: TensorSpec, begin: int, count: int) -> None:
        def read(name: str) -> list[NDArray[Any]]:
            return [self._read(i, spec, name, begin, count) for i in mix.members]

        weights = [mix.coefficients[i] for i in mix.members]
        block = combine(spec.name, read(spec.name), weights, self.merge.name, read)
        if spec.dtype in FLOATS:
            block = self._stored(mix, block, spec, begin)
        emit(spec, begin, block)

    def _stored(self, mix: Mix, block: Array, spec: TensorSpec, begin: int) -> NDArray[Any]:
        """The block in the type it is written in, after a look for NaN and infinities."""
        dtype = self.stored_as(spec)
        if np.isfinite(block).all():
            stored = to_stored(block, dtype)
            if np.isfinite(to_float(stored, dtype)).all():
                return stored
            raise SoupError(
                f"the average does not fit into {dtype}", where=f"tensor {flat(spec.name)}", hint="--dtype float32"
            )
        for i in mix.members:
            source = self._source(i, spec.name)
            if not np.isfinite(source.read(spec.name, begin, block.size)).all():
                where = f"{source.ingredient}, {source.home(spec.name)}, tensor {flat(spec.name)}"
                raise SoupError(
                    "expected finite weights, found NaN or infinity", where=where, hint="leave this one out"
                )
        raise SoupError("the merge gave NaN or infinity", where=f"tensor {flat(spec.name)}", hint="--merge mean")

    def _read(self, i: int, spec: TensorSpec, name: str, begin: int, count: int) -> NDArray[Any]:
        block = self._source(i, name).read(name, begin, count)
        axis, order = self.family.heads.get(spec.name), self.family.orders[i]
        if axis is None or order is None:
            return block
        return block.reshape(spec.shape).take(order, axis=axis).ravel()

    def _source(self, i: int, name: str) -> Weights:
        """The files that ingredient i's share of a tensor comes from: the reference's for what a family keeps."""
        return self._weights[0 if name in self.family.kept else i]
