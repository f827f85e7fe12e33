"""Images as the world has them: every mode, orientation, depth and container that Pillow writes, about 200 in all."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import PIL
from PIL import Image as Pictures
from PIL import ImageCms, ImageOps

SIDE = 24
ORIENTATION = 0x0112
RANDOM = np.random.default_rng(5)
YCBCR = ("YCbCr",) if int(PIL.__version__.split(".")[0]) >= 13 else ()
"""Pillow 12 writes TIFFs of this mode that it does not read."""


def odd_images() -> dict[str, bytes]:
    """Encoded images by what is odd about them; every one is another picture."""
    return dict(_all())


def encoded(picture: Any, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def noise(*shape: int, high: int = 256, dtype: Any = np.uint8) -> Any:
    """Blocks of random values, each block four pixels wide, so that resizing leaves something of them."""
    height, width, *rest = shape
    small = RANDOM.integers(0, high, (-(-height // 4), -(-width // 4), *rest)).astype(dtype)
    return small.repeat(4, axis=0).repeat(4, axis=1)[:height, :width]


def colour(width: int = SIDE, height: int = SIDE) -> Any:
    return Pictures.fromarray(noise(height, width, 3))


def grey(width: int = SIDE, height: int = SIDE) -> Any:
    return Pictures.fromarray(noise(height, width))


def _all() -> Iterator[tuple[str, bytes]]:
    yield from _modes()
    yield from _palettes()
    yield from _turned()
    yield from _deep()
    yield from _moving()
    yield from _sizes()
    yield from _profiles()


def _modes() -> Iterator[tuple[str, bytes]]:
    """Every mode in every container that takes it."""
    kinds = {
        "PNG": ("1", "L", "LA", "RGB", "RGBA", "P"),
        "JPEG": ("L", "RGB", "CMYK", "YCbCr"),
        "TIFF": ("1", "L", "LA", "RGB", "RGBA", "CMYK", *YCBCR, "P", "RGBX", "LAB", "PA"),
        "WEBP": ("RGB", "RGBA", "L"),
        "BMP": ("1", "L", "RGB", "P", "RGBA"),
        "GIF": ("L", "P", "RGB", "1"),
        "PPM": ("1", "L", "RGB", "RGBA"),
        "JPEG2000": ("L", "LA", "RGB", "RGBA", "YCbCr"),
        "AVIF": ("RGB", "RGBA"),
    }
    for kind, modes in kinds.items():
        for mode in modes:
            for n in range(2):
                yield f"{kind} {mode} {n}", encoded(_mode(mode), kind)
    for quality in (1, 50, 95):
        for sampling in (0, 1, 2):
            yield f"JPEG {quality} {sampling}", encoded(colour(), "JPEG", quality=quality, subsampling=sampling)
    yield "progressive JPEG", encoded(colour(), "JPEG", progressive=True)
    yield "JPEG of CMYK that Adobe inverts", _inverted(encoded(_mode("CMYK"), "JPEG"))
    yield "interlaced GIF", encoded(colour().quantize(16), "GIF", interlace=1)
    for pack in ("tiff_lzw", "packbits", "tiff_adobe_deflate", "jpeg"):
        yield f"TIFF {pack}", encoded(colour(), "TIFF", compression=pack)
    yield "TIFF of two pages", encoded(colour(), "TIFF", save_all=True, append_images=[colour()])
    yield "JPEG of two pictures", encoded(colour(), "MPO", save_all=True, append_images=[colour()])


def _mode(mode: str) -> Any:
    """A picture of a mode, its alpha and its fourth channel random as well."""
    if mode == "LAB":
        return Pictures.merge("LAB", [grey() for _ in range(3)])
    if mode in ("RGBA", "CMYK", "RGBX"):
        return Pictures.merge(mode, [grey() for _ in range(4)])
    if mode in ("LA", "PA"):
        return Pictures.merge("LA", [grey(), grey()]).convert(mode)
    return colour().convert(mode)


def _inverted(data: bytes) -> bytes:
    """A JPEG whose Adobe segment is taken out, so that its inks are not inverted."""
    at = data.find(b"\xff\xee")
    return data if at < 0 else data[:at] + data[at + 2 + int.from_bytes(data[at + 2 : at + 4], "big") :]


def _palettes() -> Iterator[tuple[str, bytes]]:
    for colours in (2, 4, 16, 200):
        for n, alpha in enumerate((None, 0, 1, b"\x00\x80", bytes(range(0, 250, 25)), b"\x00" * 256)):
            options = {} if alpha is None else {"transparency": alpha}
            yield f"PNG palette {colours} {n}", encoded(colour().quantize(colours), "PNG", **options)
        yield f"GIF palette {colours}", encoded(colour().quantize(colours), "GIF", transparency=1)
    short = Pictures.fromarray(noise(SIDE, SIDE, high=3))
    short = Pictures.frombytes("P", short.size, short.tobytes())
    short.putpalette([200, 10, 10, 10, 200, 10])
    yield "PNG of more values than its palette has", encoded(short, "PNG")
    with_alpha = colour().convert("RGBA")
    with_alpha.putalpha(grey())
    yield "PNG palette with alpha", encoded(with_alpha.quantize(20), "PNG")
    for mode, alpha in (("L", 7), ("RGB", (3, 4, 5)), ("1", 1)):
        yield f"PNG {mode} with a transparent colour", encoded(_mode(mode), "PNG", transparency=alpha)
    yield "WebP with alpha", encoded(with_alpha, "WEBP", lossless=True)


def _turned() -> Iterator[tuple[str, bytes]]:
    """Every orientation in every container that may say one, and values that mean none."""
    for turn in range(1, 9):
        exif = Pictures.Exif()
        exif[ORIENTATION] = turn
        for kind in ("JPEG", "PNG", "WEBP", "TIFF", "AVIF"):
            yield f"{kind} turned {turn}", encoded(colour(SIDE, 16), kind, exif=exif)
        yield f"palette turned {turn}", encoded(colour(16, SIDE).quantize(8), "PNG", exif=exif)
    for turn in (0, 9, 77):
        exif = Pictures.Exif()
        exif[ORIENTATION] = turn
        yield f"JPEG turned {turn}", encoded(colour(SIDE, 16), "JPEG", exif=exif)
    yield (
        "JPEG with EXIF that is damaged",
        encoded(colour(), "JPEG", exif=b"Exif\x00\x00II*\x00\x08\x00\x00\x00\xff\xff"),
    )


def _deep() -> Iterator[tuple[str, bytes]]:
    """More than eight bits a channel: the whole range, a part of it, and values that eight bits hold."""
    for high in (256, 1024, 4096, 1 << 16):
        wide = Pictures.fromarray(noise(SIDE, SIDE, high=high, dtype=np.uint16))
        for kind in ("PNG", "TIFF", "PPM"):
            yield f"{kind} of 16 bits up to {high}", encoded(wide, kind)
    for high in (256, 1 << 20):
        values = noise(SIDE, SIDE, high=high, dtype=np.int32)
        yield f"TIFF of 32 bits up to {high}", encoded(Pictures.fromarray(values), "TIFF")
        yield f"TIFF of floats up to {high}", encoded(Pictures.fromarray(values.astype(np.float32)), "TIFF")
    yield "TIFF of floats up to 1", encoded(Pictures.fromarray(noise(SIDE, SIDE).astype(np.float32) / 255), "TIFF")
    yield "TIFF of 16 bits, big-endian", _big_endian(noise(SIDE, SIDE, high=1 << 16, dtype=np.uint16))
    yield "PNG of 16 bits in colour", _png16(noise(SIDE, SIDE, 3, high=1 << 16, dtype=np.uint16), 2)
    yield "PNG of 16 bits with alpha", _png16(noise(SIDE, SIDE, 4, high=1 << 16, dtype=np.uint16), 6)
    yield "PNG of 16 bits, grey with alpha", _png16(noise(SIDE, SIDE, 2, high=1 << 16, dtype=np.uint16), 4)


def _big_endian(values: Any) -> bytes:
    picture = Pictures.frombytes("I;16B", values.shape[::-1], values.astype(">u2").tobytes())
    return encoded(picture, "TIFF")


def _png16(values: Any, kind: int) -> bytes:
    """A PNG of 16 bits a channel, which Pillow reads and does not write."""
    import struct
    import zlib

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    height, width = values.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def _moving() -> Iterator[tuple[str, bytes]]:
    for kind in ("GIF", "PNG", "WEBP", "AVIF"):
        more = [colour() for _ in range(3)]
        yield f"animated {kind}", encoded(colour(), kind, save_all=True, append_images=more)
    more = [colour().quantize(5), ImageOps.mirror(colour()).quantize(9)]
    yield "GIF of several palettes", encoded(colour().quantize(7), "GIF", save_all=True, append_images=more, disposal=2)
    yield (
        "APNG with a cover of its own",
        encoded(colour(), "PNG", save_all=True, append_images=[colour(), colour()], default_image=True),
    )


def _sizes() -> Iterator[tuple[str, bytes]]:
    for width, height in ((1, 1), (2, 1), (1, 3), (300, 1), (1, 300), (640, 5), (3, 450), (17, 23), (257, 129)):
        for kind in ("PNG", "JPEG"):
            yield f"{kind} of {width} × {height}", encoded(colour(width, height), kind)


def _profiles() -> Iterator[tuple[str, bytes]]:
    for name in ("sRGB", "LAB", "XYZ"):
        profile = ImageCms.ImageCmsProfile(ImageCms.createProfile(name)).tobytes()
        for kind in ("PNG", "JPEG", "TIFF", "WEBP"):
            yield f"{kind} with a profile of {name}", encoded(colour(), kind, icc_profile=profile)
    for gamma in (20_000, 45_455, 100_000):
        plain = encoded(colour(), "PNG")
        yield f"PNG of gamma {gamma}", plain[:33] + _gamma(gamma) + plain[33:]


def _gamma(value: int) -> bytes:
    import struct
    import zlib

    data = b"gAMA" + struct.pack(">I", value)
    return struct.pack(">I", 4) + data + struct.pack(">I", zlib.crc32(data))
