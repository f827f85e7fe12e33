"""The weights that are scored are those that are written, whichever way the search went."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from family import Family
from hypothesis import example, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from hfsoup.averaging.accumulators import Accumulator, DeviceSums, HostSums
from hfsoup.averaging.averager import Averager
from hfsoup.averaging.mix import Mix
from hfsoup.averaging.running_sum import RunningMean
from hfsoup.checkpoints.safetensors_io import TensorFile
from hfsoup.checkpoints.types import Ingredient, Source, TensorSpec, WeightFile
from hfsoup.ingredients.family import Family as Records
from hfsoup.utils.errors import SoupError
from hfsoup.utils.hashing import stamp_file

WIDE = st.floats(width=32, allow_nan=False, allow_infinity=False, min_value=-(2.0**100), max_value=2.0**100)
NEAR = st.integers(-64, 64).map(lambda n: n / 64)


def records(folder: Path, stacks: list[list[float]]) -> Records:
    """A family of one tensor and a counter."""
    ingredients = []
    for n, values in enumerate(stacks):
        path = folder / f"{n}.safetensors"
        save_file({"w": np.array(values, np.float32), "n": np.array([n])}, path)
        file = WeightFile(path.name, path, path.stat().st_size, str(n), stamp_file(path))
        ingredients.append(Ingredient(Source(str(n)), folder, (file,)))
    opened = TensorFile(ingredients[0].weights[0].path)
    opened.close()
    specs = tuple(opened.tensors.values())
    return Records(tuple(ingredients), {}, ("a",), (specs,), (None,) * len(stacks))


def formed(source: Averager | RunningMean, mix: Mix) -> dict[str, bytearray]:
    """Every tensor of a mix, of the blocks that it came in."""
    found: dict[str, bytearray] = {}

    def emit(spec: TensorSpec, begin: int, block: Any) -> None:
        values = np.asarray(block)
        whole, at = found.setdefault(spec.name, bytearray()), begin * values.itemsize
        whole[at : at + values.nbytes] = values.tobytes()

    source.average(mix, emit)
    return found


@st.composite
def walks(draw: st.DrawFn) -> tuple[list[list[float]], list[tuple[int, ...]]]:
    """Ingredients, and sets of them in an order that a search could have come along."""
    count, size = draw(st.integers(2, 5)), draw(st.integers(1, 12))
    values = draw(st.sampled_from((WIDE, NEAR, st.one_of(WIDE, NEAR))))
    stacks = [draw(st.lists(values, min_size=size, max_size=size)) for _ in range(count)]
    sets = st.sets(st.integers(0, count - 1), min_size=1).map(lambda s: tuple(sorted(s)))
    return stacks, draw(st.lists(sets, min_size=1, max_size=8))


@pytest.mark.parametrize("place", [HostSums(), DeviceSums(torch.device("cpu:0"))], ids=["here", "on a device"])
@given(walk=walks(), part=st.sampled_from((2, 1 << 13)))
@example(walk=([[0.0, 2.0**60], [0.0, 0.1], [0.0, 0.2]], [(0, 1, 2), (1, 2)]), part=1 << 13)
@example(walk=([[1.0] * 3 + [2.0**60]] + [[0.5, 3.0, 0.1, 0.2]] * 2, [(0, 1, 2), (1, 2)]), part=2)
@example(walk=([[0.5], [0.25], [4.0], [8.0]], [(0, 1, 2, 3), (1, 2, 3), (2, 3)]), part=2)
@settings(max_examples=150, deadline=None)
def test_a_running_sum_gives_the_bytes_of_the_average(
    place: Accumulator, walk: tuple[list[list[float]], list[tuple[int, ...]]], part: int
) -> None:
    """After any walk from set to set, over any finite weights, each mean is that of summing all files, bit for bit."""
    import tempfile

    stacks, sets = walk
    small = mock.patch("hfsoup.averaging.running_sum.PART", part)
    with tempfile.TemporaryDirectory() as folder, Averager(records(Path(folder), stacks)) as averager, small:
        held = RunningMean(averager, place)
        for members in sets:
            mix = Mix.of(members, len(stacks))
            assert formed(held, mix) == formed(averager, mix), members


@pytest.mark.parametrize("odd", [np.inf, -np.inf, np.nan])
def test_what_is_not_finite_is_refused(tmp_path: Path, odd: float) -> None:
    """A sum that one more file makes infinite, or no number, is the error that summing all files gives."""
    with Averager(records(tmp_path, [[0.0, 0.0], [0.0, 0.0], [odd, odd]])) as averager:
        held = RunningMean(averager)
        formed(held, Mix.of((0, 1), 3))
        for source in (held, averager):
            with pytest.raises(SoupError, match="found NaN or infinity"):
                formed(source, Mix.of((0, 1, 2), 3))


def test_a_step_of_a_search_reads_one_file(vit: Family, monkeypatch: Any, alone: Path) -> None:
    """A mix that differs from the one before in one ingredient is formed from that one's file."""
    from hfsoup.ingredients.compatibility import check_compatibility
    from hfsoup.ingredients.pull import pull_ingredients
    from hfsoup.ingredients.resolve import resolve_patterns

    seen: list[int] = []
    family = check_compatibility(pull_ingredients(resolve_patterns(tuple(map(str, vit.folders)))))
    with Averager(family) as averager:
        read = averager.read_reused
        monkeypatch.setattr(averager, "read_reused", lambda i, job: (seen.append(i), read(i, job))[1])
        held, count = RunningMean(averager), len(family)
        formed(held, Mix.of((0, 1), count))
        seen.clear()
        formed(held, Mix.of((0, 1, 2), count))
        assert set(seen) == {2}
        formed(held, Mix.of((0, 1), count))
        seen.clear()
        formed(held, Mix.of((0,), count))
        assert set(seen) == {0}
