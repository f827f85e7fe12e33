"""The images of a training, altered by chance in a few ways, each the same whenever it is asked for again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import pad

from hfsoup.networks.distillation.result import VIEWS

BATCH = 128
SHIFT = 8
"""Images are shifted by up to this part of their sides."""


class AugmentedImages:
    """Batches of images, in another order for every epoch; a short last one is dropped unless it is the only one.

    In each form an image is flipped left to right or not, and shifted by up to an eighth of its sides with its edges
    mirrored. What is no image of channels × height × width is taken as it is.

    Args:
        images: what the network is called with, the first axis over images; may be mapped from a file.
        epochs: how often all are seen.
        seed: of every draw.
    """

    def __init__(self, images: NDArray[Any], epochs: int, seed: int) -> None:
        self._images, self.epochs, self._seed = images, epochs, seed
        self._size = min(BATCH, len(images))

    @property
    def batches_per_epoch(self) -> int:
        """How many batches there are of every epoch."""
        return len(self._images) // self._size

    def form(self, epoch: int) -> int:
        """In which of its forms an image is seen."""
        return epoch % VIEWS

    def all(self, form: int) -> Iterator[torch.Tensor]:
        """Every image in one form, in the order given, batch by batch."""
        for begin in range(0, len(self._images), self._size):
            yield self._altered(np.arange(begin, min(begin + self._size, len(self._images))), form)

    def batches(self, epoch: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """The batches of one epoch: places among the images, and the images in the epoch's form."""
        order = np.random.default_rng([self._seed, epoch]).permutation(len(self._images))
        for n in range(self.batches_per_epoch):
            rows = order[n * self._size : (n + 1) * self._size]
            yield torch.from_numpy(rows), self._altered(rows, self.form(epoch))

    def _altered(self, rows: NDArray[np.int64], form: int) -> torch.Tensor:
        images = torch.from_numpy(self._images[rows])
        if images.ndim != 4:
            return images
        height, width = images.shape[2:]
        down, right = height // SHIFT, width // SHIFT
        random, count = np.random.default_rng([self._seed, VIEWS, form]), len(self._images)
        tops, lefts = random.integers(0, 2 * down + 1, count), random.integers(0, 2 * right + 1, count)
        flips = random.random(count) < 0.5
        wider = pad(images, (right, right, down, down), mode="reflect")
        cut = [
            one[:, top : top + height, left : left + width]
            for one, top, left in zip(wider, tops[rows].tolist(), lefts[rows].tolist(), strict=True)
        ]
        turned = [one.flip(2) if flip else one for one, flip in zip(cut, flips[rows].tolist(), strict=True)]
        # Convolutions are quickest where the channels of a pixel lie together.
        return torch.stack(turned).contiguous(memory_format=torch.channels_last)
