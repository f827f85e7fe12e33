"""A device with memory of its own: sums and the model's weights stay there, and every number is that of the processor.

Torch takes `cpu:0` for another device than `cpu` and copies what goes from one to the other, so it stands for a GPU.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from family import Family
from shell import bake, refused

from hfsoup.averaging import accumulators as sums
from hfsoup.checkpoints.types import TensorSpec
from hfsoup.evaluation import candidate
from hfsoup.utils.distributed import World


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, int]:
    """A device of its own, with no score paid for; how often a model was built, and blocks came to a sum there."""
    count = {"built": 0, "sums": 0}
    build, scale = candidate.build_model, sums.DeviceSums.scale

    def counted(name: str, act: Any) -> Any:
        def call(*given: Any) -> Any:
            count[name] += 1
            return act(*given)

        return call

    monkeypatch.setenv("HFSOUP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(World, "device", property(lambda _: torch.device("cpu:0")))
    monkeypatch.setattr(candidate, "build_model", counted("built", build))
    monkeypatch.setattr(sums.DeviceSums, "scale", counted("sums", scale))
    return count


@pytest.mark.parametrize("dtype", [(), ("--dtype", "bfloat16")])
def test_a_search_there_is_the_search_here(
    family: Family, data: Path, alone: Path, request: pytest.FixtureRequest, dtype: tuple[str, ...]
) -> None:
    """Scores, decisions, coefficients and bytes are the same, and the model is built once."""
    words = (*family.words, "--dataset", data, "--recipe", "greedy", *dtype)
    here = bake(*words, "--output", "here")
    count = request.getfixturevalue("elsewhere")
    there = bake(*words, "--output", "there")
    assert count["built"] == 1
    assert count["sums"] > 0
    for name in ("trace", "ingredients", "best_ingredient"):
        assert there[name] == here[name]
    assert there["soup"]["test"] == here["soup"]["test"]
    assert Path("there/model.safetensors").read_bytes() == Path("here/model.safetensors").read_bytes()


def test_a_sum_that_the_device_does_not_hold_is_one_block(
    vit: Family, data: Path, alone: Path, elsewhere: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory that is out before the first image is forwarded is told as such, with what to do."""

    def none(*_: object) -> None:
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(sums.DeviceSums, "zeros", none)
    block = refused("bake", *vit.words, "--dataset", data, "--recipe", "greedy", code=1)
    assert "the model and the sum of its weights do not fit" in block
    assert "try: --device cpu\n" in block


@pytest.mark.parametrize("device", ["cpu", "cpu:0"])
def test_tensors_without_elements_have_their_place(device: str) -> None:
    """They may stand anywhere among others, and what is put into them is nothing."""
    stored = {
        "a": ("BF16", np.ones(1, np.uint16)),
        "none": ("F32", np.ones((0, 4), np.float32)),
        "counts": ("I64", np.empty(0, np.int64)),
        "w": ("F32", np.array([2.0, 3.0], np.float32)),
    }
    memory = candidate.Memory(((n, t, a.shape) for n, (t, a) in stored.items()), torch.device(device))
    for name, (dtype, array) in stored.items():
        memory.fill(
            TensorSpec(name, dtype, array.shape, 0, array.nbytes), 0, array if array.ndim == 1 else array.ravel()
        )
    assert {name: tuple(tensor.shape) for name, tensor in memory.tensors.items()} == {
        name: array.shape for name, (_, array) in stored.items()
    }
    assert memory.tensors["w"].tolist() == [2.0, 3.0]


@pytest.mark.parametrize("device", ["cpu", "cpu:0"])
@pytest.mark.parametrize("widen", [False, True])
def test_blocks_that_begin_and_end_inside_of_tensors_have_their_place(device: str, widen: bool) -> None:
    """Elements are counted over neighbours; every tensor begins at an aligned address whatever lies before it."""
    shapes = {"a": (3,), "b": (2, 5), "none": (0, 2), "c": (), "d": (7,)}
    memory = candidate.Memory(((n, "F16", shape) for n, shape in shapes.items()), torch.device(device), widen=widen)
    values, specs = np.arange(21, dtype=np.float16), [TensorSpec(n, "F16", shapes[n], 0, 0) for n in shapes]
    for begin in range(0, 21, 4):
        memory.fill(specs[0], begin, values[begin : begin + 4])
    assert torch.cat([tensor.ravel() for tensor in memory.tensors.values()]).tolist() == values.tolist()
    assert {tensor.dtype for tensor in memory.tensors.values()} == {torch.float32 if widen else torch.float16}
    memory.fill(specs[1], 8, np.zeros(4, np.float16))
    assert torch.cat([tensor.ravel() for tensor in memory.tensors.values()]).tolist()[11:15] == [0, 0, 0, 0]
    assert all(tensor.data_ptr() % 256 == 0 for tensor in memory.tensors.values() if tensor.numel())
