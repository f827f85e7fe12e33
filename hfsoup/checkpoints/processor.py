"""The image processor of a checkpoint, and the inputs of models that take more than pixel_values."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.metadata import version
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hfsoup.checkpoints.timm_config import build_timm_processor, read_image_settings, read_model_config
from hfsoup.utils.errors import LOADING_ERRORS, MISSING_LIBRARY, SoupError
from hfsoup.utils.text import one_line

if TYPE_CHECKING:
    import torch

PIXELS = "pixel_values"
SIDE = 64


def load_image_processor(folder: Path) -> Any:
    """The image processor of a model folder; its output is one array of floats for each image.

    Raises:
        SoupError: transformers has none for its files, or it does not take an image.
    """
    from PIL import Image
    from transformers import AutoImageProcessor

    path = folder / "config.json"
    config = read_model_config(path, where=str(path)) if path.is_file() else {}
    what, found = "this model has no image processor that can be loaded", None
    hint = "save its processor in the same folder: AutoImageProcessor.from_pretrained(START).save_pretrained(FOLDER)"
    try:
        load: Any = AutoImageProcessor.from_pretrained
        if read_image_settings(config):
            found = build_timm_processor(config)
        else:
            found = load(str(folder), local_files_only=True, trust_remote_code=False)
        prepared = pack_inputs(found)
        prepared(images=[Image.new("RGB", (SIDE, SIDE))], return_tensors="pt")
    except LOADING_ERRORS as error:
        if found is not None:
            what = f"{type(found).__name__} fails on an image with the values of its files"
            hint = f"{hint}, with its image_processor_type"
        # The first sentence is the reason; a list of known names follows it.
        reason = re.split(r"\.\s", str(error).strip())[0].replace(str(folder), "its files")
        if lacking := MISSING_LIBRARY.search(str(error)):
            hint = f"pip install {lacking[1].lower()}"
        raise SoupError(f"{what}: {one_line(reason)}", where=str(folder), hint=hint) from error
    return prepared


@dataclass(frozen=True)
class ModelInput:
    """One input of a model: its name, its shape for one image, and whether it is float or integer."""

    name: str
    shape: tuple[int, ...]
    floats: bool


class PackingProcessor:
    """An image processor whose output is one row of float32 for each image; integers below 2²⁴ stay exact."""

    def __init__(self, processor: Any) -> None:
        from PIL import Image

        self._processor = processor
        made = processor(images=[Image.new("RGB", (SIDE, SIDE))], return_tensors="pt")
        names = [name for name in processor.model_input_names if name in made]
        self._parts = tuple(ModelInput(n, tuple(made[n].shape[1:]), made[n].is_floating_point()) for n in names)

    def __call__(self, images: list[Any], return_tensors: str = "pt") -> dict[str, NDArray[np.float32]]:
        """`pixel_values`: float32, images × numbers."""
        made = self._processor(images=images, return_tensors=return_tensors)
        rows = [np.asarray(made[part.name], np.float32).reshape(len(images), -1) for part in self._parts]
        return {PIXELS: np.concatenate(rows, axis=1)}

    def to_dict(self) -> dict[str, Any]:
        """The processor's own values."""
        return dict(self._processor.to_dict())

    def unpack(self, rows: torch.Tensor) -> dict[str, torch.Tensor]:
        """The model's inputs by name, from images × numbers: floats as they are, integers as int64."""
        import torch

        sizes = [prod(part.shape) for part in self._parts]
        if rows.shape[1] != sum(sizes):
            raise SoupError(f"expected {sum(sizes)} numbers for an image, found {rows.shape[1]}")
        found = {}
        for part, piece in zip(self._parts, torch.split(rows, sizes, dim=1), strict=True):
            shaped = piece.reshape(-1, *part.shape)
            found[part.name] = shaped if part.floats else shaped.long()
        return found


def describe_backend(processor: Any) -> str:
    """The library that an image processor uses, with its version."""
    inner = processor._processor if isinstance(processor, PackingProcessor) else processor
    library = "torchvision" if getattr(inner, "backend", None) == "torchvision" else "pillow"
    if type(inner).__name__.startswith("TimmWrapper"):
        library = "timm"
    return f"{library} {version(library)}"


def pack_inputs(processor: Any) -> Any:
    """The processor itself if pixel_values are its only output, otherwise wrapped in a `PackingProcessor`."""
    return processor if list(processor.model_input_names) == [PIXELS] else PackingProcessor(processor)


def unpack_inputs(processor: Any, images: torch.Tensor) -> dict[str, torch.Tensor]:
    """The keyword arguments of a model's call, from a batch that a processor of `pack_inputs` prepared."""
    return processor.unpack(images) if isinstance(processor, PackingProcessor) else {PIXELS: images}
