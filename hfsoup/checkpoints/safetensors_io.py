"""Safetensors files, read and written block by block; a header is checked before it is used.

The format: eight bytes of header length, a JSON header, then the tensors' bytes
(https://github.com/huggingface/safetensors#format).
"""

from __future__ import annotations

import json
import os
import struct
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hfsoup.checkpoints.half_floats import HALVES, narrow
from hfsoup.checkpoints.types import TensorSpec
from hfsoup.utils.errors import SoupError
from hfsoup.utils.hashing import stamp_file
from hfsoup.utils.positioned_io import read_at, read_into
from hfsoup.utils.safe_json import open_regular, parse_json, walk_json
from hfsoup.utils.text import one_line, quoted

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

MAX_HEADER = 8 << 20
MAX_NAME = 512
MAX_ELEMENTS = 1 << 48
FLOATS = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
INTEGERS = {"I64": np.int64, "I32": np.int32, "I16": np.int16, "I8": np.int8, "U8": np.uint8, "BOOL": np.uint8}
INFINITIES = {"F64": 0x7FF << 52, "F32": 0xFF << 23, "F16": 0x1F << 10, "BF16": 0xFF << 7}
"""The bits of infinity; those of finite floats are smaller but for the sign, those of NaN larger."""
STORED = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": np.uint16, **INTEGERS}


class TensorFile:
    """One safetensors file, open for reading; blocks are read into private memory, never memory-mapped."""

    def __init__(self, path: Path, name: str | None = None) -> None:
        self.path, self.name = path, name or str(path)
        self._handle = open_regular(path, where=self.name)
        try:
            size = os.fstat(self._handle).st_size
            self.tensors = {spec.name: spec for spec in parse_header(*self._header(size), size, where=self.name)}
        except SoupError:
            self.close()
            raise

    def read(self, spec: TensorSpec, begin: int, count: int, into: NDArray[Any] | None = None) -> NDArray[Any]:
        """`count` elements of a tensor from element `begin` on, flat, as stored (bfloat16 as its uint16 bits).

        They are read into the array `into` if one of that size and type is given.
        """
        stored = np.dtype(STORED[spec.dtype])
        block = np.empty(count, stored) if into is None else into
        view = memoryview(block.view(np.uint8))  # type: ignore[arg-type]
        at, done = spec.start + begin * stored.itemsize, 0
        while done < len(view):
            got = read_into(self._handle, view[done:], at + done)
            if got == 0:
                where = f"{self.name}, tensor {one_line(spec.name)}"
                raise SoupError("the file was truncated while it was read", where=where)
            done += got
        return block

    @property
    def stamp(self) -> tuple[int, ...]:
        """The open file's stamp (see `stamp_file`), to be compared with the one from before it was hashed."""
        return stamp_file(self._handle)

    def close(self) -> None:
        """Release the file."""
        os.close(self._handle)

    def _header(self, size: int) -> tuple[bytes, int]:
        """The JSON header and where the tensors' bytes begin."""
        head = read_at(self._handle, 8, 0)
        length = struct.unpack("<Q", head)[0] if len(head) == 8 else -1
        if length < 2 or length > size - 8:
            kind = "a git-LFS pointer" if head == b"version " else "a truncated or different file"
            what = f"expected a safetensors file, found {kind} ({size} bytes)"
            raise SoupError(what, where=self.name, hint="download or save it again")
        if length > MAX_HEADER:
            raise SoupError(f"the header of {length} bytes is over the limit of {MAX_HEADER}", where=self.name)
        return read_at(self._handle, length, 8), 8 + length


def read_tensor_specs(path: Path, *, where: str) -> dict[str, TensorSpec]:
    """The tensors of a safetensors file by name, from its header, which is checked; `where` is the file, for errors."""
    file = TensorFile(path, where)
    file.close()
    return file.tensors


def parse_header(header: bytes, base: int, size: int, *, where: str) -> list[TensorSpec]:
    """The tensors of a safetensors header, in the order of their bytes.

    Args:
        header: the JSON text.
        base: where in the file the tensors' bytes begin.
        size: the file's length; the tensors must fill it without a gap.
        where: the file, for errors.
    """
    try:
        entries = parse_json(header)
    except ValueError as error:
        raise SoupError(f"the safetensors header cannot be read: {one_line(error)}", where=where) from error
    if not isinstance(entries, dict) or header[:1] != b"{":
        raise SoupError("the safetensors header is not an object", where=where)
    _check_metadata(entries.get("__metadata__"), where)
    specs = [_parse_spec(name, entry, base, where) for name, entry in entries.items() if name != "__metadata__"]
    specs.sort(key=lambda s: (s.start, s.stop))
    end = base
    for spec in specs:
        if spec.start != end:
            at = f"{where}, tensor {one_line(spec.name)}"
            raise SoupError(f"expected bytes from {end} on, found {one_line(spec.start)}", where=at)
        end = spec.stop
    if end != size:
        raise SoupError(f"the tensors end at byte {end} but the file has {size}", where=where, hint="download it again")
    return specs


def write_header(path: Path, specs: Iterable[tuple[str, str, tuple[int, ...]]]) -> dict[str, int]:
    """Create a safetensors file with room for `specs` (name, dtype, shape); returns where each tensor's bytes begin."""
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset, starts = 0, {}
    for name, dtype, shape in specs:
        stop = offset + count_bytes(dtype, shape)
        entries[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [offset, stop]}
        starts[name], offset = offset, stop
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + offset)
    return {name: 8 + len(text) + start for name, start in starts.items()}


def write_tensors(path: Path, tensors: Mapping[str, tuple[str, NDArray[Any]]]) -> None:
    """Create a safetensors file of `tensors`: dtype and stored array by name, in this order."""
    starts = write_header(path, [(name, dtype, array.shape) for name, (dtype, array) in tensors.items()])
    with path.open("r+b") as file:
        for name, (_, array) in tensors.items():
            file.seek(starts[name])
            file.write(np.ascontiguousarray(array).tobytes())


def count_bytes(dtype: str, shape: tuple[int, ...]) -> int:
    """The size of a tensor in bytes."""
    return prod(shape) * np.dtype(STORED[dtype]).itemsize


def to_float(block: NDArray[Any], dtype: str) -> NDArray[np.floating]:
    """Stored floats as floats of NumPy: bfloat16 bits become float32, other types stay as they are."""
    if dtype == "BF16":
        return (block.astype(np.uint32) << 16).view(np.float32)
    return block


def is_finite(block: NDArray[Any], dtype: str) -> bool:
    """Whether stored floats, which lie side by side in memory, hold neither NaN nor infinity."""
    size, infinity = block.itemsize, INFINITIES[dtype]
    if not block.size:
        return True
    # Two maxima need no further memory: of positive numbers as signed integers, of negative ones as unsigned.
    negative = infinity | 1 << (8 * size - 1)
    return bool(block.view(f"i{size}").max() < infinity and block.view(f"u{size}").max() < negative)


def to_stored(block: NDArray[np.float64], dtype: str, into: NDArray[Any] | None = None) -> NDArray[Any]:
    """Float64 values rounded to `dtype`, to nearest, ties to even, in the memory of `into` if that is given."""
    found = np.empty(block.shape, STORED[dtype]) if into is None else into
    if dtype in HALVES:
        narrow(np.ascontiguousarray(block, np.float64).ravel(), dtype, found.view(np.uint16).ravel())
        return found
    with np.errstate(over="ignore"):  # the caller checks for infinity
        np.copyto(found, block, casting="same_kind")
    return found


def _check_metadata(found: Any, where: str) -> None:
    """Refuse metadata that does not map strings to strings, as safetensors does."""
    try:
        plain = found is None or (isinstance(found, dict) and all(isinstance(v, str) for v in found.values()))
        for _ in walk_json(found) if plain else ():
            pass
    except ValueError:
        plain = False
    if not plain:
        raise SoupError("expected __metadata__ to map strings to strings, found something else", where=where)


def _parse_spec(name: str, entry: Any, base: int, where: str) -> TensorSpec:
    """One checked entry of a header."""
    at = f"{where}, tensor {one_line(name)}"
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise SoupError(f"the tensor name {quoted(name)} is not valid Unicode", where=where) from error
    if len(name) > MAX_NAME:
        raise SoupError(f"a tensor name is longer than {MAX_NAME} characters", where=at)
    match entry:
        case {"dtype": str(dtype), "shape": list(shape), "data_offsets": [start, stop]} if len(entry) == 3:
            pass
        case _:
            raise SoupError("expected dtype, shape and data_offsets, found something else", where=at)
    if dtype not in STORED:
        raise SoupError(f"expected one of {', '.join(STORED)}, found {quoted(dtype)}", where=at)
    if not all(type(number) is int for number in (*shape, start, stop)):
        raise SoupError("expected whole numbers for shape and data_offsets, found something else", where=at)
    if len(shape) > 16 or min(shape, default=0) < 0 or prod(max(side, 1) for side in shape) > MAX_ELEMENTS:
        raise SoupError(f"the shape {one_line(shape)} is not valid", where=at)
    if not 0 <= start <= stop < 1 << 63 or stop - start != count_bytes(dtype, tuple(shape)):
        place = f"the bytes from {one_line(start, 24)} to {one_line(stop, 24)}"
        what = f"{place} do not hold {dtype} of shape {one_line(shape)}"
        raise SoupError(what, where=at)
    return TensorSpec(name, dtype, tuple(shape), base + start, base + stop)
