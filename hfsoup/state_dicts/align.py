"""Alignment for any torch model: state dicts in, state dicts out, no Hub and no dataset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from hfsoup.networks.alignment.fitting import fit_layers
from hfsoup.networks.alignment.groups import Group, Shapes, Step, check_groups, permute_group
from hfsoup.networks.alignment.matching import match_units
from hfsoup.networks.alignment.tables import find_groups, find_steps
from hfsoup.networks.network import Network, State
from hfsoup.state_dicts.load import Ingredient, load_ingredients
from hfsoup.utils.errors import UsageError
from hfsoup.utils.threads import single_threaded

METHODS = ("activations", "weights")


def align(
    ingredients: Sequence[Ingredient],
    groups: str | Sequence[Group],
    *,
    method: str = "activations",
    model: nn.Module | None = None,
    images: torch.Tensor | None = None,
    config: Mapping[str, Any] | None = None,
    seed: int = 0,
    unwrap: bool = False,
) -> list[dict[str, torch.Tensor]]:
    """Put the hidden units of every ingredient in the order of the first one's; what each computes does not change.

    Args:
        ingredients: state dicts, or paths as for `search`.
        groups: which axes share a permutation, or the name of a known architecture: `resnet`, `efficientnet`, `vit` for
            the models of transformers, `padded-resnet` for residual networks for small images whose shortcuts have no
            weights.
        method: `activations` matches units by the correlation of their activations, `weights` by their weights.
        model: loads the state dicts; needed for activations. Afterwards it is as before.
        images: the model's inputs, images × channels × height × width; needed for activations. No labels.
        config: what the architecture's groups depend on besides shapes, such as `num_attention_heads` of a vit.
        seed: of the order in which groups are matched by weights.
        unwrap: follow a lone `state_dict` key in a pickled file.

    Returns:
        New state dicts in the order given; the first one is not changed.

    Raises:
        UsageError: an unknown method, or no model or images for activations.
        MismatchError: the state dicts differ, or do not fit the groups.
        SoupError: the architecture is not known.

    Example:
        Two networks of two hidden units, of which the second has them the other way round:

        >>> import hfsoup, torch
        >>> from hfsoup.networks.alignment.groups import Group, Member
        >>> first = {"up.weight": torch.tensor([[1.0, 0.0], [0.0, 2.0]]), "down.weight": torch.tensor([[3.0, 4.0]])}
        >>> second = {"up.weight": first["up.weight"].flip(0), "down.weight": first["down.weight"].flip(1)}
        >>> hidden = Group("hidden", 2, (Member("up.weight"), Member("down.weight", axis=1)))
        >>> hfsoup.align([first, second], [hidden], method="weights")[1]["down.weight"]
        tensor([[3., 4.]])
    """
    states = load_ingredients(ingredients, unwrap=unwrap)[1]
    if method not in METHODS:
        raise UsageError(f"there is no method {method!r}; known: {', '.join(METHODS)}")
    if method == "activations" and (model is None or images is None or not len(images)):
        raise UsageError("activations need a model and images", hint="model=, images=, or method='weights'")
    shapes = _read_shapes(states[0])
    found = find_groups(groups, shapes, dict(config or {})) if isinstance(groups, str) else check_groups(groups, shapes)
    aligned = [dict(states[0])]
    with single_threaded():
        for other in states[1:]:
            if model is None or images is None or method == "weights":
                orders = match_units(states[0], other, found, seed)
            else:
                with Network(model).preserve() as network:
                    orders = match_units(states[0], other, found, seed, network, images)
            state = dict(other)
            for group, order in orders:
                state = permute_group(state, group, order)
            aligned.append(state)
    return aligned


def fit(
    ingredients: Sequence[Ingredient],
    steps: str | Sequence[Step],
    *,
    model: nn.Module,
    images: torch.Tensor,
    unwrap: bool = False,
) -> dict[str, torch.Tensor]:
    """Fit one network to aligned ingredients, layer by layer, by ridge regression on unlabelled images.

    The result has new weights, which are not an average. A convolution is fitted on its inputs in the network fitted so
    far to the mean of the ingredients' batch-norm outputs, the head to the mean of their logits.

    Args:
        ingredients: state dicts that `align` returned.
        steps: the layers from front to back, or the name of an architecture: `resnet`, `padded-resnet`.
        model: loads the state dicts. Afterwards it is as before.
        images: the model's inputs in random order: the first layers are fitted on the first images only.
        unwrap: follow a lone `state_dict` key in a pickled file.

    Raises:
        UsageError: there are no images.
        SoupError: the architecture is not known, or the model lacks one of its layers.

    Example:
        For a linear layer the fit is the mean of the ingredients:

        >>> import hfsoup, torch
        >>> from hfsoup.networks.alignment.groups import Step
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 2))
        >>> ingredients = [{"0.weight": torch.full((2, 4), value), "0.bias": torch.zeros(2)} for value in (1.0, 3.0)]
        >>> fitted = hfsoup.fit(ingredients, [Step("0")], model=model, images=torch.randn(100, 4))
        >>> torch.allclose(fitted["0.weight"], torch.full((2, 4), 2.0), atol=1e-2)
        True
    """
    states = load_ingredients(ingredients, unwrap=unwrap)[1]
    if not len(images):
        raise UsageError("a fit needs images", hint="images=")
    found = find_steps(steps, _read_shapes(states[0])) if isinstance(steps, str) else tuple(steps)
    with single_threaded(), Network(model).preserve() as network:
        return fit_layers(network, states, found, images)


def _read_shapes(state: State) -> Shapes:
    return {name: tuple(tensor.shape) for name, tensor in state.items()}
