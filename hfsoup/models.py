"""The boundary to transformers: models and image processors from local folders only, and never remote code."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hfsoup.errors import SoupError
from hfsoup.names import flat, shown

if TYPE_CHECKING:
    from torch import nn
    from transformers import PretrainedConfig

Shapes = Mapping[str, tuple[int, ...]]
# What libraries raise at values that they did not expect in a file.
REFUSALS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)
# A model may hold buffers and renamed tensors that its file does not, but not many times what is in the file.
SPARE_TENSORS, SPARE_ELEMENTS = 256, 1 << 26
DIGITS = re.compile(r"\d+")


def config_of(values: dict[str, Any]) -> PretrainedConfig:
    """The transformers config object of a config.json, without what would choose a dtype or code for it."""
    from huggingface_hub.errors import StrictDataclassError
    from transformers import CONFIG_MAPPING

    kind = values.get("model_type")
    if not isinstance(kind, str) or kind not in CONFIG_MAPPING:
        what = f"the installed transformers knows no model type {shown(kind)}"
        raise SoupError(what, hint="pip install -U transformers")
    made = CONFIG_MAPPING[kind]
    if hidden := sorted(key for key in values if key.startswith("__") or callable(getattr(made, key, None))):
        raise SoupError(f"config.json may not say {shown(hidden[0])}", where=kind)
    try:
        return made.from_dict(_plain(values))
    except (*REFUSALS, StrictDataclassError) as error:
        raise SoupError(f"transformers refuses this config.json: {flat(error)}", where=kind) from error


def config_defaults(kind: str) -> dict[str, Any]:
    """What a config of this model type says when nothing is given."""
    return dict(config_of({"model_type": kind}).to_dict())


def model_class(config: PretrainedConfig) -> Any:
    """The image classifier of an architecture."""
    from transformers import AutoModelForImageClassification

    mapping = AutoModelForImageClassification._model_mapping
    if type(config) not in mapping:
        raise SoupError(
            f"{config.model_type} has no image classifier in transformers", hint="hfsoup is for image classifiers"
        )
    try:
        found: Any = mapping[type(config)]
    except REFUSALS as error:
        what = f"transformers cannot load this model's code: {flat(error)}"
        hint = f"python -c 'import {type(config).__module__.replace('configuration', 'modeling')}' tells why"
        raise SoupError(what, where=config.model_type, hint=hint) from error
    several = found if isinstance(found, tuple) else (found,)
    asked = config.architectures or [several[0].__name__]
    chosen = next((c for c in several if c.__name__ in asked), None)
    if chosen is None:
        known = " or ".join(c.__name__ for c in several)
        what = f"expected the architecture {known}, found {shown(asked[0])}"
        raise SoupError(what, where=config.model_type, hint="hfsoup is for image classifiers")
    # Classes that do not say what they take have one word here, and it is the wrong one.
    if isinstance(chosen.input_modalities, tuple) and "text" in chosen.input_modalities:
        what = "this model answers a text about the image and has no head with a row per class"
        raise SoupError(what, where=config.model_type, hint="hfsoup is for image classifiers")
    return chosen


def tensor_shapes(values: dict[str, Any], classes: int, stored: Shapes) -> dict[str, tuple[int, ...]]:
    """Shapes of all tensors of the model with that many classes, built without memory.

    Args:
        values: a config.json.
        classes: how many classes it gets instead of its own.
        stored: the shapes of the tensors in its files.

    Returns:
        Shapes by the name that the files give a tensor; what they do not hold has the model's own name.

    Raises:
        SoupError: transformers cannot build it, or it is much larger than its files.
    """
    model = _hollow(values, classes, stored)
    return _shapes(model, dict(_names(model, stored)))


def _shapes(model: nn.Module, names: Mapping[str, str]) -> dict[str, tuple[int, ...]]:
    """Shapes of a model's tensors, by `names` where its own name is there."""
    return {names.get(own, own): tuple(tensor.shape) for own, tensor in model.state_dict().items()}


@dataclass(frozen=True)
class Layout:
    """A model's tensors by its own names: their shapes, and how layers use their weight.

    `owns` takes a name from a file to the model's own; `kinds` says of a layer's weight `linear`, `transposed` or
    `convolution`; `prefix` is that of the body.
    """

    shapes: Shapes
    owns: Mapping[str, str]
    kinds: Mapping[str, str]
    prefix: str


def layout(values: dict[str, Any], classes: int, stored: Shapes, names: Iterable[str]) -> Layout:
    """The layout of a model, built without memory; arguments and errors as for `tensor_shapes`.

    Args:
        values: a config.json.
        classes: how many classes it has.
        stored: the shapes of the tensors in its files.
        names: more names to be looked up; those that are not one tensor of the model are left out.
    """
    model = _hollow(values, classes, stored)
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    owns = {name: own for own, name in _names(model, (*stored, *names)) if own in shapes}
    return Layout(shapes, owns, dict(_kinds(model)), str(model.base_model_prefix))


def _kinds(model: Any) -> Iterator[tuple[str, str]]:
    import torch
    from transformers.pytorch_utils import Conv1D

    for path, module in model.named_modules():
        kind = {torch.nn.Linear: "linear", Conv1D: "transposed", torch.nn.Conv2d: "convolution"}.get(type(module))
        if kind:
            yield f"{path}.weight", kind


def _hollow(values: dict[str, Any], classes: int, stored: Shapes) -> nn.Module:
    """The model of a config with that many classes, without memory, if it is not much larger than its files."""
    import torch

    config = config_of(values)
    config.num_labels = classes
    made, where = model_class(config), str(config.model_type)
    try:
        with torch.device("meta"), _no_more_than(2 * len(stored) + SPARE_TENSORS, where):
            model = made(config)
    except REFUSALS as error:
        what = f"transformers cannot build this model: {type(error).__name__}: {flat(error)}"
        raise SoupError(what, where=where) from error
    held = sum(map(prod, stored.values()))
    if sum(t.numel() for t in (*model.parameters(), *model.buffers())) > 4 * held + SPARE_ELEMENTS:
        raise SoupError("config.json describes a model much larger than its files", where=where)
    built: nn.Module = model
    return built


def own_names(model: Any, stored: Iterable[str]) -> dict[str, str]:
    """The model's own name of every tensor in its files that is used as it is."""
    return {name: own for own, name in _names(model, stored)}


def _names(model: Any, stored: Iterable[str]) -> Iterator[tuple[str, str]]:
    """The model's own name of every tensor in its files that is used as it is, and the name there."""
    return ((own, name) for own, name, converted in _renamed(model, stored) if not converted)


def _renamed(model: Any, stored: Iterable[str]) -> Iterator[tuple[str, str, bool]]:
    """The name that transformers gives every tensor of the files, the name there, and whether it is joined or split."""
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key

    changes = get_model_conversion_mapping(model)
    renamings = [change for change in changes if isinstance(change, WeightRenaming)]
    converters = [change for change in changes if isinstance(change, WeightConverter)]
    known = model.state_dict()
    for name in stored:
        own, converted = rename_source_key(name, renamings, converters, model.base_model_prefix, known)
        if own not in known and name in known:
            own, converted = name, None
        yield own, name, converted is not None


def must_fit(values: dict[str, Any], classes: int, stored: Shapes, *, where: str) -> frozenset[str]:
    """Refuse a config whose model is not the one in the files.

    Returns:
        The stored tensors that the model does not have, such as a pooler. None where it lacks one itself: what looks
        superfluous may then be what it lacks, under another name. One more layer is not among them: with it, config and
        file are not of one model.

    Raises:
        SoupError: the model is larger, cannot be built, or has a tensor of another shape.
    """
    model = _hollow(values, classes, stored)
    renamed = list(_renamed(model, stored))
    shapes = _shapes(model, {own: name for own, name, converted in renamed if not converted})
    for name in sorted(shapes.keys() & stored.keys()):
        if shapes[name] != stored[name]:
            what = f"config.json describes shape {list(shapes[name])}, the file holds {list(stored[name])}"
            raise SoupError(what, where=f"{where}, tensor {flat(name)}")
    known, given = model.state_dict(), {own for own, _, _ in renamed}
    if any(own not in given for own, tensor in known.items() if tensor.is_floating_point()):
        return frozenset()
    numberless = {DIGITS.sub("", own) for own in known}
    spare = {name: own for own, name, converted in renamed if own not in known and not converted}
    return frozenset(name for name, own in spare.items() if DIGITS.sub("", own) not in numberless)


def image_processor(folder: Path) -> Any:
    """The image processor of a model folder; what it gives is one array of floats per image."""
    from transformers import AutoImageProcessor

    from hfsoup.inputs import prepared_by

    try:
        load: Any = AutoImageProcessor.from_pretrained
        return prepared_by(load(str(folder), local_files_only=True, trust_remote_code=False))
    except REFUSALS as error:
        hint = "save its processor beside it: AutoImageProcessor.from_pretrained(START).save_pretrained(FOLDER)"
        raise SoupError("this model has no image processor that can be loaded", where=str(folder), hint=hint) from error


def effective_processor(folder: Path) -> dict[str, Any]:
    """All values that an image processor works with, those it takes by default included."""
    return dict(image_processor(folder).to_dict())


def _plain(value: Any) -> Any:
    """A config without private keys, dtypes and implementations, at any depth."""
    if isinstance(value, dict):
        dropped = ("_", "dtype", "torch_dtype", "auto_map")
        kept = {k: v for k, v in value.items() if not k.startswith(dropped) and "implementation" not in k}
        return {key: _plain(below) for key, below in kept.items()}
    return [_plain(below) for below in value] if isinstance(value, list) else value


@contextmanager
def _no_more_than(most: int, where: str) -> Iterator[None]:
    """Stop a model that is being built once it has more than `most` parameters and modules."""
    from torch.nn.modules import module

    count = 0

    def seen(_: nn.Module, __: str, ___: Any) -> None:
        nonlocal count
        count += 1
        if count > most:
            raise SoupError("config.json describes a model much larger than its files", where=where)

    hooks = [
        module.register_module_parameter_registration_hook(seen),
        module.register_module_module_registration_hook(seen),
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
