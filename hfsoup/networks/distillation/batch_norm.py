"""Batch norms made ready for training: the network computes what it did, from statistics of what it will see."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from hfsoup.averaging.accumulators import to_float64

BatchNorm = nn.modules.batchnorm._BatchNorm
Forward = Callable[[torch.Tensor], torch.Tensor]


@dataclass
class ChannelMoments:
    """What reached one batch norm so far: how many places, and sums over them for every channel, in float64."""

    count: int = 0
    sums: torch.Tensor | None = None
    squares: torch.Tensor | None = None

    def see(self, _: nn.Module, given: tuple[torch.Tensor, ...]) -> None:
        """Count a batch, channels on axis 1."""
        flat = to_float64(given[0]).transpose(0, 1).flatten(1)
        sums, squares = flat.sum(1), flat.square().sum(1)
        self.count += flat.shape[1]
        self.sums = sums if self.sums is None else self.sums + sums
        self.squares = squares if self.squares is None else self.squares + squares


def find_batch_norms(network: nn.Module) -> list[BatchNorm]:
    """The batch norms of a network."""
    return [module for module in network.modules() if isinstance(module, BatchNorm)]


@torch.no_grad()
def recenter_batch_norms(network: nn.Module, answer: Forward, batches: Iterable[torch.Tensor]) -> None:
    """Give every batch norm the statistics of these images, and weights and biases that make up for it.

    In evaluation mode the network computes what it did. In training mode, where a batch's own statistics take the place
    of the kept ones, it now computes nearly the same, whatever the statistics were that it came with.

    Args:
        network: in evaluation mode; changed in place.
        answer: calls it.
        batches: the images, where the network is.
    """
    with _watch_inputs(find_batch_norms(network)) as seen:
        for images in batches:
            answer(images)
    for norm, found in seen.items():
        if found.sums is None or found.squares is None or norm.running_mean is None or norm.running_var is None:
            continue
        mean = found.sums / found.count
        var = (found.squares / found.count - mean.square()).clamp(min=0)
        scale = to_float64(norm.weight) / (to_float64(norm.running_var) + norm.eps).sqrt()
        norm.bias.copy_(to_float64(norm.bias) + scale * (mean - to_float64(norm.running_mean)))
        norm.weight.copy_(scale * (var + norm.eps).sqrt())
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(var)


@contextmanager
def _watch_inputs(norms: list[BatchNorm]) -> Iterator[dict[BatchNorm, ChannelMoments]]:
    """What reaches the batch norms that have weights of their own."""
    seen = {norm: ChannelMoments() for norm in norms if norm.affine}
    hooks = [norm.register_forward_pre_hook(moments.see) for norm, moments in seen.items()]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()
