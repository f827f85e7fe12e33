"""Encoded bytes become one RGB image, or a reason why not; bounded in memory whatever the bytes say."""

from __future__ import annotations

import io
import struct
import zlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image

# Those that hold pixels; others of Pillow's run an interpreter (EPS) or read further files.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "JPEG2000", "AVIF")
PIXELS = 90_000_000
BYTES = 256 << 20
# A processor that fits the shorter side blows up the longer one in proportion.
ASPECT = 100
DEEP = ("I;16", "I;16B", "I;16L", "I;16N", "I")
BROKEN = (
    *(OSError, ValueError, SyntaxError, EOFError, RuntimeError, NotImplementedError, IndexError, KeyError, TypeError),
    *(AttributeError, OverflowError, ZeroDivisionError, struct.error, zlib.error, MemoryError),
)


class BadImageError(Exception):
    """A row whose image cannot be shown to a model, and why."""


def decode(data: bytes) -> Image:
    """The picture in `data` as RGB: its first frame, turned as its EXIF orientation says, transparency dropped.

    16-bit greys are scaled to eight bits rather than cut off.

    Raises:
        BadImageError: it is damaged, too large, too narrow, or of a kind that is not read.
    """
    from PIL import Image, ImageOps

    if len(data) > BYTES:
        raise BadImageError(f"{len(data):,} bytes, at most {BYTES:,} are read")
    if not data:
        raise BadImageError("the image has no bytes")
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            _bounded(*image.size)
            image.load()
            return _rgb(ImageOps.exif_transpose(image))
    except Image.DecompressionBombError as error:
        raise BadImageError(f"more than {PIXELS / 1e6:.0f} megapixels") from error
    except BROKEN as error:
        raise BadImageError(f"cannot be decoded ({str(error)[:100] or type(error).__name__})") from error


def area(data: bytes) -> int:
    """How many pixels a picture says it has, 0 where that cannot be read."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            return image.width * image.height
    except (*BROKEN, Image.DecompressionBombError):
        return 0


def _bounded(width: int, height: int) -> None:
    if width * height > PIXELS:
        raise BadImageError(f"{width * height / 1e6:.0f} megapixels, at most {PIXELS / 1e6:.0f} are read")
    if min(width, height) < 1 or max(width, height) > ASPECT * min(width, height):
        raise BadImageError(f"{width} × {height} pixels: one side is more than {ASPECT} times the other")


def _rgb(image: Image) -> Image:
    import numpy as np
    from PIL import Image as Pictures

    if image.mode in DEEP:
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 0xFFFF:
            raise BadImageError("its pixels are integers of more than 16 bits, whose range is not known")
        image = Pictures.fromarray((values >> 8).astype(np.uint8))
    elif image.mode == "F":
        raise BadImageError("its pixels are floats, whose range is not known")
    elif image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("RGB")
