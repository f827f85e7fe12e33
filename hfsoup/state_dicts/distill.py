"""Distillation for any torch model: state dicts in, one state dict out, no Hub and no dataset."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import nn

from hfsoup.networks.distillation.augmentation import AugmentedImages
from hfsoup.networks.distillation.batch_norm import Forward
from hfsoup.networks.distillation.training import match_logits
from hfsoup.networks.network import Network, State
from hfsoup.state_dicts.load import Ingredient, load_ingredients
from hfsoup.utils.errors import UsageError
from hfsoup.utils.threads import single_threaded

if TYPE_CHECKING:
    from accelerate import Accelerator


def distill(
    ingredients: Sequence[Ingredient],
    *,
    model: nn.Module,
    images: torch.Tensor,
    epochs: int,
    start: Ingredient | None = None,
    seed: int = 0,
    unwrap: bool = False,
    accelerator: Accelerator | None = None,
    advance: Callable[[int], None] = lambda _: None,
) -> dict[str, torch.Tensor]:
    """Train one network to match the mean of the ingredients' logits on unlabelled images.

    Batches, optimiser and schedule are fixed, and torch uses one thread, so that the same call on the same kind of
    machine gives the same bytes.

    Args:
        ingredients: state dicts, or paths as for `search`.
        model: loads the state dicts and returns logits, images × classes. It is not changed.
        images: the model's inputs, images × channels × height × width. No labels.
        epochs: how often every image is seen.
        start: the weights to start from, preferably those that score highest; the first ingredient's by default.
        seed: of the order of the images and of their augmentation.
        unwrap: follow a lone `state_dict` key in a pickled file.
        accelerator: where to train; accelerate's default if None.
        advance: called with a number of images after ingredients or network forwarded them.

    Returns:
        The trained weights; they are not an average of the ingredients'.

    Raises:
        UsageError: fewer than two images, or no epochs; the model returns no logits, or has no trainable parameters.
        MismatchError: the state dicts differ.
        SoupError: they do not fit the model.

    Example:
        >>> import hfsoup, torch
        >>> model = torch.nn.Linear(4, 3)
        >>> ingredients = [torch.nn.Linear(4, 3).state_dict() for _ in range(2)]
        >>> trained = hfsoup.distill(ingredients, model=model, images=torch.randn(64, 4), epochs=2)
        >>> _ = model.load_state_dict(trained)
    """
    if len(images) < 2 or epochs < 1:
        raise UsageError(
            f"expected at least two images and one epoch, found {len(images)} and {epochs}", hint="images=, epochs="
        )
    given = [*ingredients, *([start] if start is not None else [])]
    states = load_ingredients(given, unwrap=unwrap)[1]
    accelerator = accelerator or _accelerator()
    teacher, student = (
        Network(accelerator.prepare_model(deepcopy(model), evaluation_mode=True).eval()) for _ in range(2)
    )
    student.load(states[-1] if start is not None else states[0])

    def load_member(state: State) -> Forward:
        teacher.load(state)
        return teacher.model

    members = [partial(load_member, state) for state in states[: len(ingredients)]]
    _check_student(student, images)
    augmented = AugmentedImages(images.detach().cpu().numpy(), epochs, seed)
    with single_threaded(), torch.enable_grad():
        match_logits(student.model, student.model, members, augmented, accelerator, advance=advance)
    found = student.model.state_dict()
    return {name: found[name].detach().to(like).contiguous() for name, like in states[0].items()}


@torch.no_grad()
def _check_student(student: Network, images: torch.Tensor) -> None:
    if images.dtype == torch.bfloat16:
        raise UsageError("expected images of a dtype that NumPy has, found bfloat16", hint="images.float()")
    found = student.model(images[:2].to(next(student.model.parameters()).device))
    if not isinstance(found, torch.Tensor) or found.ndim != 2:
        shape = f"a tensor of {found.ndim} axes" if isinstance(found, torch.Tensor) else type(found).__name__
        what = f"expected the model to return logits, images × classes, found {shape}"
        raise UsageError(what, hint="wrap it in a module that returns its logits")
    if not any(weight.requires_grad for weight in student.model.parameters()):
        raise UsageError("expected trainable parameters, found none", hint="model.requires_grad_()")


def _accelerator() -> Accelerator:
    from accelerate import Accelerator

    return Accelerator()
