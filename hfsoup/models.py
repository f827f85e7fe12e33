"""The boundary to transformers: models and image processors from local folders only, and never remote code."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from hfsoup.errors import SoupError

if TYPE_CHECKING:
    from transformers import PretrainedConfig


def config_of(values: dict[str, Any]) -> PretrainedConfig:
    """The transformers config object of a config.json."""
    from transformers import CONFIG_MAPPING

    kind = str(values.get("model_type"))
    if kind not in CONFIG_MAPPING:
        raise SoupError(f"the installed transformers knows no model type {kind!r}", hint="pip install -U transformers")
    try:
        return CONFIG_MAPPING[kind].from_dict({k: v for k, v in values.items() if k != "auto_map"})
    except (TypeError, ValueError) as error:
        raise SoupError(f"transformers refuses this config.json: {error}", where=str(kind)) from error


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
    found: Any = mapping[type(config)]
    several = found if isinstance(found, tuple) else (found,)
    return next((c for c in several if c.__name__ in (config.architectures or ())), several[0])


def parameter_shapes(values: dict[str, Any], classes: int) -> dict[str, tuple[int, ...]]:
    """Shapes of all parameters of the model with that many classes, built without memory."""
    import torch

    names = {str(i): f"LABEL_{i}" for i in range(classes)}
    config = config_of({**values, "id2label": names, "label2id": {v: int(k) for k, v in names.items()}})
    with torch.device("meta"):
        model = model_class(config)(config)
    return {name: tuple(p.shape) for name, p in model.named_parameters()}


def image_processor(folder: Path) -> Any:
    """The image processor of a model folder."""
    from transformers import AutoImageProcessor

    try:
        load: Any = AutoImageProcessor.from_pretrained
        return load(str(folder), local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError, TypeError) as error:
        hint = "save its processor beside it: AutoImageProcessor.from_pretrained(START).save_pretrained(FOLDER)"
        raise SoupError("this model has no image processor that can be loaded", where=str(folder), hint=hint) from error


def effective_processor(folder: Path) -> dict[str, Any]:
    """All values that an image processor works with, those it takes by default included."""
    return dict(image_processor(folder).to_dict())
