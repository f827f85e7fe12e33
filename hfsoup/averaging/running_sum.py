"""The mean of one set of ingredients after another, each by a pass over the file of the one that differs.

A sum that was added to and subtracted from has to equal the one that is written in the end, to the last bit. It does
where no partial sum was rounded: float32 has 24 significant bits and float64 53, so sums of float32 values are
exact while the largest possible sum is at most 2²⁹ times the smallest value that is not zero. Parts for which this is
not sure are summed from all files, as the written soup is.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hfsoup.averaging.accumulators import Accumulator, HostSums
from hfsoup.averaging.averager import Averager, Block, Emit
from hfsoup.averaging.mix import Mix
from hfsoup.utils.scratch import Scratch
from hfsoup.utils.threads import count_processors

EXACT = 2.0**29
LARGEST = float(np.finfo(np.float32).max)
PART = 1 << 13
"""Elements whose bounds are computed together: one very small value makes only these be summed again."""
NARROW = ("F32", "F16", "BF16")
Members = frozenset[int]
Step = tuple[int, int]
Bounds = tuple[NDArray[Any], NDArray[Any]]


class RunningMean:
    """Means as `Averager.average` computes them, from the sum that the previous mean came from.

    Memory: one float64 for every weight, where the sums are.

    Args:
        averager: reads the files, and averages what has to be read from all of them.
        place: where the sums are; blocks of float32 are emitted there too.
    """

    def __init__(self, averager: Averager, place: Accumulator | None = None) -> None:
        self._averager, self._place = averager, place or HostSums()
        self._jobs = list(averager.list_blocks())
        self._sums: list[Any] = [None] * len(self._jobs)
        self._held: Members = frozenset()
        self._last: Members = frozenset()
        self._used: Members = frozenset()
        self._scratch = Scratch()
        self._bounds: dict[int, list[Bounds | None]] = {}

    def average(self, mix: Mix, emit: Emit) -> None:
        """The same blocks as `Averager.average` gives, from fewer files."""
        target = frozenset(mix.members)
        plain = self._averager.merge.name == "mean" and not mix.base and self._averager.family.fitted is None
        if len(target) == 1 or len(set(mix.coefficients) - {0.0}) > 1 or mix.tensors or not plain:
            self._averager.average(mix, emit)
            return
        if self._held and len(target ^ self._held) < 2:
            lasting: list[Step] = []
        elif self._held and len(target ^ self._last) < 2:
            lasting = _list_steps(self._held, self._last)
            self._held = self._last
        else:
            lasting, self._held, self._used = [(i, 1) for i in mix.members], target, frozenset()
            self._sums = [None] * len(self._jobs)
        passing = next(iter(_list_steps(self._held, target)), None)
        self._used |= self._held | target
        for i in self._used - self._bounds.keys():
            self._bounds[i] = [None] * len(self._jobs)
        # Until every block is done, there is no sum that a next mix could begin with.
        held, self._held, self._last = self._held, frozenset(), frozenset()
        with ThreadPoolExecutor(count_processors()) as pool:
            for _ in pool.map(lambda n: self._average_block(n, mix, emit, lasting, passing), range(len(self._jobs))):
                pass
        self._averager.require_unchanged(self._used)
        self._held, self._last = held, target

    def _average_block(self, n: int, mix: Mix, emit: Emit, lasting: list[Step], passing: Step | None) -> None:
        job = self._jobs[n]
        if not job.plain or job.first.dtype not in NARROW:
            self._averager.average_block(mix, emit, job)
            return
        held = self._sums[n]
        if held is None:
            held = self._sums[n] = self._place.zeros(job.count)
        for i, sign in lasting:
            self._place.add(held, self._read_block(n, i, job), sign)
        block = self._read_block(n, passing[0], job) if passing else None
        low, high = self._bound_sums(n)
        weight, rounded = mix.coefficients[mix.members[0]], np.flatnonzero(high > EXACT * low).tolist()
        fits = self._averager.stored_as(job.first) == "F32" and float(high.max()) * abs(weight) <= LARGEST
        if not np.isfinite(high).all() or (rounded and not fits):
            self._averager.average_block(mix, emit, job)
            return
        total = self._place.scale(held, block, passing[1] if passing else 1, weight)
        emit(job.first, job.begin, self._place.to_float32(total) if fits else self._convert_block(mix, job, total))
        for part in rounded:
            begin = part * PART
            self._averager.average_block(
                mix, emit, replace(job, begin=job.begin + begin, count=min(PART, job.count - begin))
            )

    def _convert_block(self, mix: Mix, job: Block, total: Any) -> NDArray[Any]:
        return self._averager.convert_block(mix, self._place.to_numpy(total), job)

    def _read_block(self, n: int, i: int, job: Block) -> NDArray[Any]:
        block = self._averager.read_reused(i, job)
        if self._bounds[i][n] is None:
            self._bounds[i][n] = _find_bounds(np.abs(block, out=self._scratch.array("sizes", np.float32, job.count)))
        return block

    def _bound_sums(self, n: int) -> Bounds:
        """Of the parts of a block the smallest value that was added, and what no partial sum is above.

        Every partial sum of a part was free of rounding, whatever the order, where that is at most `EXACT` times this.
        """
        lows, highs = zip(*(found for i in self._used if (found := self._bounds[i][n]) is not None), strict=True)
        return np.minimum.reduce(lows), np.add.reduce(highs, dtype=np.float64)


def _list_steps(start: Members, end: Members) -> list[Step]:
    """What to add (1) and to take away (-1)."""
    return [*((i, 1) for i in sorted(end - start)), *((i, -1) for i in sorted(start - end))]


def _find_bounds(sizes: NDArray[np.float32]) -> Bounds:
    """Of every part the smallest magnitude that is not zero, infinity where all are, and the largest."""
    starts = np.arange(0, len(sizes), PART)
    low, high = np.minimum.reduceat(sizes, starts), np.maximum.reduceat(sizes, starts)
    if not low.all():
        low = np.minimum.reduceat(np.where(sizes > 0, sizes, np.float32(np.inf)), starts)
    return low.astype(np.float64), high
