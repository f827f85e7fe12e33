"""Learns the coefficients of an average by gradient descent on the cross-entropy of labelled images.

The learned soup of arXiv:2203.05482, appendix: coefficients are softmax(a), and logits are multiplied by a learned β,
which is dropped afterwards, as it does not change the most likely class. Free coefficients are 1/k + a − ā of any sign,
which sum to one as well, with an L2 penalty on their distance from the mean.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from math import fsum, prod
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from hfsoup.averaging.accumulators import float64_device
from hfsoup.averaging.averager import Averager
from hfsoup.averaging.combine import STATISTICS
from hfsoup.averaging.mix import Mix
from hfsoup.checkpoints.architecture import build_config, map_to_model_names
from hfsoup.checkpoints.classifier import Classifier, build_model
from hfsoup.checkpoints.processor import load_image_processor
from hfsoup.data.dataset_split import Split
from hfsoup.evaluation.candidate import BatchNorm, Memory
from hfsoup.evaluation.journal import Journal, hash_mix
from hfsoup.ingredients.family import Family
from hfsoup.utils.distributed import World
from hfsoup.utils.errors import SoupError
from hfsoup.utils.progress import Clock
from hfsoup.utils.threads import single_threaded

RATE, FREE_RATE, PENALTY, PLACES = 0.05, 0.01, 0.01, 6
Tensors = dict[str, torch.Tensor]
Coefficients = dict[str, NDArray[Any]]
Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


class Learner:
    """Learns the coefficients of mixes of one family.

    Args:
        averager: gives the weights of each ingredient.
        world: the main process learns, and all get the result.
        journal: caches learned coefficients.
        split: the images to learn from, with labels.
        epochs: how often every image is seen.
        batch_size: images per step.
        seed: of the order of the images.
        clock: times the learning.
        advance: called with the number of images after every step.
        loss: of logits and labels.
    """

    def __init__(
        self,
        averager: Averager,
        world: World,
        journal: Journal,
        split: Split,
        *,
        epochs: int,
        batch_size: int,
        seed: int,
        clock: Clock,
        advance: Callable[[int], None] = lambda _: None,
        loss: Loss = cross_entropy,
    ) -> None:
        self._averager, self._world, self._journal, self._split = averager, world, journal, split
        self._epochs, self._batch, self._seed, self._clock, self._advance = epochs, batch_size, seed, clock, advance
        self._loss = loss
        self.images_forwarded = 0

    def __call__(self, members: tuple[int, ...], per_tensor: bool, free: bool) -> Mix:
        """The mix of `members` with the lowest cross-entropy that gradient descent finds.

        Args:
            members: the ingredients that may be in the mix.
            per_tensor: whether each tensor gets coefficients of its own.
            free: whether coefficients may be negative.

        Raises:
            SoupError: the model gives NaN or infinity, or its batch norms have no weights.
        """
        family = self._averager.family
        if len(members) == 1:
            return Mix.of(members, len(family))
        how = [self._epochs, self._batch, self._seed, RATE, PLACES, per_tensor, *([FREE_RATE, PENALTY] if free else [])]
        place = {"dtype": self._averager.dtype, "device": self._world.device.type}
        images = [self._split.fingerprint, self._split.pixels.name]
        key = hash_mix(family, Mix.of(members, len(family)), learned=how, images=images, **place)

        def found() -> tuple[Mix, int]:
            known = self._journal.get(key)
            if known is not None:
                return make_mix(known, members, family), 0
            self._journal.put(key, learned := self._learn(members, per_tensor=per_tensor, free=free))
            return make_mix(learned, members, family), self._epochs * len(self._split)

        with self._clock("learn"):
            mix, forwarded = self._world.on_main(found)
        self.images_forwarded += forwarded
        return mix

    def _learn(self, members: tuple[int, ...], *, per_tensor: bool, free: bool) -> Coefficients:
        """Coefficients, groups × members, and the tensor of each group; no names where one group holds all tensors."""
        device = self._world.device
        exact = float64_device(device)
        with single_threaded():
            average = DifferentiableAverage(self._averager, members, device, per_tensor=per_tensor)
            shape = (max(len(average.names), 1), len(members))
            a = torch.zeros(shape, dtype=torch.float64, device=exact, requires_grad=True)
            beta = torch.ones((), dtype=torch.float64, device=exact, requires_grad=True)
            rates = [{"params": [a], "lr": FREE_RATE if free else RATE}, {"params": [beta], "lr": RATE}]
            optimizer = torch.optim.AdamW(rates, weight_decay=0)
            for images, labels in self._batches(device):
                coefficients = _free_coefficients(a) if free else a.softmax(1)
                logits = beta.float().to(device) * average(coefficients, images)
                loss = self._loss(logits, labels)
                if free:
                    loss = loss + PENALTY * average.measure_spread(coefficients).to(loss)
                if not torch.isfinite(loss):
                    raise SoupError("the loss of an average is NaN or infinite", where=self._split.name)
                a.grad, beta.grad = torch.autograd.grad(loss, [a, beta])
                optimizer.step()
                self._advance(len(labels))
            found = (_free_coefficients(a) if free else a.softmax(1)).detach().tolist()
        rows = [round_coefficients(row) for row in found]
        return {"names": np.array(average.names, np.str_), "rows": np.array(rows)}

    def _batches(self, device: torch.device) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Images and labels of every step, shuffled for every epoch."""
        split, random = self._split, np.random.default_rng(self._seed % (1 << 64))
        for _ in range(self._epochs):
            order = random.permutation(len(split))
            for begin in range(0, len(order), self._batch):
                rows = order[begin : begin + self._batch]
                yield split.pixels.load(rows, device), torch.from_numpy(split.labels[rows]).to(device)


class DifferentiableAverage:
    """The average of a family's members in float32, differentiable by the coefficients.

    Tensors are those of the model, each once, under its own names; the family's are called as in its files. `names`
    are the family's that have coefficients of their own. All others, among them batch-norm statistics and tensors that
    transformers joins or splits, have the mean of these coefficients, weighted by size.

    Memory: all members, and besides the model, its average and the gradient.

    Args:
        averager: gives the weights of each member.
        members: indices in the family.
        device: where the model runs.
        per_tensor: whether any tensor has coefficients of its own.
    """

    def __init__(self, averager: Averager, members: Sequence[int], device: torch.device, *, per_tensor: bool) -> None:
        family = averager.family
        self._where = str(family.reference)
        self._processor = load_image_processor(family.processor_ingredient.processor_folder)
        self._stacks: Tensors = {}
        for place, i in enumerate(members):
            self._model = _load_member(averager, i).to(device).eval().requires_grad_(requires_grad=False)
            for name, tensor in _iterate_floats(self._model):
                if not place:
                    self._stacks[name] = torch.empty((len(members), *tensor.shape), device=device)
                self._stacks[name][place] = tensor
        owns = map_to_model_names(self._model, [spec.name for spec in family.tensors]) if per_tensor else {}
        grouped = {n: own for n, own in owns.items() if own in self._stacks and _may_differ(n, family)}
        self.names = tuple(spec.name for spec in family.tensors if spec.name in grouped)
        self._groups = {grouped[name]: group for group, name in enumerate(self.names)}
        sizes = [self._stacks[grouped[name]][0].numel() for name in self.names] or [1]
        self._shares = torch.tensor(sizes, dtype=torch.float64, device=float64_device(device)) / sum(sizes)

    def __call__(self, coefficients: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
        """The logits, images × classes, for coefficients, groups × members, that sum to one for each group."""
        mean = self._shares @ coefficients
        pooled = mean if bool((mean >= 0).all()) else mean.clamp(min=0) / mean.clamp(min=0).sum()
        weights = {name: coefficients[group] for name, group in self._groups.items()}
        weights |= {name: pooled for name in self._stacks if name.endswith(STATISTICS)}
        tensors = {name: _average_stack(weights.get(name, mean), stack) for name, stack in self._stacks.items()}
        for path, module in self._model.named_modules():
            if isinstance(module, BatchNorm) and module.running_mean is not None:
                self._fold(tensors, pooled, f"{path}." if path else "", module.eps)

        def call(**given: torch.Tensor) -> Any:
            return functional_call(self._model, tensors, (), given)

        found: torch.Tensor = Classifier(call, self._processor, torch.float32, self._where)(images).logits
        return found

    def measure_spread(self, coefficients: torch.Tensor) -> torch.Tensor:
        """The squared distance of coefficients, groups × members, from the plain mean, over groups by their size."""
        return self._shares @ (coefficients - 1 / coefficients.shape[1]).square().sum(1)

    def _fold(self, tensors: Tensors, mean: torch.Tensor, at: str, eps: float) -> None:
        """Fold the pooled statistics of a batch norm, those of `--bn average`, into its weight and bias.

        torch has no gradient for statistics; with fixed statistics and changing weights the coefficients are wrong.
        """
        centre, spread, weight, bias = (at + name for name in (*STATISTICS, "weight", "bias"))
        if weight not in tensors or bias not in tensors:
            raise SoupError(
                "the coefficients of a model whose batch norms have no weights cannot be learned",
                where=f"{self._where}, {at}",
            )
        variance = _average_stack(mean, self._stacks[spread] + (self._stacks[centre] - tensors[centre]).square())
        scale = tensors[weight] * (variance + eps).rsqrt()
        tensors[bias] = tensors[bias] - tensors[centre] * scale
        # The norm itself still divides by the square root of 1 + eps.
        tensors[weight] = scale * (1 + eps) ** 0.5
        tensors[centre], tensors[spread] = torch.zeros_like(variance), torch.ones_like(variance)


def _free_coefficients(a: torch.Tensor) -> torch.Tensor:
    """Rows of any sign that sum to one; at 0 the plain mean."""
    return a - a.mean(1, keepdim=True) + 1 / a.shape[1]


def round_coefficients(row: Sequence[float]) -> list[float]:
    """Coefficients rounded to six decimals that sum to one; the largest takes the remainder."""
    largest = max(range(len(row)), key=row.__getitem__)
    found = [round(c, PLACES) for c in row]
    found[largest] = round(1 - fsum(c for n, c in enumerate(found) if n != largest), PLACES)
    return found


def make_mix(found: Coefficients, members: Sequence[int], family: Family) -> Mix:
    """The mix of learned coefficients; where tensors have their own, an ingredient's is their mean by size."""
    rows = [dict(zip(members, row, strict=True)) for row in found["rows"].tolist()]
    full = [tuple(row.get(i, 0.0) for i in range(len(family))) for row in rows]
    names = found["names"].tolist()
    if not names:
        return Mix(full[0])
    elements = {spec.name: prod(spec.shape) for spec in family.tensors}
    sizes = [elements[name] for name in names]
    sums = [fsum(size * c for size, c in zip(sizes, column, strict=True)) for column in zip(*full, strict=True)]
    return Mix(tuple(total / sum(sizes) for total in sums), tensors=tuple(zip(names, full, strict=True)))


def _load_member(averager: Averager, i: int) -> Any:
    """The family's model in float32 with the weights of one ingredient."""
    family = averager.family
    memory = Memory((s.name, averager.stored_as(s), s.shape) for s in family.tensors)
    averager.average(Mix.of((i,), len(family)), memory.fill)
    return build_model(build_config(family.config), memory.tensors, torch.float32, str(family.reference))


def _iterate_floats(model: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """The floating-point tensors of a model's state dict, each once."""
    saved = model.state_dict().keys()
    for name, tensor in chain(model.named_parameters(), model.named_buffers()):
        if name in saved and tensor.is_floating_point():
            yield name, tensor


def _may_differ(name: str, family: Family) -> bool:
    """Whether a tensor may have coefficients of its own."""
    return name not in family.reference_only and not name.endswith(STATISTICS)


def _average_stack(coefficients: torch.Tensor, stack: torch.Tensor) -> torch.Tensor:
    """The weighted mean of members × shape."""
    return (coefficients.float().to(stack.device) @ stack.flatten(1)).reshape(stack.shape[1:])
