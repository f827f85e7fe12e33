"""New batch-norm statistics of a mix: averaged weights produce other activations than their ingredients."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hfsoup.data.dataset_split import Split
from hfsoup.evaluation.batch_sizes import CALIBRATION as BATCH
from hfsoup.evaluation.candidate import BatchNormLayer, Statistics
from hfsoup.evaluation.loader import load_ahead
from hfsoup.evaluation.precision import computing_in
from hfsoup.utils.distributed import World
from hfsoup.utils.errors import SoupError

IMAGES = 2048
Watched = tuple[torch.Tensor, torch.Tensor, int]
"""What a batch norm computed of a batch, on the device: mean, variance, and the values of one channel."""
Moments = tuple[NDArray[np.float64], NDArray[np.float64], int]


def estimate_statistics(
    model: Any, norms: dict[str, BatchNormLayer], split: Split, world: World, precision: str
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
        precision: what is computed in.

    Returns:
        The weight file's names of running means and variances, each with one float32 per channel.
    """
    starts = range(0, len(split) - BATCH + 1, BATCH) or range(1)
    own = range(world.index, len(starts), world.count)
    batches = [np.arange(len(split))[starts[n] :][:BATCH] for n in own]
    seen: list[tuple[int, dict[str, Watched]]] = []
    with (
        _watch_norms(norms) as last,
        torch.no_grad(),
        computing_in(precision, world.device),
        closing(load_ahead(split.pixels, batches, world.device)) as loaded,
    ):
        for n, images in zip(own, loaded, strict=True):
            model(pixel_values=images)
            seen.append((n, {path: last.pop(path) for path in norms}))
    mine = [(n, {path: _to_arrays(*moments) for path, moments in one.items()}) for n, one in seen]
    every = [moments for _, moments in sorted(world.gather(mine), key=lambda row: row[0])]
    found: Statistics = {}
    for path, norm in norms.items():
        found[norm.mean], found[norm.var] = _pool_moments([batch[path] for batch in every], path)
    return found


@contextmanager
def _watch_norms(norms: dict[str, BatchNormLayer]) -> Iterator[dict[str, Watched]]:
    """Batch norms in training mode that keep the last batch's moments; what each saw is in the dictionary."""
    seen: dict[str, Watched] = {}
    hooks = []
    before = {path: norm.module.momentum for path, norm in norms.items()}
    for path, norm in norms.items():

        def keep(module: Any, given: tuple[torch.Tensor, ...], _: Any, path: str = path) -> None:
            count = given[0].numel() // given[0].shape[1]
            seen[path] = (module.running_mean.clone(), module.running_var.clone(), count)

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


def _to_arrays(mean: torch.Tensor, var: torch.Tensor, count: int) -> Moments:
    """The mean and the biased variance of a batch, of which a batch norm keeps the unbiased one."""
    return mean.cpu().double().numpy(), var.cpu().double().numpy() * (count - 1) / count, count


def _pool_moments(batches: list[Moments], path: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean and unbiased variance of the union of batches of one size, given each one's mean and biased variance."""
    means, variances = np.stack([b[0] for b in batches]), np.stack([b[1] for b in batches])
    total = sum(b[2] for b in batches)
    mean = means.mean(axis=0)
    var = (variances + (means - mean) ** 2).mean(axis=0) * total / max(total - 1, 1)
    if not (np.isfinite(mean).all() and np.isfinite(var).all()):
        raise SoupError("the activations are NaN or infinite while batch norms are estimated", where=path)
    return mean.astype(np.float32), var.astype(np.float32)
