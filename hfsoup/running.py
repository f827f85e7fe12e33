"""The mean of one set of ingredients after another, each by a pass over the file of the one that differs.

A sum that was added to and subtracted from has to be the one that is written in the end, to the last bit. That holds
where no partial sum was ever rounded: float32 has 24 significant bits and float64 53, so sums of float32 values are
exact while the largest possible sum is at most 2²⁹ times the smallest value that is not zero. Blocks for which this is
not sure are summed from all files, as the written soup is.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hfsoup.average import Averager, Emit, Job
from hfsoup.hashing import processors
from hfsoup.sums import Host, Scratch, Sums
from hfsoup.types import Mix

EXACT = 2.0**29
LARGEST = float(np.finfo(np.float32).max)
NARROW = ("F32", "F16", "BF16")
Members = frozenset[int]
Step = tuple[int, int]


class Running:
    """Forms means as `Averager.average` does, and holds the sum of the set that the last one came from.

    Memory: one float64 for every weight, where the sums are.

    Args:
        averager: reads the files, and forms what has to be formed of all of them.
        place: where the sums are; blocks of float32 are emitted there too.
    """

    def __init__(self, averager: Averager, place: Sums | None = None) -> None:
        self._averager, self._place = averager, place or Host()
        self._jobs = list(averager.jobs())
        self._sums: list[Any] = [None] * len(self._jobs)
        self._held: Members = frozenset()
        self._last: Members = frozenset()
        self._used: Members = frozenset()
        self._scratch = Scratch()
        self._lows: dict[int, NDArray[np.float64]] = {}
        self._highs: dict[int, NDArray[np.float64]] = {}

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
            lasting = _steps(self._held, self._last)
            self._held = self._last
        else:
            lasting, self._held, self._used = [(i, 1) for i in mix.members], target, frozenset()
            self._sums = [None] * len(self._jobs)
        passing = next(iter(_steps(self._held, target)), None)
        self._last, self._used = target, self._used | self._held | target
        for i in self._used - self._lows.keys():
            self._lows[i], self._highs[i] = np.full(len(self._jobs), -1.0), np.zeros(len(self._jobs))
        with ThreadPoolExecutor(processors()) as pool:
            for _ in pool.map(lambda n: self._block(n, mix, emit, lasting, passing), range(len(self._jobs))):
                pass
        self._averager.unchanged(self._used)

    def _block(self, n: int, mix: Mix, emit: Emit, lasting: list[Step], passing: Step | None) -> None:
        job = self._jobs[n]
        if not job.plain or job.first.dtype not in NARROW:
            self._averager.form(mix, emit, job)
            return
        held = self._sums[n]
        if held is None:
            held = self._sums[n] = self._place.zeros(job.count)
        for i, sign in lasting:
            self._place.add(held, self._read(n, i, job), sign)
        block = self._read(n, passing[0], job) if passing else None
        if self._exact(n):
            weight = max(mix.coefficients)
            total = self._place.scaled(held, block, passing[1] if passing else 1, weight)
            emit(job.first, job.begin, self._stored(n, mix, job, total, weight))
        else:
            self._averager.form(mix, emit, job)

    def _stored(self, n: int, mix: Mix, job: Job, total: Any, weight: float) -> Any:
        """The mean as it is stored. What the bounds show to be finite in float32 is not looked at again."""
        if self._averager.stored_as(job.first) == "F32" and self._high(n) * weight <= LARGEST:
            return self._place.single(total)
        return self._averager.stored(mix, self._place.numbers(total), job)

    def _read(self, n: int, i: int, job: Job) -> NDArray[Any]:
        block = self._averager.read(i, job, job.first.name)
        if self._lows[i][n] < 0:
            sizes = np.abs(block, out=self._scratch.array("sizes", np.float32, job.count))
            self._lows[i][n], self._highs[i][n] = _bounds(sizes)
        return block

    def _exact(self, n: int) -> bool:
        """Whether every partial sum of this block was free of rounding, whatever the order."""
        return self._high(n) <= EXACT * float(min(self._lows[i][n] for i in self._used))

    def _high(self, n: int) -> float:
        """What no partial sum of this block is above."""
        return float(sum(self._highs[i][n] for i in self._used))


def _steps(start: Members, end: Members) -> list[Step]:
    """What to add (1) and to take away (-1)."""
    return [*((i, 1) for i in sorted(end - start)), *((i, -1) for i in sorted(start - end))]


def _bounds(sizes: NDArray[np.float32]) -> tuple[float, float]:
    """The smallest magnitude that is not zero, infinity where all are, and the largest."""
    low, high = sizes.min(initial=np.inf), sizes.max(initial=0)
    if low == 0:
        low = sizes[sizes > 0].min(initial=np.inf)
    return float(low), float(high)
