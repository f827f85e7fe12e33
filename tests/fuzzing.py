"""What the readers must hold for any bytes, shared by the quick tests and the long ones."""

from __future__ import annotations

import struct
import tempfile
from pathlib import Path

import numpy as np
import safetensors

from hfsoup.checkpoints.inspection import limit_numbers, read_class_names, read_processor_config, refuse_foreign_code
from hfsoup.checkpoints.safetensors_io import STORED, TensorFile
from hfsoup.checkpoints.types import Ingredient, Source
from hfsoup.ingredients.pull import _read_index
from hfsoup.utils.errors import SoupError
from hfsoup.utils.safe_json import read_json

FOLDER = Path(tempfile.mkdtemp(prefix="hfsoup-fuzz-"))


def weights(data: bytes) -> bool:
    """Read bytes as safetensors: refused with a SoupError, or safetensors reads the same tensors from them."""
    path = FOLDER / "model.safetensors"
    path.write_bytes(data)
    try:
        file = TensorFile(path, "here")
    except SoupError as error:
        told(error)
        return False
    try:
        other = dict(safetensors.deserialize(data))
        if other.keys() != file.tensors.keys():
            raise AssertionError("other names")
        for name, spec in file.tensors.items():
            block = file.read(spec, 0, int(np.prod(spec.shape, dtype=np.int64)))
            theirs = other[name]
            if (spec.dtype, list(spec.shape)) != (theirs["dtype"], theirs["shape"]):
                raise AssertionError("another type or shape")
            if block.dtype != STORED[spec.dtype] or block.tobytes() != bytes(theirs["data"]):
                raise AssertionError("other values")
    finally:
        file.close()
    return True


def headed(header: bytes, data: bytes = b"") -> bytes:
    """A safetensors file of this header."""
    return struct.pack("<Q", len(header)) + header + data


def config(data: bytes) -> bool:
    """Read bytes as a config and as a processor: refused with a SoupError, or with class names that can be used."""
    for name in ("config.json", "preprocessor_config.json", "processor_config.json"):
        (FOLDER / name).write_bytes(data)
    try:
        values = read_json(FOLDER / "config.json", where="here")
        refuse_foreign_code(values, where="here")
        limit_numbers(values, where="here", most=1 << 14)
        labels = read_class_names(values, where="here")
        read_processor_config(Ingredient(Source("here", None, FOLDER), FOLDER, ()))
    except SoupError as error:
        told(error)
        return False
    if not labels or not all(isinstance(label, str) and label for label in labels):
        raise AssertionError(labels)
    "".join(labels).encode()
    return True


def index(data: bytes) -> bool:
    """Read bytes as an index: refused with a SoupError, or with shards that are there."""
    path, present = FOLDER / "model.safetensors.index.json", ["model-1-of-2.safetensors", "model-2-of-2.safetensors"]
    path.write_bytes(data)
    try:
        homes = _read_index(path, [*present, path.name], where="here")
    except SoupError as error:
        told(error)
        return False
    if not homes or not set(homes.values()) <= set(present):
        raise AssertionError(homes)
    return True


def told(error: SoupError) -> None:
    """An error can be shown: it is short, and made of characters that a terminal takes."""
    text = str(error)
    text.encode()
    if len(text) > 1500 or not all(c.isprintable() or c == "\n" for c in text):
        raise AssertionError(repr(text))
