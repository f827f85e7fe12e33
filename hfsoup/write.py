"""A complete model folder, or none: everything is written beside the target, synced, and renamed last."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hfsoup.average import Averager
from hfsoup.errors import SoupError
from hfsoup.hashing import file_hash
from hfsoup.tensorfile import nbytes, write_header
from hfsoup.types import Family, Mix, TensorSpec

CONFIGS = ("preprocessor_config.json", "processor_config.json")
DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}


@contextmanager
def staged(target: Path) -> Iterator[Path]:
    """A temporary folder beside `target` that becomes `target` if the block ends well and vanishes if it does not."""
    if target.exists():
        raise SoupError("the output folder is already there", where=str(target), hint="another --output")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        stage = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    except OSError as error:
        raise SoupError(f"the output folder cannot be made: {error.strerror}", where=str(target)) from error
    try:
        yield stage
        stage.chmod(0o755)
        for path in [*stage.rglob("*"), stage]:
            _sync(path)
        stage.rename(target)
        _sync(target.parent)
    except OSError as error:
        raise SoupError(f"the soup could not be written: {error.strerror}", where=str(target)) from error
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def write_weights(averager: Averager, mix: Mix, folder: Path) -> dict[str, str]:
    """Average straight into safetensors files, sharded as the reference is; file name to sha256."""
    shards = averager.family.shards
    names = [f"model-{n:05}-of-{len(shards):05}.safetensors" for n in range(1, len(shards) + 1)]
    if len(shards) == 1:
        names = ["model.safetensors"]
    else:
        _write_index(averager, names, folder)
    for name, specs in zip(names, shards, strict=True):
        starts = write_header(folder / name, [(s.name, averager.stored_as(s), s.shape) for s in specs])
        with (folder / name).open("r+b") as file:
            averager.average(mix, partial(_write, file.fileno(), starts), specs)
    return {name: file_hash(folder / name) for name in names}


def write_configs(family: Family, folder: Path, dtype: str | None) -> None:
    """The reference's config, with the soup's dtype, and its image processor as it is."""
    config = {k: v for k, v in family.config.items() if k not in ("_name_or_path", "torch_dtype")}
    floats = Counter(spec.dtype for spec in family.tensors if spec.dtype in DTYPES)
    config["dtype"] = DTYPES[dtype or floats.most_common(1)[0][0]]
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    for name in CONFIGS:
        if (family.reference.folder / name).is_file():
            shutil.copyfile(family.reference.folder / name, folder / name)


def _write(handle: int, starts: dict[str, int], spec: TensorSpec, begin: int, block: NDArray[Any]) -> None:
    view = memoryview(block.view(np.uint8))  # type: ignore[arg-type]
    at = starts[spec.name] + begin * block.itemsize
    while view:
        done = os.pwrite(handle, view, at)
        view, at = view[done:], at + done


def _write_index(averager: Averager, names: list[str], folder: Path) -> None:
    """The index that tells in which file each tensor is."""
    shards = averager.family.shards
    size = sum(nbytes(averager.stored_as(s), s.shape) for s in averager.family.tensors)
    homes = {s.name: name for name, specs in zip(names, shards, strict=True) for s in specs}
    index = {"metadata": {"total_size": size}, "weight_map": homes}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
