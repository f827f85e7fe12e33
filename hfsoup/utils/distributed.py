"""One process or several: the main one uses the Hub and the disk, all of them score images."""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import TYPE_CHECKING, Any, TypeVar

from hfsoup.utils.cache import cache_root
from hfsoup.utils.errors import ProcessLostError, SoupError, UsageError

if TYPE_CHECKING:
    from accelerate import Accelerator

T = TypeVar("T")
STARTERS = {"SLURM_STEP_NUM_TASKS": "srun", "OMPI_COMM_WORLD_SIZE": "mpirun", "PMI_SIZE": "mpirun"}
"""Variables in which programs that start processes, but do not connect them, give their number."""
LOOK_EVERY = 1.0
"""Seconds between two looks for the launcher."""
AGAIN = "the same command again"


class World:
    """The processes that `accelerate launch` started, or this one alone.

    Args:
        device: `auto`, `cpu`, or the type of accelerator to use.
        alone: this process needs no device unless several were launched, so accelerate is not imported.
    """

    def __init__(self, device: str = "auto", *, alone: bool = False) -> None:
        self.count = int(os.environ.get("WORLD_SIZE", "1"))
        self.index, self._accelerator = 0, None
        if self.count == 1:
            _require_launcher()
            if alone:
                return
        else:
            self._launcher, self._ending = os.getppid(), threading.Lock()
            threading.Thread(target=self._watch_launcher, daemon=True).start()
        self._accelerator = _make_accelerator(device)
        if self._accelerator.num_processes != self.count:
            found = self._accelerator.num_processes
            raise SoupError(
                f"expected {self.count} processes, found {found}", hint="accelerate launch --num_processes N"
            )
        self.index = self._accelerator.process_index

    @property
    def main(self) -> bool:
        """Whether this is the process that uses the Hub and the disk."""
        return self.index == 0

    @property
    def device(self) -> Any:
        """The torch device to score on."""
        if self._accelerator is None:
            raise SoupError("this process was started without a device")
        device = self._accelerator.device
        # accelerate says cpu:0, for which torch would copy a model that is already on the CPU.
        return type(device)("cpu") if device.type == "cpu" else device

    @property
    def accelerator(self) -> Accelerator:
        """accelerate's Accelerator of this process."""
        if self._accelerator is None:
            raise SoupError("this process was started without a device")
        return self._accelerator

    def on_main(self, act: Callable[[], T]) -> T:
        """Call `act` in the main process; every process gets what it returned, or raises what it raised."""
        if self.count == 1:
            return act()
        from accelerate.utils import broadcast_object_list

        box: list[Any] = [None]
        if self.main:
            try:
                box = [act()]
            except SoupError as error:
                box = [error]
        with self._expect_all():
            broadcast_object_list(box)
        if isinstance(box[0], SoupError):
            raise box[0]
        return box[0]  # type: ignore[no-any-return]

    def on_each_host(self, act: Callable[[], T], identify: Callable[[T], Any]) -> T:
        """Call `act`, which makes files, in the main process and once on each host that does not see its files.

        Args:
            act: what to do; it has to do the same everywhere.
            identify: what must be the same of what `act` returns on every host.

        Raises:
            SoupError: `act` raised it on some host, or its results differ.
        """
        found = self.on_main(act)
        if not any(self._leaders):
            return found
        box: list[tuple[int, Any]] = []
        if not self.main and self._leaders[self.index] == self.index:
            try:
                box = [(self.index, act())]
            except SoupError as error:
                box = [(self.index, error)]
        others = dict(self.gather(box))
        for process, other in others.items():
            if isinstance(other, SoupError):
                raise other
            if identify(other) != identify(found):
                what = f"process {process} found other files on its host than process 0 on its own"
                raise SoupError(what, hint="the same command with HF_HOME on a disk that all hosts share")
        own: T = others.get(self._leaders[self.index], found)
        return own

    @cached_property
    def _leaders(self) -> list[int]:
        """For each process the one that acts for its host: 0, the main one, for all hosts that see its files."""
        folder = cache_root()
        folder.mkdir(parents=True, exist_ok=True)
        with NamedTemporaryFile(dir=folder, prefix="host-") as probe:
            name = self.on_main(lambda: probe.name)
            host = os.environ.get("GROUP_RANK") or socket.gethostname()
            rows = sorted(self.gather([(self.index, host, Path(name).exists())]))
        firsts = {host: index for index, host, _ in reversed(rows)}
        return [0 if sees else firsts[host] for _, host, sees in rows]

    def sum(self, number: int) -> int:
        """The sum of a number over the processes."""
        return sum(self.gather([number]))

    def gather(self, rows: list[T]) -> list[T]:
        """The rows of all processes, in every process."""
        if self.count == 1:
            return rows
        from accelerate.utils import gather_object

        with self._expect_all():
            return list(gather_object(rows))

    @contextmanager
    def _expect_all(self) -> Iterator[None]:
        """Raise ProcessLostError where an exchange with the other processes fails."""
        try:
            yield
        except RuntimeError as error:
            if os.getppid() != self._launcher:
                self._end_without_launcher()
            raise ProcessLostError("another process of this bake has ended", hint=AGAIN) from error

    def _watch_launcher(self) -> None:
        """End this process soon after its launcher; nothing else does where it waits for the other processes."""
        while os.getppid() == self._launcher:
            time.sleep(LOOK_EVERY)
        self._end_without_launcher()

    def _end_without_launcher(self) -> None:
        with self._ending:
            if os.environ.get("RANK") == "0":
                sys.stderr.write(f"error: the launcher was killed\n  try: {AGAIN}\n")
                sys.stderr.flush()
            os._exit(1)


def _require_launcher() -> None:
    """Refuse to be one of several processes that nothing connects: each would bake the same soup.

    Raises:
        UsageError: the process was started as one of several by a program that is no launcher of torch.
    """
    for variable, starter in STARTERS.items():
        if (count := os.environ.get(variable, "1")).isdigit() and int(count) > 1:
            raise UsageError(
                f"{starter} started {count} processes, and no launcher connects them",
                hint="start one process per host: accelerate launch --num_machines M --num_processes N -m hfsoup …",
            )


def _make_accelerator(device: str) -> Accelerator:
    from accelerate import Accelerator, InitProcessGroupKwargs
    from accelerate.utils import GradientAccumulationPlugin
    from torch.accelerator import is_available

    # Without an explicit `cpu` accelerate would not connect processes on CPUs, which it does by gloo.
    # The others wait while the main process downloads, which may take long; the launcher notices one that dies.
    patience = InitProcessGroupKwargs(timeout=timedelta(days=7))
    # Results must not depend on the environment or a launcher's config.
    accelerator = Accelerator(
        cpu=device == "cpu" or not is_available(),
        kwargs_handlers=[patience],
        mixed_precision="no",
        dynamo_backend="no",
        gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1),
    )
    if device not in ("auto", accelerator.device.type, str(accelerator.device)):
        raise UsageError(f"expected the device {device}, found {accelerator.device}", hint="--device auto")
    return accelerator
