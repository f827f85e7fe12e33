"""Importance for any torch model: state dicts in, state dicts out, no Hub and no dataset."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from hfsoup.networks.importance import Subject, estimate_importance
from hfsoup.networks.network import Network
from hfsoup.state_dicts.load import Ingredient, load_ingredients
from hfsoup.utils.errors import UsageError
from hfsoup.utils.threads import single_threaded

if TYPE_CHECKING:
    from hfsoup.networks.importance import Pixels


def estimate(
    kind: str,
    ingredients: Sequence[Ingredient],
    *,
    model: nn.Module,
    images: torch.Tensor,
    seed: int = 0,
    unwrap: bool = False,
) -> list[dict[str, torch.Tensor]]:
    """Estimate how important the weights of every ingredient are, for a merge of `search` that needs it.

    Args:
        kind: `fisher`, the diagonal of the Fisher information in the shape of each trained tensor, or `gram`, inputs ×
            inputs for each weight of a linear layer or 1×1 convolution.
        ingredients: state dicts, or paths as for `search`.
        model: loads the state dicts and returns logits, images × classes. Afterwards it is as before.
        images: the model's inputs, images × channels × height × width. No labels.
        seed: of the random signs of `fisher`.
        unwrap: follow a lone `state_dict` key in a pickled file.

    Returns:
        For each ingredient float32 tensors by name, in the order given.

    Raises:
        UsageError: an unknown kind, or no images.
        MismatchError: the state dicts differ.
        SoupError: they do not fit the model, or an estimate is not finite.

    Example:
        >>> import hfsoup, torch
        >>> ingredients = [torch.nn.Linear(4, 3).state_dict() for _ in range(2)]
        >>> importance = hfsoup.estimate("fisher", ingredients, model=torch.nn.Linear(4, 3), images=torch.randn(16, 4))
        >>> importance[0]["weight"].shape
        torch.Size([3, 4])
        >>> found = hfsoup.search("uniform", ingredients, merge="fisher", importance=importance)
    """
    names, states = load_ingredients(ingredients, unwrap=unwrap)
    if not len(images):
        raise UsageError("an estimate needs images", hint="images=")
    like = next(model.parameters())

    def forward(pixels: Pixels) -> torch.Tensor:
        found: Any = model(torch.from_numpy(np.array(pixels)).to(like))
        logits: torch.Tensor = getattr(found, "logits", found)
        return logits

    subject = Subject(model, {name: name for name in states[0]}, forward)
    pixels, estimates = images.detach().float().cpu().numpy(), []
    with single_threaded(), Network(model).preserve() as network:
        for where, state in zip(names, states, strict=True):
            network.load(state)
            found = estimate_importance(kind, subject, pixels, seed, where=where)
            estimates.append({name: torch.from_numpy(array) for name, array in found.items()})
    return estimates
