"""A complete model folder, or none: everything is written to a temporary folder, synced, and renamed last."""

from __future__ import annotations

import ctypes
import glob
import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hfsoup.averaging.averager import Averager, Block
from hfsoup.averaging.mix import Mix
from hfsoup.checkpoints.architecture import describe_architecture
from hfsoup.checkpoints.dtypes import FLOAT_NAMES
from hfsoup.checkpoints.safetensors_io import count_bytes, is_finite, to_stored, write_header
from hfsoup.checkpoints.timm_config import has_timm_layout, read_image_settings, read_model_config, restore_layout
from hfsoup.checkpoints.types import PROCESSORS, LowRankAdapter, TensorSpec
from hfsoup.ingredients.family import Family
from hfsoup.utils.cache import cache_root, register_user, sync_folder
from hfsoup.utils.errors import SoupError, require_utf8
from hfsoup.utils.hashing import GrowingHash, hash_blake3
from hfsoup.utils.positioned_io import write_at
from hfsoup.utils.safe_json import read_json
from hfsoup.utils.text import one_line

STAGE = ".hfsoup-"
AT_FDCWD, RENAME_EXCHANGE = -100, 2


@contextmanager
def lock_output(target: Path) -> Iterator[None]:
    """Lock an output folder against other processes; the error names the process that has it.

    The lock is the system's and ends with its holder, so a killed bake leaves nothing to clear but its temporary
    folders, which are removed here.
    """
    from filelock import FileLock, Timeout

    require_utf8(target)
    register_user()
    path = cache_root() / "locks" / f"{hashlib.sha256(str(target.absolute()).encode()).hexdigest()[:32]}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path, timeout=0)
    try:
        with lock:
            holder = path.with_suffix(".pid")
            holder.write_text(str(os.getpid()), encoding="utf-8")
            for orphan in target.parent.glob(f".{glob.escape(target.name)}{STAGE}*"):
                shutil.rmtree(orphan, ignore_errors=True)
            yield
    except Timeout as error:
        pid = path.with_suffix(".pid").read_text(encoding="utf-8")
        what = f"another hfsoup (process {pid}) is writing to this folder"
        raise SoupError(what, where=str(target), hint="another --output, or wait for it") from error


@contextmanager
def stage_output(target: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """A temporary folder next to `target`, renamed to it if the block ends well and removed if not.

    Without `overwrite`, what holds anything is never replaced, even if it appears while the block runs.
    """
    if os.path.lexists(target) and not overwrite:
        raise SoupError(
            "the output folder is already there", where=str(target), hint="--overwrite, or another --output"
        )
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        stage = Path(tempfile.mkdtemp(prefix=f".{target.name}{STAGE}", dir=target.parent))
    except OSError as error:
        raise SoupError(f"the output folder cannot be created: {error.strerror}", where=str(target)) from error
    try:
        yield stage
        stage.chmod(0o755)
        for path in [*stage.rglob("*"), stage]:
            sync_folder(path)
        replaced = overwrite and os.path.lexists(target)
        if overwrite:
            _replace(stage, target)
        else:
            # What appeared here in the meantime stays: a folder takes the place of nothing but an empty folder.
            stage.rename(target)
        try:
            sync_folder(target.parent)
        except OSError:
            # It may not last, so it counts as not done: restore what was there.
            _replace(stage, target) if replaced else target.rename(stage)
            raise
    except OSError as error:
        raise SoupError(f"the soup could not be written: {error.strerror}", where=str(target)) from error
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def _replace(stage: Path, target: Path) -> None:
    """Exchange `stage` and `target`, so that there is a folder at `target` at every moment."""
    if not os.path.lexists(target):
        stage.rename(target)
        return
    swap = getattr(ctypes.CDLL(None), "renameat2", None) if sys.platform == "linux" else None
    if swap is not None and swap(AT_FDCWD, bytes(stage), AT_FDCWD, bytes(target), RENAME_EXCHANGE) == 0:
        return
    # Where the system cannot exchange two names at once, what was there moves aside first.
    aside = stage.with_name(f"{stage.name}.old")
    target.rename(aside)
    stage.rename(target)
    shutil.rmtree(aside)


def write_weights(
    averager: Averager, mix: Mix, folder: Path, statistics: Mapping[str, NDArray[np.float32]]
) -> dict[str, str]:
    """Average straight into safetensors files, sharded as the reference is; file name to sha256.

    Args:
        averager: forms the tensors.
        mix: their coefficients.
        folder: where the files go.
        statistics: batch-norm tensors by name that take the place of the averaged ones.
    """
    shards = averager.family.shards
    hashes: dict[str, str] = {}
    names = [f"model-{n:05}-of-{len(shards):05}.safetensors" for n in range(1, len(shards) + 1)]
    if len(shards) == 1:
        names = ["model.safetensors"]
    else:
        _write_index(averager, names, folder)
    for name, specs in zip(names, shards, strict=True):
        hashes[name] = _write_shard(averager, mix, folder / name, specs, statistics)
    return hashes


def _write_shard(
    averager: Averager, mix: Mix, path: Path, specs: Sequence[TensorSpec], statistics: Mapping[str, NDArray[np.float32]]
) -> str:
    """Average some tensors into a file that is hashed as it grows; its sha256."""
    starts = write_header(path, [(s.name, averager.stored_as(s), s.shape) for s in specs])
    with path.open("r+b") as file:
        digest = GrowingHash(file.fileno())

        def put(spec: TensorSpec, begin: int, block: NDArray[Any]) -> None:
            if spec.name in statistics:
                dtype = averager.stored_as(spec)
                block = to_stored(statistics[spec.name].astype(np.float64), dtype)
                if not is_finite(block, dtype):
                    what = f"the re-estimated statistics are out of the range of {dtype}"
                    raise SoupError(what, where=f"tensor {one_line(spec.name)}", hint="--dtype float32")
            _write(file.fileno(), starts[spec.name] + begin * block.itemsize, block)

        def done(job: Block) -> None:
            size = count_bytes(averager.stored_as(job.first), (job.begin + job.count,))
            digest.hash_until(starts[job.first.name] + size)

        averager.average(mix, put, specs, done)
        return digest.hash_until(file.seek(0, os.SEEK_END))


def write_adapter(adapter: LowRankAdapter, folder: Path) -> dict[str, str]:
    """Copy a soup that is an adapter out of hfsoup's cache; the name of its weight file to sha256."""
    source = adapter.ingredient.adapter
    if source is None:
        raise SoupError("this soup is no adapter", where=str(folder))
    for file in (source.config, source.weights):
        shutil.copyfile(file.path, folder / file.name)
        if hash_blake3(folder / file.name) != file.blake3:
            raise SoupError("a file in hfsoup's cache has changed", where=str(file.path), hint="the same command again")
    return {source.weights.name: source.weights.sha256}


def write_configs(family: Family, folder: Path, dtype: str | None) -> None:
    """The reference's config, with the soup's dtype and class, and the family's image processor.

    Both are copied unchanged, except for `auto_map`: a soup has no code of its own.
    """
    silent = ("_name_or_path", "torch_dtype", "auto_map")
    config = {k: v for k, v in restore_layout(family.config).items() if k not in silent}
    if not has_timm_layout(family.config):
        if config.get("num_labels", 0) is None:
            del config["num_labels"]
        # What the check of the ingredients stored in the cache, so that writing a soup imports no library.
        shapes = {spec.name: spec.shape for spec in family.tensors}
        config["architectures"] = [describe_architecture(family.config, len(family.labels), shapes).model_class]
        floats = Counter(spec.dtype for spec in family.tensors if spec.dtype in FLOAT_NAMES)
        config["dtype"] = FLOAT_NAMES[dtype or floats.most_common(1)[0][0]]
    if read_image_settings(family.config):
        path = family.processor_ingredient.folder / "config.json"
        own = read_image_settings(read_model_config(path, where=f"{family.processor_ingredient}, config.json"))
        config["pretrained_cfg"] = {**config["pretrained_cfg"], **(own or {})}
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    for name in () if read_image_settings(family.config) else PROCESSORS:
        path = family.processor_ingredient.processor_folder / name
        if not path.is_file():
            continue
        values = read_json(path, where=f"{family.processor_ingredient}, {name}")
        if values.pop("auto_map", None):
            (folder / name).write_text(json.dumps(values, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        else:
            shutil.copyfile(path, folder / name)


def _write(handle: int, at: int, block: NDArray[Any]) -> None:
    view = memoryview(block.view(np.uint8))  # type: ignore[arg-type]
    while view:
        done = write_at(handle, view, at)
        view, at = view[done:], at + done


def _write_index(averager: Averager, names: list[str], folder: Path) -> None:
    """The index: the file of each tensor."""
    shards = averager.family.shards
    size = sum(count_bytes(averager.stored_as(s), s.shape) for s in averager.family.tensors)
    homes = {s.name: name for name, specs in zip(names, shards, strict=True) for s in specs}
    index = {"metadata": {"total_size": size}, "weight_map": homes}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
