"""One process or several: the main one uses the Hub and the disk, all of them score images."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from hfsoup.utils.errors import SoupError, UsageError

if TYPE_CHECKING:
    from accelerate import Accelerator

T = TypeVar("T")
SUM_EVERY = 4


class World:
    """The processes that `accelerate launch` started, or this one alone.

    Args:
        device: `auto`, `cpu`, or the type of accelerator to use.
        alone: this process needs no device unless several were launched, so accelerate is not imported.
    """

    def __init__(self, device: str = "auto", *, alone: bool = False) -> None:
        self.count = int(os.environ.get("WORLD_SIZE", "1"))
        self.index, self._accelerator = 0, None
        if alone and self.count == 1:
            return
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
        broadcast_object_list(box)
        if isinstance(box[0], SoupError):
            raise box[0]
        return box[0]  # type: ignore[no-any-return]

    def sum(self, number: int, lap: int) -> int:
        """The sum of a number over the processes every `SUM_EVERY` laps, else 0; for one process the number."""
        if self.count == 1:
            return number
        if lap % SUM_EVERY:
            return 0
        return sum(self.gather([number]))

    def gather(self, rows: list[T]) -> list[T]:
        """The rows of all processes, in every process."""
        if self.count == 1:
            return rows
        from accelerate.utils import gather_object

        return list(gather_object(rows))


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
