"""Prepared images in a file: one byte a value, and a table of the float32 value that each byte stands for.

After resize and crop an image is bytes, and the last steps of most image processors, rescale and normalize, are a
function of one byte and its channel. The processor itself makes the table, from pictures of one value each. Every image
is compared with what the processor gives; if one is not bit-equal, the file is float32.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hfsoup.utils.errors import LOADING_ERRORS
from hfsoup.utils.text import format_size

if TYPE_CHECKING:
    import torch

Rows = NDArray[np.int64] | slice | int
BYTES = 256
FLOAT = np.dtype("<f4")
CONSTANT = 16
"""The side of the pictures of one value, which are neither resized nor cropped if the processor can leave that out."""
AT_ONCE = 8
CACHED = 1 << 15
"""Values that are looked up at once, which a processor's cache holds."""
UNRESIZED = {"do_resize": False, "do_center_crop": False}


@dataclass(frozen=True)
class PixelFile:
    """The prepared images of a split: a .npy file, images × channels × height × width, or images × numbers.

    The file holds uint8 if there is a `table`: float32 as it is in memory, 256 × channels, the value of each byte in
    each channel. Without one it holds float32. Images are float32 when they are read, bit for bit as the processor's.
    """

    path: Path
    table: bytes | None = None

    @property
    def name(self) -> str:
        """The name of the file, which is a hash of everything that its images depend on."""
        return self.path.name

    @property
    def shape(self) -> tuple[int, ...]:
        """The number of images, and the shape of one."""
        return self._map().shape

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Rows) -> NDArray[np.float32]:
        stored = self._read(rows)
        if self.table is None:
            return stored
        images = stored.reshape(-1, *stored.shape[-3:])
        return expand(images, decode_table(self.table)).reshape(stored.shape)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self[:], dtype)

    def load(self, rows: Rows, device: torch.device) -> torch.Tensor:
        """Images as float32 on a device; a device with memory of its own is sent the bytes.

        A CUDA device gets them from pinned memory in its current stream, and the caller does not wait for that.
        """
        import torch

        if self.table is not None and device.type == "cpu":
            return torch.from_numpy(self[rows]).to(device)
        stored = torch.from_numpy(self._read(rows))
        if device.type == "cuda":
            stored = stored.pin_memory()
        sent = stored.to(device, non_blocking=device.type == "cuda")
        return sent if self.table is None else expand_tensor(sent, decode_table(self.table))

    def describe_floats(self) -> Iterator[str]:
        """A note if the file is float32, with the size of an image in it."""
        if self.table is None:
            size = format_size(FLOAT.itemsize * int(np.prod(self.shape[1:])))
            yield (
                f"prepared images are cached as float32, {size} each, four times the usual size: this image processor"
                " does more than rescale and normalize 8-bit values"
            )

    def _read(self, rows: Rows) -> NDArray[Any]:
        """A copy of what the file holds of some images."""
        return np.require(self._map()[(rows,)], requirements="W")

    def _map(self) -> NDArray[Any]:
        return np.asarray(np.load(self.path, mmap_mode="r"))


def expand(stored: NDArray[np.uint8], table: NDArray[np.float32]) -> NDArray[np.float32]:
    """The values of bytes, images × channels × height × width, by a table of 256 × channels."""
    found, columns = np.empty(stored.shape, np.float32), np.ascontiguousarray(table.T)
    # `clip` spares a check that bytes always pass.
    step = max(1, CACHED // max(1, stored[:1, 0].size))
    for begin in range(0, len(stored), step):
        for channel, column in enumerate(columns):
            found[begin : begin + step, channel] = column.take(stored[begin : begin + step, channel], mode="clip")
    return found


def expand_tensor(stored: torch.Tensor, table: NDArray[np.float32]) -> torch.Tensor:
    """The same as `expand`, on the device of `stored`."""
    import torch

    found = torch.empty(stored.shape, dtype=torch.float32, device=stored.device)
    for channel, column in enumerate(torch.from_numpy(table.T.copy()).to(stored.device)):
        found[:, channel] = column[stored[:, channel].int()]
    return found


def find_bytes(pixels: NDArray[np.float32], table: NDArray[np.float32]) -> NDArray[np.uint8] | None:
    """The bytes of one image, channels × height × width, that `expand` makes bit-equal to it; None if none do."""
    if pixels.ndim != 3 or len(pixels) != table.shape[1]:
        return None
    found, plane = np.empty(pixels.shape, np.uint8), np.empty(pixels.shape[1:], np.float32)
    # Rescale and normalize are linear but for rounding. Where they are not, the comparison fails.
    with np.errstate(all="ignore"):
        for values, column, stored in zip(pixels, np.ascontiguousarray(table.T), found, strict=True):
            scale = np.float32(BYTES - 1) / (column[-1] - column[0])
            np.multiply(values, scale, out=plane)
            plane += np.float32(0.5) - column[0] * scale
            stored[:] = plane
            np.take(column, stored, out=plane, mode="clip")
            if not np.array_equal(plane.view(np.uint32), values.view(np.uint32)):
                return None
    return found


@lru_cache(maxsize=4)
def make_table(processor: Any) -> bytes | None:
    """What an image processor makes of each byte in each channel, as `PixelFile.table`; None if it gives no images.

    It is given pictures of one value each, without a resize and crop that would not change them, if it can do that.
    """
    for options in (UNRESIZED, {}):
        try:
            return _process_constants(processor, options)
        except LOADING_ERRORS:
            continue
    return None


def decode_table(table: bytes) -> NDArray[np.float32]:
    """A `PixelFile.table` as an array, 256 × channels."""
    return np.frombuffer(table, FLOAT).reshape(BYTES, -1)


def _process_constants(processor: Any, options: dict[str, bool]) -> bytes | None:
    from PIL import Image

    found: list[NDArray[np.float32]] = []
    for begin in range(0, BYTES, AT_ONCE):
        pictures = [Image.new("RGB", (CONSTANT, CONSTANT), (n, n, n)) for n in range(begin, begin + AT_ONCE)]
        made = np.asarray(processor(images=pictures, return_tensors="pt", **options)["pixel_values"], FLOAT)
        if made.ndim != 4 or not np.isfinite(made).all():
            return None
        found.append(made[:, :, made.shape[2] // 2, made.shape[3] // 2])
    return np.concatenate(found).tobytes()
