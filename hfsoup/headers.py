"""Hub checkpoints known by their configs and headers alone: a few kilobytes instead of the weights."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from hfsoup.errors import HubError, SoupError
from hfsoup.hub import answers, api, side_by_side
from hfsoup.names import shown
from hfsoup.offline import ONCE, is_offline
from hfsoup.pull import WEIGHTS, fetch_configs, needed, placed, pull
from hfsoup.tensorfile import MAX_HEADER, parse_header
from hfsoup.types import Ingredient, RemoteFile, Source, TensorSpec, WeightFile
from hfsoup.untrusted import open_regular

FIRST = 100_000
SMALL = 8 << 20


def outline(sources: Sequence[Source], scratch: Path) -> tuple[Ingredient, ...]:
    """Ingredients whose weight files have a header and the right length, and nothing else.

    The header comes by an HTTP range request; the tensors' bytes are a hole, so the files must not be averaged.

    Args:
        sources: Hub sources with safetensors weights.
        scratch: a folder for the hollow files.
    """
    return tuple(side_by_side(lambda source: _outline(source, scratch), sources))


def _outline(source: Source, scratch: Path) -> Ingredient:
    if source.base is None:
        return placed(source, fetch_configs(source), _hollow(source, scratch))
    from hfsoup.adapters import sketched

    base = pull([source.base])[0] if source.base.folder else _outline(source.base, scratch)
    (weights,) = _hollow(source, scratch)
    return sketched(source, fetch_configs(source), weights, base, scratch / _place(source))


def _hollow(source: Source, scratch: Path) -> tuple[WeightFile, ...]:
    """The weight files of a Hub source with their headers and nothing else."""
    weights = []
    for n, file in enumerate(f for f in needed(source) if f.name.endswith(WEIGHTS)):
        where = f"{source}, {file.name}"
        if not file.name.endswith(".safetensors"):
            raise SoupError("a pickle has no header to read", where=where, hint="hfsoup check --weights")
        path = scratch / f"{_place(source)}-{n}.safetensors"
        header = _header(source, file, where)
        with path.open("wb") as hollow:
            hollow.write(header)
            hollow.truncate(max(file.size, len(header)))
        name = file.name.removeprefix(f"{source.subfolder}/")
        weights.append(WeightFile(name, path, file.size, file.sha256 or file.blob, ()))
    return tuple(weights)


def _place(source: Source) -> str:
    return f"{source.id.replace('/', '--')}-{source.revision}"


def _header(source: Source, file: RemoteFile, where: str) -> bytes:
    """The eight bytes of length and the JSON, by at most two range requests."""
    read = _ranges(source, file)
    with answers(where):
        start = read(0, min(FIRST, file.size))
        length = struct.unpack("<Q", start[:8])[0] if len(start) >= 8 else 0
        end = 8 + min(length, MAX_HEADER)
        return start[:end] if end <= len(start) else start + read(len(start), min(end, file.size))


def peek(source: Source, path: str) -> bytes:
    """The start of a small file of a source, by its path in the repository or from its folder on; it is not kept.

    Raises:
        SoupError: there is no such file.
    """
    where = f"{source}, {path}"
    if source.folder:
        with os.fdopen(open_regular(source.folder / path, where=where), "rb") as file:
            return file.read(SMALL)
    found = next((file for file in source.files if file.name == path), None)
    if found is None:
        raise SoupError("the file is missing", where=where)
    with answers(where):
        return _ranges(source, found)(0, min(found.size, SMALL)) if found.size else b""


def tensors(source: Source, file: RemoteFile) -> list[TensorSpec]:
    """The tensors of a safetensors file that a source has on the Hub, from its header alone."""
    where = f"{source}, {file.name}"
    header = _header(source, file, where)
    return parse_header(header[8:], len(header), file.size, where=where)


def reader(repo: str, revision: str, name: str, *, kind: str = "model") -> Callable[[int, int], bytes]:
    """Reads ranges of bytes of a file on the Hub; offline, of the cached one."""
    from huggingface_hub import HfFileSystem

    if is_offline():
        return partial(_cached_range, repo, revision, name, kind)
    hub, prefix = api(), "" if kind == "model" else f"{kind}s/"
    files = HfFileSystem(endpoint=hub.endpoint, token=hub.token)
    path = f"{prefix}{repo}@{revision}/{name}"
    return lambda begin, end: bytes(files.cat_file(path, start=begin, end=end, cache_type="none"))


def _cached_range(repo: str, revision: str, name: str, kind: str, begin: int, end: int) -> bytes:
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(repo, name, revision=revision, repo_type=kind)
    if not isinstance(found, str):
        where = f"{repo}@{revision[:7]}, {shown(name)}"
        raise HubError("offline mode is on, and the cache does not hold this file", where=where, hint=ONCE)
    with open(found, "rb") as file:
        file.seek(begin)
        return file.read(end - begin)


def _ranges(source: Source, file: RemoteFile) -> Callable[[int, int], bytes]:
    return reader(source.repo, source.revision or "", file.name)
