"""Fits one network to the mean outputs of aligned ingredients, layer by layer, by ridge regression."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn
from torch.nn.functional import unfold

from hfsoup.averaging.accumulators import to_float64
from hfsoup.networks.alignment.groups import Step
from hfsoup.networks.network import BATCH, Network, State
from hfsoup.utils.errors import SoupError

RIDGE = 1e-4
ROWS = 1 << 18
"""The most positions that a layer is fitted on; the first layers have far more of them than weights."""


def fit_layers(
    network: Network,
    states: Sequence[State],
    steps: Sequence[Step],
    images: torch.Tensor,
    *,
    ridge: float = RIDGE,
    rows: int = ROWS,
    advance: Callable[[int], None] = lambda _: None,
) -> dict[str, torch.Tensor]:
    """Fit the layers from front to back, each on its inputs in the network fitted so far.

    The target of a convolution is the mean of the ingredients' batch-norm outputs, less the fitted network's own
    shortcut where they are added to one; that of the head is the mean of their logits.

    Args:
        network: the model, which loads the weights of every ingredient.
        states: the aligned ingredients.
        steps: the layers.
        images: the inputs in random order, images × channels × height × width.
        ridge: the penalty, in units of the mean variance of a layer's inputs.
        rows: the most positions that a layer is fitted on.
        advance: called with 1 after every layer.

    Returns:
        New weights; they are not an average of the ingredients'.

    Raises:
        SoupError: activations are not finite, or a layer is neither linear nor a plain convolution.
    """
    found = {name: tensor.clone() for name, tensor in states[0].items()}
    for step in steps:
        network.load(found)
        subset = images[: max(1, rows // _count_positions(network, step, images[:1]))]
        targets = _compute_outputs(network, states[0], step, subset)
        for state in states[1:]:
            targets += _compute_outputs(network, state, step, subset)
        network.load(found)
        squares, products, count = _sum_products(network, step, subset, targets / len(states))
        if not (squares.isfinite().all() and products.isfinite().all()):
            raise SoupError("the activations are NaN or infinite", where=step.layer)
        weight, bias = _solve_ridge(squares, products, count, ridge)
        _write_layer(network, found, step, weight, bias)
        advance(1)
    return found


def _count_positions(network: Network, step: Step, image: torch.Tensor) -> int:
    """The number of positions of one image that a layer is applied to."""
    outputs: list[torch.Tensor] = []
    network.run(image, [(step.layer, True, outputs.append)])
    return outputs[0][0, 0].numel()


def _compute_outputs(network: Network, state: State, step: Step, images: torch.Tensor) -> torch.Tensor:
    """The outputs of a layer in one ingredient, shortcut added: images × channels (× height × width)."""
    network.load(state)
    outputs: list[torch.Tensor] = []
    added: list[torch.Tensor] = []
    watched = [(step.norm or step.layer, True, outputs.append)]
    if step.shortcut:
        watched.append((step.shortcut, True, added.append))
    network.run(images, watched)
    found = torch.cat(outputs)
    return found + torch.cat(added) if added else found


def _sum_products(
    network: Network, step: Step, images: torch.Tensor, targets: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, int]:
    """The products of the layer's inputs, with a 1 appended, with themselves and with the targets, and their number."""
    module = network.get_layer(step.layer)
    squares = products = torch.zeros(())
    count = 0
    for begin in range(0, len(images), BATCH):
        given: list[torch.Tensor] = []
        added: list[torch.Tensor] = []
        watched = [(step.layer, False, given.append)]
        if step.shortcut:
            watched.append((step.shortcut, True, added.append))
        network.run(images[begin : begin + BATCH], watched)
        target = targets[begin : begin + BATCH] - added[0] if added else targets[begin : begin + BATCH]
        x, y = _unfold_inputs(module, given[0], step), target.movedim(1, -1).reshape(-1, target.shape[1])
        x = torch.cat([x, x.new_ones(len(x), 1)], 1)
        squares, products = squares + to_float64(x.T @ x), products + to_float64(x.T @ y)
        count += len(x)
    return squares, products, count


def _unfold_inputs(module: nn.Module, given: torch.Tensor, step: Step) -> torch.Tensor:
    """The inputs of a layer, positions × inputs."""
    if isinstance(module, nn.Linear):
        return given
    if not isinstance(module, nn.Conv2d) or module.groups != 1 or isinstance(module.padding, str):
        raise SoupError("only linear layers and plain convolutions can be fitted", where=step.layer)
    patches = unfold(given, module.kernel_size, module.dilation, module.padding, module.stride)
    return patches.movedim(1, -1).reshape(-1, patches.shape[1])


def _solve_ridge(
    squares: torch.Tensor, products: torch.Tensor, count: int, ridge: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Ridge regression with an unpenalised bias: weights (outputs × inputs) and biases (outputs)."""
    mean, target = squares[:-1, -1] / count, products[-1] / count
    covariance = squares[:-1, :-1] / count - torch.outer(mean, mean)
    crossed = products[:-1] / count - torch.outer(mean, target)
    covariance.diagonal().add_(ridge * covariance.diagonal().mean() + 1e-30)
    weight = torch.linalg.solve(covariance, crossed).T
    return weight, target - weight @ mean


def _write_layer(
    network: Network, found: dict[str, torch.Tensor], step: Step, weight: torch.Tensor, bias: torch.Tensor
) -> None:
    """Write a layer into `found`; its batch norm becomes one that only adds the bias."""
    name = f"{step.layer}.weight"
    found[name] = weight.reshape(found[name].shape).to(found[name])
    given = {f"{step.layer}.bias": bias}
    if step.norm:
        one, eps = torch.ones_like(bias), float(network.get_layer(step.norm).eps)  # type: ignore[arg-type]
        statistics = {"weight": one, "bias": bias, "running_mean": 0 * one, "running_var": one - eps}
        given = {f"{step.norm}.{part}": value for part, value in statistics.items()}
        if f"{step.layer}.bias" in found:
            given[f"{step.layer}.bias"] = 0 * one
    found.update({key: value.to(found[key]) for key, value in given.items()})
