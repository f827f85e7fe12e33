"""Can these be averaged? Told from configs and headers, before any weight is read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from hfsoup.errors import MismatchError, SoupError
from hfsoup.names import align, flat, listed, shown
from hfsoup.settle import FLOAT_NAMES, mixed, named, widened, widest
from hfsoup.single import Checkpoint, fit, inspect
from hfsoup.tensorfile import FLOATS
from hfsoup.timm_config import is_timm
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


def check(
    ingredients: Sequence[Ingredient],
    *,
    exact: bool = False,
    on_mismatch: str = "error",
    processor_from: str | None = None,
) -> Family:
    """Look at every ingredient by itself, and compare it with the first one.

    Float types may differ: each tensor gets the widest among the ingredients, and float32 for float16 beside bfloat16.
    Tensors that the classifier does not have are left out. For that the first one's model is built, without memory, and
    compared with its files: where `exact` asks for it, where the ingredients hold different tensors, and where a config
    has numbers that are larger than anything in the files.

    Args:
        ingredients: what is to be averaged.
        exact: build the model in any case; whatever is scored must be.
        on_mismatch: `error`; `skip-ingredient` leaves out all that do not fit the largest group that fits together, of
            several the one given first; `backbone-only` takes other classes, and every mix keeps the first one's head.
        processor_from: the ingredient whose image processor is the soup's; None if all must agree.

    Raises:
        MismatchError: they differ in architecture, tensors, classes or image processing; every difference is listed.
        SoupError: one of them cannot be used at all.
    """
    found = [inspect(ingredient) for ingredient in ingredients]
    skipped: list[tuple[Ingredient, str]] = []
    by_processor = processor_from is None
    if on_mismatch == "skip-ingredient":
        found, skipped = _largest_group(found, by_processor)
    first, orders = found[0], [_order(found[0], other) for other in found]
    fit(first)
    # Where configs differ, that is the error, and no model of the first one's would say it better.
    alike = not any(any(_config_differences(first.config, one.config)) for one in found)
    built = exact or any(one.unusual or _shapes(one) != _shapes(first) for one in found)
    unused = _unused(first, found) if built and alike else frozenset()
    apart = any(isinstance(order, str) for order in orders)
    kept = frozenset(class_axes(first)) if apart and on_mismatch == "backbone-only" else frozenset()
    _refuse(first, [(o, _differences(first, o, unused, by_processor, kept)) for o in found[1:]], by_processor)
    placed = tuple(None if isinstance(order, str) or kept else order for order in orders)
    return Family(
        tuple(one.ingredient for one in found),
        first.config,
        first.labels,
        widened(first, found, unused),
        placed,
        class_axes(first) if any(placed) else {},
        kept,
        named(found, processor_from) if processor_from else 0,
        tuple(sorted(unused)),
        mixed(found, unused),
        tuple(skipped),
    )


def remarks(family: Family) -> Iterator[str]:
    """What a check settled that its user should know of."""
    for ingredient, why in family.skipped:
        yield f"{ingredient} does not fit and is left out: {why}"
    if family.kept:
        yield f"the classes differ: every mix has the head of {family.reference}, and only the rest is averaged"
    if family.dropped:
        yield f"the classifier does not have {listed(family.dropped, 6)}; left out of the soup"
    if family.dtypes:
        names = [FLOAT_NAMES[dtype] for dtype in family.dtypes]
        soup = FLOAT_NAMES[widest(set(family.dtypes))]
        yield f"ingredients are stored in {' and '.join(names)}; the soup is in {soup} unless --dtype says otherwise"


def class_axes(checkpoint: Checkpoint) -> dict[str, int]:
    """The tensors whose shape follows the number of classes, by their names in the files, with the axis that does."""
    from hfsoup import models

    stored, count = _shapes(checkpoint), len(checkpoint.labels)
    found = models.class_axes(checkpoint.config, count, stored)
    files = {own: name for name, own in models.architecture(checkpoint.config, count, stored).own_names(stored).items()}
    axes = {files.get(own, own): axis for own, axis in found.items()}
    if not axes or not set(axes) <= stored.keys():
        what = "the classes stand in another order, and the head that would have to be reordered was not found"
        raise MismatchError(what, where=str(checkpoint.ingredient), hint="fine-tune with the classes in one order")
    return axes


def _largest_group(
    found: Sequence[Checkpoint], by_processor: bool
) -> tuple[list[Checkpoint], list[tuple[Ingredient, str]]]:
    """The most checkpoints that fit the first one among them, and the others, each with why it does not."""
    groups: list[tuple[frozenset[str], list[Checkpoint]]] = []
    unfit: list[SoupError] = []
    for one in found:
        home = next((g for u, g in groups if not _differences(g[0], one, u, by_processor)), None)
        if home is not None:
            home.append(one)
            continue
        try:
            groups.append((_unused(one, found), [one]))
        except SoupError as error:
            unfit.append(error)
    if not groups:
        raise unfit[0]
    unused, chosen = max(groups, key=lambda group: len(group[1]))
    skipped = []
    for other in (one for one in found if one not in chosen):
        texts = [text.splitlines()[0] for text in _differences(chosen[0], other, unused, by_processor)]
        more = f" (and {len(texts) - 1} more differences)" if len(texts) > 1 else ""
        skipped.append((other.ingredient, f"compared with {chosen[0].ingredient}: {texts[0]}{more}"))
    return chosen, skipped


def _unused(first: Checkpoint, found: Sequence[Checkpoint]) -> frozenset[str]:
    """The tensors of all that the first one's model does not have; it must be the model of its own files."""
    from hfsoup.models import must_fit

    fit(first)
    stored = {name: shape for one in (*found, first) for name, shape in _shapes(one).items()}
    return must_fit(first.config, len(first.labels), stored, where=str(first.ingredient))


def _differences(
    first: Checkpoint,
    other: Checkpoint,
    unused: frozenset[str],
    by_processor: bool,
    kept: frozenset[str] = frozenset(),
) -> list[str]:
    """All that speaks against averaging two checkpoints, the classes and shapes of a head that is kept excepted."""
    if not _one_kind(first, other):
        return list(_config_differences(first.config, other.config))
    order = _order(first, other)
    expected = {name: spec for name, spec in first.tensors.items() if name not in unused}
    # Where a tensor is missing, it may be there under one of the names that the model does not know.
    named_otherwise = not expected.keys() <= other.tensors.keys()
    held = {name: spec for name, spec in other.tensors.items() if name not in unused or named_otherwise}
    return [
        *_config_differences(first.config, other.config),
        *_tensor_differences(expected, held, kept),
        *(_processor_differences(first, other) if by_processor else ()),
        *([order] if isinstance(order, str) and not kept else ()),
    ]


def _refuse(first: Checkpoint, compared: Sequence[tuple[Checkpoint, list[str]]], by_processor: bool) -> None:
    """Fail if there is any difference, with all of them up to a few, and the options that would take it."""
    texts: list[str] = []
    for other, differences in compared:
        texts += [f"{other.ingredient}: {text}" for text in differences[:SHOWN]]
        if len(differences) > SHOWN:
            texts.append(f"{other.ingredient}: and {len(differences) - SHOWN} more differences")
    if not texts:
        return
    hints = ["--on-mismatch skip-ingredient leaves out what does not fit"]
    alike = [other for other, _ in compared if _one_kind(first, other)]
    if any(isinstance(_order(first, other), str) for other in alike):
        hints.append("--on-mismatch backbone-only averages all but the heads")
    if by_processor and any(any(_processor_differences(first, other)) for other in alike):
        hints.append("--processor-from ORG/NAME|FOLDER takes the image processor of that ingredient")
    what = "\n  ".join([f"these cannot be averaged; compared with {first.ingredient}:", *texts])
    raise MismatchError(what, hint="; ".join(hints))


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


def _one_kind(first: Checkpoint, other: Checkpoint) -> bool:
    """Whether two checkpoints are of one model type; if not, nothing else about them is worth a word."""
    return first.config.get("model_type") == other.config.get("model_type")


def _config_differences(expected: dict[str, Any], found: dict[str, Any]) -> Iterator[str]:
    kinds = expected.get("model_type"), found.get("model_type")
    if kinds[0] != kinds[1]:
        yield f"model type {flat(kinds[1])}, expected {flat(kinds[0])}"
        return
    if is_timm(expected):
        from hfsoup.models import timm_arguments

        expected, found = (timm_arguments(values) for values in (expected, found))
    keys = sorted((expected.keys() | found.keys()) - SILENT_CONFIG)
    differing = [key for key in keys if expected.get(key) != found.get(key)]
    if any(key not in expected or key not in found for key in differing):
        from hfsoup.models import config_defaults

        defaults = config_defaults(str(kinds[0]))
        expected, found = {**defaults, **expected}, {**defaults, **found}
    for key in differing:
        if expected.get(key) != found.get(key):
            yield f"config {flat(key)} is {_value(found, key)}, expected {_value(expected, key)}"


def _tensor_differences(
    expected: dict[str, TensorSpec], found: dict[str, TensorSpec], kept: frozenset[str]
) -> Iterator[str]:
    for name in sorted(expected.keys() - found.keys()):
        yield f"tensor {flat(name)} is missing"
    for name in sorted(found.keys() - expected.keys()):
        yield f"tensor {flat(name)} is not expected"
    for name in sorted(expected.keys() & found.keys()):
        a, b = expected[name], found[name]
        if a.shape != b.shape and name not in kept:
            yield f"tensor {flat(name)} has shape {list(b.shape)}, expected {list(a.shape)}"
        elif a.dtype != b.dtype and not {a.dtype, b.dtype} <= FLOATS.keys():
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
