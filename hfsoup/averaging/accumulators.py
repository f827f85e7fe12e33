"""Sums of blocks in float64, in the memory of this process or in that of the device that scores."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from hfsoup.utils.scratch import Scratch

Block = NDArray[Any]
CPU = torch.device("cpu")
DOUBLE = ("cuda", "cpu")
"""Types of devices that compute in float64; Apple's `mps` does not."""


def float64_device(device: torch.device) -> torch.device:
    """The device itself if it computes in float64, else the CPU."""
    return device if device.type in DOUBLE else CPU


def to_float64(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor in float64, on the CPU where its own device does not compute in it."""
    return (tensor if tensor.device.type in DOUBLE else tensor.cpu()).double()


class Accumulator(Protocol):
    """Running sums of blocks, in the memory of one device."""

    def zeros(self, count: int) -> Any:
        """The sum of nothing."""

    def add(self, held: Any, block: Block, sign: int) -> None:
        """Add a block to a sum, or with -1 take it away."""

    def scale(self, held: Any, block: Block | None, sign: int, weight: float) -> Any:
        """(held ± block) · weight, or held · weight for None; valid until the same thread calls again."""

    def to_numpy(self, total: Any) -> NDArray[np.float64]:
        """The result of `scale` as an array."""

    def to_float32(self, total: Any) -> Any:
        """The result of `scale` in float32, on its device; valid until the same thread calls again."""


class HostSums:
    """Sums in this process, by NumPy."""

    def __init__(self) -> None:
        self._scratch = Scratch()

    def zeros(self, count: int) -> NDArray[np.float64]:
        """A new array."""
        return np.zeros(count)

    def add(self, held: NDArray[np.float64], block: Block, sign: int) -> None:
        """In place."""
        (np.add if sign > 0 else np.subtract)(held, block, out=held)

    def scale(self, held: NDArray[np.float64], block: Block | None, sign: int, weight: float) -> NDArray[np.float64]:
        """In this thread's own memory."""
        total = self._scratch.array("total", np.float64, held.size)
        if block is None:
            np.multiply(held, weight, out=total)
        else:
            (np.add if sign > 0 else np.subtract)(held, block, out=total)
            total *= weight
        return total

    def to_numpy(self, total: NDArray[np.float64]) -> NDArray[np.float64]:
        """The array itself."""
        return total

    def to_float32(self, total: NDArray[np.float64]) -> NDArray[np.float32]:
        """In this thread's own memory."""
        found = self._scratch.array("single", np.float32, total.size)
        np.copyto(found, total, casting="same_kind")
        return found


class DeviceSums:
    """Sums on a device with memory of its own, by torch: the same operations, so the same bits.

    Blocks are copied to the device as they are read; sums stay on it.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def zeros(self, count: int) -> torch.Tensor:
        """A new tensor there."""
        return torch.zeros(count, dtype=torch.float64, device=self._device)

    def add(self, held: torch.Tensor, block: Block, sign: int) -> None:
        """In place."""
        held.add_(self._upload(block), alpha=sign)

    def scale(self, held: torch.Tensor, block: Block | None, sign: int, weight: float) -> torch.Tensor:
        """A new tensor there."""
        total = held if block is None else torch.add(held, self._upload(block), alpha=sign)
        return total * weight

    def to_numpy(self, total: torch.Tensor) -> NDArray[np.float64]:
        """A copy here."""
        found: NDArray[np.float64] = total.cpu().numpy()
        return found

    def to_float32(self, total: torch.Tensor) -> torch.Tensor:
        """A new tensor there."""
        return total.float()

    def _upload(self, block: Block) -> torch.Tensor:
        return torch.from_numpy(block).to(self._device)
