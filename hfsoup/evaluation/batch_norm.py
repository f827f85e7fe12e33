"""New batch-norm statistics of a mix: averaged weights produce other activations than their ingredients."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hfsoup.data.dataset_split import Split
from hfsoup.evaluation.candidate import BatchNormLayer, Statistics
from hfsoup.utils.distributed import World
from hfsoup.utils.errors import SoupError

BATCH = 128
IMAGES = 2048
Moments = tuple[NDArray[np.float64], NDArray[np.float64], int]


def estimate_statistics(
    model: Any, norms: dict[str, BatchNormLayer], split: Split, world: World, dtype: torch.dtype
) -> Statistics:
    """The mean and variance of what reaches each batch norm, over training images.

    Only the batch norms are in training mode, so dropout and stochastic depth stay off. Batches have 128 images, a
    short last one is dropped unless it is the only one. Variances are pooled over the batches: their mean, and the
    spread of the batches' means.

    Args:
        model: the model with the weights of the mix; its statistics are lost.
        norms: its batch norms.
        split: the calibration images.
        world: the processes that share the batches.
        dtype: the model's floating type.

    Returns:
        The weight file's names of running means and variances, each with one float32 per channel.
    """
    starts = range(0, len(split) - BATCH + 1, BATCH) or range(1)
    mine = []
    with _record_moments(norms) as seen, torch.no_grad():
        for n in range(world.index, len(starts), world.count):
            images = split.pixels.load(slice(starts[n], starts[n] + BATCH), world.device)
            model(pixel_values=images.to(dtype))
            mine.append((n, {path: seen.pop(path) for path in norms}))
    batches = [moments for _, moments in sorted(world.gather(mine), key=lambda row: row[0])]
    found: Statistics = {}
    for path, norm in norms.items():
        found[norm.mean], found[norm.var] = _pool_moments([batch[path] for batch in batches], path)
    return found


@contextmanager
def _record_moments(norms: dict[str, BatchNormLayer]) -> Iterator[dict[str, Moments]]:
    """Batch norms in training mode that keep the last batch's moments; what each saw is in the dictionary."""
    seen: dict[str, Moments] = {}
    hooks = []
    before = {path: norm.module.momentum for path, norm in norms.items()}
    for path, norm in norms.items():

        def keep(module: Any, given: tuple[torch.Tensor, ...], _: Any, path: str = path) -> None:
            count = given[0].numel() // given[0].shape[1]
            mean = module.running_mean.cpu().double().numpy().copy()
            var = module.running_var.cpu().double().numpy() * (count - 1) / count
            seen[path] = (mean, var, count)

        norm.module.train()
        norm.module.momentum = 1.0
        hooks.append(norm.module.register_forward_hook(keep))
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()
        for path, norm in norms.items():
            norm.module.eval()
            norm.module.momentum = before[path]


def _pool_moments(batches: list[Moments], path: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean and unbiased variance of the union of batches of one size, given each one's mean and biased variance."""
    means, variances = np.stack([b[0] for b in batches]), np.stack([b[1] for b in batches])
    total = sum(b[2] for b in batches)
    mean = means.mean(axis=0)
    var = (variances + (means - mean) ** 2).mean(axis=0) * total / max(total - 1, 1)
    if not (np.isfinite(mean).all() and np.isfinite(var).all()):
        raise SoupError("the activations are NaN or infinite while batch norms are estimated", where=path)
    return mean.astype(np.float32), var.astype(np.float32)
