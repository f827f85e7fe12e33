"""A device with memory of its own: sums and the model's weights stay there, and every number is that of the processor.

Torch takes `cpu:0` for another device than `cpu` and copies what goes from one to the other, so it stands for a GPU.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from family import Family
from shell import bake

from hfsoup import candidate, sums
from hfsoup.world import World


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, int]:
    """A device of its own, with no score paid for; how often a model was built, and blocks came to a sum there."""
    count = {"built": 0, "sums": 0}
    build, scaled = candidate.filled, sums.OnDevice.scaled

    def counted(name: str, act: Any) -> Any:
        def call(*given: Any) -> Any:
            count[name] += 1
            return act(*given)

        return call

    monkeypatch.setenv("HFSOUP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(World, "device", property(lambda _: torch.device("cpu:0")))
    monkeypatch.setattr(candidate, "filled", counted("built", build))
    monkeypatch.setattr(sums.OnDevice, "scaled", counted("sums", scaled))
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
