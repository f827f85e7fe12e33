"""Gram matrices of the inputs of linear layers: which directions of their inputs are used."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from hfsoup.networks.importance import Estimates, Images, Subject, kind

BATCH = 128


@kind(
    "gram",
    paper="arXiv:2212.09849",
    summary="the Gram matrices of the inputs of its linear layers and 1×1 convolutions",
)
def gram(subject: Subject, images: Images, seed: int) -> Estimates:  # noqa: ARG001
    """The mean of xxᵀ, inputs × inputs, over images and positions, for each linear layer and 1×1 convolution.

    Convolutions in groups or with padding are left out, and so are the transposed layers of ImageGPT.
    """
    sums: dict[str, torch.Tensor] = {}
    counts: dict[str, int] = {}
    hooks = [
        layer.register_forward_pre_hook(_make_hook(sums, counts, name), with_kwargs=True)
        for name, layer in subject.layers().items()
        if _is_linear(layer)
    ]
    try:
        with torch.no_grad():
            for begin in range(0, len(images), BATCH):
                subject.forward(images[begin : begin + BATCH])
    finally:
        for hook in hooks:
            hook.remove()
    return {name: (total / counts[name]).cpu().numpy() for name, total in sums.items()}


def _is_linear(layer: nn.Module) -> bool:
    """Whether each output depends on the inputs of one position only, and linearly."""
    if isinstance(layer, nn.Conv2d):
        return {*layer.kernel_size, layer.groups} == {1} and layer.padding in ((0, 0), "same", "valid")
    return isinstance(layer, nn.Linear)


def _make_hook(sums: dict[str, torch.Tensor], counts: dict[str, int], name: str) -> Callable[..., None]:
    def hook(layer: Any, given: tuple[torch.Tensor, ...], named: dict[str, torch.Tensor]) -> None:
        inputs = given[0] if given else named["input"]
        if isinstance(layer, nn.Conv2d):
            down, right = layer.stride
            inputs = inputs[:, :, ::down, ::right].movedim(1, -1)
        rows = inputs.reshape(-1, inputs.shape[-1])
        sums[name] = sums[name] + rows.T @ rows if name in sums else rows.T @ rows
        counts[name] = counts.get(name, 0) + len(rows)

    return hook
