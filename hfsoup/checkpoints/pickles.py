"""Pickled checkpoints become safetensors: checked first, then read with `weights_only`, never otherwise."""

from __future__ import annotations

import os
import pickletools
import re
import struct
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any, BinaryIO
from zipfile import ZIP_STORED, BadZipFile, ZipFile

from hfsoup.checkpoints.dtypes import TORCH_NAMES
from hfsoup.checkpoints.safetensors_io import write_header
from hfsoup.utils.cache import cached_folder
from hfsoup.utils.errors import SoupError
from hfsoup.utils.hashing import hash_json
from hfsoup.utils.safe_json import open_regular
from hfsoup.utils.text import join_names, one_line, quoted

if TYPE_CHECKING:
    import torch

MAX_DIRECTORY = 8 << 20
MAX_PICKLE = 4 << 20
MAX_STEPS = 400_000
CALLS = re.compile(
    r"collections OrderedDict|torch\._utils _rebuild_(tensor_v2|parameter)|torch(\.cuda)? \w+Storage"
    r"|torch\.storage (Untyped|Typed)Storage"
)
INDIRECT = {"STACK_GLOBAL", "INST", "OBJ", "EXT1", "EXT2", "EXT4", "NEWOBJ_EX"}
DTYPES = {name: stored for stored, name in TORCH_NAMES.items()}
DAMAGES = (
    ArithmeticError, AssertionError, AttributeError, BadZipFile, EOFError, ImportError, LookupError, MemoryError,
    OSError, RuntimeError, TypeError, UnpicklingError, ValueError, struct.error,
)  # fmt: skip
FOREIGN = "this pickle holds more than tensors, or is damaged; it was not run"
HINT = "use a safetensors version of this checkpoint, or ask its author for one"
CONVERTED = "model.safetensors"


def convert_pickle(path: Path, digest: str, *, where: str, unwrap: bool = False, key: str | None = None) -> Path:
    """A pickled checkpoint as safetensors in hfsoup's cache; `unwrap` and `key` are as for `load_pickle`."""
    name = f"inner-{digest}" if unwrap else digest if key is None else f"{hash_json(key)[:16]}-{digest}"

    def build(folder: Path) -> None:
        _write_safetensors(load_pickle(path, where=where, unwrap=unwrap, key=key), folder / CONVERTED)

    return cached_folder("converted", name, build) / CONVERTED


def load_pickle(path: Path, *, where: str, unwrap: bool = False, key: str | None = None) -> dict[str, Any]:
    """The tensors of a `.bin`, `.pt` or `.th` file by name.

    Args:
        path: the file.
        where: its name, for errors.
        unwrap: take the tensors under the key `state_dict` if there is one.
        key: take only the tensors under this key; the key is put before their names.

    Raises:
        SoupError: it is not an archive of plain tensors as `torch.save` writes it, or claims more than its size.
    """
    size = _check_archive(path, where)
    import torch

    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except DAMAGES as error:
        raise SoupError(FOREIGN, where=where, hint=HINT) from error
    if key is not None:
        found = _select_key(found, key, where)
    wrapped = isinstance(found, dict) and isinstance(found.get("state_dict"), dict)
    if unwrap and wrapped:
        found = found["state_dict"]
    if not isinstance(found, dict) or not found or not all(isinstance(name, str) for name in found):
        raise SoupError("expected tensors by name, found something else", where=where)
    for name, tensor in found.items():
        if not isinstance(tensor, torch.Tensor):
            groups = {str(n): value.values() for n, value in found.items() if isinstance(value, dict) and value}
            inner = [n for n, values in groups.items() if all(isinstance(one, torch.Tensor) for one in values)]
            hint = f"--state-dict-key {inner[0]}" if inner and inner[0].isprintable() else HINT
            what = f"expected tensors by name, found {type(tensor).__name__} among them"
            raise SoupError(what, where=f"{where}, {one_line(name)}", hint=hint)
        _require_plain(tensor, f"{where}, tensor {one_line(name)}")
    if sum(tensor.numel() * tensor.element_size() for tensor in found.values()) > 2 * size:
        raise SoupError("the tensors are larger than their file", where=where)
    return dict(found)


def _select_key(found: Any, key: str, where: str) -> dict[str, Any]:
    """The tensors under a key, or whose names begin with it, with the key before their names."""
    if isinstance(found, dict) and isinstance(found.get(key), dict):
        return {f"{key}.{name}": tensor for name, tensor in found[key].items()}
    names = [str(name) for name in found] if isinstance(found, dict) else []
    if inner := {name: found[name] for name in names if name.startswith(f"{key}.")}:
        return inner
    keys = list(dict.fromkeys(name.partition(".")[0] for name in names))
    what = f"expected tensors under the key {quoted(key)}, found {join_names(keys, 8) or 'no keys'}"
    raise SoupError(what, where=where)


def _check_archive(path: Path, where: str) -> int:
    """The size of an archive, once its directory, entries and pickle are as `torch.save` writes them."""
    with os.fdopen(open_regular(path, where=where), "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if file.read(4) != b"PK\3\4":
            what = "expected an archive as torch.save writes it, found something else"
            raise SoupError(what, where=where, hint="load it with torch where you trust it, and save it as safetensors")
        try:
            if _read_directory_size(file, size) > MAX_DIRECTORY:
                raise SoupError(f"the directory of this archive is over {MAX_DIRECTORY} bytes", where=where)
            with ZipFile(file) as archive:
                _check_entries(archive, size, where)
        except DAMAGES as error:
            what = f"this archive is damaged: {one_line(error)}"
            raise SoupError(what, where=where, hint="download it again") from error
    return size


def _read_directory_size(file: BinaryIO, size: int) -> int:
    """The size of the archive's directory, before it is read.

    The end record must be at the very end of the file, so that every reader finds the same one.
    Source: APPNOTE.TXT 4.3.14 to 4.3.16, https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT
    """
    file.seek(max(size - 98, 0))
    tail = file.read(98).rjust(98)
    mark, *_, length, _, comment = struct.unpack("<4s4H2LH", tail[76:])
    if mark != b"PK\5\6" or comment:
        raise BadZipFile("its end record is not at its end")
    if tail[56:60] != b"PK\6\7":
        return int(length)
    if tail[:4] != b"PK\6\6":
        raise BadZipFile("its long end record is not before its end")
    return int(struct.unpack("<Q", tail[40:48])[0])


def _check_entries(archive: ZipFile, size: int, where: str) -> None:
    """Refuse compressed and duplicate entries, and a pickle that calls anything but constructors of plain tensors."""
    entries = archive.infolist()
    if any(e.compress_type != ZIP_STORED or e.file_size != e.compress_size for e in entries):
        raise SoupError("expected uncompressed entries, found compressed ones", where=where, hint=HINT)
    names = [entry.filename.lower() for entry in entries]
    programs = [entry for entry in entries if entry.filename.lower().endswith("data.pkl")]
    if sum(entry.file_size for entry in entries) > size or len(set(names)) < len(names) or len(programs) != 1:
        raise SoupError("the entries of this archive contradict each other", where=where, hint=HINT)
    if programs[0].file_size > MAX_PICKLE:
        raise SoupError(f"the pickle in this archive is over {MAX_PICKLE} bytes", where=where, hint=HINT)
    for step, (operation, argument, _) in enumerate(pickletools.genops(archive.read(programs[0]))):
        called = operation.name == "GLOBAL" and not CALLS.fullmatch(str(argument))
        if called or operation.name in INDIRECT or step > MAX_STEPS:
            name = quoted(str(argument).replace(" ", ".")) if called else operation.name
            what = f"this pickle holds more than tensors ({name}); it was not run"
            raise SoupError(what, where=where, hint=HINT)


def _require_plain(tensor: torch.Tensor, where: str) -> None:
    """Refuse sparse and quantized tensors, those on another device, and those larger than their storage."""
    kind = str(tensor.dtype).removeprefix("torch.")
    if kind not in DTYPES or str(tensor.layout) != "torch.strided" or tensor.device.type != "cpu" or tensor.is_neg():
        raise SoupError(f"expected a plain tensor, found {kind} {tensor.layout} on {tensor.device}", where=where)
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise SoupError(f"the shape {one_line(list(tensor.shape))} is larger than what is stored", where=where)


def _write_safetensors(tensors: dict[str, torch.Tensor], path: Path) -> None:
    """Write a safetensors file tensor by tensor."""
    import torch

    specs = [(n, DTYPES[str(t.dtype).removeprefix("torch.")], tuple(t.shape)) for n, t in tensors.items()]
    starts = write_header(path, specs)
    with path.open("r+b") as file:
        for name, tensor in tensors.items():
            file.seek(starts[name])
            file.write(tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().data)
