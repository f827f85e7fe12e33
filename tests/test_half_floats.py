"""float16 and bfloat16 are widened and rounded by integer arithmetic: every value, every tie, every edge."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from hfsoup.checkpoints.half_floats import widen
from hfsoup.checkpoints.safetensors_io import is_finite, to_stored

TYPES = {"F16": torch.float16, "BF16": torch.bfloat16}
EVERY = np.arange(1 << 16, dtype=np.uint16)


def by_torch(dtype: str) -> NDArray[np.float32]:
    """All 65,536 values as float32."""
    found: NDArray[np.float32] = torch.from_numpy(EVERY.view(np.int16)).view(TYPES[dtype]).float().numpy()
    return found


@pytest.mark.parametrize("dtype", TYPES)
def test_every_value_is_widened_exactly(dtype: str) -> None:
    """Signs of zero, subnormal numbers, infinities and NaN are those of torch."""
    with np.errstate(invalid="ignore"):
        stored = EVERY.view(np.float16) if dtype == "F16" else EVERY
        found = widen(stored, dtype, np.empty(1 << 16, np.float32))
    expected = by_torch(dtype)
    assert (np.isnan(found) == np.isnan(expected)).all()
    fine = ~np.isnan(expected)
    assert (found[fine].view(np.uint32) == expected[fine].view(np.uint32)).all()


@pytest.mark.parametrize("dtype", TYPES)
def test_every_value_stays_what_it_is(dtype: str) -> None:
    """Widened to float64 and rounded, it has the same bits."""
    values = by_torch(dtype)
    fine = ~np.isnan(values)
    found = to_stored(values[fine].astype(np.float64), dtype).view(np.uint16)
    assert (found == EVERY[fine]).all()


@pytest.mark.parametrize("dtype", TYPES)
def test_ties_and_their_neighbours_are_rounded_to_nearest(dtype: str) -> None:
    """Halfway between any two neighbours the even one is taken, and a float64 beside it goes to the nearer one."""
    steps = np.sort(by_torch(dtype)[np.isfinite(by_torch(dtype))].astype(np.float64))
    steps = steps[steps >= 0][1:]  # without the negative zero
    ties = (steps[1:] + steps[:-1]) / 2
    even = np.where(np.arange(len(ties)) % 2 == 0, steps[:-1], steps[1:])
    for sign in (1, -1):
        for values, expected in (
            (ties, even),
            (np.nextafter(ties, 0), steps[:-1]),
            (np.nextafter(ties, np.inf), steps[1:]),
        ):
            found = to_stored(sign * values, dtype)
            wide = widen(found, dtype, np.empty(len(found), np.float32))
            assert (wide == sign * expected).all()


@pytest.mark.parametrize("dtype", TYPES)
def test_what_is_too_large_becomes_infinite(dtype: str) -> None:
    """From halfway between the largest number and the next power of two on; NaN stays NaN."""
    steps = by_torch(dtype)[np.isfinite(by_torch(dtype))].astype(np.float64)
    largest = steps.max()
    limit = largest + (largest - steps[steps < largest].max()) / 2
    found = to_stored(np.array([np.nextafter(limit, 0), limit, -limit, 1e300, np.inf, np.nan, -0.0, 5e-324]), dtype)
    wide = widen(found, dtype, np.empty(len(found), np.float32))
    assert wide[0] == largest
    assert (wide[1:5] == [np.inf, -np.inf, np.inf, np.inf]).all()
    assert np.isnan(wide[5])
    assert np.signbit(wide[6])
    assert wide[7] == 0


@pytest.mark.parametrize("dtype", ["F64", "F32", "F16", "BF16"])
@pytest.mark.parametrize("value", [np.nan, -np.nan, np.inf, -np.inf, 1.0, -1.0])
def test_what_is_not_finite_is_found(dtype: str, value: float) -> None:
    """One such number among others, of either sign."""
    values: NDArray[Any] = np.array([0.0, -0.0, 2.5, value, -2.5])
    assert is_finite(to_stored(values, dtype), dtype) == bool(np.isfinite(value))
