"""What merging an adapter into its base gives, planned from configs and headers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from hfsoup.checkpoints.architecture import describe_architecture
from hfsoup.checkpoints.auto_class import IMAGE_CLASSIFICATION
from hfsoup.checkpoints.inspection import MAX_NUMBER, limit_numbers, read_class_names, refuse_foreign_code
from hfsoup.checkpoints.lora.config import CONFIG, AdapterConfig, AdapterTensors, read_adapter_config, sort_tensors
from hfsoup.checkpoints.safetensors_io import FLOATS, TensorFile
from hfsoup.checkpoints.tensor_matching import TensorMatch, match_tensors
from hfsoup.checkpoints.timm_config import has_timm_layout, read_model_config
from hfsoup.checkpoints.types import AdapterParts, Ingredient, Source, TensorSpec
from hfsoup.utils.errors import MismatchError, SoupError
from hfsoup.utils.text import one_line

LABELS = ("id2label", "label2id", "num_labels", "label_names", "num_classes")


@dataclass(frozen=True)
class Delta:
    """The update of one weight, scaling·B·A, in the weight's shape; `kind` is as in `Architecture.kinds`."""

    a: TensorSpec
    b: TensorSpec
    scaling: float
    kind: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class MergePlan:
    """The merged checkpoint, before any weight is read. All names are those in the merged file, unless noted.

    Args:
        config: the config.json of the merged checkpoint.
        adapter: the adapter's config.
        tensors: (name, dtype, shape) in the order of the file; a weight with an update is float64.
        deltas: the updates.
        whole: tensors that the adapter holds in place of the base's.
        stored: the base's tensors.
        owns: the model's own name of every tensor.
        dtypes: the dtypes of the model, for tensors that the file holds in others.
    """

    config: dict[str, Any]
    adapter: AdapterConfig
    tensors: tuple[tuple[str, str, tuple[int, ...]], ...]
    deltas: Mapping[str, Delta]
    whole: Mapping[str, TensorSpec]
    stored: Mapping[str, TensorSpec]
    owns: Mapping[str, str]
    dtypes: Mapping[str, str]


def plan_merge(
    source: Source, adapted: AdapterParts, file: TensorFile, stored: Mapping[str, TensorSpec], folder: Path
) -> MergePlan:
    """Plan every tensor of the merged checkpoint.

    Args:
        source: where the adapter is.
        adapted: its files and its base.
        file: its weights.
        stored: the base's tensors.
        folder: the adapter's folder, where a config.json may name its classes.

    Raises:
        SoupError: the adapter is not supported, does not fit its base, or does not name its classes.
    """
    adapter = read_adapter_config(adapted.config.path, where=f"{source}, {CONFIG}")
    found = sort_tensors(file.tensors, adapter, where=file.name)
    config, headless = _derive_config(source, folder, adapted.base, adapter, stored)
    classes = len(read_class_names(config, where=str(source)))
    shapes = {name: spec.shape for name, spec in stored.items()}
    given = (*(f"{module}.weight" for module in found.layers), *found.whole)
    model = describe_architecture(config, classes, shapes)
    filling = match_tensors(model, stored, where=str(adapted.base))
    owns = {filling.stored[name]: own for name, own in filling.owns.items() if name not in filling.converted}
    names = _name_tensors(filling, model.prefix, headless)
    homes = {owns[old]: new for old, new in names.items() if old in owns}
    owns |= model.map_names(given)
    whole = {}
    for name, spec in found.whole.items():
        own = _find_own_name(name, owns, source)
        _require_shape(spec, model.shapes[own], classes, source)
        whole[homes.get(own, own)] = spec
    here = {new: stored[old] for old, new in names.items() if new not in whole}
    deltas = dict(_plan_deltas(found, adapter, owns, model.kinds, homes, here, source))
    floats = Counter(spec.dtype for spec in stored.values() if spec.dtype in FLOATS)
    usual = floats.most_common(1)[0][0] if floats else "F32"
    before = {new: stored[old].dtype for old, new in names.items()}
    rows = [(new, "F64" if new in deltas else spec.dtype, spec.shape) for new, spec in here.items()]
    rows += [(name, spec.dtype, spec.shape) for name, spec in whole.items()]
    dtypes = {name: here[name].dtype for name in deltas}
    dtypes |= {n: before.get(n, usual) if spec.dtype in FLOATS else spec.dtype for n, spec in whole.items()}
    ends = {new: owns[old] for old, new in names.items() if old in owns}
    ends |= {homes.get(own, own): own for own in (_find_own_name(name, owns, source) for name in found.whole)}
    return MergePlan(config, adapter, tuple(sorted(rows)), deltas, whole, here, ends, dtypes)


def _derive_config(
    source: Source, folder: Path, base: Ingredient, adapter: AdapterConfig, stored: Mapping[str, TensorSpec]
) -> tuple[dict[str, Any], bool]:
    """The base's config with the classes that the adapter names; whether the base is without a head."""
    where = f"{base}, config.json"
    config = read_model_config(base.folder / "config.json", where=where)
    refuse_foreign_code(config, where=where)
    largest = max(len(stored), *(side for spec in stored.values() for side in (0, *spec.shape)))
    limit_numbers(config, where=where, most=max(MAX_NUMBER, largest))
    if (folder / "config.json").is_file():
        own = read_model_config(folder / "config.json", where=f"{source}, config.json")
        if "id2label" in own or "label_names" in own:
            config = {key: value for key, value in config.items() if key not in LABELS}
            config |= {key: own[key] for key in LABELS if key in own}
    named = config.get("architectures")
    classifies = isinstance(named, list) and any(map(IMAGE_CLASSIFICATION.is_named_by, named))
    headless = not classifies and not has_timm_layout(config)
    if headless:
        config = {key: value for key, value in config.items() if key != "architectures"}
        if adapter.architecture:
            config["architectures"] = [adapter.architecture]
    return config, headless


def _name_tensors(filling: TensorMatch, prefix: str, headless: bool) -> dict[str, str]:
    """For each tensor in the base's files its name in a classifier's file; a base without a head lacks the prefix."""
    start, names = f"{prefix}.", {}
    for name, in_file in filling.stored.items():
        bare = headless and filling.owns[name].startswith(start) and not name.startswith(start)
        names[in_file] = f"{start}{name}" if bare else name
    return names


def _plan_deltas(
    found: AdapterTensors,
    adapter: AdapterConfig,
    owns: Mapping[str, str],
    kinds: Mapping[str, str],
    homes: Mapping[str, str],
    here: Mapping[str, TensorSpec],
    source: Source,
) -> Iterator[tuple[str, Delta]]:
    """The updates by name in the merged file."""
    seen: set[str] = set()
    for module, (a, b) in found.layers.items():
        own, where = _find_own_name(f"{module}.weight", owns, source), f"{source}, layer {one_line(module)}"
        name, kind = homes.get(own, own), kinds.get(own)
        if kind is None:
            raise SoupError("not supported: LoRA on a layer that is neither linear nor Conv2d", where=where)
        if name in seen or name not in here:
            raise SoupError("expected a layer of the base, with one pair of lora_A and lora_B", where=where)
        seen.add(name)
        shape = here[name].shape
        rank = adapter.rank_of(module)
        wanted = _expect_shapes(shape, kind, rank)
        if (a.shape, b.shape) != wanted:
            found_shapes = _format_shapes((a.shape, b.shape))
            what = f"expected lora_A and lora_B of shapes {_format_shapes(wanted)}, found {found_shapes}"
            raise SoupError(what, where=where, hint="does this adapter belong to another base?")
        if here[name].dtype not in FLOATS or rank > max(prod(shape[1:]), shape[0]):
            raise SoupError(f"expected a rank up to the size of the layer, found {rank}", where=where)
        yield name, Delta(a, b, adapter.scaling(module), kind, shape)


def _expect_shapes(shape: tuple[int, ...], kind: str, rank: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The shapes of A and B for a weight; those of a grouped convolution differ, and are refused."""
    if kind == "convolution":
        return (rank, *shape[1:]), (shape[0], rank, 1, 1)
    rows, columns = shape[::-1] if kind == "transposed" else shape
    return (rank, columns), (rows, rank)


def _format_shapes(shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> str:
    return " and ".join(one_line(list(shape)) for shape in shapes)


def _find_own_name(name: str, owns: Mapping[str, str], source: Source) -> str:
    if name not in owns:
        what = "the base model has no such tensor, or joins it of several"
        raise SoupError(
            what, where=f"{source}, tensor {one_line(name)}", hint="does this adapter belong to another base?"
        )
    return owns[name]


def _require_shape(spec: TensorSpec, shape: tuple[int, ...], classes: int, source: Source) -> None:
    """Refuse a trained tensor of another shape; if only the number of classes differs, ask for their names."""
    if spec.shape == shape:
        return
    where = f"{source}, tensor {one_line(spec.name)}"
    if classes in shape and spec.shape[1:] == shape[1:]:
        what = f"this adapter's head has {spec.shape[0]} classes, the config names {classes}: their names are unknown"
        hint = "save the class names with the adapter: model.get_base_model().config.save_pretrained(ADAPTER)"
        raise MismatchError(what, where=where, hint=hint)
    raise SoupError(f"expected shape {one_line(list(shape))}, found {one_line(list(spec.shape))}", where=where)
