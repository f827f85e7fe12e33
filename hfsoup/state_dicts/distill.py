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

    What comes out was trained and is no average of weights. Batches, optimiser and schedule are fixed, and torch works
    on one thread meanwhile, so that the same call on the same kind of machine gives the same bytes.

    Args:
        ingredients: state dicts, or paths as for `search`.
        model: takes the state dicts, and gives logits, images × classes. It is left as it is.
        images: what the model is called with, images × channels × height × width. No labels.
        epochs: how often every image is seen.
        start: the weights to begin with, best those that score highest; the first ingredient's unless given.
        seed: of the order of the images and of how they are altered.
        unwrap: follow a lone `state_dict` key in a pickled file.
        accelerator: where to train; accelerate's default unless given.
        advance: told of images as they are forwarded, by ingredients and network alike.

    Returns:
        The weights, which are no average of the ingredients'.

    Raises:
        UsageError: there are fewer than two images, or no epochs; the model gives no logits, or nothing of it trains.
        MismatchError: the state dicts differ.
        SoupError: the model does not take them.

    Example:
        >>> import hfsoup, torch
        >>> model = torch.nn.Linear(4, 3)
        >>> ingredients = [torch.nn.Linear(4, 3).state_dict() for _ in range(2)]
        >>> trained = hfsoup.distill(ingredients, model=model, images=torch.randn(64, 4), epochs=2)
        >>> _ = model.load_state_dict(trained)
    """
    if len(images) < 2 or epochs < 1:
        raise UsageError(
            f"a training needs images and epochs, found {len(images)} and {epochs}", hint="images=, epochs="
        )
    given = [*ingredients, *([start] if start is not None else [])]
    states = load_ingredients(given, unwrap=unwrap)[1]
    accelerator = accelerator or _accelerator()
    teacher, student = (
        Network(accelerator.prepare_model(deepcopy(model), evaluation_mode=True).eval()) for _ in range(2)
    )
    student.load(states[-1] if start is not None else states[0])

    def ready(state: State) -> Forward:
        teacher.load(state)
        return teacher.model

    members = [partial(ready, state) for state in states[: len(ingredients)]]
    _check_student(student, images)
    lessons = AugmentedImages(images.detach().cpu().numpy(), epochs, seed)
    with single_threaded(), torch.enable_grad():
        match_logits(student.model, student.model, members, lessons, accelerator, advance=advance)
    found = student.model.state_dict()
    return {name: found[name].detach().to(like).contiguous() for name, like in states[0].items()}


@torch.no_grad()
def _check_student(student: Network, images: torch.Tensor) -> None:
    if images.dtype == torch.bfloat16:
        raise UsageError("expected images of a type that NumPy has, found bfloat16", hint="images.float()")
    found = student.model(images[:2].to(next(student.model.parameters()).device))
    if not isinstance(found, torch.Tensor) or found.ndim != 2:
        shape = f"a tensor of {found.ndim} axes" if isinstance(found, torch.Tensor) else type(found).__name__
        what = f"expected the model to give logits, images × classes, found {shape}"
        raise UsageError(what, hint="a module around it that returns them")
    if not any(weight.requires_grad for weight in student.model.parameters()):
        raise UsageError("nothing of the model can be trained", hint="model.requires_grad_()")


def _accelerator() -> Accelerator:
    from accelerate import Accelerator

    return Accelerator()
