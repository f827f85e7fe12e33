"""Machines that lack what others have: a device without float64, as Apple's, and a system without pread, as Windows."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from family import Family
from shell import bake, refused, run
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakTensorKeyDictionary

from hfsoup.averaging import accumulators as sums
from hfsoup.utils.distributed import World

DEVICE = torch.device("cpu:0")


class WithoutFloat64(TorchFunctionMode):
    """Refuses float64 for every tensor that did not come to the processor first, as `mps` does.

    torch takes `cpu:0` for another device when it is asked for one, and its tensors say that they are on `cpu`.
    """

    def __init__(self) -> None:
        super().__init__()
        self._here = WeakTensorKeyDictionary()
        self.moved = 0

    def here(self, tensor: torch.Tensor) -> torch.Tensor:
        """A tensor of the processor's."""
        self._here[tensor] = True
        return tensor

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        given = [leaf for leaf in tree_leaves((args, kwargs or {})) if isinstance(leaf, torch.Tensor)]
        asked = [leaf for leaf in tree_leaves((args, kwargs or {})) if isinstance(leaf, torch.device)]
        if getattr(func, "__name__", "") == "cpu":
            here, self.moved = True, self.moved + 1
        elif asked:
            here = asked[0].index is None
        else:
            here = not given or any(tensor in self._here for tensor in given)
        for tensor in (leaf for leaf in tree_leaves(found) if isinstance(leaf, torch.Tensor)):
            if here:
                self._here[tensor] = True
            elif tensor.dtype == torch.float64:
                raise TypeError(
                    "Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64"
                )
        return found


@pytest.fixture
def apple(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[WithoutFloat64]:
    """A device that refuses float64, with no score paid for."""
    monkeypatch.setenv("HFSOUP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(World, "device", property(lambda _: DEVICE))
    monkeypatch.setattr(sums, "DOUBLE", ())
    from_numpy = torch.from_numpy
    with WithoutFloat64() as mode:
        # A mode does not hear of it.
        monkeypatch.setattr(torch, "from_numpy", lambda array: mode.here(from_numpy(array)))
        yield mode


WORK = {
    "recalibrate": ["--bn", "recalibrate", "--calibration-split", "validation"],
    "learned": ["--recipe", "learned"],
    "learned per tensor": ["--recipe", "learned", "--per-tensor"],
    "fisher": ["--merge", "fisher", "--calibration-split", "validation"],
    "regmean": ["--merge", "regmean", "--calibration-split", "validation"],
    "distill": ["--distill", "1", "--calibration-split", "validation", "--bn", "average"],
    "fit": ["--align", "activations", "--fit", "--calibration-split", "validation"],
}


@pytest.mark.parametrize("name", WORK)
def test_sums_are_on_the_processor_where_a_device_has_no_float64(
    name: str, resnet: Family, data: Path, alone: Path, request: pytest.FixtureRequest
) -> None:
    """Everything that needs float64 gives the same bytes on a device that refuses it."""
    words = [*resnet.words[:2], "--dataset", data, *WORK[name]]
    bake(*words, "--output", "here")
    mode = request.getfixturevalue("apple")
    bake(*words, "--output", "there", "--no-resume")
    assert mode.moved
    assert Path("there/model.safetensors").read_bytes() == Path("here/model.safetensors").read_bytes()


def test_a_soup_in_float64_is_refused_on_such_a_device(vit: Family, data: Path, alone: Path, apple: Any) -> None:
    """One sentence says so before anything is scored."""
    block = refused("bake", *vit.words, "--dataset", data, "--dtype", "float64", "--output", "soup", code=1)
    assert "has no float64" in block
    assert "--device cpu" in block


def test_another_device_than_there_is_is_refused(vit: Family, data: Path, alone: Path) -> None:
    """--device knows mps, and says what was found instead."""
    if not torch.backends.mps.is_available():
        block = refused("bake", *vit.words, "--dataset", data, "--device", "mps", "--output", "soup", code=2)
        assert "expected the device mps, found " in block


@pytest.mark.parametrize("lacking", [("preadv",), ("pread", "preadv", "pwrite", "fchmod", "sched_getaffinity")])
def test_a_system_without_positioned_reads(
    lacking: tuple[str, ...], vit: Family, data: Path, alone: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Where a place in a file must be sought first, the same bytes are read and written, from several threads."""
    words = [*vit.words, "--dataset", data, "--recipe", "uniform"]
    bake(*words, "--output", "here")
    monkeypatch.setenv("HFSOUP_CACHE", str(tmp_path / "cache"))
    for name in lacking:
        monkeypatch.delattr(os, name)
    bake(*words, "--output", "there")
    for name in ("model.safetensors", "config.json"):
        assert Path("there", name).read_bytes() == Path("here", name).read_bytes()
    assert run("verify", "there").code == 0
    assert run("check", *vit.words, "--weights").code == 0
