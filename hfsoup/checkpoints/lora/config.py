"""The adapter_config.json and the tensors of a LoRA adapter of PEFT."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import isfinite, sqrt
from pathlib import Path
from typing import Any

from hfsoup.checkpoints.auto_class import IMAGE_CLASSIFICATION
from hfsoup.checkpoints.inspection import COUNTERS
from hfsoup.checkpoints.lora import MAX_RANK
from hfsoup.checkpoints.safetensors_io import FLOATS
from hfsoup.checkpoints.types import TensorSpec
from hfsoup.utils.errors import SoupError
from hfsoup.utils.safe_json import read_json
from hfsoup.utils.text import one_line, quoted

CONFIG = "adapter_config.json"
WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
FULL = re.compile(r"(pytorch_)?model(-\d+-of-\d+)?\.(safetensors|bin)")
PREFIX = "base_model.model."
MAX_PATTERNS, MAX_TEXT = 1 << 10, 512
# A layer's name or the end of one; an expression with repetition could take exponential time.
PATTERN = re.compile(r"\^?[\w.\\-]+")
REVISION = re.compile(r"[\w][\w./-]*")
# Keys that are honoured here, or that change no weight once the adapter is trained.
UNDERSTOOD = {
    *("peft_type", "base_model_name_or_path", "revision", "r", "lora_alpha", "rank_pattern", "alpha_pattern"),
    *("use_rslora", "bias", "modules_to_save", "auto_mapping", "fan_in_fan_out", "init_lora_weights"),
    *("task_type", "inference_mode", "peft_version", "lora_dropout", "target_modules", "exclude_modules"),
    *("layers_to_transform", "layers_pattern", "megatron_core", "qalora_group_size", "eva_config", "runtime_config"),
    *("library_name", "ensure_weight_tying", "enable_lora", "merge_weights"),
}
# Other initializations of PEFT change the base before training, so ΔW does not belong to the base on the Hub.
STARTS = (True, False, None, "gaussian", "eva", "orthogonal")
SUPPORTED = "LoRA on linear and Conv2d layers, with modules_to_save and biases"


@dataclass(frozen=True)
class AdapterConfig:
    """The values of a supported adapter_config.json; `modules_to_save` were trained in full."""

    base: str
    revision: str | None
    rank: int
    alpha: float
    ranks: tuple[tuple[re.Pattern[str], float], ...]
    alphas: tuple[tuple[re.Pattern[str], float], ...]
    rslora: bool
    bias: bool
    modules_to_save: tuple[str, ...]
    architecture: str | None

    def rank_of(self, module: str) -> int:
        """The rank of a layer."""
        return int(_find_value(self.ranks, module, self.rank))

    def scaling(self, module: str) -> float:
        """The factor of B·A: alpha / r, or alpha / √r with rslora (https://arxiv.org/abs/2312.03732)."""
        rank = self.rank_of(module)
        return _find_value(self.alphas, module, self.alpha) / (sqrt(rank) if self.rslora else rank)


@dataclass(frozen=True)
class AdapterTensors:
    """The tensors of an adapter: A and B by layer, and whole tensors by name, all without PEFT's prefix."""

    layers: Mapping[str, tuple[TensorSpec, TensorSpec]]
    whole: Mapping[str, TensorSpec]


def is_adapter(names: Iterable[str]) -> bool:
    """Whether the files of a repository are an adapter, without a full model."""
    known = set(names)
    return CONFIG in known and not any(FULL.fullmatch(name) for name in known)


def find_adapter_weights(names: Iterable[str], *, where: str) -> str:
    """The name of an adapter's weight file among `names`.

    Raises:
        SoupError: there is none.
    """
    known = set(names)
    for name in WEIGHTS:
        if name in known:
            return name
    raise SoupError(f"expected {WEIGHTS[0]} next to {CONFIG}, found none", where=where)


def read_adapter_config(path: Path, *, where: str) -> AdapterConfig:
    """Read an adapter_config.json.

    Raises:
        SoupError: it is damaged, or the adapter is not supported.
    """
    values = read_json(path, where=where)
    if values.get("peft_type") != "LORA":
        raise _unsupported_error(f"adapters of type {quoted(values.get('peft_type'))}", where)
    if others := sorted(key for key, value in values.items() if key not in UNDERSTOOD and value):
        raise _unsupported_error(f"{quoted(others[0])} in an adapter", where)
    start = values.get("init_lora_weights")
    if not any(start is known or (isinstance(known, str) and start == known) for known in STARTS):
        raise _unsupported_error(f"init_lora_weights {quoted(start)}, which changes the base before training", where)
    bias, whole, rslora = values.get("bias", "none"), values.get("modules_to_save") or [], values.get("use_rslora")
    if bias not in ("none", "all", "lora_only"):
        raise _unsupported_error(f"bias {quoted(bias)}", where)
    if rslora not in (None, True, False) or not _are_names(whole):
        raise SoupError("expected use_rslora to be true or false and modules_to_save to be names", where=where)
    base, revision = values.get("base_model_name_or_path"), values.get("revision")
    if not isinstance(base, str) or not 0 < len(base) <= MAX_TEXT or not base.isprintable():
        hint = f"write the base's name on the Hub into base_model_name_or_path of {CONFIG}"
        raise SoupError("expected base_model_name_or_path to name the base, found none", where=where, hint=hint)
    if revision and not (isinstance(revision, str) and len(revision) <= MAX_TEXT and REVISION.fullmatch(revision)):
        raise SoupError(f"expected revision to be a branch, tag or commit, found {quoted(revision)}", where=where)
    mapping = values.get("auto_mapping")
    named = mapping.get("base_model_class") if isinstance(mapping, dict) else None
    return AdapterConfig(
        base=base,
        revision=revision or None,
        rank=int(_parse_number(values.get("r"), "r", where)),
        alpha=_parse_number(values.get("lora_alpha"), "lora_alpha", where),
        ranks=_parse_patterns(values.get("rank_pattern"), "rank_pattern", where),
        alphas=_parse_patterns(values.get("alpha_pattern"), "alpha_pattern", where),
        rslora=bool(rslora),
        bias=bias != "none",
        modules_to_save=tuple(whole),
        architecture=named if IMAGE_CLASSIFICATION.is_named_by(named) else None,
    )


def sort_tensors(specs: Mapping[str, TensorSpec], config: AdapterConfig, *, where: str) -> AdapterTensors:
    """Sort the tensors of an adapter into pairs of A and B and whole tensors.

    Raises:
        SoupError: a name is not one of LoRA's, or A or B is missing.
    """
    halves: dict[str, dict[str, TensorSpec]] = {}
    whole: dict[str, TensorSpec] = {}
    for name, spec in specs.items():
        at = f"{where}, tensor {one_line(name)}"
        if not name.startswith(PREFIX) or not (spec.dtype in FLOATS or COUNTERS.search(name)):
            raise SoupError(f"expected a float tensor whose name begins with {PREFIX}", where=at)
        inner = name.removeprefix(PREFIX)
        if half := re.fullmatch(r"(.+)\.lora_([AB])\.weight", inner):
            halves.setdefault(half[1], {})[half[2]] = spec
        elif "lora_" in inner:
            raise _unsupported_error("this tensor of an adapter", at)
        elif plain := _find_trained_name(inner, specs, config, at):
            whole[plain] = spec
    layers = {}
    for module, found in halves.items():
        if found.keys() != {"A", "B"}:
            raise SoupError("expected lora_A and lora_B, found one of them", where=f"{where}, layer {one_line(module)}")
        layers[module] = found["A"], found["B"]
    if not layers and not whole:
        raise SoupError("expected tensors of an adapter, found none", where=where)
    return AdapterTensors(layers, whole)


def _find_trained_name(name: str, specs: Mapping[str, TensorSpec], config: AdapterConfig, where: str) -> str | None:
    """The model's name of a tensor that was trained in full; None for a second copy or an untrained original.

    With biases, PEFT also saves those of its wrappers around layers.
    """
    plain = name.replace(".modules_to_save.", ".")
    if ".original_module." in name or (plain != name and PREFIX + plain in specs):
        return None
    plain = plain.replace(".base_layer.", ".")
    parents = [plain[: at.start()] for at in re.finditer(r"\.", plain)]
    if any(parent.endswith(module) for parent in parents for module in config.modules_to_save):
        return plain
    if config.bias and plain.endswith(".bias"):
        return plain
    raise _unsupported_error("a tensor of no module in modules_to_save", where)


def _unsupported_error(what: str, where: str) -> SoupError:
    hint = f"hfsoup supports {SUPPORTED}; merge this one with peft: merge_and_unload().save_pretrained(FOLDER)"
    return SoupError(f"not supported: {what}", where=where, hint=hint)


def _find_value(patterns: Iterable[tuple[re.Pattern[str], float]], module: str, default: float) -> float:
    return next((value for pattern, value in patterns if pattern.match(module)), default)


def _parse_patterns(found: Any, key: str, where: str) -> tuple[tuple[re.Pattern[str], float], ...]:
    """Values by patterns of the ends of layers' names, as PEFT matches them."""
    if not isinstance(found, (dict, type(None))) or len(found or ()) > MAX_PATTERNS:
        raise SoupError(f"expected {key} to hold up to {MAX_PATTERNS} numbers by layer", where=where)
    compiled = []
    for text, value in (found or {}).items():
        if len(text) > MAX_TEXT or not PATTERN.fullmatch(text):
            raise _unsupported_error(f"the expression {quoted(text)} in {key}", where)
        try:
            pattern = re.compile(rf"(.*\.)?({text})$")
        except re.error as error:
            raise SoupError(f"expected a layer's name in {key}, found {quoted(text)}", where=where) from error
        compiled.append((pattern, _parse_number(value, key, where)))
    return tuple(compiled)


def _parse_number(value: Any, key: str, where: str) -> float:
    """A finite number; a rank is an integer from 1 to `MAX_RANK`."""
    rank = key in ("r", "rank_pattern")
    if type(value) not in ((int,) if rank else (int, float)) or abs(value) > 1e9 or not isfinite(value):
        raise SoupError(f"expected {key} to be a number, found {quoted(value)}", where=where)
    if rank and not 1 <= value <= MAX_RANK:
        raise SoupError(f"expected a rank from 1 to {MAX_RANK}, found {one_line(value, 24)}", where=where)
    return float(value)


def _are_names(found: Any) -> bool:
    return isinstance(found, list) and all(isinstance(t, str) and 0 < len(t) <= MAX_TEXT for t in found)
