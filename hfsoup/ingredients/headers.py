"""Checkpoints by their configs and headers alone: a few kilobytes from the Hub instead of the weights."""

from __future__ import annotations

import os
import posixpath
import struct
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from math import prod
from pathlib import Path
from typing import Any

from hfsoup.checkpoints.lora.config import find_adapter_weights
from hfsoup.checkpoints.safetensors_io import FLOATS, MAX_HEADER, parse_header, read_tensor_specs
from hfsoup.checkpoints.timm_config import normalize_config, read_image_shape
from hfsoup.checkpoints.types import PROCESSORS, Ingredient, Source, TensorSpec, WeightFile
from hfsoup.hub.client import expect_answer
from hfsoup.hub.download import RemoteFile, open_range_reader
from hfsoup.ingredients.pull import (
    CHECKPOINT,
    PICKLES,
    WEIGHTS,
    fetch_configs,
    find_weight_names,
    list_files,
    list_needed_files,
    place_ingredient,
    pull_ingredients,
)
from hfsoup.utils.errors import SoupError
from hfsoup.utils.safe_json import open_regular, parse_json
from hfsoup.utils.text import one_line
from hfsoup.utils.threads import map_in_threads

LARGEST = 4096
"""The largest image side that is believed."""
FIRST = 100_000
"""Bytes of the first request, which most headers fit in."""
SMALL = 8 << 20
"""The largest config that is read."""


def outline_ingredients(sources: Sequence[Source], scratch: Path) -> tuple[Ingredient, ...]:
    """Ingredients whose weight files have the header and the right length, but no tensor data.

    The header comes by an HTTP range request. The files can be checked, but not averaged.

    Args:
        sources: Hub sources with safetensors weights.
        scratch: a folder for these files.
    """
    return tuple(map_in_threads(lambda source: _outline_ingredient(source, scratch), sources))


def _outline_ingredient(source: Source, scratch: Path) -> Ingredient:
    if source.base is None:
        return place_ingredient(source, fetch_configs(source), _write_hollow_files(source, scratch))
    from hfsoup.checkpoints.lora.merge import merge_adapter_headers

    base = pull_ingredients([source.base])[0] if source.base.folder else _outline_ingredient(source.base, scratch)
    (weights,) = _write_hollow_files(source, scratch)
    return merge_adapter_headers(source, fetch_configs(source), weights, base, scratch / _format_place(source))


def _write_hollow_files(source: Source, scratch: Path) -> tuple[WeightFile, ...]:
    """The weight files of a Hub source, with headers and no tensor data."""
    weights = []
    for n, file in enumerate(f for f in list_needed_files(source) if f.name.endswith(WEIGHTS)):
        where = f"{source}, {file.name}"
        if not file.name.endswith(".safetensors"):
            raise SoupError("expected safetensors, found a pickle", where=where, hint="hfsoup check --weights")
        path = scratch / f"{_format_place(source)}-{n}.safetensors"
        header = _read_header(source, file, where)
        with path.open("wb") as hollow:
            hollow.write(header)
            hollow.truncate(max(file.size, len(header)))
        name = file.name.removeprefix(f"{source.subfolder}/")
        weights.append(WeightFile(name, path, file.size, known := file.sha256 or file.blob, (), known))
    return tuple(weights)


def _format_place(source: Source) -> str:
    return f"{source.id.replace('/', '--')}-{source.revision}"


def _read_header(source: Source, file: RemoteFile, where: str) -> bytes:
    """The header with its eight bytes of length, by at most two range requests."""
    read = _make_range_reader(source, file)
    with expect_answer(where):
        start = read(0, min(FIRST, file.size))
        length = struct.unpack("<Q", start[:8])[0] if len(start) >= 8 else 0
        end = 8 + min(length, MAX_HEADER)
        return start[:end] if end <= len(start) else start + read(len(start), min(end, file.size))


def peek_file(source: Source, path: str) -> bytes:
    """The bytes of a small file of a source, by its path from the top of the repository or local folder; not cached.

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
    with expect_answer(where):
        return _make_range_reader(source, found)(0, min(found.size, SMALL)) if found.size else b""


def _read_specs(source: Source, file: RemoteFile) -> list[TensorSpec]:
    """The tensors of a safetensors file of a source, from its header alone."""
    where = f"{source}, {file.name}"
    if source.folder:
        return list(read_tensor_specs(source.folder / file.name, where=where).values())
    header = _read_header(source, file, where)
    return parse_header(header[8:], len(header), file.size, where=where)


def _make_range_reader(source: Source, file: RemoteFile) -> Callable[[int, int], bytes]:
    return open_range_reader(source.repo, source.revision or "", file.name)


def list_weight_files(source: Source) -> list[RemoteFile]:
    """The weight files of a source; of an adapter those of its base, which the merged checkpoint is as large as."""
    if source.base:
        return list_weight_files(source.base)
    if source.folder is None:
        files = list_files(source, source.subfolder)
        return [files[name] for name in find_weight_names(files, source)]
    names = find_weight_names(os.listdir(source.folder), source)  # noqa: PTH208 - names are wanted
    return [RemoteFile(name, (source.folder / name).stat().st_size, None, "") for name in names]


@dataclass(frozen=True)
class Outline:
    """A source by config and headers.

    `specs` are its tensors, None for pickles; `shape` is that of one processed image: channels, height, width.
    """

    config: dict[str, Any]
    specs: tuple[TensorSpec, ...] | None
    shape: tuple[int, int, int] | None

    @property
    def has_batch_norm(self) -> bool | None:
        """Whether the model has running statistics of batch norms; None without headers."""
        if self.specs is None:
            return None
        return any(spec.name.endswith("running_var") for spec in self.specs)

    @property
    def elements(self) -> int:
        """The number of float elements; 0 without headers."""
        return sum(prod(spec.shape) for spec in self.specs or () if spec.dtype in FLOATS)


def read_outline(source: Source) -> Outline:
    """Read the config and headers of a source; of an adapter those of its base.

    Raises:
        SoupError: its config or a header cannot be read.
    """
    source = source.base or source
    files, config = list_weight_files(source), peek_config(source)
    specs = None
    if not any(file.name.endswith(PICKLES) for file in files):
        safe = (file for file in files if file.name.endswith(".safetensors"))
        specs = tuple(chain.from_iterable(_read_specs(source, file) for file in safe))
    shape = read_image_shape(config) or _read_image_shape(source)
    return Outline(config, specs, shape)


def read_adapter_specs(source: Source) -> list[TensorSpec] | None:
    """The tensors of an adapter, by the header of its own weight file; None of a pickle.

    Raises:
        SoupError: it has no weights, or the header cannot be read.
    """
    names = [file.name for file in source.files] if source.folder is None else os.listdir(source.folder)  # noqa: PTH208
    files = {file.name: file for file in source.files}
    prefix = f"{source.subfolder}/" if source.folder is None and source.subfolder else ""
    known = [name.removeprefix(prefix) for name in names if name.startswith(prefix)]
    path = prefix + find_adapter_weights(known, where=str(source))
    if path.endswith(PICKLES):
        return None
    return _read_specs(source, files.get(path) or RemoteFile(path, 0, None, ""))


def peek_config(source: Source) -> dict[str, Any]:
    """The config.json of a source; it is not cached.

    Raises:
        SoupError: it cannot be read.
    """
    path = source.path_of("config.json")
    return normalize_config(_peek_json(source, path), where=f"{source}, {path}")


def peek_processor(source: Source) -> Any:
    """The image processor of a source that is not an adapter; its files are not cached.

    Raises:
        SoupError: it has none that can be loaded.
    """
    from hfsoup.checkpoints.processor import load_image_processor

    with tempfile.TemporaryDirectory() as folder:
        for path in (source.path_of("config.json"), *_list_processor_files(source)):
            (Path(folder) / posixpath.basename(path)).write_bytes(peek_file(source, path))
        return load_image_processor(Path(folder))


def _read_image_shape(source: Source) -> tuple[int, int, int] | None:
    """Channels, height and width in a processor's config; None if it has no plain size."""
    for path in _list_processor_files(source):
        values = _peek_json(source, path)
        found = values.get("crop_size") if values.get("do_center_crop") else values.get("size")
        sides = [found.get(side) for side in ("height", "width")] if isinstance(found, dict) else []
        plain = [side for side in sides if isinstance(side, int) and 0 < side <= LARGEST]
        if len(plain) == 2:
            return 3, plain[0], plain[1]
    return None


def _list_processor_files(source: Source) -> list[str]:
    """The paths of the image processor's files; those of the run if a Trainer's checkpoint has none."""
    if source.folder is None:
        return [file.name for file in list_needed_files(source) if posixpath.basename(file.name) in PROCESSORS]
    homes = [source.folder, *([source.folder.parent] if CHECKPOINT.fullmatch(source.folder.name) else [])]
    found = ([str(home / name) for name in PROCESSORS if (home / name).is_file()] for home in homes)
    return next(filter(None, found), [])


def _peek_json(source: Source, path: str) -> dict[str, Any]:
    try:
        found = parse_json(peek_file(source, path))
    except ValueError as error:
        what = f"expected JSON, found something else: {one_line(error)}"
        raise SoupError(what, where=f"{source}, {path}") from error
    if not isinstance(found, dict):
        raise SoupError("expected a JSON object, found something else", where=f"{source}, {path}")
    return found
