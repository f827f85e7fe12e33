"""What every section is given: where to work, whom to compare with, how large and how often."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from checkpoints import MANY, VIT_B, VIT_TI, Vit
from numpy.typing import NDArray
from peers import Peers

from hfsoup.averaging.averager import Averager
from hfsoup.averaging.mix import Mix
from hfsoup.checkpoints.safetensors_io import write_header
from hfsoup.checkpoints.types import TensorSpec


@dataclass(frozen=True)
class Setting:
    """`home` is on a disk; `fast` is in memory where the system has such a folder, and `home` where it has none.

    `quick` takes tiny sizes and one round, which measures nothing and shows that everything runs; `large` adds the
    checkpoint of 5 GB.
    """

    home: Path
    fast: Path
    peers: Peers
    quick: bool = False
    large: bool = False

    @property
    def repeats(self) -> int:
        """How often each way is timed where one takes seconds; what takes less is timed more often."""
        return 1 if self.quick else 3

    @property
    def often(self) -> int:
        """How often each way is timed where one takes about a second or less."""
        return 1 if self.quick else 5

    @property
    def large_model(self) -> Vit:
        """The model to average."""
        return Vit(64, 2) if self.quick else VIT_B

    @property
    def middle_model(self) -> Vit:
        """The model to average very many of."""
        return Vit(64, 1) if self.quick else VIT_TI

    @property
    def scattered_model(self) -> Vit:
        """The model of very many tensors."""
        return Vit(8, 4, 32, 16) if self.quick else MANY

    def hfsoup(self, *words: str | Path) -> list[str | Path]:
        """The command line `hfsoup WORDS...` of this source tree."""
        return [sys.executable, "-m", "hfsoup", *words]


def everyone(count: int) -> Mix:
    """The plain mean of all."""
    return Mix.of(tuple(range(count)), count)


def average_into(averager: Averager, mix: Mix, path: Path) -> None:
    """A mix straight into a safetensors file: what a bake does but for hashing and syncing."""
    specs = averager.family.tensors
    starts = write_header(path, [(s.name, averager.stored_as(s), s.shape) for s in specs])
    with path.open("r+b") as file:
        averager.average(mix, partial(_emit, file.fileno(), starts))


def _emit(handle: int, starts: dict[str, int], spec: TensorSpec, begin: int, block: NDArray[Any]) -> None:
    os.pwrite(handle, block.data.cast("B"), starts[spec.name] + begin * block.itemsize)
