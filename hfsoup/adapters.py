"""A LoRA adapter and its base become an ordinary checkpoint: W + scaling·B·A in float64, rounded once."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hfsoup import __version__
from hfsoup.adapterfiles import CONFIG, AdapterConfig, Parts, parts, read_config
from hfsoup.errors import MismatchError, SoupError
from hfsoup.folders import kept
from hfsoup.hashing import file_hash, stamp
from hfsoup.hub import AGAIN
from hfsoup.models import Layout, layout
from hfsoup.names import flat
from hfsoup.single import MAX_NUMBER, class_names, largest_number, refuse_foreign
from hfsoup.tensorfile import FLOATS, TensorFile, to_float, to_stored, write_header
from hfsoup.types import Adapted, Ingredient, Source, TensorSpec, WeightFile
from hfsoup.untrusted import read_json

PROCESSORS = ("preprocessor_config.json", "processor_config.json")
LABELS = ("id2label", "label2id", "num_labels", "label_names")
BLOCK = 1 << 20
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Delta:
    """What is added to one weight: scaling·B·A, in the weight's shape; `kind` is as in `Layout`."""

    a: TensorSpec
    b: TensorSpec
    scaling: float
    kind: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Plan:
    """The merged checkpoint before any weight is read.

    `tensors` are (name, dtype, shape) in the order of the file; `deltas`, `whole` and `stored` tell by that name what
    is added, what the adapter has in place of the base's, and where the base's is; `owns` takes it to the model's own.
    """

    config: dict[str, Any]
    adapter: AdapterConfig
    tensors: tuple[tuple[str, str, tuple[int, ...]], ...]
    deltas: Mapping[str, Delta]
    whole: Mapping[str, TensorSpec]
    stored: Mapping[str, TensorSpec]
    owns: Mapping[str, str]


def merged(source: Source, folder: Path, weights: WeightFile, base: Ingredient) -> Ingredient:
    """An adapter on its base as an ordinary ingredient, merged into hfsoup's cache.

    Args:
        source: where the adapter is.
        folder: its files on this disk.
        weights: its weight file.
        base: what it is put on.

    Raises:
        SoupError: the adapter is of a kind that is not supported, does not fit its base, or does not name its classes.
    """
    adapted = Adapted(_config_file(folder), weights, base)
    with opened(source, adapted, folder) as (plan, adapter, files):
        configs = _configs(folder, base.folder)
        home = kept("merged", _key(plan, adapted, configs), lambda made: _build(plan, adapter, files, configs, made))
    for file in (adapted.weights, *base.weights):
        if stamp(file.path) != file.stamp:
            raise SoupError("the file changed while it was read", where=f"{source}, {file.name}", hint=AGAIN)
    path = home / "model.safetensors"
    before = stamp(path)
    whole = WeightFile(path.name, path, path.stat().st_size, file_hash(path), before)
    return Ingredient(source, home, (whole,), adapted)


def sketched(source: Source, folder: Path, weights: WeightFile, base: Ingredient, scratch: Path) -> Ingredient:
    """The same from headers alone, in the folder `scratch`: its weight file has a header and a hole."""
    adapted = Adapted(_config_file(folder), weights, base)
    with opened(source, adapted, folder) as (plan, _, _):
        configs = _configs(folder, base.folder)
        scratch.mkdir()
        write_header(scratch / "model.safetensors", plan.tensors)
        _write_configs(plan, configs, scratch)
    path, key = scratch / "model.safetensors", _key(plan, adapted, configs)
    return Ingredient(source, scratch, (WeightFile(path.name, path, path.stat().st_size, key, ()),), adapted)


@contextmanager
def opened(source: Source, adapted: Adapted, folder: Path) -> Iterator[tuple[Plan, TensorFile, dict[str, TensorFile]]]:
    """The plan, the adapter's file, and the base's file of every tensor, while the block lasts."""
    with ExitStack() as stack:

        def file(weights: WeightFile, owner: object) -> TensorFile:
            found = TensorFile(weights.path, f"{owner}, {weights.name}")
            stack.callback(found.close)
            return found

        adapter = file(adapted.weights, source)
        files = {name: f for f in (file(w, adapted.base) for w in adapted.base.weights) for name in f.tensors}
        stored = {name: f.tensors[name] for name, f in files.items()}
        yield _plan(source, adapted, adapter, stored, folder), adapter, files


def delta(file: TensorFile, change: Delta) -> Array:
    """scaling·B·A in the shape of the weight.

    Products are added rank by rank, so that the bytes do not depend on threads or on the library that multiplies.
    """
    a, b = (_matrix(file, spec) for spec in (change.a, change.b))
    found, step = np.zeros((len(b), a.shape[1])), max(BLOCK // a.shape[1], 1)
    for begin in range(0, len(b), step):
        rows = found[begin : begin + step]
        for k in range(len(a)):
            rows += b[begin : begin + step, k, None] * a[k]
    found *= change.scaling
    return (found.T if change.kind == "transposed" else found).reshape(change.shape)


def _matrix(file: TensorFile, spec: TensorSpec) -> Array:
    """A or B as rows × columns."""
    block = to_float(file.read(spec, 0, prod(spec.shape)), spec.dtype)
    return block.astype(np.float64).reshape(spec.shape[0], -1)


def _plan(source: Source, adapted: Adapted, file: TensorFile, stored: Mapping[str, TensorSpec], folder: Path) -> Plan:
    adapter = read_config(adapted.config.path, where=f"{source}, {CONFIG}")
    found = parts(file.tensors, adapter, where=file.name)
    config, headless = _config(source, folder, adapted.base, adapter, stored)
    classes = len(class_names(config, where=str(source)))
    shapes = {name: spec.shape for name, spec in stored.items()}
    given = (*(f"{module}.weight" for module in found.layers), *found.whole)
    model = layout(config, classes, shapes, given)
    names = _names(stored, model, headless)
    homes = {model.owns[old]: new for old, new in names.items() if old in model.owns}
    whole = {}
    for name, spec in found.whole.items():
        own = _own(name, model, source)
        _fits(spec, model.shapes[own], classes, source)
        whole[homes.get(own, own)] = spec
    here = {new: stored[old] for old, new in names.items() if new not in whole}
    deltas = dict(_deltas(found, adapter, model, homes, here, source))
    floats = Counter(spec.dtype for spec in stored.values() if spec.dtype in FLOATS)
    usual = floats.most_common(1)[0][0] if floats else "F32"
    before = {new: stored[old].dtype for old, new in names.items()}
    rows = [(new, spec.dtype, spec.shape) for new, spec in here.items()]
    rows += [(name, before.get(name, usual), spec.shape) for name, spec in whole.items()]
    owns = {new: model.owns[old] for old, new in names.items() if old in model.owns}
    owns |= {homes.get(own, own): own for own in (_own(name, model, source) for name in found.whole)}
    return Plan(config, adapter, tuple(sorted(rows)), deltas, whole, here, owns)


def _config(
    source: Source, folder: Path, base: Ingredient, adapter: AdapterConfig, stored: Mapping[str, TensorSpec]
) -> tuple[dict[str, Any], bool]:
    """The base's config as the classifier's, with the classes that the adapter names; whether the base has no head."""
    where = f"{base}, config.json"
    config = read_json(base.folder / "config.json", where=where)
    refuse_foreign(config, where=where)
    largest = max(len(stored), *(side for spec in stored.values() for side in (0, *spec.shape)))
    largest_number(config, where=where, most=max(MAX_NUMBER, largest))
    if (folder / "config.json").is_file():
        own = read_json(folder / "config.json", where=f"{source}, config.json")
        if "id2label" in own:
            config = {key: value for key, value in config.items() if key not in LABELS}
            config |= {key: own[key] for key in LABELS if key in own}
    said = config.get("architectures")
    headless = not (isinstance(said, list) and any("ForImageClassification" in str(name) for name in said))
    if headless:
        config = {key: value for key, value in config.items() if key != "architectures"}
        if adapter.architecture:
            config["architectures"] = [adapter.architecture]
    return config, headless


def _names(stored: Mapping[str, TensorSpec], model: Layout, headless: bool) -> dict[str, str]:
    """The base's tensors by the names that a classifier's file gives them; without a head the body has no prefix."""
    if not headless:
        return {name: name for name in stored}
    start, names = f"{model.prefix}.", {}
    for name in stored:
        own = model.owns.get(name)
        if own is not None:
            bare = own.startswith(start) and not name.startswith(start)
            names[name] = f"{start}{name}" if bare else name
    return names


def _deltas(
    found: Parts,
    adapter: AdapterConfig,
    model: Layout,
    homes: Mapping[str, str],
    here: Mapping[str, TensorSpec],
    source: Source,
) -> Iterator[tuple[str, Delta]]:
    """What the adapter adds, by the name in the merged file."""
    seen: set[str] = set()
    for module, (a, b) in found.layers.items():
        own, where = _own(f"{module}.weight", model, source), f"{source}, layer {flat(module)}"
        name, kind = homes.get(own, own), model.kinds.get(own)
        if kind is None:
            raise SoupError("not supported: LoRA on a layer that is neither linear nor Conv2d", where=where)
        if name in seen or name not in here:
            raise SoupError("expected a layer that the base has and that is changed once", where=where)
        seen.add(name)
        shape = here[name].shape
        rank = adapter.rank_of(module)
        wanted = _factors(shape, kind, rank)
        if (a.shape, b.shape) != wanted:
            what = f"expected lora_A and lora_B of shapes {_shown(wanted)}, found {_shown((a.shape, b.shape))}"
            raise SoupError(what, where=where, hint="is this adapter's base another one?")
        if here[name].dtype not in FLOATS or rank > max(prod(shape[1:]), shape[0]):
            raise SoupError(f"rank {rank} is larger than the layer", where=where)
        yield name, Delta(a, b, adapter.scaling(module), kind, shape)


def _factors(shape: tuple[int, ...], kind: str, rank: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The shapes of A and B for a weight; those of a convolution in groups are others, and match nothing here."""
    if kind == "convolution":
        return (rank, *shape[1:]), (shape[0], rank, 1, 1)
    rows, columns = shape[::-1] if kind == "transposed" else shape
    return (rank, columns), (rows, rank)


def _shown(shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> str:
    return " and ".join(flat(list(shape)) for shape in shapes)


def _own(name: str, model: Layout, source: Source) -> str:
    if name not in model.owns:
        what = "the model has no such tensor, or makes it of several"
        raise SoupError(what, where=f"{source}, tensor {flat(name)}", hint="is this adapter's base another one?")
    return model.owns[name]


def _fits(spec: TensorSpec, shape: tuple[int, ...], classes: int, source: Source) -> None:
    """Refuse a trained module of another shape; where only the classes differ, say what is missing."""
    if spec.shape == shape:
        return
    where = f"{source}, tensor {flat(spec.name)}"
    if classes in shape and spec.shape[1:] == shape[1:]:
        what = (
            f"this adapter's head has {spec.shape[0]} classes and its config names {classes}: which they are is unknown"
        )
        hint = "save the labels beside the adapter: model.get_base_model().config.save_pretrained(ADAPTER)"
        raise MismatchError(what, where=where, hint=hint)
    raise SoupError(f"expected shape {flat(list(shape))}, found {flat(list(spec.shape))}", where=where)


def _build(plan: Plan, adapter: TensorFile, files: Mapping[str, TensorFile], configs: list[Path], folder: Path) -> None:
    """Write the merged checkpoint, one tensor at a time."""
    path = folder / "model.safetensors"
    starts = write_header(path, plan.tensors)
    with path.open("r+b") as out:
        for name, dtype, _ in plan.tensors:
            out.seek(starts[name])
            out.write(_tensor(plan, adapter, files, name, dtype).tobytes())
    _write_configs(plan, configs, folder)


def _tensor(plan: Plan, adapter: TensorFile, files: Mapping[str, TensorFile], name: str, dtype: str) -> NDArray[Any]:
    """One tensor of the merged checkpoint, flat, as it is stored."""
    if name in plan.whole:
        spec = plan.whole[name]
        block = adapter.read(spec, 0, prod(spec.shape))
        if spec.dtype == dtype:
            return block
        return to_stored(to_float(block, spec.dtype).astype(np.float64), dtype)
    spec = plan.stored[name]
    block = files[spec.name].read(spec, 0, prod(spec.shape))
    if name not in plan.deltas:
        return block
    summed = to_float(block, dtype).astype(np.float64)
    summed += delta(adapter, plan.deltas[name]).ravel()
    return to_stored(summed, dtype)


def _config_file(folder: Path) -> WeightFile:
    path = folder / CONFIG
    before = stamp(path)
    return WeightFile(CONFIG, path, path.stat().st_size, file_hash(path), before)


def _configs(adapter: Path, base: Path) -> list[Path]:
    """The adapter's image processor, or else its base's, and the adapter's card."""
    own = [adapter / name for name in PROCESSORS if (adapter / name).is_file()]
    found = own or [base / name for name in PROCESSORS if (base / name).is_file()]
    return [*found, *(path for path in [adapter / "README.md"] if path.is_file())]


def _write_configs(plan: Plan, configs: list[Path], folder: Path) -> None:
    text = json.dumps(plan.config, indent=2, sort_keys=True) + "\n"
    (folder / "config.json").write_text(text, encoding="utf-8")
    for path in configs:
        shutil.copyfile(path, folder / path.name)


def _key(plan: Plan, adapted: Adapted, configs: list[Path]) -> str:
    """The hash of everything that a merged checkpoint depends on."""
    weights = [adapted.config.sha256, adapted.weights.sha256, *(w.sha256 for w in adapted.base.weights)]
    copied = [[path.name, file_hash(path)] for path in configs]
    text = json.dumps([__version__, weights, plan.config, copied], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
