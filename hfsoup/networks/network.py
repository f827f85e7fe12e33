"""A model that loads the weights of one ingredient after another, with hooks on inputs and outputs of its layers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from hfsoup.utils.errors import SoupError
from hfsoup.utils.text import one_line

State = Mapping[str, torch.Tensor]
Observe = Callable[[torch.Tensor], None]
BATCH = 128


class Network:
    """A model in evaluation mode whose tensors go by the names of a weight file.

    Args:
        model: the model; `preserve` restores its weights and its mode.
        names: the model's own name of every tensor of the file; None where they are the same.
        forward: takes a batch of images and returns logits; the model itself by default.
    """

    def __init__(
        self,
        model: nn.Module,
        names: Mapping[str, str] | None = None,
        forward: Callable[[torch.Tensor], torch.Tensor] | None = None,
    ) -> None:
        self.model = model
        self.names = names or {name: name for name in model.state_dict()}
        self.forward = forward or model

    @contextmanager
    def preserve(self) -> Iterator[Network]:
        """Use the model in evaluation mode inside the block; afterwards its weights and its mode are as before."""
        before = {name: tensor.clone() for name, tensor in self.model.state_dict().items()}
        training = {module: module.training for module in self.model.modules()}
        self.model.eval()
        try:
            yield self
        finally:
            self.model.load_state_dict(before)
            for module, mode in training.items():
                module.training = mode

    def load(self, state: State) -> None:
        """Load the weights of an ingredient.

        Raises:
            SoupError: their names or shapes are not the model's.
        """
        try:
            self.model.load_state_dict({self.names.get(name, name): tensor for name, tensor in state.items()})
        except RuntimeError as error:
            raise SoupError(f"the model does not take these tensors: {one_line(error, 300)}") from error

    def state_dict(self) -> dict[str, torch.Tensor]:
        """The current weights by the names of the file."""
        found = self.model.state_dict()
        return {name: found[own] for name, own in self.names.items()}

    def get_layer(self, name: str) -> nn.Module:
        """The module whose weight the file calls `name.weight`, else the model's module of this name."""
        inner = self.names.get(f"{name}.weight")
        try:
            return self.model.get_submodule(inner.removesuffix(".weight") if inner else name)
        except AttributeError as error:
            raise SoupError(f"the model has no module {one_line(name)}, which the fit needs") from error

    def has_weight(self, tensor: str) -> bool:
        """Whether a tensor of the file is the weight of a module."""
        return tensor in self.names and tensor.endswith(".weight")

    def run(self, images: torch.Tensor, watched: Iterable[tuple[str, bool, Observe]]) -> None:
        """Run the images in batches, and pass inputs or outputs of some layers to functions.

        A forward pass stops after the last of these layers.

        Args:
            images: images × channels × height × width.
            watched: for each layer its name, whether its output is wanted (else its input), and the function.
        """
        wanted = [(self.get_layer(name), output, see) for name, output, see in watched]
        device = next(self.model.parameters()).device
        left = [0]
        hooks = [module.register_forward_hook(_make_hook(see, output, left)) for module, output, see in wanted]
        try:
            with torch.no_grad():
                for begin in range(0, len(images), BATCH):
                    left[0] = len(wanted)
                    try:
                        self.forward(images[begin : begin + BATCH].to(device))
                    except _AllObservedError:
                        continue
        finally:
            for hook in hooks:
                hook.remove()


class _AllObservedError(Exception):
    """All watched layers were reached."""


def _make_hook(observe: Observe, output: bool, left: list[int]) -> Callable[..., None]:
    def hook(_: Any, given: tuple[torch.Tensor, ...], result: torch.Tensor) -> None:
        # An in-place addition that follows would change the output.
        observe(result.clone() if output else given[0])
        left[0] -= 1
        if not left[0]:
            raise _AllObservedError

    return hook
