"""Trains a network to match the mean logits of others on images without labels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from math import cos, pi
from typing import TYPE_CHECKING

import torch
from torch import nn

from hfsoup.data.tasks import SINGLE_LABEL
from hfsoup.data.tasks.task import Task
from hfsoup.networks.distillation.augmentation import AugmentedImages
from hfsoup.networks.distillation.batch_norm import Forward, find_batch_norms, recenter_batch_norms
from hfsoup.utils.errors import SoupError
from hfsoup.utils.progress import Advance

if TYPE_CHECKING:
    from accelerate import Accelerator

RATES, RATE_A_STEP, RATE_WITHOUT_NORMS = (0.005, 0.1), 1e-5, 1e-4
"""Bounds of the learning rate of a network with batch norms, and what each step adds to it: a long training may move
far from its start, a short one may not. Then the learning rate of a network without batch norms."""
TEMPERATURE = 2.0
NORM_BATCHES = 16
"""Batches that the first statistics of batch norms are estimated on."""
WARMUP = 20
"""The learning rate grows for 1 / WARMUP of the steps."""


def match_logits(
    student: nn.Module,
    forward: Forward,
    members: Sequence[Callable[[], Forward]],
    images: AugmentedImages,
    accelerator: Accelerator,
    *,
    task: Task = SINGLE_LABEL,
    advance: Advance = lambda _: None,
) -> None:
    """Train a network in place to match the mean of the members' logits on the same views of the images.

    Consistent teaching as in "Knowledge distillation: a good teacher is patient and consistent" (arXiv:2106.05237),
    with the divergence of softened probabilities as loss (arXiv:1503.02531). Members run one after the other over every
    new view of the images, so that only one of them is in memory.

    Args:
        student: the network; its batch norms train from statistics of these images, dropout and stochastic depth are
            off.
        forward: the student's logits of a batch, images × classes.
        members: each loads a member and returns its forward.
        images: the images.
        accelerator: places the network and computes gradients.
        task: gives the divergence between logits.
        advance: called with a number of images after members or student forwarded them.

    Raises:
        SoupError: the logits or the loss are NaN or infinite.
    """
    steps = images.epochs * images.batches_per_epoch
    optimizer = accelerator.prepare_optimizer(_make_optimizer(student, steps))
    rate = optimizer.param_groups[0]["lr"]
    known: dict[int, torch.Tensor] = {}
    first = islice(images.iterate_view(images.get_view(0)), NORM_BATCHES)
    recenter_batch_norms(student, forward, (batch.to(accelerator.device) for batch in first))
    for epoch in range(images.epochs):
        view = images.get_view(epoch)
        if view not in known:
            known[view] = _average_logits(members, images, view, accelerator, advance)
        _train_batch_norms(student, on=True)
        for n, (rows, batch) in enumerate(images.iterate_epoch(epoch)):
            for group in optimizer.param_groups:
                group["lr"] = rate * scale_rate(epoch * images.batches_per_epoch + n, steps)
            found = forward(batch.to(accelerator.device))
            target = known[view][rows].to(found.device)
            loss = TEMPERATURE**2 * task.divergence(found, target, TEMPERATURE)
            if not torch.isfinite(loss):
                raise SoupError("the loss of the training is NaN or infinite", hint="without --distill")
            optimizer.zero_grad()
            accelerator.backward(loss)
            optimizer.step()
            advance(len(batch))
        _train_batch_norms(student, on=False)


def _make_optimizer(student: nn.Module, steps: int) -> torch.optim.Optimizer:
    """SGD where batch norms keep activations in bounds, AdamW elsewhere; without weight decay."""
    trained = [weight for weight in student.parameters() if weight.requires_grad]
    if find_batch_norms(student):
        rate = min(max(RATE_A_STEP * steps, RATES[0]), RATES[1])
        return torch.optim.SGD(trained, rate, momentum=0.9, nesterov=True)
    return torch.optim.AdamW(trained, RATE_WITHOUT_NORMS, weight_decay=0.0)


def scale_rate(step: int, steps: int) -> float:
    """The factor of the learning rate at a step: linear warm-up, then cosine decay to 0."""
    return float(min((step + 1) / max(steps // WARMUP, 1), (1 + cos(pi * step / steps)) / 2))


def _average_logits(
    members: Sequence[Callable[[], Forward]],
    images: AugmentedImages,
    view: int,
    accelerator: Accelerator,
    advance: Advance,
) -> torch.Tensor:
    """The mean of the members' logits for every image in one view, images × classes."""
    total: torch.Tensor | None = None
    for load in members:
        found = torch.cat(list(_compute_logits(load(), images.iterate_view(view), accelerator, advance)))
        total = found if total is None else total + found
    if total is None:
        raise SoupError("there are no ingredients to match")
    return total / len(members)


@torch.no_grad()
def _compute_logits(
    forward: Forward, batches: Iterator[torch.Tensor], accelerator: Accelerator, advance: Advance
) -> Iterator[torch.Tensor]:
    for images in batches:
        logits = forward(images.to(accelerator.device)).float().cpu()
        if not torch.isfinite(logits).all():
            raise SoupError("an ingredient gives logits that are NaN or infinite", hint="--dtype float32")
        advance(len(images))
        yield logits


def _train_batch_norms(student: nn.Module, *, on: bool) -> None:
    """Switch the training mode of the batch norms alone."""
    for norm in find_batch_norms(student):
        norm.train(on)
