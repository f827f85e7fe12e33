"""A network is trained to say what others say on average, from images without labels."""

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

if TYPE_CHECKING:
    from accelerate import Accelerator

RATES, RATE_A_STEP, RATE_WITHOUT_NORMS = (0.005, 0.1), 1e-5, 1e-4
"""The least and the most of the learning rate of a network with batch norms, and what each step adds to it: a long
training can afford to leave its start behind, a short one cannot. Then the rate of a network without batch norms."""
TEMPERATURE = 2.0
NORM_BATCHES = 16
"""Batches that the first statistics of batch norms are taken from."""
WARMUP = 20
"""The learning rate grows for one in so many steps."""
Advance = Callable[[int], None]


def match_logits(
    student: nn.Module,
    answer: Forward,
    members: Sequence[Callable[[], Forward]],
    lessons: AugmentedImages,
    accelerator: Accelerator,
    *,
    task: Task = SINGLE_LABEL,
    advance: Advance = lambda _: None,
) -> None:
    """Train a network, in place, towards the mean of the members' logits on the very images that it sees itself.

    Consistent teaching as in "Knowledge distillation: a good teacher is patient and consistent" (arXiv:2106.05237),
    with the divergence of softened probabilities as loss (arXiv:1503.02531). Members come one after the other, each
    with a pass over every new form of the images, so that one of them is in memory at a time.

    Args:
        student: what is trained; batch norms are in training mode once they have statistics of these images; dropout
            and stochastic depth are off.
        answer: the student's logits of a batch, images × classes.
        members: each makes a member ready and gives what computes its logits.
        lessons: the images.
        accelerator: places the network, and computes gradients.
        task: says what probabilities logits mean.
        advance: told of images as they are forwarded, by members and student alike.

    Raises:
        SoupError: the logits or the loss are NaN or infinite.
    """
    steps = lessons.epochs * lessons.batches_per_epoch
    optimizer = accelerator.prepare_optimizer(_make_optimizer(student, steps))
    rate = optimizer.param_groups[0]["lr"]
    known: dict[int, torch.Tensor] = {}
    some = islice(lessons.all(lessons.form(0)), NORM_BATCHES)
    recenter_batch_norms(student, answer, (images.to(accelerator.device) for images in some))
    for epoch in range(lessons.epochs):
        form = lessons.form(epoch)
        if form not in known:
            known[form] = _average_logits(members, lessons, form, accelerator, advance)
        _train_batch_norms(student, on=True)
        for n, (rows, images) in enumerate(lessons.batches(epoch)):
            for group in optimizer.param_groups:
                group["lr"] = rate * scale_rate(epoch * lessons.batches_per_epoch + n, steps)
            found = answer(images.to(accelerator.device))
            target = known[form][rows].to(found.device)
            loss = TEMPERATURE**2 * task.divergence(found, target, TEMPERATURE)
            if not torch.isfinite(loss):
                raise SoupError("the training gives numbers that are NaN or infinite", hint="without --distill")
            optimizer.zero_grad()
            accelerator.backward(loss)
            optimizer.step()
            advance(len(images))
        _train_batch_norms(student, on=False)


def _make_optimizer(student: nn.Module, steps: int) -> torch.optim.Optimizer:
    """SGD where batch norms keep activations in bounds, AdamW elsewhere; without weight decay."""
    trained = [weight for weight in student.parameters() if weight.requires_grad]
    if find_batch_norms(student):
        rate = min(max(RATE_A_STEP * steps, RATES[0]), RATES[1])
        return torch.optim.SGD(trained, rate, momentum=0.9, nesterov=True)
    return torch.optim.AdamW(trained, RATE_WITHOUT_NORMS, weight_decay=0.0)


def scale_rate(step: int, steps: int) -> float:
    """The share of the learning rate at a step: linear growth at first, then half a cosine down to 0."""
    return float(min((step + 1) / max(steps // WARMUP, 1), (1 + cos(pi * step / steps)) / 2))


def _average_logits(
    members: Sequence[Callable[[], Forward]],
    lessons: AugmentedImages,
    form: int,
    accelerator: Accelerator,
    advance: Advance,
) -> torch.Tensor:
    """The mean of the members' logits for every image in one form, images × classes."""
    total: torch.Tensor | None = None
    for prepared in members:
        found = torch.cat(list(_compute_logits(prepared(), lessons.all(form), accelerator, advance)))
        total = found if total is None else total + found
    if total is None:
        raise SoupError("there are no ingredients to match")
    return total / len(members)


@torch.no_grad()
def _compute_logits(
    ask: Forward, batches: Iterator[torch.Tensor], accelerator: Accelerator, advance: Advance
) -> Iterator[torch.Tensor]:
    for images in batches:
        logits = ask(images.to(accelerator.device)).float().cpu()
        if not torch.isfinite(logits).all():
            raise SoupError("an ingredient gives logits that are NaN or infinite", hint="--dtype float32")
        advance(len(images))
        yield logits


def _train_batch_norms(student: nn.Module, *, on: bool) -> None:
    """Put the batch norms into training mode or out of it, and nothing else."""
    for norm in find_batch_norms(student):
        norm.train(on)
