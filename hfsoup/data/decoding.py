"""Encoded bytes become one RGB image as in `transformers.pipeline`, or an error; memory is bounded for any bytes."""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image

# Formats that hold pixels; other formats of Pillow run an interpreter (EPS) or read further files.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "JPEG2000", "AVIF")
PIXELS = 90_000_000
BYTES = 256 << 20
WHITE = 255
BROKEN = (
    *(OSError, ValueError, SyntaxError, EOFError, RuntimeError, NotImplementedError, IndexError, KeyError, TypeError),
    *(AttributeError, OverflowError, ZeroDivisionError, struct.error, zlib.error, MemoryError),
)
MAGIC: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\x89PNG\r\n\x1a\n", "PNG"),
    (0, b"\xff\xd8\xff", "JPEG"),
    (0, b"GIF8", "GIF"),
    (0, b"BM", "BMP"),
    (8, b"WEBP", "WebP"),
    (0, b"II*\0", "TIFF"),
    (0, b"MM\0*", "TIFF"),
    (4, b"ftypavif", "AVIF"),
    (4, b"ftyphei", "HEIC"),
    (4, b"ftyphev", "HEIC"),
    (4, b"ftypmif1", "HEIC"),
    (4, b"ftypmsf1", "HEIC"),
    (4, b"ftyp", "MP4"),
    (0, b"\0\0\1\0", "ICO"),
    (0, b"icns", "ICNS"),
    (0, b"8BPS", "PSD"),
    (0, b"%PDF", "PDF"),
    (0, b"%!PS", "EPS"),
    (0, b"\xc5\xd0\xd3\xc6", "EPS"),
    (0, b"\xff\x0a", "JPEG XL"),
    (0, b"\0\0\0\x0cJXL ", "JPEG XL"),
    (128, b"DICM", "DICOM"),
    (0, b"DDS ", "DDS"),
    (0, b"v/1\x01", "OpenEXR"),
    (0, b"#?RADIANCE", "HDR"),
    (0, b"qoif", "QOI"),
    (0, b"\x01\xda", "SGI"),
    (0, b"SIMPLE  =", "FITS"),
    (0, b"\x93NUMPY", "NPY"),
    (0, b"PK\x03\x04", "ZIP"),
    (0, b"\x1f\x8b", "gzip"),
    (0, b"version https://git-lfs", "Git LFS pointer"),
)
"""Offset, bytes and the name of their format; the first that matches is taken."""
TEXTS = ((b"<svg", "SVG"), (b"<!doctype html", "HTML"), (b"<html", "HTML"), (b"<?xml", "XML"))
TGA_KINDS, TGA_DEPTHS = (1, 2, 3, 9, 10, 11), (8, 15, 16, 24, 32)


class BadImageError(Exception):
    """The image of a row cannot be used, and why."""


@dataclass(frozen=True)
class Decoded:
    """A picture as RGB, and as its file has it; `lost` is the share of pixels that become white or black in 8 bits."""

    picture: Image
    whole: Image
    lost: float


def decode(data: bytes, mode: str | None = None) -> Decoded:
    """The picture in `data` as `transformers.pipeline` has it: the first frame, turned as EXIF says, then RGB.

    Args:
        data: the encoded image.
        mode: the Pillow mode that a dataset declares for its images, which they are brought to first.

    Raises:
        BadImageError: it is damaged, too large, or of a kind that is not read.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    if len(data) > BYTES:
        raise BadImageError(f"{len(data):,} bytes, at most {BYTES:,} are read")
    if not data:
        raise BadImageError("the image has no bytes")
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            _require_bounded(*image.size)
            image.load()
            upright = ImageOps.exif_transpose(image)
            declared = upright.convert(mode) if mode and mode != upright.mode else upright
            return Decoded(declared.convert("RGB"), upright, _share_lost(upright))
    except Image.DecompressionBombError as error:
        raise BadImageError(f"more than {PIXELS / 1e6:.0f} megapixels") from error
    except UnidentifiedImageError as error:
        raise BadImageError(f"cannot be decoded: {_describe_unidentified(data)}") from error
    except BROKEN as error:
        raise BadImageError(f"cannot be decoded ({str(error)[:100] or type(error).__name__})") from error


def read_size(data: bytes) -> tuple[int, int]:
    """Width and height from the header of a picture, 0 if they cannot be read."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            return image.size
    except (*BROKEN, Image.DecompressionBombError):
        return 0, 0


def detect_format(data: bytes) -> str | None:
    """The name of the format of some bytes by how they begin, None if it is unknown."""
    found = next((name for at, magic, name in MAGIC if data.startswith(magic, at)), None)
    if found is None:
        start = data[:1024].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
        found = next((name for tag, name in TEXTS if start.startswith(tag)), None)
        if found == "XML" and b"<svg" in start:
            found = "SVG"
    # TGA has no magic bytes at its start, only fields of few values, and in newer files a word at its end.
    tga = len(data) > 18 and data[1] in (0, 1) and data[2] in TGA_KINDS and data[16] in TGA_DEPTHS
    return found or ("TGA" if tga or data.endswith(b"TRUEVISION-XFILE.\0") else None)


def _describe_unidentified(data: bytes) -> str:
    """What bytes without a readable image are, and what to do."""
    known = f"hfsoup reads {', '.join(FORMATS)}"
    found = detect_format(data)
    if found is None:
        return f"bytes of no known image format (they begin with {data[:8].hex(' ')}); {known}"
    if found.upper().replace(" ", "") in (*FORMATS, "GITLFSPOINTER"):
        pointer = found.startswith("Git")
        return f"a {found} without the image; git lfs pull" if pointer else f"a damaged {found} file"
    return f"a file of the format {found}; {known}: convert it to PNG, or leave it out"


def _require_bounded(width: int, height: int) -> None:
    if width * height > PIXELS:
        raise BadImageError(f"{width * height / 1e6:.0f} megapixels, at most {PIXELS / 1e6:.0f} are read")
    if min(width, height) < 1:
        raise BadImageError(f"{width} × {height} pixels")


def _share_lost(image: Image) -> float:
    """The share of the pixels of a picture of more than 8 bits a channel that become white or black in 8 bits.

    Pillow makes values above 255 white, and fractions of 1 black.
    """
    import numpy as np

    if not image.mode.startswith(("I", "F")):
        return 0.0
    values = np.asarray(image)
    return float(((values > WHITE) | ((values > 0) & (values < 1))).mean())
