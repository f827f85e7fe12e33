"""A model that takes the weights of one ingredient after another, and shows what reaches and leaves its layers."""

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
    """A model in evaluation mode, by the names that a weight file gives its tensors.

    Args:
        model: what computes; its own weights and mode are restored by `lent`.
        names: the model's own name of every tensor of the file; None where they are the same.
        forward: calls the model with a batch of images and gives its logits; None to call it as it is.
    """

    def __init__(
        self,
        model: nn.Module,
        names: Mapping[str, str] | None = None,
        forward: Callable[[torch.Tensor], torch.Tensor] | None = None,
    ) -> None:
        self.model = model
        self._names = names or {name: name for name in model.state_dict()}
        self.forward = forward or model

    @contextmanager
    def lent(self) -> Iterator[Network]:
        """The network for a while; afterwards the model is as it was."""
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
        """Take the weights of an ingredient.

        Raises:
            SoupError: the model does not fit them.
        """
        try:
            self.model.load_state_dict({self._names.get(name, name): tensor for name, tensor in state.items()})
        except RuntimeError as error:
            raise SoupError(f"the model does not take these tensors: {one_line(error, 300)}") from error

    def state(self) -> dict[str, torch.Tensor]:
        """The weights as they are now, by the names of a file."""
        found = self.model.state_dict()
        return {name: found[own] for name, own in self._names.items()}

    def layer(self, name: str) -> nn.Module:
        """The module that holds a tensor of the file, or that the model has under this very name."""
        inner = self._names.get(f"{name}.weight")
        try:
            return self.model.get_submodule(inner.removesuffix(".weight") if inner else name)
        except AttributeError as error:
            raise SoupError(f"the model has no module {one_line(name)}, which the fit has to look at") from error

    def holds(self, tensor: str) -> bool:
        """Whether a tensor of the file is the weight of a module."""
        return tensor in self._names and tensor.endswith(".weight")

    def run(self, images: torch.Tensor, watched: Iterable[tuple[str, bool, Observe]]) -> None:
        """Show every batch to those who watch a layer: its input, or its output where the second value is true.

        A pass ends as soon as the last watched layer was reached.
        """
        wanted = [(self.layer(name), output, see) for name, output, see in watched]
        device = next(self.model.parameters()).device
        hooks = []
        left = [0]
        for module, output, see in wanted:
            hooks.append(module.register_forward_hook(_make_hook(see, output, left)))
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

    def logits(self, images: torch.Tensor) -> torch.Tensor:
        """Images × classes."""
        device = next(self.model.parameters()).device
        with torch.no_grad():
            found = [self.forward(images[n : n + BATCH].to(device)).cpu() for n in range(0, len(images), BATCH)]
        return torch.cat(found)


class _AllObservedError(Exception):
    """Everything that is watched was seen."""


def _make_hook(see: Observe, output: bool, left: list[int]) -> Callable[..., None]:
    def hook(_: Any, given: tuple[torch.Tensor, ...], result: torch.Tensor) -> None:
        # A following in-place addition would change what was seen.
        see(result.clone() if output else given[0])
        left[0] -= 1
        if not left[0]:
            raise _AllObservedError

    return hook
