"""Images as one array of floats each, for models that take more than pixels, or no pixels."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version
from math import prod
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from hfsoup.utils.errors import SoupError

PIXELS = "pixel_values"
SIDE = 64


@dataclass(frozen=True)
class ModelInput:
    """One input of a model: its name, its shape for one image, and whether it is of floats or of whole numbers."""

    name: str
    shape: tuple[int, ...]
    floats: bool


class PackingProcessor:
    """An image processor that gives one row of floats per image; whole numbers below 2²⁴ are exact in it."""

    def __init__(self, processor: Any) -> None:
        self._processor = processor
        made = processor(images=[Image.new("RGB", (SIDE, SIDE))], return_tensors="pt")
        names = [name for name in processor.model_input_names if name in made]
        self._parts = tuple(ModelInput(n, tuple(made[n].shape[1:]), made[n].is_floating_point()) for n in names)

    def __call__(self, images: list[Any], return_tensors: str = "pt") -> dict[str, NDArray[np.float32]]:
        """Images × numbers, under the name of pixels."""
        made = self._processor(images=images, return_tensors=return_tensors)
        rows = [np.asarray(made[part.name], np.float32).reshape(len(images), -1) for part in self._parts]
        return {PIXELS: np.concatenate(rows, axis=1)}

    def to_dict(self) -> dict[str, Any]:
        """The processor's own values."""
        return dict(self._processor.to_dict())

    def unpack(self, rows: torch.Tensor) -> dict[str, torch.Tensor]:
        """A model's inputs by name, from images × numbers: floats as they are, whole numbers as int64."""
        sizes = [prod(part.shape) for part in self._parts]
        if rows.shape[1] != sum(sizes):
            raise SoupError(f"expected {sum(sizes)} numbers for an image, found {rows.shape[1]}")
        found = {}
        for part, piece in zip(self._parts, torch.split(rows, sizes, dim=1), strict=True):
            shaped = piece.reshape(-1, *part.shape)
            found[part.name] = shaped if part.floats else shaped.long()
        return found


def describe_backend(processor: Any) -> str:
    """The library that an image processor works with, and its version: torchvision where it is installed."""
    inner = processor._processor if isinstance(processor, PackingProcessor) else processor
    library = "torchvision" if getattr(inner, "backend", None) == "torchvision" else "pillow"
    if type(inner).__name__.startswith("TimmWrapper"):
        library = "timm"
    return f"{library} {version(library)}"


def pack_inputs(processor: Any) -> Any:
    """The processor as it is where it gives pixels alone, and packed where it gives something else."""
    return processor if list(processor.model_input_names) == [PIXELS] else PackingProcessor(processor)


def unpack_inputs(processor: Any, images: torch.Tensor) -> dict[str, torch.Tensor]:
    """What to call a model with, given what `prepared_by` made of a batch of images."""
    return processor.unpack(images) if isinstance(processor, PackingProcessor) else {PIXELS: images}
