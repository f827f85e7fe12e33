"""A LoRA adapter and its base merged into an ordinary checkpoint: W + scaling·B·A, stored as float64.

It is rounded to the base's dtype once, when a soup is written, as any average is.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hfsoup.checkpoints.lora.config import CONFIG
from hfsoup.checkpoints.lora.plan import Delta, MergePlan, plan_merge
from hfsoup.checkpoints.safetensors_io import TensorFile, to_float, write_header
from hfsoup.checkpoints.types import PROCESSORS, AdapterParts, Ingredient, Source, TensorSpec, WeightFile, describe_file
from hfsoup.hub.client import SAME_COMMAND
from hfsoup.utils.cache import cached_folder
from hfsoup.utils.errors import SoupError
from hfsoup.utils.hashing import hash_blake3, hash_json, stamp_file
from hfsoup.utils.version import __version__

BLOCK = 1 << 20
Array = NDArray[np.float64]


def merge_adapter(source: Source, folder: Path, weights: WeightFile, base: Ingredient) -> Ingredient:
    """Merge an adapter into its base, in hfsoup's cache.

    Args:
        source: where the adapter is.
        folder: its files on this disk.
        weights: its weight file.
        base: its base model.

    Raises:
        SoupError: the adapter is not supported, does not fit its base, or does not name its classes.
    """
    adapted = AdapterParts(describe_file(folder / CONFIG), weights, base)
    with open_plan(source, adapted, folder) as (plan, adapter, files):
        configs = _find_configs(folder, base.folder)
        key = _hash_inputs(plan, adapted, configs)
        home = cached_folder("merged", key, lambda folder: _write_merged(plan, adapter, files, configs, folder))
    for file in (adapted.config, adapted.weights, *base.weights):
        if stamp_file(file.path) != file.stamp:
            raise SoupError("the file changed while it was read", where=f"{source}, {file.name}", hint=SAME_COMMAND)
    adapted = replace(adapted, dtypes=plan.dtypes)
    return Ingredient(source, home, (describe_file(home / "model.safetensors"),), adapter=adapted)


def merge_adapter_headers(
    source: Source, folder: Path, weights: WeightFile, base: Ingredient, scratch: Path
) -> Ingredient:
    """The same from headers alone, in the folder `scratch`: the weight file has a header and no tensor data."""
    adapted = AdapterParts(describe_file(folder / CONFIG), weights, base)
    with open_plan(source, adapted, folder) as (plan, _, _):
        configs = _find_configs(folder, base.folder)
        scratch.mkdir()
        write_header(scratch / "model.safetensors", plan.tensors)
        _write_configs(plan, configs, scratch)
    path, key = scratch / "model.safetensors", _hash_inputs(plan, adapted, configs)
    file = WeightFile(path.name, path, path.stat().st_size, key, (), key)
    return Ingredient(source, scratch, (file,), adapter=replace(adapted, dtypes=plan.dtypes))


@contextmanager
def open_plan(
    source: Source, adapted: AdapterParts, folder: Path
) -> Iterator[tuple[MergePlan, TensorFile, dict[str, TensorFile]]]:
    """The merge plan, the open file of the adapter, and the base's open file of every tensor."""
    with ExitStack() as stack:

        def file(weights: WeightFile, owner: object) -> TensorFile:
            found = TensorFile(weights.path, f"{owner}, {weights.name}")
            stack.callback(found.close)
            return found

        adapter = file(adapted.weights, source)
        files = {name: f for f in (file(w, adapted.base) for w in adapted.base.weights) for name in f.tensors}
        stored = {name: f.tensors[name] for name, f in files.items()}
        yield plan_merge(source, adapted, adapter, stored, folder), adapter, files


def compute_delta(file: TensorFile, change: Delta) -> Array:
    """scaling·B·A in the shape of the weight.

    Products are summed rank by rank, so that the bytes do not depend on threads or on the BLAS library.
    """
    a, b = (_read_matrix(file, spec) for spec in (change.a, change.b))
    found, step = np.zeros((len(b), a.shape[1])), max(BLOCK // a.shape[1], 1)
    for begin in range(0, len(b), step):
        rows = found[begin : begin + step]
        for k in range(len(a)):
            rows += b[begin : begin + step, k, None] * a[k]
    found *= change.scaling
    return (found.T if change.kind == "transposed" else found).reshape(change.shape)


def _read_matrix(file: TensorFile, spec: TensorSpec) -> Array:
    """A or B as rows × columns."""
    block = to_float(file.read(spec, 0, prod(spec.shape)), spec.dtype)
    return block.astype(np.float64).reshape(spec.shape[0], -1)


def _write_merged(
    plan: MergePlan, adapter: TensorFile, files: Mapping[str, TensorFile], configs: list[Path], folder: Path
) -> None:
    """Write the merged checkpoint, one tensor at a time."""
    path = folder / "model.safetensors"
    starts = write_header(path, plan.tensors)
    with path.open("r+b") as out:
        for name, _, _ in plan.tensors:
            out.seek(starts[name])
            out.write(_merge_tensor(plan, adapter, files, name).tobytes())
    _write_configs(plan, configs, folder)


def _merge_tensor(plan: MergePlan, adapter: TensorFile, files: Mapping[str, TensorFile], name: str) -> NDArray[Any]:
    """One tensor of the merged checkpoint, flat, in its stored dtype."""
    if name in plan.whole:
        spec = plan.whole[name]
        return adapter.read(spec, 0, prod(spec.shape))
    spec = plan.stored[name]
    block = files[spec.name].read(spec, 0, prod(spec.shape))
    if name not in plan.deltas:
        return block
    summed = to_float(block, spec.dtype).astype(np.float64)
    summed += compute_delta(adapter, plan.deltas[name]).ravel()
    return summed


def _find_configs(adapter: Path, base: Path) -> list[Path]:
    """The files of the adapter's image processor, or else of its base's, and the adapter's card."""
    own = [adapter / name for name in PROCESSORS if (adapter / name).is_file()]
    found = own or [base / name for name in PROCESSORS if (base / name).is_file()]
    return [*found, *(path for path in [adapter / "README.md"] if path.is_file())]


def _write_configs(plan: MergePlan, configs: list[Path], folder: Path) -> None:
    text = json.dumps(plan.config, indent=2, sort_keys=True) + "\n"
    (folder / "config.json").write_text(text, encoding="utf-8")
    for path in configs:
        shutil.copyfile(path, folder / path.name)


def _hash_inputs(plan: MergePlan, adapted: AdapterParts, configs: list[Path]) -> str:
    """The hash of everything that a merged checkpoint depends on."""
    weights = [adapted.config.blake3, adapted.weights.blake3, *(w.blake3 for w in adapted.base.weights)]
    copied = [[path.name, hash_blake3(path)] for path in configs]
    return hash_json(__version__, weights, plan.config, copied, plan.tensors)
