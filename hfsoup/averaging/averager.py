"""A mix and a merge become tensors, block by block, straight from the ingredients' files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from hfsoup.averaging.combine import NO_BASE, STATISTICS, BaseTensor, ImportanceNorms, Thresholds, combine
from hfsoup.averaging.mix import Mix
from hfsoup.checkpoints.reader import Weights
from hfsoup.checkpoints.safetensors_io import FLOATS, STORED, is_finite, to_float, to_stored
from hfsoup.checkpoints.types import TensorSpec
from hfsoup.ingredients.family import Family
from hfsoup.merges import MERGES, Array, Context
from hfsoup.utils.errors import SoupError, UsageError
from hfsoup.utils.scratch import Scratch
from hfsoup.utils.text import one_line
from hfsoup.utils.threads import count_processors

if TYPE_CHECKING:
    from types import TracebackType

BLOCK = 1 << 18
BASE_HINT = "--base ORG/NAME|FOLDER"
IMAGES_HINT = "--dataset ORG/NAME"
Emit = Callable[[TensorSpec, int, NDArray[Any]], None]
Done = Callable[["Block"], None]


@dataclass(frozen=True)
class Block:
    """One block of tensors that lie side by side in every file and are combined as if they were one.

    Elements `begin` to `begin + count` are counted from the start of the first tensor; `plain` ones are combined one by
    one, by the merge alone.
    """

    specs: tuple[TensorSpec, ...]
    begin: int
    count: int
    plain: bool

    @property
    def first(self) -> TensorSpec:
        """The tensor from whose start elements are counted."""
        return self.specs[0]

    def at(self, element: int) -> TensorSpec:
        """The tensor that an element belongs to."""
        for spec in self.specs:
            element -= prod(spec.shape)
            if element < 0:
                break
        return spec


class Averager:
    """The ingredients' files, open, and the merge that combines them.

    Args:
        family: what may be averaged.
        merge: the name of a merge.
        dtype: the safetensors name of the float type to write; None keeps the reference's.
        parameters: the merge's own arguments; those that are missing or None have its defaults.

    Raises:
        UsageError: the merge needs a base and the family has none.
    """

    def __init__(
        self,
        family: Family,
        merge: str = "mean",
        dtype: str | None = None,
        parameters: Mapping[str, Any] | None = None,
    ) -> None:
        self.family, self.merge, self.dtype = family, MERGES.get(merge), dtype
        self.parameters = self.merge.fill_parameters(parameters or {})
        if self.merge.needs_base and family.base is None:
            raise UsageError(f"the merge {merge} needs the model that the ingredients started from", hint=BASE_HINT)
        known = family.importance if self.merge.importance else None
        every = (*family.ingredients, *((family.fitted,) if family.fitted else ()))
        self._weights = [Weights(ingredient) for ingredient in every]
        self._importance = [Weights(i) for i in known.replace_weights(family.ingredients)] if known else []
        self._base = Weights(family.base.ingredient) if family.base else None
        self._thresholds = Thresholds(self._read_task_vector)
        self._norms = ImportanceNorms(self._iterate_importance)
        self._scratch = Scratch()

    def __enter__(self) -> Averager:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for weights in (*self._weights, *self._importance, *([self._base] if self._base else [])):
            weights.close()

    def list_mix_facts(self, mix: Mix) -> list[Any]:
        """What a mix depends on besides its ingredients and their coefficients, as JSON values.

        That is the dtype, the merge where there is something to merge, and the base where it has a part.
        """
        merge = (
            [self.merge.name, *self.merge.identity, self.parameters]
            if mix.merges and self.merge.name != "mean"
            else None
        )
        base = self.family.base if mix.base or (mix.merges and self.merge.needs_base) else None
        files = base and [weights.blake3 for weights in base.ingredient.weights]
        return [merge, self.dtype, base and [mix.base, files, base.names, base.order]]

    def stored_as(self, spec: TensorSpec) -> str:
        """The dtype that a tensor is written in."""
        return self.dtype if self.dtype and spec.dtype in FLOATS else spec.dtype

    def average(
        self, mix: Mix, emit: Emit, specs: Sequence[TensorSpec] | None = None, done: Done = lambda _: None
    ) -> None:
        """Compute the tensors `specs` of `mix`, or all; `emit(spec, begin, block)` gets each, from several threads.

        `block` holds the elements from `begin` on, one-dimensional, as they are stored in a file (bfloat16 as uint16).
        It is valid until `emit` returns, and may reach beyond `spec` into the tensors that follow it in `specs`, where
        those are stored in the same type. `done(block)` is called in this thread, in order, once a block and all before
        it are emitted.
        """
        with ThreadPoolExecutor(count_processors()) as pool, self._limit_threads():
            jobs = list(self.list_blocks(specs, mix))
            for job, _ in zip(jobs, pool.map(lambda job: self.average_block(mix, emit, job), jobs), strict=True):
                done(job)
        self.require_unchanged(self._resolve_mix(mix).members)

    def _limit_threads(self) -> AbstractContextManager[object]:
        """For merges of whole tensors: results of numpy's libraries depend on their number of threads."""
        return nullcontext() if self.merge.elementwise else threadpool_limits(1, user_api="blas")

    def require_unchanged(self, members: Iterable[int]) -> None:
        """Fail if a file of these ingredients has changed since it was hashed."""
        for i in {*members, *((0,) if self.family.reference_only else ())}:
            self._weights[i].require_unchanged()
        for importance in self._importance:
            importance.require_unchanged()
        if self._base:
            self._base.require_unchanged()

    def list_blocks(self, specs: Sequence[TensorSpec] | None = None, mix: Mix | None = None) -> Iterator[Block]:
        """The blocks of `specs`, or of all tensors: those of `mix`, or of mixes without `tensors`."""
        for run in self._group_neighbours(specs or self.family.tensors, mix):
            size, plain = sum(prod(spec.shape) for spec in run), self._is_plain(run[0])
            step = BLOCK if plain else max(size, 1)
            for begin in range(0, size, step) or (0,):
                yield Block(run, begin, min(step, size - begin), plain)

    def _group_neighbours(self, specs: Sequence[TensorSpec], mix: Mix | None) -> Iterator[tuple[TensorSpec, ...]]:
        """Tensors that are averaged together: neighbours in every file if plain and alike, else one alone."""
        run: list[TensorSpec] = []
        for spec in specs:
            alike = not run or mix is None or mix.at(spec.name) == mix.at(run[-1].name)
            if run and not (
                alike and self._is_plain(spec) and self._is_plain(run[-1]) and self._are_adjacent(run[-1], spec)
            ):
                yield tuple(run)
                run = []
            run.append(spec)
        if run:
            yield tuple(run)

    def _is_plain(self, spec: TensorSpec) -> bool:
        special = spec.name in self.family.class_axes or spec.name in self.family.reference_only
        special = special or spec.name.endswith(STATISTICS)
        special = special or not all(spec.name in importance for importance in self._importance)
        special = special or (self.family.base is not None and spec.name not in self.family.base.names)
        return self.merge.elementwise and spec.dtype in FLOATS and not special

    def _are_adjacent(self, spec: TensorSpec, following: TensorSpec) -> bool:
        names, base = (spec.name, following.name), self.family.base
        joined = spec.dtype == following.dtype and all(
            w.are_adjacent(*names) for w in (*self._weights, *self._importance)
        )
        if self._base is None or base is None:
            return joined
        return joined and self._base.are_adjacent(*(base.names[name] for name in names))

    @np.errstate(over="ignore", invalid="ignore")  # convert_block says which tensor became infinite or NaN
    def average_block(self, mix: Mix, emit: Emit, job: Block) -> None:
        """Average one block of the files of all members."""
        mix = self._resolve_mix(mix).at(job.first.name)
        weights = [mix.coefficients[i] for i in mix.members]
        if job.plain and not mix.base and (self.merge.name == "mean" or not mix.merges):
            emit(job.first, job.begin, self.convert_block(mix, self._average_plain(mix, job), job))
            return

        def read(name: str) -> Iterator[NDArray[Any]]:
            return (self.read_block(i, job, name) for i in mix.members)

        name, floats = job.first.name, job.first.dtype in FLOATS
        merge = self.merge.name if mix.merges else "mean"
        root = BaseTensor(lambda name: self._read_base(job, name), mix.base)
        if name in self.family.reference_only:
            merge, root = "mean", NO_BASE
        importance = self._read_importance(mix, job)
        context = Context(
            name,
            mix.members,
            threshold=self._thresholds,
            importance=importance,
            importance_norm=self._norms,
            shape=job.first.shape,
        )
        block = combine(
            name, read, weights, merge, floats=floats, root=root, context=context, parameters=self.parameters
        )
        emit(job.first, job.begin, self.convert_block(mix, block, job) if floats else block)

    def _average_plain(self, mix: Mix, job: Block) -> Array:
        """What `merges.mean` gives for a plain block, in this thread's scratch memory."""
        weights = [mix.coefficients[i] for i in mix.members]
        total, equal = self._scratch.array("total", np.float64, job.count), len(set(weights)) == 1
        total.fill(0.0)
        for i, weight in zip(mix.members, weights, strict=True):
            block = self.read_reused(i, job)
            if not equal:
                share = self._scratch.array("share", np.float64, job.count)
                block = np.multiply(block, weight, out=share, dtype=np.float64)
            total += block
        if equal:
            total *= weights[0]
        return total

    def convert_block(self, mix: Mix, block: Array, job: Block) -> NDArray[Any]:
        """A block in the type that it is written in, checked for NaN and infinities, in scratch memory if flat."""
        dtype = self.stored_as(job.first)
        into = self._scratch.array(f"written {dtype}", STORED[dtype], block.size) if block.ndim == 1 else None
        stored = to_stored(block, dtype, into)
        if is_finite(stored, dtype):
            return stored
        at = job.begin + int(np.isfinite(to_float(stored, dtype)).argmin())
        spec = job.at(at)
        for i in mix.members:
            source = self._find_files(i, spec.name)
            if not np.isfinite(self.read_block(i, job, job.first.name)).all():
                where = f"{source.ingredient}, {source.find_file(spec.name)}, tensor {one_line(spec.name)}"
                what = "expected finite weights, found NaN or infinity"
                raise SoupError(what, where=where, hint="leave this one out")
        base = self._read_base(job, job.first.name)
        if self._base and base is not None and not np.isfinite(base).all():
            where = f"{self._base.ingredient}, tensor {one_line(spec.name)}"
            raise SoupError("expected finite weights of the base, found NaN or infinity", where=where)
        where = f"tensor {one_line(spec.name)}"
        if np.isfinite(block).all():
            raise SoupError(f"the average is out of the range of {dtype}", where=where, hint="--dtype float32")
        raise SoupError("the merge gave NaN or infinity", where=where, hint="--merge mean")

    def read_block(self, i: int, job: Block, name: str) -> NDArray[Any]:
        """The block of one ingredient, of the job's tensors or of another of the same shape."""
        order = self.family.orders[i] if i < len(self.family) else None
        return self._order_classes(self._find_files(i, name).read(name, job.begin, job.count), job, order)

    def read_reused(self, i: int, job: Block) -> NDArray[Any]:
        """The block of one ingredient for a plain job, in scratch memory: valid until this thread reads again."""
        return self._find_files(i, job.first.name).read_reused(job.first.name, job.begin, job.count, self._scratch)

    def _read_importance(self, mix: Mix, job: Block) -> Iterator[NDArray[Any]] | None:
        """The importance of a block for each member, of a whole tensor as it is stored; None where there is none."""
        name, elementwise = job.first.name, self.merge.elementwise
        if not self.merge.importance or len(mix.members) == 1:
            return None
        if not self._importance:
            what = f"the merge {self.merge.name} needs images to estimate how much each weight matters"
            raise UsageError(what, hint=IMAGES_HINT)
        found = [self._importance[i] for i in mix.members]
        if not all(name in importance for importance in found):
            return None
        return (i.read(name, job.begin, job.count) if elementwise else i.read_stored(name)[1] for i in found)

    def _iterate_importance(self, i: int) -> Iterator[NDArray[Any]]:
        """The importance of an ingredient, block by block."""
        found = self._importance[i]
        return (
            found.read(job.first.name, job.begin, job.count) for job in self.list_blocks() if job.first.name in found
        )

    def _read_base(self, job: Block, name: str) -> NDArray[Any] | None:
        """The same block of the base, None where it has no tensor that fits."""
        base = self.family.base
        if self._base is None or base is None or name not in base.names:
            return None
        return self._order_classes(self._base.read(base.names[name], job.begin, job.count), job, base.order)

    def _order_classes(self, block: NDArray[Any], job: Block, order: tuple[int, ...] | None) -> NDArray[Any]:
        """A block with the classes in the reference's order."""
        axis = self.family.class_axes.get(job.first.name)
        if axis is None or order is None:
            return block
        return block.reshape(job.first.shape).take(order, axis=axis).ravel()

    def _read_task_vector(self, i: int) -> Iterator[Array]:
        """The task vector of an ingredient, block by block, without batch-norm statistics."""
        for job in self.list_blocks():
            name = job.first.name
            if name in self.family.reference_only or job.first.dtype not in FLOATS or name.endswith(STATISTICS):
                continue
            base = self._read_base(job, name)
            if base is not None:
                yield np.subtract(self.read_block(i, job, name), base, dtype=np.float64)

    def _resolve_mix(self, mix: Mix) -> Mix:
        """The mix that is read: of several ingredients the fitted network, which comes last, where there is one."""
        if self.family.fitted is None or len(mix.members) == 1:
            return mix
        return Mix((*(0.0 for _ in mix.coefficients), 1.0))

    def _find_files(self, i: int, name: str) -> Weights:
        """The files of ingredient i's share of a tensor: the reference's where that is not averaged."""
        return self._weights[0 if name in self.family.reference_only else i]
