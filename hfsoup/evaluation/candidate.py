"""One model that takes the weights of mix after mix."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import accumulate
from math import prod
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hfsoup.averaging.accumulators import CPU, DeviceSums, HostSums, float64_device
from hfsoup.averaging.averager import Averager
from hfsoup.averaging.mix import Mix
from hfsoup.averaging.running_sum import RunningMean
from hfsoup.checkpoints.architecture import build_config
from hfsoup.checkpoints.classifier import Classifier, build_model
from hfsoup.checkpoints.dtypes import TORCH_NAMES
from hfsoup.checkpoints.processor import load_image_processor
from hfsoup.checkpoints.safetensors_io import count_bytes, to_float
from hfsoup.checkpoints.types import TensorSpec
from hfsoup.utils.errors import OutOfMemoryError, SoupError

Statistics = dict[str, NDArray[np.float32]]
BatchNorm = torch.nn.modules.batchnorm._BatchNorm
TORCH = {stored: getattr(torch, name) for stored, name in TORCH_NAMES.items()}
NARROW = ("F16", "BF16")
ALIGNMENT = 256
"""Bytes; what CUDA's allocator gives, and a multiple of every processor's line of cache."""


class Candidate:
    """One model whose weights are overwritten by mix after mix, exactly as they would be written to a file.

    `dtype` is that of the images it takes, `norms` are its batch norms by path, and `convolves` tells whether it has
    convolutions beyond the one that cuts images into patches, once it is loaded.

    Args:
        averager: computes the weights.
        device: where the model is.
        widen: whether a model whose weights are stored in float16 or bfloat16 has their values in float32, in which
            processors compute several times faster than in float16.
    """

    dtype = torch.float32

    def __init__(self, averager: Averager, device: torch.device, *, widen: bool = False) -> None:
        self._averager, self._device = averager, device
        there = float64_device(device) == device
        if not there and any(averager.stored_as(s) == "F64" for s in averager.family.tensors):
            what = f"the device {device.type} has no float64, which the soup would be in"
            raise SoupError(what, where=str(averager.family.reference), hint="--dtype float32, or --device cpu")
        self._running = RunningMean(averager, DeviceSums(device) if there and device != CPU else HostSums())
        specs = ((s.name, averager.stored_as(s), s.shape) for s in averager.family.tensors)
        self._memory = Memory(specs, device, widen=widen)
        self._buffers = self._memory.tensors
        self._processor = load_image_processor(averager.family.processor_ingredient.processor_folder)
        self._model: Classifier | None = None
        self._shared = False
        self.norms: dict[str, BatchNormLayer] = {}
        self.convolves = False
        floats = [t.dtype for t in self._buffers.values() if t.is_floating_point()]
        self._type = max(set(floats), key=floats.count)

    def load(self, mix: Mix) -> Classifier:
        """The model with the weights of `mix`, ready to be called.

        Raises:
            OutOfMemoryError: the model and the sum that it is computed from do not fit into the device's memory.
        """
        try:
            self._running.average(mix, self._memory.fill)
            if self._model is None or not self._shared:
                self._model = self._build()
        except torch.OutOfMemoryError as error:
            what = f"the model and the sum of its weights do not fit into the memory of {self._device}"
            raise OutOfMemoryError(what, where=str(self._averager.family.reference), hint="--device cpu") from error
        return self._model

    def load_fullest(self) -> Classifier:
        """The model with some weights, while the device's memory has everything else that a search needs."""
        count = len(self._averager.family)
        return self.load(Mix.of(tuple(range(min(count, 2))), count))

    @property
    def config(self) -> dict[str, Any]:
        """The config of the models."""
        return self._averager.family.config

    @property
    def tensors(self) -> dict[str, torch.Tensor]:
        """The weights of the loaded mix by the names of the files; they change with the next one."""
        return self._buffers

    def set_statistics(self, statistics: Statistics) -> None:
        """Replace the averaged batch-norm statistics of the loaded model."""
        for norm in self.norms.values():
            for buffer, name in ((norm.module.running_mean, norm.mean), (norm.module.running_var, norm.var)):
                # Rounded as in the file, also where the model has wider ones.
                buffer.copy_(torch.from_numpy(statistics[name]).to(self._memory.stored[name]))

    def _build(self) -> Classifier:
        """A model over the buffers; where transformers uses them as they are, the next mix needs no new model."""
        family = self._averager.family
        config = build_config(family.config)
        here = {name: tensor.to("cpu") for name, tensor in self._buffers.items()}
        model = build_model(config, dict(here), self._type, str(family.reference))
        own = {tensor.data_ptr(): name for name, tensor in here.items()}
        self.norms = dict(_find_norms(model, own))
        # A tensor that begins where one of the file's does may still be another look at it.
        looks = {(t.data_ptr(), t.shape, t.stride()): name for name, t in here.items()}
        names = {k: looks.get((t.data_ptr(), t.shape, t.stride())) for k, t in model.state_dict().items() if t.numel()}
        self._shared = None not in names.values()
        model = model.to(self._device).eval()
        for key, tensor in model.state_dict(keep_vars=True).items():
            if name := names.get(key):
                tensor.data = self._buffers[name]
        self.convolves = sum(isinstance(module, torch.nn.Conv2d) for module in model.modules()) > 1
        return Classifier(model, self._processor, self._type, str(family.reference))


class Memory:
    """Tensors one after the other, each at an address that suits the processor's and the device's wide reads.

    `tensors` are by name, and `stored` are the types that a file has them in.

    Args:
        specs: name, safetensors dtype and shape of each.
        device: where they are.
        widen: whether those stored in float16 and bfloat16 are float32 here, with the same values.
    """

    def __init__(
        self, specs: Iterable[tuple[str, str, tuple[int, ...]]], device: torch.device = CPU, *, widen: bool = False
    ) -> None:
        self._pieces: list[_Piece] = []
        shapes, end = [], 0
        for name, dtype, shape in specs:
            held = "F32" if widen and dtype in NARROW else dtype
            self._pieces.append(_Piece(name, dtype, held, end, prod(shape)))
            shapes.append(shape)
            end += count_bytes(held, shape)
            end += -end % ALIGNMENT
        self._firsts = [0, *accumulate(piece.count for piece in self._pieces)][:-1]
        self._places = {piece.name: n for n, piece in enumerate(self._pieces)}
        room = torch.empty(end + ALIGNMENT, dtype=torch.uint8, device=device)
        begin = -room.data_ptr() % ALIGNMENT
        whole = room[begin : begin + end]
        # Torch would have threads of its own for every thread that fills.
        self._bytes: Any = whole.numpy() if device == CPU else whole
        self.stored = {piece.name: TORCH[piece.dtype] for piece in self._pieces}
        self.tensors = {
            piece.name: whole[piece.begin : piece.find(piece.count)].view(TORCH[piece.held]).reshape(shape)
            for piece, shape in zip(self._pieces, shapes, strict=True)
        }

    def fill(self, spec: TensorSpec, begin: int, block: NDArray[Any] | torch.Tensor) -> None:
        """Put a block where the elements are from `begin` on, counted from the start of `spec` over those after it.

        The block is one-dimensional, an array as it is stored in a file, or a tensor on the same device.
        """
        done, first = 0, self._firsts[self._places[spec.name]] + begin
        while done < len(block):
            place = bisect_right(self._firsts, first + done) - 1
            piece, begin = self._pieces[place], first + done - self._firsts[place]
            count = min(piece.count - begin, len(block) - done)
            self._put(piece, begin, block[done : done + count])
            done += count

    def _put(self, piece: _Piece, begin: int, block: NDArray[Any] | torch.Tensor) -> None:
        part = self._bytes[piece.find(begin) : piece.find(begin + len(block))]
        if isinstance(part, torch.Tensor):
            part.view(TORCH[piece.held])[:] = torch.as_tensor(block).view(TORCH[piece.dtype])
        elif piece.held == piece.dtype:
            part[:] = np.asarray(block).view(np.uint8)
        else:
            part.view(np.float32)[:] = to_float(np.asarray(block), piece.dtype)


@dataclass(frozen=True)
class _Piece:
    """A tensor in a `Memory`: the dtypes that it is stored and held in, where it begins in bytes, its elements."""

    name: str
    dtype: str
    held: str
    begin: int
    count: int

    def find(self, element: int) -> int:
        """Where an element begins."""
        return self.begin + count_bytes(self.held, (element,))


@dataclass(frozen=True)
class BatchNormLayer:
    """A batch norm of the model, and the names that a weight file gives its running mean and variance."""

    module: Any
    mean: str
    var: str


def _find_norms(model: torch.nn.Module, names: dict[int, str]) -> Iterator[tuple[str, BatchNormLayer]]:
    """The batch norms that keep statistics; `names` are the weight file's, by the memory that holds each tensor."""
    for path, module in model.named_modules():
        if not isinstance(module, BatchNorm) or module.running_mean is None or module.running_var is None:
            continue
        mean, var = names.get(module.running_mean.data_ptr()), names.get(module.running_var.data_ptr())
        if mean is None or var is None:
            raise SoupError("the statistics of a batch norm are not those of the weight file", where=path)
        yield path, BatchNormLayer(module, mean, var)
