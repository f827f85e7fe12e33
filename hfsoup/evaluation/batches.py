"""Batches of images through a model: how many at once, and what comes out."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hfsoup.data.pixels import PixelFile
from hfsoup.data.tasks.task import Labels, Metric
from hfsoup.evaluation.candidate import Candidate
from hfsoup.utils.distributed import World
from hfsoup.utils.errors import OutOfMemoryError, SoupError

USUAL = 64
MOST = {"cuda": 512}
"""The first batch size to try where a device has memory of its own."""
Results = dict[str, NDArray[Any]]


class Batches:
    """The forward passes of one family's model.

    Args:
        candidate: gives the model.
        world: the processes that share the images.
        size: images per forward pass; None for 64, or on CUDA the most that fit of 512, 256, 128 …
        metric: what is computed of the predictions.
    """

    def __init__(self, candidate: Candidate, world: World, size: int | None, metric: Metric) -> None:
        self._candidate, self._world, self._metric = candidate, world, metric
        self._begun: Any = None
        self._size = size if world.device.type in MOST else size or USUAL

    def find_size(self, pixels: PixelFile) -> int:
        """The images of one forward pass over such images, the same for every mix and in all processes.

        Raises:
            OutOfMemoryError: not even one image fits into the device's memory.
        """
        if self._size is None:
            self._size = min(self._world.gather([self._find_fitting(pixels)]))
        return self._size

    def _find_fitting(self, pixels: PixelFile) -> int:
        """The most images that fit into the device's memory during a search; all mixes have activations of one size."""
        model = self._candidate.load_fullest()
        size = MOST[self._world.device.type]
        while True:
            try:
                with torch.no_grad():
                    self._forward(model, pixels, np.zeros(size, np.int64))
                return size
            except OutOfMemoryError:
                if size == 1:
                    raise
            size //= 2
            torch.cuda.empty_cache()

    def forward(
        self, model: Any, pixels: PixelFile, rows: NDArray[np.int64], labels: Labels, size: int, *, logits: bool
    ) -> Results:
        """What the task stores of the batch of the images `rows`, with their labels, and the logits.

        A short batch is padded to `size`.
        """
        if model is not self._begun:
            # What a model caches in inference mode no later training can use, so its first pass is an ordinary one.
            with torch.no_grad():
                self._forward(model, pixels, rows[:1])
            self._begun = model
        full = np.pad(rows, (0, size - len(rows)), mode="edge")
        with torch.inference_mode():
            found = self._forward(model, pixels, full)[: len(rows)].float()
            if not torch.isfinite(found).all():
                raise SoupError("this mix gives logits that are NaN or infinite", hint="--dtype float32")
            results = dict(self._metric.task.outputs(found, labels, self._metric.top))
            if logits:
                results["logits"] = found
            return {name: tensor.cpu().numpy() for name, tensor in results.items()}

    def _forward(self, model: Any, pixels: PixelFile, rows: NDArray[np.int64]) -> torch.Tensor:
        images = pixels.load(rows, self._world.device).to(self._candidate.dtype)
        if self._candidate.convolves and images.ndim == 4 and self._world.device.type == "cpu":
            # On a processor, convolutions are faster over images whose channels lie side by side.
            images = images.contiguous(memory_format=torch.channels_last)
        found: torch.Tensor = model(pixel_values=images).logits
        return found
