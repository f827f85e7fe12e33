"""Noise, blur, low contrast and JPEG compression of test images, at three strengths each."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL.Image import Image

AMOUNTS = {
    "noise": (0.04, 0.08, 0.16),
    "blur": (1 / 128, 1 / 64, 1 / 32),
    "contrast": (0.6, 0.3, 0.15),
    "jpeg": (30, 15, 7),
}
"""Noise: its standard deviation as a share of the range. Blur: that of a Gaussian as a share of the shorter side.
Contrast: the share of the distance to the mean grey that is left. JPEG: the quality."""


@dataclass(frozen=True)
class Corruption:
    """One kind at one strength, 1 to 3; the same for the same row of a split every time."""

    kind: str
    strength: int

    @property
    def name(self) -> str:
        """Its name in cards and records."""
        return f"{self.kind} {self.strength}"

    @property
    def key(self) -> str:
        """All that its pixels depend on besides picture, row and libraries."""
        return f"{self.kind} {AMOUNTS[self.kind][self.strength - 1]}"

    def __call__(self, picture: Image, row: int) -> Image:
        """The RGB picture of a row, changed."""
        from PIL import Image as Pictures
        from PIL import ImageEnhance, ImageFilter

        amount = AMOUNTS[self.kind][self.strength - 1]
        if self.kind == "noise":
            pixels = np.asarray(picture, np.float32)
            drawn = np.random.Generator(np.random.PCG64([row, self.strength])).standard_normal(pixels.shape, np.float32)
            return Pictures.fromarray((pixels + 255 * amount * drawn).round().clip(0, 255).astype(np.uint8))
        if self.kind == "blur":
            return picture.filter(ImageFilter.GaussianBlur(amount * min(picture.size)))
        if self.kind == "contrast":
            return ImageEnhance.Contrast(picture).enhance(amount)
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=int(amount))
        return Pictures.open(file).convert("RGB")


CORRUPTIONS = tuple(Corruption(kind, strength) for kind in AMOUNTS for strength in (1, 2, 3))
