"""The model that a config.json describes, built by transformers on the meta device; no remote code, no downloads."""

from __future__ import annotations

import itertools
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from inspect import isfunction, unwrap
from math import prod
from pathlib import Path
from types import CodeType
from typing import TYPE_CHECKING, Any

from hfsoup.checkpoints.auto_class import IMAGE_CLASSIFICATION
from hfsoup.checkpoints.timm_config import list_libraries
from hfsoup.utils.cache import cached_folder
from hfsoup.utils.errors import LOADING_ERRORS, SoupError
from hfsoup.utils.hashing import hash_json
from hfsoup.utils.text import one_line, quoted
from hfsoup.utils.version import __version__

if TYPE_CHECKING:
    from torch import nn
    from transformers import PretrainedConfig

Shapes = Mapping[str, tuple[int, ...]]
Rename = Callable[[str], tuple[tuple[str, ...], bool]]
# A model may have buffers and renamed tensors that its file lacks, but not many times what the file holds.
SPARE_TENSORS, SPARE_ELEMENTS = 256, 1 << 26
MOST_MODULES = 1 << 15
# Keys about classes that do not change the model; the number of classes is given separately.
LABELS = ("id2label", "label2id", "num_labels", "transformers_version")
FACTS, FORMAT = "architecture.json", 2


def build_config(values: dict[str, Any]) -> PretrainedConfig:
    """The transformers config of a config.json, without keys that choose a dtype or code.

    Raises:
        SoupError: transformers does not know the model type, or refuses the values.
    """
    from huggingface_hub.errors import StrictDataclassError
    from transformers import CONFIG_MAPPING

    kind = values.get("model_type")
    if not isinstance(kind, str) or kind not in CONFIG_MAPPING:
        what = f"expected a model type of the installed transformers, found {quoted(kind)}"
        raise SoupError(what, hint="pip install -U transformers")
    config_class = CONFIG_MAPPING[kind]
    if methods := sorted(k for k in values if k.startswith("__") or callable(getattr(config_class, k, None))):
        raise SoupError(f"config.json may not set {quoted(methods[0])}", where=kind)
    try:
        return config_class.from_dict(_strip_config(values))
    except (*LOADING_ERRORS, StrictDataclassError) as error:
        raise SoupError(f"transformers refuses this config.json: {one_line(error)}", where=kind) from error


def flatten_config(values: dict[str, Any], code: frozenset[str] | None) -> dict[str, Any]:
    """The values of a config after transformers has loaded it, defaults included; nested keys are joined by dots.

    Args:
        values: a config.json.
        code: take only these keys: the names that the model's code uses (`Architecture.code`); None takes all.

    Raises:
        SoupError: transformers refuses it.
    """
    return dict(_walk_config(build_config(values), code, ""))


def _walk_config(config: PretrainedConfig, code: frozenset[str] | None, path: str) -> Iterator[tuple[str, Any]]:
    from transformers import PretrainedConfig

    mapped = {own for name, own in config.attribute_map.items() if code and name in code}
    for key, value in vars(config).items():
        if key.startswith("_") or (code is not None and key not in code and key not in mapped):
            continue
        if isinstance(value, PretrainedConfig):
            yield from _walk_config(value, code, f"{path}{key}.")
        else:
            yield f"{path}{key}", list(value) if isinstance(value, tuple) else value


def classifies_images(kind: str) -> bool:
    """Whether transformers has an image classifier of a model type."""
    from transformers import CONFIG_MAPPING

    return kind in CONFIG_MAPPING and CONFIG_MAPPING[kind] in IMAGE_CLASSIFICATION.load()._model_mapping


def resolve_timm_arguments(values: dict[str, Any]) -> dict[str, Any]:
    """The arguments of `timm.create_model` for a config, defaults included that another version of timm may write out.

    Raises:
        SoupError: timm cannot build the model.
    """
    import timm
    import torch

    name, arguments = str(values["architecture"]), values.get("model_args", {})
    try:
        with torch.device("meta"), _limit_modules(MOST_MODULES, name):
            model = timm.create_model(name, **arguments)
    except LOADING_ERRORS as error:
        what = f"timm cannot build this model: {type(error).__name__}: {one_line(error)}"
        raise SoupError(what, where=name) from error
    size, head = model.pretrained_cfg["input_size"], getattr(model, "head", None)
    fixed = model.pretrained_cfg.get("fixed_input_size")
    found = {"in_chans": size[0], "img_size": list(size[1:]) if fixed else None}
    pools = [getattr(head, "global_pool", None), getattr(head, "pool_type", None), getattr(model, "global_pool", None)]
    kinds = [kind for pool in pools if isinstance(kind := getattr(pool, "pool_type", pool), str)]
    return {"architecture": name, **found, **({"global_pool": kinds[0]} if kinds else {}), **arguments}


def find_model_class(config: PretrainedConfig) -> Any:
    """The class of transformers that is the image classifier of a config.

    Raises:
        SoupError: there is none, or its code cannot be imported.
    """
    mapping = IMAGE_CLASSIFICATION.load()._model_mapping
    if type(config) not in mapping:
        what = f"{config.model_type} has no image classifier in transformers"
        raise SoupError(what, hint="hfsoup is for image classifiers")
    try:
        found: Any = mapping[type(config)]
    except LOADING_ERRORS as error:
        what = f"transformers cannot load this model's code: {one_line(error)}"
        hint = f"python -c 'import {type(config).__module__.replace('configuration', 'modeling')}' shows why"
        raise SoupError(what, where=config.model_type, hint=hint) from error
    several = found if isinstance(found, tuple) else (found,)
    # As the Auto class chooses: the named class, else the first.
    chosen = next((c for c in several if c.__name__ in (config.architectures or ())), several[0])
    # A class that declares no inputs has a plain string here, a default that says nothing.
    if isinstance(chosen.input_modalities, tuple) and "text" in chosen.input_modalities:
        what = f"{config.model_type} takes a text with the image, and has no head with a row for each class"
        raise SoupError(what, where=config.model_type, hint="hfsoup is for image classifiers")
    return chosen


@dataclass(frozen=True)
class Architecture:
    """The model that a config.json describes, as its files must fill it.

    A model's own names are those of its `state_dict`; files of other versions of transformers may have other names.

    Args:
        kind: the model type.
        shapes: the shape of every tensor, by the model's own names.
        optional: tensors that loading creates where a file lacks them.
        kinds: `linear`, `transposed` or `convolution` for the weight of every such layer.
        prefix: the prefix of the body's tensors.
        rename: takes a name in a file to the model's own names, and tells whether loading joins or splits the tensor
            (only then are there several); a name that fills nothing becomes one that the model does not have.
        code: every name that the code of the layers uses.
        model_class: the name of its class in transformers.
    """

    kind: str
    shapes: Shapes
    optional: frozenset[str]
    kinds: Mapping[str, str]
    prefix: str
    rename: Rename
    code: frozenset[str]
    model_class: str

    def map_names(self, names: Iterable[str]) -> dict[str, str]:
        """The model's own names by those in a file, of tensors that loading neither joins nor splits nor drops."""
        found = {name: self.rename(name) for name in names}
        return {name: own for name, ((own, *_), converted) in found.items() if own in self.shapes and not converted}


def describe_architecture(values: dict[str, Any], classes: int, stored: Shapes) -> Architecture:
    """The architecture of a checkpoint.

    The model is built once. The result is cached by config, names and shapes in the files, and library versions, so
    that the next look at such a checkpoint imports no library.

    Args:
        values: a config.json.
        classes: the number of classes, in place of the config's.
        stored: the shapes of the tensors in its files, which limit the size of the model that is built.

    Raises:
        SoupError: it cannot be built, or is much larger than its files.
    """
    versions = [version(name) for name in ("torch", "transformers", *list_libraries(values))]
    config = {key: value for key, value in _strip_config(values).items() if key not in LABELS}
    key = hash_json(config, classes, sorted(stored.items()), versions, __version__, FORMAT)

    def build(folder: Path) -> None:
        facts = _collect_facts(_build_on_meta(values, classes, stored), stored)
        (folder / FACTS).write_text(json.dumps(facts), encoding="utf-8")

    facts = json.loads((cached_folder("models", key, build) / FACTS).read_text(encoding="utf-8"))
    names = {name: (tuple(owns), converted) for name, (owns, converted) in facts["names"].items()}

    @cache
    def rename() -> Rename:
        return _make_rename(_build_on_meta(values, classes, stored))

    return Architecture(
        kind=str(values.get("model_type")),
        shapes={name: tuple(shape) for name, shape in facts["shapes"].items()},
        optional=frozenset(facts["optional"]),
        kinds=facts["kinds"],
        prefix=facts["prefix"],
        rename=lambda name: names[name] if name in names else rename()(name),
        code=frozenset(facts["code"]),
        model_class=facts["class"],
    )


def _collect_facts(model: Any, stored: Shapes) -> dict[str, Any]:
    """What `Architecture` holds of a model, as JSON; `names` are the renamed tensors of its files."""
    tensors, rename = model.state_dict(), _make_rename(model)
    ignored = [re.compile(pattern) for pattern in getattr(model, "_keys_to_ignore_on_load_missing", None) or ()]
    optional = set(getattr(model, "all_tied_weights_keys", None) or ())
    optional |= {name for name, tensor in tensors.items() if not tensor.is_floating_point()}
    optional |= {name for name in tensors if any(pattern.search(name) for pattern in ignored)}
    return {
        "shapes": {name: list(tensor.shape) for name, tensor in tensors.items()},
        "optional": sorted(optional),
        "kinds": dict(_find_layer_kinds(model)),
        "prefix": str(getattr(model, "base_model_prefix", "")),
        "code": sorted(set(_list_code_names(model))),
        "names": {name: rename(name) for name in stored},
        "class": type(model).__name__,
    }


def compute_class_axes(values: dict[str, Any], classes: int, stored: Shapes) -> dict[str, int]:
    """The axis that runs over the classes, for every tensor that has one, by the model's own names.

    The model is built twice, the second time with one class more, and the shapes are compared: this works for any head.
    Arguments and errors are those of `describe_architecture`.
    """
    fewer, more = (describe_architecture(values, n, stored).shapes for n in (classes, classes + 1))
    sides = {name: zip(shape, more[name], strict=True) for name, shape in fewer.items()}
    return {name: axis for name, pairs in sides.items() for axis, (a, b) in reversed([*enumerate(pairs)]) if a != b}


def _find_layer_kinds(model: Any) -> Iterator[tuple[str, str]]:
    import torch
    from transformers.pytorch_utils import Conv1D

    for path, module in model.named_modules():
        kind = {torch.nn.Linear: "linear", Conv1D: "transposed", torch.nn.Conv2d: "convolution"}.get(type(module))
        if kind:
            yield f"{path}.weight", kind


def _list_code_names(model: nn.Module) -> Iterator[str]:
    """Every name that the code of a model's layers uses: nothing else of a config can change what it computes."""
    bases = {base for module in model.modules() for base in type(module).__mro__}
    members: list[object] = []
    for base in (b for b in bases if b.__module__.startswith("transformers.models.")):
        home = vars(sys.modules[base.__module__]).values()
        functions = (f for f in home if getattr(f, "__module__", "") == base.__module__)
        members += [getattr(m, "fget", getattr(m, "__func__", m)) for m in (*vars(base).values(), *functions)]
    codes = {unwrap(member).__code__ for member in members if isfunction(member)}
    while codes:
        code = codes.pop()
        yield from code.co_names
        yield from (constant for constant in code.co_consts if isinstance(constant, str))
        codes |= {constant for constant in code.co_consts if isinstance(constant, CodeType)}


def _build_on_meta(values: dict[str, Any], classes: int, stored: Shapes) -> nn.Module:
    """The model of a config on the meta device, refused if it is much larger than its files."""
    import torch

    config = build_config(values)
    config.num_labels = classes
    model_class, where = find_model_class(config), str(config.model_type)
    try:
        with torch.device("meta"), _limit_modules(2 * len(stored) + SPARE_TENSORS, where):
            model: nn.Module = model_class(config)
    except LOADING_ERRORS as error:
        what = f"transformers cannot build this {config.model_type}: {type(error).__name__}: {one_line(error)}"
        raise SoupError(what, where=where) from error
    held = sum(map(prod, stored.values()))
    if sum(t.numel() for t in (*model.parameters(), *model.buffers())) > 4 * held + SPARE_ELEMENTS:
        raise SoupError("config.json describes a model much larger than its files", where=where)
    return model


def map_to_model_names(model: Any, stored: Iterable[str]) -> dict[str, str]:
    """The names of a model's `state_dict` by those in its files, of tensors that loading neither joins nor splits."""
    rename = _make_rename(model)
    found = {name: rename(name) for name in stored}
    return {name: own for name, ((own, *_), converted) in found.items() if not converted}


def _make_rename(model: Any) -> Rename:
    """The function `Architecture.rename` of a model, from the conversions of transformers."""
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key

    changes = get_model_conversion_mapping(model)
    renamings = [change for change in changes if isinstance(change, WeightRenaming)]
    converters = [change for change in changes if isinstance(change, WeightConverter)]
    known, prefix = model.state_dict(), model.base_model_prefix

    by_source = {source: converter for converter in converters for source in converter.source_patterns}

    @cache
    def rename(name: str) -> tuple[tuple[str, ...], bool]:
        own, converted = rename_source_key(name, renamings, converters, prefix, known)
        if own not in known and name in known:
            own, converted = rename_source_key(name, [], [], prefix, known)
        if converted is None:
            return (own,), False
        first, *others = by_source[converted].target_patterns
        return (own, *(own.replace(first, other) for other in others)), True

    return rename


def _strip_config(value: Any) -> Any:
    """A config without private keys, dtypes and attention implementations, at any depth."""
    if isinstance(value, dict):
        private = ("_", "dtype", "torch_dtype", "auto_map")
        keys = [key for key in value if not key.startswith(private) and "implementation" not in key]
        return {key: _strip_config(value[key]) for key in keys}
    return [_strip_config(below) for below in value] if isinstance(value, list) else value


@contextmanager
def _limit_modules(most: int, where: str) -> Iterator[None]:
    """Stop the construction of a model with more than `most` parameters and modules."""
    from torch.nn.modules import module

    count = itertools.count()

    def count_one(_: nn.Module, __: str, ___: Any) -> None:
        if next(count) >= most:
            raise SoupError("config.json describes a model much larger than its files", where=where)

    hooks = [
        module.register_module_parameter_registration_hook(count_one),
        module.register_module_module_registration_hook(count_one),
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
