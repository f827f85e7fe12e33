"""Training images in a few random views, each of which is the same every time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import pad

from hfsoup.data.pixels import PixelFile
from hfsoup.networks.distillation.result import VIEWS

BATCH = 128
SHIFT = 8
"""Images are shifted by up to 1 / SHIFT of their sides."""


class AugmentedImages:
    """Batches of augmented images, shuffled for every epoch; a short last batch is dropped unless it is the only one.

    A view flips an image left to right or not, and shifts it by up to an eighth of its sides with mirrored edges.
    Inputs that are not channels × height × width are not augmented.

    Args:
        images: the inputs of the network, the first axis over images.
        epochs: how often every image is seen.
        seed: of order and views.
    """

    def __init__(self, images: NDArray[Any] | PixelFile, epochs: int, seed: int) -> None:
        self._images, self.epochs, self._seed = images, epochs, seed
        self._size = min(BATCH, len(images))

    @property
    def batches_per_epoch(self) -> int:
        """The number of batches of an epoch."""
        return len(self._images) // self._size

    def get_view(self, epoch: int) -> int:
        """The view in which all images are seen in an epoch."""
        return epoch % VIEWS

    def iterate_view(self, view: int) -> Iterator[torch.Tensor]:
        """Batches of every image in one view, in the order given."""
        for begin in range(0, len(self._images), self._size):
            yield self._augment(np.arange(begin, min(begin + self._size, len(self._images))), view)

    def iterate_epoch(self, epoch: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Batches of one epoch: the indices of the images, and the images in the epoch's view."""
        order = np.random.default_rng([self._seed % (1 << 64), epoch]).permutation(len(self._images))
        for n in range(self.batches_per_epoch):
            rows = order[n * self._size : (n + 1) * self._size]
            yield torch.from_numpy(rows), self._augment(rows, self.get_view(epoch))

    def _augment(self, rows: NDArray[np.int64], view: int) -> torch.Tensor:
        images = torch.from_numpy(self._images[rows])
        if images.ndim != 4:
            return images
        height, width = images.shape[2:]
        down, right = height // SHIFT, width // SHIFT
        random, count = np.random.default_rng([self._seed % (1 << 64), VIEWS, view]), len(self._images)
        tops, lefts = random.integers(0, 2 * down + 1, count), random.integers(0, 2 * right + 1, count)
        flips = random.random(count) < 0.5
        padded = pad(images, (right, right, down, down), mode="reflect")
        cut = [
            one[:, top : top + height, left : left + width]
            for one, top, left in zip(padded, tops[rows].tolist(), lefts[rows].tolist(), strict=True)
        ]
        turned = [one.flip(2) if flip else one for one, flip in zip(cut, flips[rows].tolist(), strict=True)]
        # Convolutions are fastest in this memory format.
        return torch.stack(turned).contiguous(memory_format=torch.channels_last)
