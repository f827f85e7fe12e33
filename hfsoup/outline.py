"""A checkpoint before it is pulled: its config and its tensors, from a few kilobytes that are not kept."""

from __future__ import annotations

import posixpath
import tempfile
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from hfsoup.errors import SoupError
from hfsoup.headers import peek, tensors
from hfsoup.options import Options
from hfsoup.pull import CHECKPOINT, PICKLES, needed
from hfsoup.room import learning as learnt
from hfsoup.room import weights
from hfsoup.tensorfile import FLOATS, TensorFile, nbytes
from hfsoup.timm_config import image_shape, understood
from hfsoup.types import PROCESSORS, RemoteFile, Source, TensorSpec
from hfsoup.untrusted import parse_json

LARGEST = 4096


@dataclass(frozen=True)
class Outline:
    """`specs` are its tensors, None for pickles, whose headers cannot be read; `shape` that of one prepared image."""

    config: dict[str, Any]
    specs: tuple[TensorSpec, ...] | None
    shape: tuple[int, int, int] | None

    @property
    def has_batch_norm(self) -> bool | None:
        """Whether the model keeps statistics of its activations; None where no header tells."""
        if self.specs is None:
            return None
        return any(spec.name.endswith("running_var") for spec in self.specs)

    @property
    def elements(self) -> int:
        """How many floats its tensors hold; 0 where no header tells."""
        return sum(prod(spec.shape) for spec in self.specs or () if spec.dtype in FLOATS)

    def memory(self, options: Options, learning: int = 0) -> int | None:
        """The least bytes that a bake holds at once: one model, where it scores a batch of images too.

        A recipe that learns holds so many ingredients together, and training holds four more models.
        """
        if self.specs is None:
            return None
        stored = options.stored_dtype
        kinds = [(stored if stored and s.dtype in FLOATS else s.dtype, s.shape) for s in self.specs]
        model = sum(nbytes(dtype, shape) for dtype, shape in kinds)
        trained = 4 * 4 * self.elements if options.distill else 0
        batch = 4 * (options.batch_size or 64) * prod(self.shape) if self.shape and options.dataset else 0
        return max((model if options.dataset else 0) + trained, learnt(learning, self.elements)) + batch


def outlined(source: Source) -> Outline:
    """What a source says of itself, an adapter by its base.

    Raises:
        SoupError: its config or a header cannot be read.
    """
    source = source.base or source
    specs: list[TensorSpec] | None = []
    for file in weights(source):
        if file.name.endswith(PICKLES):
            specs = None
            break
        if file.name.endswith(".safetensors"):
            specs = [*(specs or ()), *_tensors(source, file)]
    config = peek_config(source)
    shape = image_shape(config) or _shape(source)
    return Outline(config, None if specs is None else tuple(specs), shape)


def peek_config(source: Source) -> dict[str, Any]:
    """The config.json of a source, which is not kept.

    Raises:
        SoupError: it cannot be read.
    """
    path = posixpath.join(source.subfolder, "config.json") if source.folder is None else "config.json"
    return understood(_json(source, path), where=f"{source}, {path}")


def peek_processor(source: Source) -> Any:
    """The image processor of a source that is no adapter; no file of it is kept.

    Raises:
        SoupError: it has none that can be loaded.
    """
    from hfsoup.models import image_processor

    config = posixpath.join(source.subfolder, "config.json") if source.folder is None else "config.json"
    with tempfile.TemporaryDirectory() as folder:
        for path in (config, *_processors(source)):
            (Path(folder) / posixpath.basename(path)).write_bytes(peek(source, path))
        return image_processor(Path(folder))


def _tensors(source: Source, file: RemoteFile) -> list[TensorSpec]:
    if source.folder is None:
        return tensors(source, file)
    opened = TensorFile(source.folder / file.name, f"{source}, {file.name}")
    opened.close()
    return list(opened.tensors.values())


def _shape(source: Source) -> tuple[int, int, int] | None:
    """Channels, height and width that a processor's config promises, where it says so plainly."""
    for path in _processors(source):
        values = _json(source, path)
        found = values.get("crop_size") if values.get("do_center_crop") else values.get("size")
        sides = [found.get(side) for side in ("height", "width")] if isinstance(found, dict) else []
        plain = [side for side in sides if isinstance(side, int) and 0 < side <= LARGEST]
        if len(plain) == 2:
            return 3, plain[0], plain[1]
    return None


def _processors(source: Source) -> list[str]:
    """The files that say how images are processed, those of the run where a Trainer's checkpoint has none."""
    if source.folder is None:
        return [file.name for file in needed(source) if posixpath.basename(file.name) in PROCESSORS]
    homes = [source.folder, *([source.folder.parent] if CHECKPOINT.fullmatch(source.folder.name) else [])]
    found = ([str(home / name) for name in PROCESSORS if (home / name).is_file()] for home in homes)
    return next(filter(None, found), [])


def _json(source: Source, path: str) -> dict[str, Any]:
    try:
        found = parse_json(peek(source, path))
    except ValueError as error:
        raise SoupError("expected JSON, found something else", where=f"{source}, {path}") from error
    if not isinstance(found, dict):
        raise SoupError("expected a JSON object, found something else", where=f"{source}, {path}")
    return found
