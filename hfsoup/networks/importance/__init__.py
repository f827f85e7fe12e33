"""How important an ingredient's weights are, for merges that need it. One file a kind; a new file is a new kind.

A kind is a function of one ingredient (a `Subject`), images without labels and a seed. It returns finite float32 arrays
by the file's names of tensors: in the tensor's shape for merges that work element by element, else in a shape of their
own. Tensors that it does not apply to are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hfsoup.data.pixels import PixelFile
from hfsoup.data.tasks import SINGLE_LABEL
from hfsoup.data.tasks.task import Task
from hfsoup.utils.errors import SoupError
from hfsoup.utils.registry import Entry, Registry
from hfsoup.utils.text import one_line

if TYPE_CHECKING:
    import torch

    from hfsoup.checkpoints.types import Ingredient as Ingredient
    from hfsoup.checkpoints.types import WeightFile as WeightFile
    from hfsoup.data.dataset_split import Split as Split

Pixels = NDArray[np.float32]
Images = Pixels | PixelFile
"""Prepared images, of which any rows are an array of float32."""
Estimates = dict[str, NDArray[np.float32]]


@dataclass(frozen=True)
class Subject:
    """An ingredient as a model in evaluation mode.

    `names` maps the file's names of tensors to the model's own, and `forward` computes logits, images × classes, of
    images × channels × height × width; `task` defines the probabilities of logits.
    """

    model: Any
    names: Mapping[str, str]
    forward: Callable[[Pixels], torch.Tensor]
    task: Task = SINGLE_LABEL

    def parameters(self) -> dict[str, torch.nn.Parameter]:
        """The trained tensors by their names in the file."""
        own = dict(self.model.named_parameters(remove_duplicate=False))
        return {name: own[inner] for name, inner in self.names.items() if inner in own}

    def layers(self) -> dict[str, torch.nn.Module]:
        """The layers by the names of their weights in the file."""
        own = dict(self.model.named_modules(remove_duplicate=False))
        paths = {name: inner.removesuffix(".weight") for name, inner in self.names.items() if inner.endswith(".weight")}
        return {name: own[path] for name, path in paths.items() if path in own}


KINDS = Registry("kind of importance", "hfsoup.networks.importance", Entry, "hfsoup.importance")
kind = KINDS.register


def estimate_importance(name: str, subject: Subject, images: Images, seed: int, *, where: str) -> Estimates:
    """The importance of an ingredient's weights, of the kind called `name`; `where` is the ingredient, for errors.

    Raises:
        UsageError: there is no such kind.
        SoupError: an estimate is not finite.
    """
    found: Estimates = KINDS.get(name).function(subject, images, seed)
    if odd := [tensor for tensor, array in found.items() if not np.isfinite(array).all()]:
        what = "expected finite weights and activations, found NaN or infinity"
        raise SoupError(what, where=f"{where}, tensor {one_line(odd[0])}", hint="leave this one out")
    return found
