"""One checkpoint checked by itself, by its config and headers, before transformers loads either."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hfsoup.checkpoints.auto_class import IMAGE_CLASSIFICATION
from hfsoup.checkpoints.safetensors_io import FLOATS, read_tensor_specs
from hfsoup.checkpoints.tensor_matching import TensorMatch
from hfsoup.checkpoints.timm_config import is_timm, list_classes, read_image_settings, read_model_config
from hfsoup.checkpoints.types import PROCESSORS, Ingredient, TensorSpec
from hfsoup.utils.errors import SoupError
from hfsoup.utils.safe_json import MAX_SIDE, read_json, walk_json
from hfsoup.utils.text import join_names, one_line, quoted

MAX_CLASSES = 1 << 17
MAX_LABEL = 512
MAX_NUMBER = 1 << 14
MAX_TENSORS = 1 << 15
# Keys that make transformers run, load or download something that is not in the weights.
FOREIGN = {
    "auto_map", "custom_pipelines", "quantization_config", "use_pretrained_backbone", "checkpoint_path", "use_kernels",
}  # fmt: skip
ELSEWHERE = "this model needs code or files from elsewhere ({}), which hfsoup never runs"
NATIVE = "a checkpoint of an architecture that transformers has"
# Numbers below these keys do not size an image classifier.
IDLE = frozenset(("id2label", "label2id", "label_names", "num_labels", "text_config", "vocab_size"))
DEQUANTIZE = f"{IMAGE_CLASSIFICATION.name}.from_pretrained(X).dequantize().save_pretrained(FOLDER) first"
CLASS = re.compile(r"[0-9]{1,9}")
COUNTERS = re.compile(r"(num_batches_tracked|ids|idxs?|index|indices|mask|counter|steps?)$")


@dataclass(frozen=True)
class Checkpoint:
    """The config, class names, tensors and image processor values of one ingredient.

    `rename_tensors` gives its tensors the names of a family. Then `unused` are the tensors that fill nothing of the
    model, `converted` those that loading joins or splits, and `wrapper` is the prefix that was removed from the names.
    """

    ingredient: Ingredient
    config: dict[str, Any]
    labels: tuple[str, ...]
    shards: tuple[tuple[TensorSpec, ...], ...]
    tensors: dict[str, TensorSpec]
    processor: dict[str, Any] | None
    unused: tuple[str, ...] = ()
    converted: frozenset[str] = frozenset()
    wrapper: str = ""

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of every tensor by its name."""
        return {name: spec.shape for name, spec in self.tensors.items()}

    @property
    def custom(self) -> bool:
        """Whether its files name code of their own (auto_map), which is never run."""
        return bool(self.config.get("auto_map") or (self.processor or {}).get("auto_map"))


def inspect_checkpoint(ingredient: Ingredient) -> Checkpoint:
    """Read the config, headers and image processor of one ingredient.

    Raises:
        SoupError: it needs foreign code, its numbers are larger than any image classifier's, or its files disagree.
    """
    where = f"{ingredient}, config.json"
    config, labels = read_classifier_config(ingredient.folder / "config.json", where=where)
    dtypes = ingredient.adapter.dtypes if ingredient.adapter else {}
    key = f"{ingredient.source.state_dict_key}." if ingredient.source.state_dict_key else ""
    stored = [read_tensor_specs(w.path, where=f"{ingredient}, {w.name}").values() for w in ingredient.weights]
    shards = tuple(
        tuple(replace(s, dtype=dtypes.get(s.name, s.dtype)) for s in specs if s.name.startswith(key))
        for specs in stored
    )
    if key and not any(shards):
        what = f"expected tensors whose names begin with {quoted(key)}, found none"
        raise SoupError(what, where=str(ingredient), hint="another --state-dict-key")
    tensors = _index_tensors(shards, ingredient)
    largest = max(len(tensors), *(side for spec in tensors.values() for side in (0, *spec.shape)))
    limit_numbers(config, where=where, most=max(MAX_NUMBER, largest))
    images = read_image_settings(config) or read_processor_config(ingredient)
    return Checkpoint(ingredient, config, labels, shards, tensors, images)


def read_classifier_config(path: Path, *, where: str) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The config.json of an image classifier, and its classes in the order of the head's rows.

    Raises:
        SoupError: it is damaged, needs foreign code, or is not an image classifier's.
    """
    config = read_model_config(path, where=where)
    refuse_foreign_code(config, where=where)
    _require_classifier(config, where)
    return config, read_class_names(config, where=where)


def rename_tensors(checkpoint: Checkpoint, filling: TensorMatch, names: Mapping[str, str]) -> Checkpoint:
    """A checkpoint by the names of a family, without the tensors that fill nothing.

    Args:
        checkpoint: as it is in its files.
        filling: which tensor of the model each of its tensors fills.
        names: the family's names by the model's own.
    """
    family = {
        in_file: name if name in filling.converted else names.get(filling.owns[name], name)
        for name, in_file in filling.stored.items()
    }
    shards = tuple(
        tuple(replace(spec, name=family[spec.name]) for spec in shard if spec.name in family)
        for shard in checkpoint.shards
    )
    stored = {name: in_file for in_file, name in family.items()}
    plain = len(stored) == len(checkpoint.tensors) and all(name == in_file for name, in_file in stored.items())
    return replace(
        checkpoint,
        ingredient=replace(checkpoint.ingredient, names={} if plain else stored),
        shards=shards,
        tensors={spec.name: spec for shard in shards for spec in shard},
        unused=filling.unused,
        wrapper=filling.wrapper,
        converted=frozenset(family[filling.stored[name]] for name in filling.converted),
    )


def require_floats(checkpoint: Checkpoint) -> None:
    """Refuse integer tensors, except counters and indices.

    Raises:
        SoupError: one is a weight.
    """
    for file, shard in zip(checkpoint.ingredient.weights, checkpoint.shards, strict=True):
        for spec in shard:
            if spec.dtype not in FLOATS and not COUNTERS.search(spec.name):
                where = f"{checkpoint.ingredient}, {file.name}, tensor {one_line(spec.name)}"
                hint = f"save it again as float32, float16 or bfloat16; if it is quantized: {DEQUANTIZE}"
                raise SoupError(f"expected floats, found {spec.dtype}", where=where, hint=hint)


def refuse_foreign_code(values: dict[str, Any], *, where: str) -> None:
    """Refuse a config that runs code, or downloads files, that are not part of the checkpoint.

    An auto_map at the top of a config is accepted: the classes of transformers are used in its place.
    """
    if isinstance(quantized := values.get("quantization_config"), dict) and quantized:
        method = quantized.get("quant_method")
        named = f" ({quoted(method)})" if method else ""
        what = f"this checkpoint is quantized{named}: quantized weights cannot be averaged"
        raise SoupError(what, where=where, hint=DEQUANTIZE)
    for key, value in walk_json(values, skip=frozenset(("id2label", "label2id"))):
        if isinstance(value, dict):
            for name in FOREIGN & value.keys():
                if value[name] and not (name == "auto_map" and value is values):
                    raise SoupError(ELSEWHERE.format(name), where=where, hint=NATIVE)
        elif "implementation" in key and value not in (None, True, False, "eager", "sdpa"):
            what = f"expected {key} to be eager or sdpa, found {quoted(value)}, which hfsoup never downloads or runs"
            raise SoupError(what, where=where, hint=f"remove {key} from config.json")
        elif key in ("backbone", "architecture") and isinstance(value, str) and re.search(r"[/:]", value):
            what = f"{key} names another repository, {quoted(value)}, which hfsoup does not download"
            raise SoupError(what, where=where)


def read_class_names(config: dict[str, Any], *, where: str) -> tuple[str, ...]:
    """The class names of a config, in the order of the head's rows; LABEL_0 and so on where it has none.

    As in transformers, `num_labels` decides if it is not the number of names. A class whose name is null or empty,
    which `pipeline()` takes, gets its placeholder.

    Raises:
        SoupError: their number is out of bounds, or they are not one name for each row.
    """
    names, count = config.get("id2label"), config.get("num_labels")
    if names is None and is_timm(config):
        rows, count = list_classes(config), config.get("num_classes")
        names = rows and {str(i): name for i, name in enumerate(rows)}
    if not isinstance(names, (dict, type(None))):
        raise SoupError("expected id2label to map numbers to names", where=where)
    if count is None:
        count = 2 if names is None else len(names)
    if type(count) is not int or not 1 <= count <= MAX_CLASSES:
        raise SoupError(f"expected 1 to {MAX_CLASSES} classes, found {one_line(count, 24)}", where=where)
    if names is None or (len(names) != count and not is_timm(config)):
        return tuple(f"LABEL_{i}" for i in range(count))
    numbered = {int(key): name for key, name in names.items() if CLASS.fullmatch(key)}
    if numbered.keys() != set(range(count)):
        raise SoupError(f"expected id2label to name the classes 0 to {count - 1}, each once", where=where)
    labels = [str(numbered[i]) if isinstance(numbered[i], (int, float)) else numbered[i] for i in range(count)]
    for i, label in enumerate(labels):
        if label is None or not str(label).strip():
            labels[i] = f"LABEL_{i}"
        elif not isinstance(label, str) or len(label) > MAX_LABEL:
            what = f"expected a name of up to {MAX_LABEL} characters for class {i}, found {quoted(label)}"
            raise SoupError(what, where=where)
    return tuple(labels)


def limit_numbers(values: dict[str, Any], *, where: str, most: int) -> int:
    """The largest whole number in a config; a list counts with a quarter of its sum, because it has a number per stage.

    Raises:
        SoupError: it is over `most`: transformers could allocate without bound.
    """
    largest = 0
    for key, value in walk_json(values, skip=IDLE):
        many = isinstance(value, list)
        size = sum(abs(number) for number in (value if many else [value]) if type(number) is int) // (4 if many else 1)
        if size > most or (many and len(value) > most):
            raise SoupError(f"{one_line(key)} is {one_line(value, 40)}, over the limit of {most}", where=where)
        largest = max(largest, size)
    return largest


def read_processor_config(ingredient: Ingredient) -> dict[str, Any] | None:
    """The values of an ingredient's image processor, from the file that transformers reads; None without one."""
    found = None
    for name in PROCESSORS:
        path, where = ingredient.processor_folder / name, f"{ingredient}, {name}"
        if not path.exists():
            continue
        values = read_json(path, where=where)
        refuse_foreign_code(values, where=where)
        limit_numbers(values, where=where, most=MAX_SIDE)
        if name.startswith("preprocessor"):
            found = values
        elif "image_processor" in values:
            found = values["image_processor"]
        if not isinstance(found, (dict, type(None))):
            raise SoupError("expected image_processor to be an object, found something else", where=where)
        if values.get("auto_map"):
            _require_native_processor(ingredient, where)
    return found


def _require_native_processor(ingredient: Ingredient, where: str) -> None:
    """Require that transformers has an image processor for files that name code of their own."""
    from hfsoup.checkpoints.processor import load_image_processor

    try:
        load_image_processor(ingredient.processor_folder)
    except SoupError as error:
        what = "this image processor needs code from elsewhere (auto_map), which hfsoup never runs"
        raise SoupError(what, where=where, hint=error.hint) from error


def _require_classifier(config: dict[str, Any], where: str) -> None:
    """Require that transformers has an image classifier for a config, whatever class it was saved from."""
    kind, classes = config.get("model_type"), config.get("architectures")
    if not isinstance(kind, str) or not kind:
        raise SoupError("expected a model_type, found none", where=where, hint="is this a transformers model?")
    classes = [classes] if isinstance(classes, str) else classes
    if not isinstance(classes, (list, type(None))) or not all(isinstance(name, str) for name in classes or ()):
        raise SoupError("expected architectures to be a list of names, found something else", where=where)
    named = classes is None or any(map(IMAGE_CLASSIFICATION.is_named_by, classes))
    if named and not config.get("auto_map"):
        return
    from hfsoup.checkpoints.architecture import classifies_images

    if not classifies_images(kind):
        what = f"expected an image classifier, found {join_names(classes or [kind], 4)}"
        raise SoupError(ELSEWHERE.format("auto_map") if config.get("auto_map") else what, where=where, hint=NATIVE)


def _index_tensors(shards: Iterable[Iterable[TensorSpec]], ingredient: Ingredient) -> dict[str, TensorSpec]:
    found: dict[str, TensorSpec] = {}
    for spec in (spec for shard in shards for spec in shard):
        if spec.name in found:
            raise SoupError("this tensor is in two weight files", where=f"{ingredient}, tensor {one_line(spec.name)}")
        found[spec.name] = spec
    if not 0 < len(found) <= MAX_TENSORS:
        what = f"expected tensors, at most {MAX_TENSORS}, found {len(found) or 'none'}"
        raise SoupError(what, where=str(ingredient))
    return found
