"""The config.json of timm's models as transformers' config of the same model, checked before either library sees it.

Two layouts are read. `timm.models.save_for_hf` writes `architecture`, `num_classes`, `label_names`, `pretrained_cfg` and
`model_args`; transformers writes its `timm_wrapper` with the same keys and its own. A config that was read is of the
model type `timm_wrapper` in both cases; `written` gives back the layout. Of timm only its registry is asked here: no
weights, files or addresses that a config names are ever followed.
"""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hfsoup.errors import SoupError
from hfsoup.names import flat, shown
from hfsoup.untrusted import read_json

KIND = "timm_wrapper"
MAX_SIDE = 4096
NAME = re.compile(r"[a-z0-9_]+(\.[a-z0-9_]+)?")
WORD = re.compile(r"[A-Za-z0-9_]{1,64}")
# What pretrained_cfg may say of images, classes and the model; everything else there says where weights come from.
PLAIN = frozenset(
    (
        *("architecture", "tag", "num_classes", "input_size", "test_input_size", "min_input_size", "fixed_input_size"),
        *("interpolation", "crop_pct", "test_crop_pct", "crop_mode", "mean", "std", "pool_size", "test_pool_size"),
        *("first_conv", "classifier", "label_names", "label_descriptions"),
        *("license", "description", "origin_url", "paper_name", "paper_ids", "notes"),
    )
)
# Arguments of timm.create_model that load something, or make something else than a classifier.
FOREIGN = frozenset(
    (
        *("pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "pretrained_model_args", "pretrained_strict"),
        *("checkpoint_path", "cache_dir", "model_name", "features_only", "out_indices", "feature_cls", "model_cfg"),
        *("device", "dtype", "scriptable", "exportable", "no_jit"),
    )
)


def read_config(path: Path, *, where: str) -> dict[str, Any]:
    """A config.json, as transformers' config where it is timm's.

    Raises:
        SoupError: it cannot be read, or is one of timm's that says more than what a model is.
    """
    return understood(read_json(path, where=where), where=where)


def understood(values: dict[str, Any], *, where: str) -> dict[str, Any]:
    """The values of a config.json as transformers' config where they are timm's, otherwise as they are."""
    if not _is_timm(values):
        return values
    found = _split(values)
    _require_timm(where)
    architecture = found.get("architecture")
    if not isinstance(architecture, str) or not NAME.fullmatch(architecture):
        what = f"expected the name of an architecture of timm, found {shown(architecture)}"
        raise SoupError(what, where=where, hint="timm.list_models() gives them")
    _require_architecture(architecture, where)
    described = found.get("pretrained_cfg")
    if described is not None:
        described = _described(described, where)
        found["pretrained_cfg"] = described
    classes = found.get("num_classes", (described or {}).get("num_classes"))
    names = found.get("label_names", (described or {}).get("label_names"))
    found |= {"model_type": KIND, "num_classes": classes, "label_names": _listed(names, where)}
    arguments = _arguments(found.get("model_args"), classes, where)
    found["model_args"] = {**_derived(architecture, described or {}, arguments), **arguments}
    empty = [key for key in ("num_classes", "label_names", "model_args") if not found[key]]
    return {key: value for key, value in found.items() if key not in empty}


def is_timm(config: dict[str, Any]) -> bool:
    """Whether a config that was read is of a model of timm."""
    return config.get("model_type") == KIND


def is_native(config: dict[str, Any]) -> bool:
    """Whether a config that was read is in timm's own layout, not in that of transformers' wrapper."""
    return is_timm(config) and "pretrained_cfg" in config and "architectures" not in config


def written(config: dict[str, Any]) -> dict[str, Any]:
    """A config that was read, in the layout that it had; both libraries load it.

    transformers saves `model_args` as null, which timm cannot read, and timm repeats `num_classes` in it, with which
    transformers cannot build the model: neither is there any more.
    """
    return {key: value for key, value in config.items() if key != "model_type"} if is_native(config) else config


def described(config: dict[str, Any]) -> str:
    """What kind of model a config describes, in a word or two."""
    if is_timm(config):
        return f"{flat(config.get('architecture'))} (timm)"
    return flat(config.get("model_type"))


def class_list(config: dict[str, Any]) -> list[str] | None:
    """The names of the classes as transformers gives them where a config of timm names none: those of ImageNet."""
    from timm.data import ImageNetInfo, infer_imagenet_subset

    subset = infer_imagenet_subset({"num_classes": config.get("num_classes")})
    if subset is None:
        return None
    known = ImageNetInfo(subset)
    texts = known.label_descriptions(as_dict=True)
    return [texts[name] for name in known.label_names()]


def _is_timm(values: dict[str, Any]) -> bool:
    """timm's own configs have no model type; before 2023 they had no `pretrained_cfg` either."""
    kind = values.get("model_type")
    return kind == KIND or (kind is None and ("pretrained_cfg" in values or _is_old(values)))


def _is_old(values: dict[str, Any]) -> bool:
    return isinstance(values.get("architecture"), str) and "input_size" in values and "pretrained_cfg" not in values


def _split(values: dict[str, Any]) -> dict[str, Any]:
    """A config as timm writes it today; an old one has on one level what is now in `pretrained_cfg`."""
    if values.get("model_type") is not None or not _is_old(values):
        return dict(values)
    above = {key: values[key] for key in ("architecture", "num_classes", "num_features") if key in values}
    names = values.get("label_names", values.get("labels"))
    below = {key: value for key, value in values.items() if key in PLAIN and key not in above}
    return {**above, "label_names": names, "pretrained_cfg": below}


def _require_timm(where: str) -> None:
    if find_spec("timm") is None:
        hint = "pip install 'hfsoup[timm]'"
        raise SoupError("this checkpoint needs the package timm, which is not installed", where=where, hint=hint)
    try:
        import timm  # noqa: F401
    except (ImportError, RuntimeError, AttributeError, OSError) as error:
        # torchvision beside a torch that it was not built for ends this way.
        hint = "python -c 'import timm' tells why; torch and torchvision have to be of one release"
        raise SoupError(f"this checkpoint needs timm, which cannot be imported: {flat(error)}", where=where, hint=hint) from error


def _require_architecture(name: str, where: str) -> None:
    import timm

    if not timm.is_model(name):
        what = f"timm {timm.__version__} has no architecture {shown(name)}"
        raise SoupError(what, where=where, hint="pip install -U timm")


def _described(values: Any, where: str) -> dict[str, Any]:
    """What a config says of images and head, without where its weights once came from."""
    if not isinstance(values, dict):
        raise SoupError(f"expected pretrained_cfg to be an object, found {shown(values)}", where=where)
    if values.get("label_offset"):
        what = "the head has rows for classes that are not named (label_offset), which only timm leaves out"
        raise SoupError(what, where=where, hint="save the loaded model again: timm.models.save_for_hf(model, FOLDER)")
    found = {key: value for key, value in values.items() if key in PLAIN}
    sides = [_sides(found[key], key, where) for key in ("input_size", "test_input_size") if found.get(key) is not None]
    for key in ("crop_pct", "test_crop_pct"):
        share = found.get(key)
        largest = max((max(pair) for pair in sides), default=224)
        if share is not None and (type(share) not in (int, float) or not largest / MAX_SIDE <= share <= 16):
            raise SoupError(f"expected {key} to be a share of the image, found {shown(share)}", where=where)
    for key in ("mean", "std"):
        numbers = found.get(key)
        if numbers is not None and not _numbers(numbers):
            raise SoupError(f"expected {key} to be a number for each channel, found {shown(numbers)}", where=where)
    return found


def _sides(size: Any, key: str, where: str) -> tuple[int, int]:
    if not isinstance(size, list) or len(size) != 3 or not all(type(n) is int and 0 < n <= MAX_SIDE for n in size):
        what = f"expected {key} to be channels, height and width of up to {MAX_SIDE}, found {shown(size)}"
        raise SoupError(what, where=where)
    return size[1], size[2]


def _numbers(values: Any) -> bool:
    return isinstance(values, list) and 0 < len(values) <= 16 and all(type(n) in (int, float) for n in values)


def _listed(names: Any, where: str) -> list[Any] | None:
    """The names of the classes in the order of the head's rows; timm allows a mapping from row to name."""
    if not isinstance(names, dict):
        return names if isinstance(names, list) or names is None else _refuse_names(names, where)
    if {str(row) for row in names} != {str(row) for row in range(len(names))}:
        return _refuse_names(names, where)
    return [names[str(row)] for row in range(len(names))]


def _refuse_names(names: Any, where: str) -> None:
    what = f"expected label_names to name every row of the head, found {shown(names)}"
    raise SoupError(what, where=where, hint="a list of names, one a class")


def _arguments(values: Any, classes: Any, where: str) -> dict[str, Any]:
    """What timm is given to build the model beside its architecture and the number of classes: plain values."""
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise SoupError(f"expected model_args to be an object, found {shown(values)}", where=where)
    if "num_classes" in values and values["num_classes"] != classes:
        what = f"num_classes is {shown(classes)}, and {shown(values['num_classes'])} in model_args"
        raise SoupError(what, where=where)
    for key, value in values.items():
        if key in FOREIGN and value:
            what = f"model_args may not say {shown(key)}: it loads something, or makes no classifier"
            raise SoupError(what, where=where, hint="take it out of config.json")
        if not WORD.fullmatch(key) or not _is_plain(value):
            what = f"expected numbers, words and lists of them in model_args, found {shown(key)}: {shown(value)}"
            raise SoupError(what, where=where)
    return {key: value for key, value in values.items() if key != "num_classes" and key not in FOREIGN}


def _is_plain(value: Any, depth: int = 2) -> bool:
    if isinstance(value, list):
        return depth > 0 and len(value) <= 64 and all(_is_plain(inner, depth - 1) for inner in value)
    return value is None or isinstance(value, (bool, int, float)) or (isinstance(value, str) and bool(WORD.fullmatch(value)))


def _derived(architecture: str, described: dict[str, Any], arguments: dict[str, Any]) -> dict[str, Any]:
    """Arguments that timm takes from `pretrained_cfg`, where transformers, which does not, would build another model."""
    from timm.models import get_pretrained_cfg

    size = described.get("input_size")
    if size is None:
        return {}
    usual = get_pretrained_cfg(architecture)
    found = {}
    if usual is None or size[0] != usual.input_size[0]:
        found["in_chans"] = size[0]
    fixed = described.get("fixed_input_size") and not arguments.get("dynamic_img_size")
    if fixed and (usual is None or not usual.fixed_input_size or size[1:] != list(usual.input_size[1:])):
        found["img_size"] = size[1:]
    return found
