"""Can these be averaged? Told from configs and headers, before any weight is read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from hfsoup.errors import MismatchError
from hfsoup.names import align, flat, shown
from hfsoup.single import Checkpoint, fit, inspect
from hfsoup.types import Family, Ingredient, TensorSpec

# What a config may say without changing the function that the weights compute.
SILENT_CONFIG = {
    *("_name_or_path", "architectures", "dtype", "torch_dtype", "transformers_version", "id2label", "label2id"),
    *("label_names", "num_classes"),
    *("num_labels", "problem_type", "initializer_range", "finetuning_task", "_commit_hash", "task_specific_params"),
    *("hidden_dropout_prob", "attention_probs_dropout_prob", "dropout_rate", "drop_connect_rate", "drop_path_rate"),
    *("classifier_dropout_prob", "hidden_dropout", "attention_dropout", "dropout", "mask_time_prob", "use_cache"),
    *("attn_implementation", "_attn_implementation", "_attn_implementation_autoset"),
}
SILENT_PROCESSOR = {"image_processor_type", "feature_extractor_type", "processor_class", "_processor_class"}
SHOWN = 6


def check(ingredients: Sequence[Ingredient], *, exact: bool = False) -> Family:
    """Look at every ingredient by itself, and compare it with the first one.

    Args:
        ingredients: what is to be averaged.
        exact: also build the first one's model, without memory, and compare it with its files. It is built anyway where
            the config has numbers that are larger than anything in the files.

    Raises:
        MismatchError: they differ in architecture, tensors, classes or image processing; every difference is listed.
        SoupError: one of them cannot be used at all.
    """
    found = [inspect(ingredient) for ingredient in ingredients]
    first, orders = found[0], [_order(found[0], other) for other in found]
    fit(first)
    texts: list[str] = []
    for other, order in zip(found[1:], orders[1:], strict=True):
        differences = [
            *_config_differences(first.config, other.config),
            *_tensor_differences(first.tensors, other.tensors),
            *_processor_differences(first, other),
            *([order] if isinstance(order, str) else ()),
        ]
        texts += [f"{other.ingredient}: {text}" for text in differences[:SHOWN]]
        if len(differences) > SHOWN:
            texts.append(f"{other.ingredient}: and {len(differences) - SHOWN} more differences")
    if texts:
        what = "\n  ".join([f"these cannot be averaged; compared with {first.ingredient}:", *texts])
        raise MismatchError(what, hint="leave these out, or make one soup of each kind")
    if exact or any(one.unusual for one in found):
        from hfsoup.models import must_fit

        must_fit(first.config, len(first.labels), _shapes(first), where=str(first.ingredient))
    placed = tuple(None if isinstance(order, str) else order for order in orders)
    heads = class_axes(first) if any(placed) else {}
    return Family(tuple(ingredients), first.config, first.labels, first.shards, placed, heads)


def class_axes(checkpoint: Checkpoint) -> dict[str, int]:
    """The tensors whose shape follows the number of classes, with the axis that does.

    Found by building the model twice without memory, with one class more the second time, and comparing shapes; so it
    holds for every head that transformers has.
    """
    from hfsoup.models import tensor_shapes

    stored, count = _shapes(checkpoint), len(checkpoint.labels)
    fewer, more = (tensor_shapes(checkpoint.config, n, stored) for n in (count, count + 1))
    axes = {}
    for name, shape in fewer.items():
        differing = [axis for axis, (a, b) in enumerate(zip(shape, more[name], strict=True)) if a != b]
        if differing:
            axes[name] = differing[0]
    if not axes or not set(axes) <= stored.keys():
        what = "the classes stand in another order, and the head that would have to be reordered was not found"
        raise MismatchError(what, where=str(checkpoint.ingredient), hint="fine-tune with the classes in one order")
    return axes


def _shapes(checkpoint: Checkpoint) -> dict[str, tuple[int, ...]]:
    return {name: spec.shape for name, spec in checkpoint.tensors.items()}


def _order(first: Checkpoint, other: Checkpoint) -> tuple[int, ...] | str | None:
    """Where the first one's classes stand in the other, None where they stand alike; a text if they are not the same.

    Lists that are equal need no alignment, so a name may stand in them twice, as in well-known ImageNet models.
    """
    if other.labels == first.labels:
        return None
    try:
        order = align(first.labels, other.labels, where=str(first.ingredient), against=str(other.ingredient))
    except MismatchError as error:
        return error.what
    if len(other.labels) != len(first.labels):
        return f"{len(other.labels)} classes, expected {len(first.labels)}"
    return None if order == tuple(range(len(order))) else order


def _config_differences(expected: dict[str, Any], found: dict[str, Any]) -> Iterator[str]:
    kinds = expected.get("model_type"), found.get("model_type")
    if kinds[0] != kinds[1]:
        yield f"model type {flat(kinds[1])}, expected {flat(kinds[0])}"
        return
    keys = sorted((expected.keys() | found.keys()) - SILENT_CONFIG)
    differing = [key for key in keys if expected.get(key) != found.get(key)]
    if any(key not in expected or key not in found for key in differing):
        from hfsoup.models import config_defaults

        defaults = config_defaults(str(kinds[0]))
        expected, found = {**defaults, **expected}, {**defaults, **found}
    for key in differing:
        if expected.get(key) != found.get(key):
            yield f"config {flat(key)} is {_value(found, key)}, expected {_value(expected, key)}"


def _tensor_differences(expected: dict[str, TensorSpec], found: dict[str, TensorSpec]) -> Iterator[str]:
    for name in sorted(expected.keys() - found.keys()):
        yield f"tensor {flat(name)} is missing"
    for name in sorted(found.keys() - expected.keys()):
        yield f"tensor {flat(name)} is not expected"
    for name in sorted(expected.keys() & found.keys()):
        a, b = expected[name], found[name]
        if a.shape != b.shape:
            yield f"tensor {flat(name)} has shape {list(b.shape)}, expected {list(a.shape)}"
        elif a.dtype != b.dtype:
            yield f"tensor {flat(name)} is {b.dtype}, expected {a.dtype}"


def _processor_differences(first: Checkpoint, other: Checkpoint) -> Iterator[str]:
    if _told(first) == _told(other):
        return
    if first.processor is None or other.processor is None:
        has, wanted = ("no" if other.processor is None else "a"), ("none" if first.processor is None else "one")
        yield f"{has} preprocessor_config.json, expected {wanted}"
        return
    from hfsoup.models import effective_processor

    expected, found = (effective_processor(one.ingredient.processor_folder) for one in (first, other))
    for key in sorted((expected.keys() | found.keys()) - SILENT_PROCESSOR):
        if expected.get(key) != found.get(key):
            yield f"image processing: {flat(key)} is {_value(found, key)}, expected {_value(expected, key)}"


def _told(checkpoint: Checkpoint) -> dict[str, Any] | None:
    values = checkpoint.processor
    return values and {k: v for k, v in values.items() if k not in SILENT_PROCESSOR}


def _value(values: dict[str, Any], key: str) -> str:
    value = values.get(key)
    return shown(value) if isinstance(value, str) else flat(value)
