"""The arithmetic of forward passes: what `--precision` means on a device, and how a pass computes in it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from hfsoup.evaluation.scores import FLOAT32, STORED, Precision
from hfsoup.utils.errors import UsageError

AUTO, TF32, BF16 = "auto", "tf32", "bf16"
AUTOCAST = {BF16: torch.bfloat16, "fp16": torch.float16}
AMPERE = (8, 0)
"""The compute capability of the first CUDA devices with TF32."""


def choose_precision(asked: str, device: torch.device) -> Precision:
    """The arithmetic of scores on a device.

    Args:
        asked: the value of `--precision`. With `auto` candidates are scored under bf16 autocast on CUDA devices that
            have it, all else in float32.
        device: where images are scored.

    Raises:
        UsageError: the device does not compute in it.
    """
    if asked == AUTO:
        fast = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        return Precision(BF16 if fast else FLOAT32, FLOAT32)
    if asked == TF32 and (device.type != "cuda" or torch.cuda.get_device_capability(device) < AMPERE):
        what = f"expected a CUDA device with TF32 for --precision tf32, found {describe_device(device)}"
        raise UsageError(what, hint="--precision float32")
    return Precision(asked, asked)


@contextmanager
def computing_in(name: str, device: torch.device) -> Iterator[None]:
    """Compute in `float32`, `tf32`, or under autocast in `bf16` or `fp16`; weights are float32, or `stored`.

    Autocast may keep its copies of weights until the block ends, so weights must not change inside.
    """
    if name == STORED:
        yield
        return
    with _with_tf32(device, allowed=name == TF32):
        if (narrow := AUTOCAST.get(name)) is None:
            yield
        else:
            with torch.autocast(device.type, narrow):
                yield


@contextmanager
def _with_tf32(device: torch.device, *, allowed: bool) -> Iterator[None]:
    """Torch lets convolutions use TF32 unless that is switched off."""
    backends: tuple[Any, ...] = (torch.backends.cuda.matmul, torch.backends.cudnn) if device.type == "cuda" else ()
    before = [backend.allow_tf32 for backend in backends]
    try:
        for backend in backends:
            backend.allow_tf32 = allowed
        yield
    finally:
        for backend, value in zip(backends, before, strict=True):
            backend.allow_tf32 = value


def describe_device(device: torch.device) -> str:
    """The name of a device as far as results depend on it: its model, or the instructions of a processor."""
    if device.type == "cuda":
        return f"cuda {torch.cuda.get_device_name(device)}"
    return f"cpu {torch.backends.cpu.get_cpu_capability()}" if device.type == "cpu" else device.type
