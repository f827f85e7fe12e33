"""Gives batch norms the statistics of the training images without changing what the network computes."""

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
    """Count of the positions that reached one batch norm, and their sums for every channel in float64."""

    count: int = 0
    sums: torch.Tensor | None = None
    squares: torch.Tensor | None = None

    def add_batch(self, _: nn.Module, given: tuple[torch.Tensor, ...]) -> None:
        """Add a batch, channels on axis 1; a forward pre-hook."""
        flat = to_float64(given[0]).transpose(0, 1).flatten(1)
        sums, squares = flat.sum(1), flat.square().sum(1)
        self.count += flat.shape[1]
        self.sums = sums if self.sums is None else self.sums + sums
        self.squares = squares if self.squares is None else self.squares + squares


def find_batch_norms(network: nn.Module) -> list[BatchNorm]:
    """The batch norms of a network."""
    return [module for module in network.modules() if isinstance(module, BatchNorm)]


@torch.no_grad()
def recenter_batch_norms(network: nn.Module, forward: Forward, batches: Iterable[torch.Tensor]) -> None:
    """Give every batch norm the statistics of these images, and weights and biases that compensate for the change.

    In evaluation mode the network computes the same as before. In training mode, which normalises by the statistics of
    the batch, it now computes nearly the same, whatever its running statistics were before.

    Args:
        network: in evaluation mode; changed in place.
        forward: calls the network.
        batches: the images, on the network's device.
    """
    with _watch_inputs(find_batch_norms(network)) as moments:
        for images in batches:
            forward(images)
    for norm, found in moments.items():
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
    """Collect the moments of the inputs of batch norms that have weights."""
    found = {norm: ChannelMoments() for norm in norms if norm.affine}
    hooks = [norm.register_forward_pre_hook(moments.add_batch) for norm, moments in found.items()]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()
