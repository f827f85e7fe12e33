"""What two checkpoints compute differently: configs and image processors, compared as transformers loads them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hfsoup.checkpoints.inspection import Checkpoint
from hfsoup.checkpoints.timm_config import is_timm
from hfsoup.utils.errors import SoupError
from hfsoup.utils.text import one_line, quoted

# Keys about names, training, initialization and outputs other than logits: they change no logit.
SILENT = re.compile(
    r"architectures|dtype|torch_dtype|transformers_version|(finetuning_)?task.*|id2label|label2id|label_names|num_labels"
    r"|num_classes|name_or_path|problem_type|text_config|.*drop.*|initializer_.*|init_.*|layer_?scale_(init_)?value"
    r"|use_cache|output_(attentions|hidden_states)|return_dict|use_return_dict|torchscript|gradient_checkpointing|chunk_size_feed_forward"
    r"|batch_norm_momentum|.*implementation.*|tie_.*|use_bfloat16|is_encoder_decoder|out_features|out_indices|stage_names"
)
# Named like a dropout, but also used at inference.
COUNTED = frozenset({("pp_lcnet", "hidden_dropout_prob")})
SQUARES = ("image_size", "patch_size")
# Odd sizes below and above those of models; on random pixels no two ways of resizing agree.
PROBES = ((37, 53), (64, 41), (301, 223), (97, 640), (1021, 769))
# Names, and a key that has no effect once the sizes are known.
SILENT_PROCESSOR = {
    "image_processor_type", "feature_extractor_type", "processor_class", "_processor_class", "auto_map",
    "default_to_square",
}  # fmt: skip


def same_model_type(first: Checkpoint, other: Checkpoint) -> bool:
    """Whether two checkpoints have one model type; if not, no other difference is listed."""
    return first.config.get("model_type") == other.config.get("model_type")


def compare_configs(first: Checkpoint, other: Checkpoint, code: frozenset[str] | None = None) -> Iterator[str]:
    """The values of two configs that change what their models compute, each in a sentence.

    Both are loaded by the installed transformers, with nested configs, derived values and defaults.

    Args:
        first: the checkpoint whose values are expected.
        other: the one that is compared with it.
        code: the names that the code of the first one's model uses; other keys are ignored. None, where the model
            cannot be built, compares all keys.
    """
    if not same_model_type(first, other):
        kinds = other.config.get("model_type"), first.config.get("model_type")
        yield f"model type {one_line(kinds[0])}, expected {one_line(kinds[1])}"
        return
    problems = _infer_problem_type(other), _infer_problem_type(first)
    if problems[0] != problems[1]:
        yield f"config problem_type is {quoted(problems[0])}, expected {quoted(problems[1])}"
    kind = str(first.config.get("model_type"))
    if _strip_silent(first.config, kind) == _strip_silent(other.config, kind):
        return
    from hfsoup.checkpoints.architecture import flatten_config, resolve_timm_arguments

    load = resolve_timm_arguments if is_timm(first.config) else partial(flatten_config, code=code)
    try:
        expected = load(first.config)
    except SoupError:
        # Its own error is reported elsewhere.
        return
    try:
        found = load(other.config)
    except SoupError as error:
        yield error.what
        return
    for key in sorted(expected.keys() | found.keys()):
        silent = any(_is_silent(part, kind) for part in key.split("."))
        if not silent and not _is_same(key, expected.get(key), found.get(key)):
            yield f"config {one_line(key)} is {_format_value(found, key)}, expected {_format_value(expected, key)}"


def compare_processors(first: Checkpoint, other: Checkpoint) -> Iterator[str]:
    """The differences between two image processors; none if both give the same pixels, bit for bit."""
    if first.processor == other.processor:
        return
    if first.processor is None or other.processor is None:
        has, wanted = ("no" if other.processor is None else "a"), ("none" if first.processor is None else "one")
        yield f"{has} preprocessor_config.json, expected {wanted}"
        return
    from hfsoup.checkpoints.processor import load_image_processor

    try:
        processors = [load_image_processor(one.ingredient.processor_folder) for one in (first, other)]
    except SoupError as error:
        # Processors that cannot be loaded are compared by their values alone.
        expected, found = first.processor, other.processor
        differing = list(_compare_settings(expected, found))
        yield from differing
        if not differing:
            yield f"image processing: {error.what}"
        return
    if _give_same_pixels(*processors):
        return
    expected, found = (_read_settings(one) for one in processors)
    differing = list(_compare_settings(expected, found))
    yield from differing
    if not differing:
        names = [type(one).__name__ for one in processors]
        yield f"image processing: {names[1]} gives other pixels than {names[0]}"


def _infer_problem_type(checkpoint: Checkpoint) -> str:
    """The problem_type of a config, or what transformers infers without one."""
    inferred = "regression" if len(checkpoint.labels) == 1 else "single_label_classification"
    given = checkpoint.config.get("problem_type")
    return given if given in ("regression", "multi_label_classification") else inferred


def _strip_silent(values: Any, kind: str) -> Any:
    """A config as written, without silent keys at any depth."""
    if isinstance(values, dict):
        return {key: _strip_silent(below, kind) for key, below in values.items() if not _is_silent(key, kind)}
    return values


def _is_silent(key: str, kind: str) -> bool:
    """Whether a key of a config cannot change what a model of this type computes."""
    return SILENT.fullmatch(key) is not None and (kind, key) not in COUNTED


def _is_same(key: str, expected: object, found: object) -> bool:
    """Whether two values of a config are equal, floats as float32."""
    if isinstance(expected, float) and isinstance(found, float):
        return bool(np.float32(expected) == np.float32(found))
    return bool(_normalize_value(key, expected) == _normalize_value(key, found))


def _normalize_value(key: str, value: Any) -> Any:
    """One form of a value: a side stands for a square, and LeViT's config gains a `[""]` at every save."""
    if key.rpartition(".")[2] in SQUARES and isinstance(value, int):
        return [value, value]
    if isinstance(value, list) and value[-1:] == [[""]]:
        return _normalize_value(key, value[:-1])
    return value


def _compare_settings(expected: Mapping[str, Any], found: Mapping[str, Any]) -> Iterator[str]:
    """The values of two image processors that differ; null counts as absent, and channels_first is the default."""
    expected, found = ({"data_format": "channels_first", **_drop_nulls(values)} for values in (expected, found))
    for key in sorted((expected.keys() | found.keys()) - SILENT_PROCESSOR):
        if expected.get(key) != found.get(key):
            values = f"{_format_value(found, key)}, expected {_format_value(expected, key)}"
            yield f"image processing: {one_line(key)} is {values}"


def _drop_nulls(value: Any) -> Any:
    """A value as in JSON, without nulls."""
    if isinstance(value, Mapping):
        return {key: _drop_nulls(below) for key, below in value.items() if below is not None}
    return [_drop_nulls(below) for below in value] if isinstance(value, (list, tuple)) else value


def _give_same_pixels(first: Any, other: Any) -> bool:
    """Whether two image processors give the same pixels: by class and values, or else tried on random images."""
    kinds = [re.sub(r"(Pil|Fast)$", "", type(one).__name__) for one in (first, other)]
    if kinds[0] == kinds[1] and not any(_compare_settings(_read_settings(first), _read_settings(other))):
        return True
    for size in PROBES:
        one, two = (_process_random_image(processor, size) for processor in (first, other))
        if one is None or two is None or not np.array_equal(one, two):
            return False
    return True


def _read_settings(processor: Any) -> dict[str, Any]:
    """All values of an image processor, defaults included."""
    found = dict(processor.to_dict())
    # timm's settings are one level deeper.
    return {**found, **found.pop("data_config", {})}


def _process_random_image(processor: Any, size: tuple[int, int]) -> NDArray[Any] | None:
    """What a processor makes of a random image of this size; None if it fails."""
    from PIL.Image import fromarray

    from hfsoup.checkpoints.processor import PIXELS
    from hfsoup.utils.errors import LOADING_ERRORS

    picture = fromarray(np.random.default_rng(size[0]).integers(0, 256, (*size, 3), np.uint8))
    try:
        return np.asarray(processor(images=[picture], return_tensors="pt")[PIXELS])
    except LOADING_ERRORS:
        return None


def _format_value(values: Mapping[str, Any], key: str) -> str:
    value = values.get(key)
    return quoted(value) if isinstance(value, str) else one_line(value)
