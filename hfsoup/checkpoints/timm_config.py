"""The config.json of timm's models, read as transformers' config of the same model and checked first.

Two layouts are read. `timm.models.save_for_hf` writes `architecture`, `num_classes`, `label_names`, `pretrained_cfg`
and `model_args`; transformers writes its `timm_wrapper` with the same keys and more. After reading, both are configs
of the model type `timm_wrapper`; `restore_layout` undoes that. Only timm's registry is used: no weights, files or
addresses in a config are followed.
"""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hfsoup.utils.errors import SoupError
from hfsoup.utils.safe_json import MAX_SIDE, read_json
from hfsoup.utils.text import one_line, quoted

TIMM = "timm_wrapper"
NAME = re.compile(r"[a-z0-9_]+(\.[a-z0-9_]+)?")
WORD = re.compile(r"[A-Za-z0-9_]{1,64}")
IMAGES = ("input_size", "interpolation", "crop_pct", "crop_mode", "mean", "std")
# Keys of pretrained_cfg about images, classes and the model; the others are about where weights come from.
PLAIN = {
    *("architecture", "tag", "num_classes", "label_names", "label_descriptions", "first_conv", "classifier", *IMAGES),
    *("fixed_input_size", "test_input_size", "min_input_size", "test_crop_pct", "pool_size", "test_pool_size"),
    *("license", "description", "origin_url", "paper_name", "paper_ids", "notes"),
}
# Arguments of timm.create_model that load files, or build something else than a classifier.
FOREIGN = {
    *("pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "pretrained_model_args", "pretrained_strict"),
    *("checkpoint_path", "cache_dir", "model_name", "features_only", "out_indices", "feature_cls", "model_cfg"),
    *("device", "dtype", "scriptable", "exportable", "no_jit"),
}
# Keys about code or weights from elsewhere that transformers reads for no image classifier.
UNREAD = {"backbone", "checkpoint_path", "custom_pipelines", "use_kernels", "use_pretrained_backbone"}


def read_model_config(path: Path, *, where: str) -> dict[str, Any]:
    """The values of a config.json, as `normalize_config` gives them.

    Raises:
        SoupError: it cannot be read, or is timm's and has values that hfsoup does not accept.
    """
    return normalize_config(read_json(path, where=where), where=where)


def normalize_config(values: dict[str, Any], *, where: str) -> dict[str, Any]:
    """The values of a config.json; those of timm's layouts as transformers' `timm_wrapper` has them.

    Keys that name code or weights from elsewhere and that transformers would not read are removed.

    Raises:
        SoupError: timm is not installed or does not know the architecture, or a value is not accepted.
    """
    if not _is_timm_file(values):
        return _remove_unread(values)
    _require_timm(where)
    found = _nest_layout(values)
    architecture = _require_architecture(found.get("architecture"), where)
    if found.get("pretrained_cfg") is not None:
        found["pretrained_cfg"] = _check_pretrained_cfg(found["pretrained_cfg"], where)
    below = found.get("pretrained_cfg") or {}
    classes = found.get("num_classes", below.get("num_classes", found.get("num_labels")))
    names = _list_names(found.get("label_names", below.get("label_names")), where)
    arguments = _check_model_args(found.get("model_args"), classes, where)
    arguments = {**_derive_arguments(architecture, below, arguments), **arguments}
    found |= {"model_type": TIMM, "num_classes": classes, "label_names": names, "model_args": arguments}
    return {key: value for key, value in found.items() if value not in (None, [], {})}


def is_timm(config: dict[str, Any]) -> bool:
    """Whether a config, as `read_model_config` gives it, is of a timm model."""
    return config.get("model_type") == TIMM


def has_timm_layout(config: dict[str, Any]) -> bool:
    """Whether a config, as `read_model_config` gives it, came from timm's own layout, not from `timm_wrapper`."""
    return is_timm(config) and "pretrained_cfg" in config and "architectures" not in config


def restore_layout(config: dict[str, Any]) -> dict[str, Any]:
    """A config in the layout of its file; both libraries load it.

    `num_classes` in `model_args`, which transformers cannot load, and a null `model_args`, which timm cannot load, have
    been removed.
    """
    return {key: value for key, value in config.items() if key != "model_type"} if has_timm_layout(config) else config


def repeats_classes(folder: Path) -> bool:
    """Whether `model_args` of a checkpoint in timm's layout hold `num_classes`: transformers cannot load it."""
    values = read_json(folder / "config.json", where=str(folder))
    own = has_timm_layout(normalize_config(values, where=str(folder)))
    return own and "num_classes" in (values.get("model_args") or {})


def format_model_type(config: dict[str, Any]) -> str:
    """The model type of a config, or timm's architecture, for people."""
    return f"{one_line(config.get('architecture'))} (timm)" if is_timm(config) else one_line(config.get("model_type"))


def strip_timm_prefix(config: dict[str, Any], name: str) -> str:
    """A tensor's name without the prefix that transformers' wrapper adds to those of timm."""
    return name.removeprefix("timm_model.") if is_timm(config) else name


def list_libraries(config: dict[str, Any]) -> tuple[str, ...]:
    """The libraries, besides transformers, that a model's outputs depend on."""
    return ("timm",) if is_timm(config) else ()


def list_classes(config: dict[str, Any]) -> list[Any] | None:
    """The class names of a timm config, row by row; without any, those of ImageNet if the number fits, else None."""
    if "label_names" in config:
        return list(config["label_names"])
    from timm.data import ImageNetInfo, infer_imagenet_subset

    subset = infer_imagenet_subset({"num_classes": config.get("num_classes")})
    if subset is None:
        return None
    known = ImageNetInfo(subset)
    texts = known.label_descriptions(as_dict=True)
    return [texts[name] for name in known.label_names()]


def read_image_settings(config: dict[str, Any]) -> dict[str, Any] | None:
    """The image settings in a timm config; None if they are in a processor's file."""
    found = config.get("pretrained_cfg") if is_timm(config) else None
    return {key: found[key] for key in IMAGES if key in found} if found else None


def read_image_shape(config: dict[str, Any]) -> tuple[int, int, int] | None:
    """Channels, height and width of the images in a timm config; None without them."""
    size = (read_image_settings(config) or {}).get("input_size")
    return (size[0], size[1], size[2]) if size else None


def build_timm_processor(config: dict[str, Any]) -> Any:
    """transformers' image processor for the image settings of a timm config: timm's own transforms."""
    from transformers import TimmWrapperImageProcessor

    found: Any = TimmWrapperImageProcessor(config["pretrained_cfg"], config["architecture"])
    if found.data_config["crop_mode"] == "center":
        # The size before the crop, in the form of other processors.
        found.size = {"shortest_edge": int(max(found.data_config["input_size"][1:]) / found.data_config["crop_pct"])}
    return found


def _remove_unread(values: dict[str, Any]) -> dict[str, Any]:
    """A config without the keys UNREAD, also in the configs that it contains."""

    def remove(level: dict[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in level.items() if key not in UNREAD or not value}

    nested = {
        key: remove(value) for key, value in values.items() if key.endswith("_config") and isinstance(value, dict)
    }
    return remove({**values, **nested})


def _is_timm_file(values: dict[str, Any]) -> bool:
    """Whether a config.json is timm's: one without a model type, or of `timm_wrapper`."""
    kind = values.get("model_type")
    return kind == TIMM or (kind is None and ("pretrained_cfg" in values or _is_flat_layout(values)))


def _is_flat_layout(values: dict[str, Any]) -> bool:
    return isinstance(values.get("architecture"), str) and "input_size" in values and "pretrained_cfg" not in values


def _nest_layout(values: dict[str, Any]) -> dict[str, Any]:
    """A config in today's layout: an old one has at its top what is now in `pretrained_cfg`."""
    if "model_type" in values or not _is_flat_layout(values):
        return dict(values)
    above = ("architecture", "num_classes", "num_features")
    found = {key: values[key] for key in above if key in values}
    found["label_names"] = values.get("label_names", values.get("labels"))
    return {**found, "pretrained_cfg": {key: value for key, value in values.items() if key not in found}}


def _require_timm(where: str) -> None:
    if find_spec("timm") is None:
        what = "this checkpoint needs the package timm, which is not installed"
        raise SoupError(what, where=where, hint="pip install 'hfsoup[timm]'")
    try:
        import timm  # noqa: F401
    except (ImportError, RuntimeError, AttributeError, OSError) as error:
        # As where torchvision was built for another torch.
        what = f"this checkpoint needs timm, which cannot be imported: {one_line(error)}"
        hint = "python -c 'import timm' shows why; torch and torchvision must be of one release"
        raise SoupError(what, where=where, hint=hint) from error


def _require_architecture(name: Any, where: str) -> str:
    import timm

    if not isinstance(name, str) or not NAME.fullmatch(name) or not timm.is_model(name):
        what = f"expected an architecture of timm {timm.__version__}, found {quoted(name)}"
        raise SoupError(what, where=where, hint="pip install -U timm")
    return name


def _check_pretrained_cfg(values: Any, where: str) -> dict[str, Any]:
    """The checked values of `pretrained_cfg` about images and head, without where its weights came from."""
    if not isinstance(values, dict):
        raise SoupError(f"expected pretrained_cfg to be an object, found {quoted(values)}", where=where)
    if values.get("label_offset"):
        what = "not supported: label_offset, which adds rows without a class to the head"
        hint = "load it with timm, then timm.models.save_for_hf(model, FOLDER)"
        raise SoupError(what, where=where, hint=hint)
    found = {key: value for key, value in values.items() if key in PLAIN}
    keys = [key for key in ("input_size", "test_input_size") if found.get(key) is not None]
    sizes = [_require_size(found[key], key, where) for key in keys]
    least = max((max(size[1:]) for size in sizes), default=224) / (2 * MAX_SIDE)
    for key in ("crop_pct", "test_crop_pct"):
        share = found.get(key)
        if share is not None and (type(share) not in (int, float) or not least <= share <= 16):
            raise SoupError(f"expected {key} to be a fraction of the image side, found {quoted(share)}", where=where)
    for key in ("mean", "std"):
        numbers = found.get(key)
        plain = isinstance(numbers, list) and all(type(n) in (int, float) for n in numbers) and 0 < len(numbers) < 99
        if numbers is not None and not plain:
            raise SoupError(f"expected {key} to be a number for each channel, found {quoted(numbers)}", where=where)
    return found


def _require_size(size: Any, key: str, where: str) -> list[int]:
    if not isinstance(size, list) or len(size) != 3 or not all(type(n) is int and 0 < n <= MAX_SIDE for n in size):
        what = f"expected {key} to be channels, height and width of up to {MAX_SIDE}, found {quoted(size)}"
        raise SoupError(what, where=where)
    return size


def _list_names(names: Any, where: str) -> list[Any] | None:
    """The names of the classes in the order of the head's rows; timm allows a mapping from row to name too."""
    if isinstance(names, dict) and names.keys() == {str(row) for row in range(len(names))}:
        return [names[str(row)] for row in range(len(names))]
    if names is not None and not isinstance(names, list):
        what = f"expected label_names to name every row of the head, found {quoted(names)}"
        raise SoupError(what, where=where, hint="a list of names, one a class")
    return names


def _check_model_args(values: Any, classes: Any, where: str) -> dict[str, Any]:
    """The checked `model_args`, without the number of classes: numbers, words and lists of them."""
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise SoupError(f"expected model_args to be an object, found {quoted(values)}", where=where)
    if values.get("num_classes", classes) != classes:
        what = f"num_classes is {quoted(classes)} in config.json and {quoted(values['num_classes'])} in its model_args"
        raise SoupError(what, where=where, hint="save it again with timm.models.save_for_hf")
    for key, value in values.items():
        if key in FOREIGN and value:
            what = f"model_args may not set {quoted(key)}, which loads files or builds no classifier"
            raise SoupError(what, where=where, hint=f"remove {one_line(key)} from config.json")
        if not WORD.fullmatch(key) or not _is_plain(value):
            what = f"expected numbers, words and lists of them in model_args, found {quoted(key)}: {quoted(value)}"
            raise SoupError(what, where=where)
    return {key: value for key, value in values.items() if key != "num_classes" and key not in FOREIGN}


def _is_plain(value: Any, depth: int = 2) -> bool:
    if isinstance(value, list):
        return depth > 0 and len(value) <= 64 and all(_is_plain(inner, depth - 1) for inner in value)
    if isinstance(value, str):
        return bool(WORD.fullmatch(value))
    return value is None or isinstance(value, (bool, int, float))


def _derive_arguments(architecture: str, described: dict[str, Any], arguments: dict[str, Any]) -> dict[str, Any]:
    """Arguments that timm takes from `pretrained_cfg`; transformers would build another model without them."""
    from timm.models import get_pretrained_cfg

    size, usual = described.get("input_size"), get_pretrained_cfg(architecture)
    if size is None or usual is None:
        return {}
    found: dict[str, Any] = {} if size[0] == usual.input_size[0] else {"in_chans": size[0]}
    free = arguments.get("dynamic_img_size") or arguments.get("use_naflex") or arguments.get("strict_img_size") is False
    same = usual.fixed_input_size and size[1:] == list(usual.input_size[1:])
    return found if free or same or not described.get("fixed_input_size") else {**found, "img_size": size[1:]}
