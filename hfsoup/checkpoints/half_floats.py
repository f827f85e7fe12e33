"""float16 and bfloat16 by integer arithmetic: NumPy converts the one slowly and does not know the other.

A float is a sign, an exponent and a significand, so that its bits as an integer grow with its size. Between two formats
the significand loses or gains bits at its end, and the exponent another constant (IEEE 754-2019, 3.4).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hfsoup.utils.scratch import Scratch

DROPPED = {"F16": 42, "BF16": 45}
"""The bits at the end of a float64's significand that the format has not."""
BIASES = {"F16": 1023 - 15, "BF16": 1023 - 127}
"""By how much a float64's exponent is larger."""
LARGEST = {"F16": 30, "BF16": 254}
"""The largest exponent of a finite number."""
HALVES = tuple(DROPPED)
CHUNK = 1 << 15
"""Numbers that are rounded at once, few enough to stay in a processor's cache."""
_scratch = Scratch()


def widen(block: NDArray[Any], dtype: str, into: NDArray[np.float32]) -> NDArray[np.float32]:
    """Float16 numbers, or the bits of bfloat16 ones, as the same numbers in float32, written to `into`."""
    if dtype == "BF16":
        bits = into.view(np.uint32)
        np.copyto(bits, block)
        np.left_shift(bits, 16, out=bits)
        return into
    signed = into.view(np.int32)
    np.copyto(signed, block.view(np.int16))
    np.left_shift(signed, 13, out=signed)
    # The sign was repeated in the bits below it.
    np.bitwise_and(signed, np.int32(~0x70000000), out=signed)
    np.multiply(into, np.float32(2.0**112), out=into)
    if len(odd := _find_infinite(block)):
        into[odd] = block.view(np.float16)[odd]
    return into


def _find_infinite(block: NDArray[Any]) -> NDArray[np.intp]:
    """Where float16 numbers are NaN or infinite."""
    bits = block.view(np.uint16)
    if not len(bits) or (bits.view(np.int16).max() < 0x7C00 and bits.max() < 0xFC00):
        return np.empty(0, np.intp)
    return np.flatnonzero((bits & 0x7C00) == 0x7C00)


def narrow(block: NDArray[np.float64], dtype: str, into: NDArray[np.uint16]) -> None:
    """Write the bits of float16 or bfloat16 numbers to `into`: flat float64 ones, rounded to nearest, ties to even."""
    for begin in range(0, block.size, CHUNK):
        _narrow_chunk(block[begin : begin + CHUNK], dtype, into[begin : begin + CHUNK])


def _narrow_chunk(block: NDArray[np.float64], dtype: str, into: NDArray[np.uint16]) -> None:
    drop, bias = DROPPED[dtype], BIASES[dtype]
    bits, work = block.view(np.uint64), _scratch.array("work", np.uint64, block.size)
    # Just under a half of the last bit that stays, and exactly a half where that bit is odd.
    np.right_shift(bits, drop, out=work)
    np.bitwise_and(work, 1, out=work)
    np.add(work, bits, out=work)
    np.subtract(work, np.uint64((bias << 52) - (1 << (drop - 1)) + 1), out=work)
    np.right_shift(work, drop, out=work)
    np.copyto(into, work, casting="unsafe")
    np.bitwise_or(into, block.view(np.uint16)[3::4] & np.uint16(0x8000), out=into)
    # Of exponents that the format has not: zero, subnormal numbers, what is too large, NaN.
    np.left_shift(bits, 1, out=work)
    np.subtract(work, np.uint64((bias + 1) << 53), out=work)
    odd = np.flatnonzero(work >= np.uint64(LARGEST[dtype] << 53))
    if len(odd):
        into[odd] = _narrow_exactly(block[odd], dtype)


def _narrow_exactly(block: NDArray[np.float64], dtype: str) -> NDArray[np.uint16]:
    """The same for any numbers, more slowly."""
    with np.errstate(over="ignore"):
        if dtype == "F16":
            return block.astype(np.float16).view(np.uint16)
        single = block.astype(np.float32)
    bits = single.view(np.uint32)
    rounded = ((bits + (0x7FFF + ((bits >> 16) & 1))) >> 16).astype(np.uint16)
    # Rounding twice, to float32 and then to bfloat16, must not turn a near tie into a tie.
    ties = np.flatnonzero((bits & 0xFFFF) == 0x8000)
    if len(ties):
        away = np.sign(np.abs(block[ties]) - np.abs(single[ties]))
        cut = (bits[ties] >> 16).astype(np.uint16)
        rounded[ties] = np.where(away > 0, cut + 1, np.where(away < 0, cut, rounded[ties]))
    infinite = np.flatnonzero((bits & 0x7F800000) == 0x7F800000)
    rounded[infinite] = (bits[infinite] >> 16).astype(np.uint16)
    return rounded
