"""Can these be averaged? Told from configs and headers, before any weight is read."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hfsoup.errors import MismatchError, SoupError
from hfsoup.names import align
from hfsoup.tensorfile import FLOATS, TensorFile
from hfsoup.types import Family, Ingredient, TensorSpec

# What a config may say without changing the function that the weights compute.
SILENT_CONFIG = {
    *("_name_or_path", "architectures", "dtype", "torch_dtype", "transformers_version", "id2label", "label2id"),
    *("num_labels", "problem_type", "initializer_range", "finetuning_task", "_commit_hash", "task_specific_params"),
    *("hidden_dropout_prob", "attention_probs_dropout_prob", "dropout_rate", "drop_connect_rate", "drop_path_rate"),
    *("classifier_dropout_prob", "hidden_dropout", "attention_dropout", "dropout", "mask_time_prob", "use_cache"),
}
SILENT_PROCESSOR = {"image_processor_type", "feature_extractor_type", "processor_class", "_processor_class"}
SHOWN = 6


def check(ingredients: Sequence[Ingredient]) -> Family:
    """Compare every ingredient with the first one.

    Raises:
        MismatchError: they differ in architecture, tensors, classes or image processing; every difference is listed.
    """
    configs = [read_json(i.folder / "config.json", where=f"{i}, config.json") for i in ingredients]
    labels = [class_names(c, where=f"{i}, config.json") for c, i in zip(configs, ingredients, strict=True)]
    shards = [[_specs(w.path, f"{i}, {w.name}") for w in i.weights] for i in ingredients]
    first = ingredients[0]
    found: list[str] = []
    orders: list[tuple[int, ...] | None] = [None]
    for n, other in enumerate(ingredients[1:], start=1):
        differences = [
            *_config_differences(configs[0], configs[n]),
            *_tensor_differences(_flat(shards[0], first), _flat(shards[n], other)),
            *_processor_differences(first, other),
        ]
        try:
            order = align(labels[0], labels[n], where=str(first), against=str(other))
        except MismatchError as error:
            differences.append(error.what)
        else:
            if len(labels[n]) != len(labels[0]):
                differences.append(f"{len(labels[n])} classes, expected {len(labels[0])}")
            orders.append(None if order == tuple(range(len(order))) else order)
        found += [f"{other}: {text}" for text in differences[:SHOWN]]
        if len(differences) > SHOWN:
            found.append(f"{other}: and {len(differences) - SHOWN} more differences")
    if found:
        what = "\n  ".join([f"these cannot be averaged; compared with {first}:", *found])
        raise MismatchError(what, hint="leave these out, or make one soup of each kind")
    heads = class_axes(configs[0], first) if any(orders) else {}
    return Family(tuple(ingredients), configs[0], labels[0], tuple(map(tuple, shards[0])), tuple(orders), heads)


def read_json(path: Path, *, where: str) -> dict[str, Any]:
    """A JSON object from a file of a repository."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise SoupError("the file is missing", where=where) from error
    except (ValueError, RecursionError) as error:
        raise SoupError("expected JSON, found something else", where=where, hint="download it again") from error
    if not isinstance(found, dict):
        raise SoupError("expected a JSON object, found something else", where=where)
    return found


def class_names(config: dict[str, Any], *, where: str) -> tuple[str, ...]:
    """The classes that a config names, in the order of the head's rows."""
    if "auto_map" in config:
        raise SoupError("this model needs code from its repository, which is never run", where=where)
    names = config.get("id2label")
    if names is None:
        count = config.get("num_labels", 2)
        return tuple(f"LABEL_{i}" for i in range(count))
    try:
        placed = {int(k): v for k, v in names.items()}
    except (AttributeError, ValueError) as error:
        raise SoupError("expected id2label to map numbers to names", where=where) from error
    if sorted(placed) != list(range(len(placed))) or not all(isinstance(v, str) and v for v in placed.values()):
        raise SoupError("expected id2label to name the classes 0, 1, 2 and so on, each once", where=where)
    return tuple(placed[i] for i in range(len(placed)))


def class_axes(config: dict[str, Any], ingredient: Ingredient) -> dict[str, int]:
    """The tensors whose shape follows the number of classes, with the axis that does.

    Found by building the model twice without memory, with one class more the second time, and comparing shapes; so it
    holds for every head that transformers has.
    """
    from hfsoup.models import parameter_shapes

    count = len(class_names(config, where=str(ingredient)))
    fewer, more = parameter_shapes(config, count), parameter_shapes(config, count + 1)
    axes = {}
    for name, shape in fewer.items():
        differing = [axis for axis, (a, b) in enumerate(zip(shape, more[name], strict=True)) if a != b]
        if differing:
            axes[name] = differing[0]
    stored = {s.name for w in ingredient.weights for s in _specs(w.path, w.name)}
    if not axes or not set(axes) <= stored:
        what = "the classes stand in another order, and the head that would have to be reordered was not found"
        raise MismatchError(what, where=str(ingredient), hint="fine-tune with the classes in one order")
    return axes


def _specs(path: Path, where: str) -> list[TensorSpec]:
    file = TensorFile(path, where)
    file.close()
    return list(file.tensors.values())


def _flat(shards: list[list[TensorSpec]], ingredient: Ingredient) -> dict[str, TensorSpec]:
    flat: dict[str, TensorSpec] = {}
    for spec in (spec for shard in shards for spec in shard):
        if spec.name in flat:
            raise SoupError("the tensor stands in two shards", where=f"{ingredient}, tensor {spec.name}")
        flat[spec.name] = spec
    return flat


def _config_differences(expected: dict[str, Any], found: dict[str, Any]) -> Iterator[str]:
    kinds = expected.get("model_type"), found.get("model_type")
    if kinds[0] != kinds[1]:
        yield f"model type {kinds[1]}, expected {kinds[0]}"
        return
    keys = sorted((expected.keys() | found.keys()) - SILENT_CONFIG)
    differing = [key for key in keys if expected.get(key) != found.get(key)]
    if any(key not in expected or key not in found for key in differing):
        from hfsoup.models import config_defaults

        defaults = config_defaults(str(kinds[0]))
        expected, found = {**defaults, **expected}, {**defaults, **found}
    for key in differing:
        if expected.get(key) != found.get(key):
            yield f"config {key} is {found.get(key)!r}, expected {expected.get(key)!r}"


def _tensor_differences(expected: dict[str, TensorSpec], found: dict[str, TensorSpec]) -> Iterator[str]:
    for name in sorted(expected.keys() - found.keys()):
        yield f"tensor {name} is missing"
    for name in sorted(found.keys() - expected.keys()):
        yield f"tensor {name} is not expected"
    for name in sorted(expected.keys() & found.keys()):
        a, b = expected[name], found[name]
        if a.shape != b.shape:
            yield f"tensor {name} has shape {list(b.shape)}, expected {list(a.shape)}"
        elif a.dtype != b.dtype:
            yield f"tensor {name} is {b.dtype}, expected {a.dtype}"
        elif a.dtype not in FLOATS and name.endswith(("weight", "bias")):
            yield f"tensor {name} is {a.dtype}, expected floats"


def _processor_differences(first: Ingredient, other: Ingredient) -> Iterator[str]:
    expected, found = processor_values(first), processor_values(other)
    if expected == found:
        return
    if expected is None or found is None:
        has, wanted = ("no" if found is None else "a"), ("none" if expected is None else "one")
        yield f"{has} preprocessor_config.json, expected {wanted}"
        return
    from hfsoup.models import effective_processor

    expected, found = effective_processor(first.folder), effective_processor(other.folder)
    for key in sorted((expected.keys() | found.keys()) - SILENT_PROCESSOR):
        if expected.get(key) != found.get(key):
            yield f"image processing: {key} is {found.get(key)!r}, expected {expected.get(key)!r}"


def processor_values(ingredient: Ingredient) -> dict[str, Any] | None:
    """What an ingredient's preprocessor_config.json says of the images, or None where it has none."""
    path = ingredient.folder / "preprocessor_config.json"
    if not path.exists():
        return None
    found = read_json(path, where=f"{ingredient}, preprocessor_config.json")
    return {k: v for k, v in found.items() if k not in SILENT_PROCESSOR}
