"""Batches of images through a model: how many at once, and what comes out."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hfsoup.data.dataset_split import Split
from hfsoup.data.pixels import PixelFile
from hfsoup.data.tasks.task import Labels, Metric
from hfsoup.evaluation.batch_sizes import IN_MEMORY, MOST, USUAL, read_batch_size, record_batch_size
from hfsoup.evaluation.candidate import Candidate
from hfsoup.evaluation.loader import load_ahead
from hfsoup.evaluation.precision import computing_in, describe_device
from hfsoup.evaluation.scores import Precision
from hfsoup.utils.distributed import World
from hfsoup.utils.errors import OutOfMemoryError, SoupError

CHANNELS_LAST = ("cpu", "cuda")
"""Devices that are faster at convolutions over images whose channels lie side by side."""
GROUP = 8
FINITE = "finite"
Results = dict[str, NDArray[Any]]
Outputs = Mapping[str, torch.Tensor]


class Batches:
    """The forward passes of one family's model.

    Args:
        candidate: gives the model.
        world: the processes that share the images.
        size: images per forward pass; None for 64, or on CUDA the most that fit of 512, 256, 128 …
        metric: what is computed of the predictions.
        precision: what is computed in.
        selection: the split whose images only select, if `precision` differs for it.
    """

    def __init__(
        self,
        candidate: Candidate,
        world: World,
        size: int | None,
        metric: Metric,
        precision: Precision,
        selection: Split | None,
    ) -> None:
        self._candidate, self._world, self._metric, self._precision = candidate, world, metric, precision
        self._selection = selection.fingerprint if selection else None
        self._begun: Any = None
        self._size = size if world.device.type in MOST else size or USUAL
        self.group = 1 if world.device.type == "cpu" else GROUP
        """The most batches whose results stay on the device before they are copied."""

    def choose_precision(self, split: Split) -> str:
        """What passes over a split are computed in."""
        return self._precision.selection if split.fingerprint == self._selection else self._precision.test

    def find_size(self, pixels: PixelFile) -> int:
        """The images of one forward pass over such images, the same for every mix and in all processes.

        Logits are the same to the last bit only in batches of one size, so what fits a device model and an architecture
        is found once and recorded; later bakes take fewer only where memory has become short.

        Raises:
            OutOfMemoryError: not even one image fits into the device's memory.
        """
        if self._size is None:
            config, device = self._candidate.config, describe_device(self._world.device)
            how = [device, pixels.shape[1:], self._precision.test, str(self._candidate.dtype)]
            known = self._world.on_main(lambda: read_batch_size(config, how))
            self._size = size = min(self._world.gather([self._find_fitting(pixels, known)]))
            if known is None:
                self._world.on_main(lambda: record_batch_size(config, how, size))
        return self._size

    def _find_fitting(self, pixels: PixelFile, known: int | None) -> int:
        """The most images that fit into the device's memory during a search; all mixes have activations of one size."""
        model, device = self._candidate.load_fullest(), self._world.device
        size = known or MOST[device.type]
        while True:
            try:
                rows = np.zeros(size, np.int64)
                ahead = [pixels.load(rows, device) for _ in range(IN_MEMORY)]
                with torch.no_grad(), computing_in(self._precision.test, device):
                    self._call(model, ahead.pop())
                return size
            except (OutOfMemoryError, torch.OutOfMemoryError) as error:
                if size == 1:
                    what = f"out of memory on {device} with a batch of 1 image"
                    raise OutOfMemoryError(what, hint="--device cpu") from error
            ahead = []
            size //= 2
            torch.cuda.empty_cache()

    def run(
        self, model: Any, split: Split, batches: Sequence[NDArray[np.int64]], size: int, *, logits: bool
    ) -> Generator[Outputs]:
        """What the task stores of each batch of rows, and the logits; on the device, for `fetch` to copy.

        A short batch is padded to `size`.
        """
        device, precision = self._world.device, self.choose_precision(split)
        if model is not self._begun:
            # What a model caches in inference mode no later training can use, so its first pass is an ordinary one.
            with torch.no_grad(), computing_in(precision, device):
                self._call(model, split.pixels.load(slice(0, 1), device))
            self._begun = model
        padded = [np.pad(rows, (0, size - len(rows)), mode="edge") for rows in batches]
        with closing(load_ahead(split.pixels, padded, device)) as loaded:
            for rows, images in zip(batches, loaded, strict=True):
                yield self.forward(model, images, split.labels[rows], precision, logits=logits)

    def forward(self, model: Any, images: torch.Tensor, labels: Labels, precision: str, *, logits: bool) -> Outputs:
        """What the task stores of a batch of images, of which the first have labels and the others are padding."""
        with torch.inference_mode():
            with computing_in(precision, self._world.device):
                found = self._call(model, images)[: len(labels)].float()
            outputs = dict(self._metric.task.outputs(found, labels, self._metric.top))
            if logits:
                outputs["logits"] = found
            return {**outputs, FINITE: torch.isfinite(found).all()}

    def _call(self, model: Any, images: torch.Tensor) -> torch.Tensor:
        images = images.to(self._candidate.dtype)
        if self._candidate.convolves and images.ndim == 4 and images.device.type in CHANNELS_LAST:
            images = images.contiguous(memory_format=torch.channels_last)
        found: torch.Tensor = model(pixel_values=images).logits
        return found


def fetch(outputs: Sequence[Outputs]) -> list[Results]:
    """The outputs of some batches as arrays, once the device has computed them.

    Raises:
        SoupError: logits of one are NaN or infinite.
    """
    if not all(bool(one[FINITE]) for one in outputs):
        raise SoupError("this mix gives logits that are NaN or infinite", hint="--precision float32")
    return [{name: t.cpu().numpy() for name, t in one.items() if name != FINITE} for one in outputs]
