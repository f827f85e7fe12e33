"""The batches of a training: unlabelled images, altered by chance, the same ones whenever they are asked for again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import pad

BATCH = 128
REACH = 8
"""Images are shifted by up to this part of their sides."""


class Lessons:
    """Batches of images in another order for every epoch; a short last one is dropped unless it is the only one.

    An image is flipped left to right in every second case, shifted by up to an eighth of its sides with its edges
    mirrored, and mixed with another one of its batch, its share drawn evenly from 0 to 1 (mixup, arXiv:1710.09412).
    What is no image of channels × height × width is taken as it is.

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

    @property
    def images_per_epoch(self) -> int:
        """How many images every epoch shows."""
        return self.batches_per_epoch * self._size

    def batches(self, epoch: int) -> Iterator[torch.Tensor]:
        """The batches of one epoch."""
        order = np.random.default_rng([self._seed, epoch]).permutation(len(self._images))
        for n in range(self.batches_per_epoch):
            rows = order[n * self._size : (n + 1) * self._size]
            yield altered(torch.from_numpy(self._images[rows]), np.random.default_rng([self._seed, epoch, n]))


def altered(images: torch.Tensor, random: np.random.Generator) -> torch.Tensor:
    """Images flipped, shifted and mixed."""
    if images.ndim != 4:
        return images
    moved = _moved(images, random)
    shares = torch.from_numpy(random.random((len(moved), 1, 1, 1), np.float32))
    mixed = shares * moved + (1 - shares) * moved.roll(1, 0)
    # Convolutions are quickest where the channels of a pixel lie together.
    return mixed.contiguous(memory_format=torch.channels_last)


def _moved(images: torch.Tensor, random: np.random.Generator) -> torch.Tensor:
    count, _, height, width = images.shape
    down, right = height // REACH, width // REACH
    wider = pad(images, (right, right, down, down), mode="reflect")
    tops, lefts = random.integers(0, 2 * down + 1, count), random.integers(0, 2 * right + 1, count)
    flips = random.random(count) < 0.5
    cut = [
        wider[n, :, top : top + height, left : left + width]
        for n, (top, left) in enumerate(zip(tops.tolist(), lefts.tolist(), strict=True))
    ]
    return torch.stack([one.flip(2) if flip else one for one, flip in zip(cut, flips.tolist(), strict=True)])
