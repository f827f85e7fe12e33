"""Batches of images on their way to a device, read by a thread while the batches before them are computed."""

from __future__ import annotations

import threading
from collections.abc import Generator, Sequence
from queue import Full, Queue
from typing import Any

import torch
from numpy.typing import NDArray

from hfsoup.data.pixels import PixelFile
from hfsoup.evaluation.batch_sizes import AHEAD
from hfsoup.utils.errors import OutOfMemoryError
from hfsoup.utils.threads import start_thread

PATIENCE = 0.1
"""Seconds after which the thread looks whether the batches are still wanted."""


def load_ahead(pixels: PixelFile, batches: Sequence[NDArray[Any]], device: torch.device) -> Generator[torch.Tensor]:
    """The images of every batch in turn, float32 on the device.

    On CUDA they are copied from pinned memory on a stream of their own, beside the computation.

    Args:
        pixels: the prepared images.
        batches: the rows of each batch.
        device: where they are wanted.
    """
    ready: Queue[_Loaded | None] = Queue(AHEAD)
    stopped = threading.Event()

    def put(item: _Loaded | None) -> None:
        while not stopped.is_set():
            try:
                ready.put(item, timeout=PATIENCE)
            except Full:
                continue
            return

    def read() -> None:
        try:
            stream = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]
            for rows in batches:
                if stopped.is_set():
                    return
                put(_Loaded(pixels, rows, device, stream))
        except torch.OutOfMemoryError as error:
            what = f"out of memory on {device} with batches of {len(batches[0])} images that are read ahead"
            raise OutOfMemoryError(what, hint="a smaller --batch-size") from error
        finally:
            put(None)

    reading = start_thread(read)
    try:
        while item := ready.get():
            yield item.take()
        reading.result()
    finally:
        stopped.set()


class _Loaded:
    """A batch that is on the device, or on its way there in a stream."""

    def __init__(
        self, pixels: PixelFile, rows: NDArray[Any], device: torch.device, stream: torch.cuda.Stream | None
    ) -> None:
        self._stream, self._device = stream, device
        if stream is None:
            self._images = pixels.load(rows, device)
            return
        with torch.cuda.stream(stream):
            self._images = pixels.load(rows, device)
            self._done = stream.record_event()

    def take(self) -> torch.Tensor:
        """The images, in the order of the current stream, which from now on owns their memory."""
        if self._stream is not None:
            current = torch.cuda.current_stream(self._device)
            current.wait_event(self._done)
            self._images.record_stream(current)
        return self._images
