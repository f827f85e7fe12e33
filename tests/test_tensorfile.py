"""Safetensors headers from strangers, and the rounding of stored floats."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors.torch import load_file, save

from hfsoup.checkpoints.safetensors_io import TensorFile, count_bytes, parse_header, to_float, to_stored, write_header
from hfsoup.utils.errors import SoupError


def written(path: Path, header: object, data: bytes = b"", length: int | None = None) -> Path:
    """A file that claims to be safetensors."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)
    return path


def entry(**changes: Any) -> dict[str, Any]:
    return {"dtype": "F32", "shape": [2], "data_offsets": [0, 8], **changes}


BAD = {
    "zero bytes": b"",
    "seven bytes": b"1234567",
    "length 2^63": struct.pack("<Q", 1 << 63) + b"{}",
    "header longer than the file": struct.pack("<Q", 100) + b"{}",
    "git-LFS pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n",
    "not JSON": struct.pack("<Q", 4) + b"{{{{",
    "deep JSON": struct.pack("<Q", 200_000) + b"[" * 200_000,
    "a list": struct.pack("<Q", 2) + b"[]",
    "not UTF-8": struct.pack("<Q", 4) + b'"\xff\xff"',
}


@pytest.mark.parametrize("name", BAD)
def test_a_broken_file_is_an_error_with_its_name(name: str, tmp_path: Path) -> None:
    """Whatever the bytes are, the error names the file."""
    (tmp_path / "model.safetensors").write_bytes(BAD[name])
    with pytest.raises(SoupError) as caught:
        TensorFile(tmp_path / "model.safetensors", "org/name/model.safetensors")
    assert "org/name/model.safetensors" in str(caught.value)


HEADERS: dict[str, Any] = {
    "truncated data": ({"w": entry(shape=[4], data_offsets=[0, 16])}, 8),
    "trailing bytes": ({"w": entry()}, 9),
    "overlap": ({"a": entry(), "b": entry(data_offsets=[4, 12])}, 12),
    "hole": ({"a": entry(), "b": entry(data_offsets=[12, 20])}, 20),
    "shape and bytes at odds": ({"w": entry(shape=[3])}, 8),
    "negative offset": ({"w": entry(data_offsets=[-8, 0])}, 0),
    "negative side": ({"w": entry(shape=[-1, -2])}, 8),
    "huge side": ({"w": entry(shape=[1 << 60, 1 << 60])}, 8),
    "fractional side": ({"w": entry(shape=[2.0])}, 8),
    "unknown dtype": ({"w": entry(dtype="F8_E4M3", shape=[8])}, 8),
    "dtype is a number": ({"w": entry(dtype=1)}, 8),
    "no offsets": ({"w": {"dtype": "F32", "shape": [2]}}, 8),
    "three offsets": ({"w": entry(data_offsets=[0, 8, 8])}, 8),
    "entry is a list": ({"w": []}, 8),
}


@pytest.mark.parametrize("name", HEADERS)
def test_a_wrong_header_is_refused(name: str, tmp_path: Path) -> None:
    """No tensor is believed whose bytes are not exactly where the header says."""
    header, size = HEADERS[name]
    with pytest.raises(SoupError, match=r"m\.safetensors"):
        TensorFile(written(tmp_path / "m.safetensors", header, bytes(size)))


def test_a_key_that_stands_twice_is_refused(tmp_path: Path) -> None:
    """JSON's last-wins rule would hide a tensor."""
    one = json.dumps(entry())
    with pytest.raises(SoupError, match="'w' stands twice"):
        TensorFile(written(tmp_path / "m.safetensors", f'{{"w":{one},"w":{one}}}'.encode(), bytes(8)))


def test_an_enormous_header_is_refused_before_it_is_read(tmp_path: Path) -> None:
    """Above the limit nothing is parsed."""
    path = tmp_path / "m.safetensors"
    with path.open("wb") as file:
        file.write(struct.pack("<Q", 1 << 30))
        file.truncate(9 + (1 << 30))
    with pytest.raises(SoupError, match="over the limit"):
        TensorFile(path)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["F32", "BF16", "I64"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["dtype", "shape", "data_offsets", "w", "__metadata__"]), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.text(max_size=4), JSON, max_size=3), st.integers(0, 64))
def test_any_json_is_tensors_or_a_clear_error(header: Any, size: int) -> None:
    """A header of random values never fails in another way than SoupError."""
    try:
        specs = parse_header(json.dumps(header).encode(), 8, 8 + size, where="file")
    except SoupError:
        return
    assert sum(spec.stop - spec.start for spec in specs) == size


@given(st.binary(max_size=200))
def test_any_bytes_are_tensors_or_a_clear_error(text: bytes) -> None:
    """Nor does a header of random bytes."""
    try:
        parse_header(text, 8, 8, where="file")
    except SoupError:
        return
    assert isinstance(json.loads(text), dict)


GOOD = save({"a": torch.arange(6.0).reshape(2, 3), "n": torch.tensor([1, 2]), "b": torch.ones(3, dtype=torch.bfloat16)})


@given(st.integers(0, len(GOOD) - 1), st.integers(0, 255))
def test_one_changed_byte_never_reads_outside(at: int, value: int) -> None:
    """A file with one byte changed is read within its bounds or refused."""
    changed = bytearray(GOOD)
    changed[at] = value
    length = struct.unpack("<Q", changed[:8])[0]
    if length > len(changed) - 8:
        return
    try:
        specs = parse_header(bytes(changed[8 : 8 + length]), 8 + length, len(changed), where="file")
    except SoupError:
        return
    assert all(8 + length <= s.start <= s.stop <= len(changed) for s in specs)
    assert all(s.stop - s.start == count_bytes(s.dtype, s.shape) for s in specs)


NAMES = st.dictionaries(
    st.text(max_size=6).filter(str.isprintable), hnp.array_shapes(min_dims=0, max_dims=3, max_side=4), max_size=4
)


@given(NAMES)
def test_what_is_written_is_read_by_safetensors(shapes: dict[str, tuple[int, ...]]) -> None:
    """A header that hfsoup writes is one that the safetensors library and hfsoup read."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.safetensors"
        starts = write_header(path, [(name, "F32", shape) for name, shape in shapes.items()])
        file = TensorFile(path)
        file.close()
        assert {n: tuple(t.shape) for n, t in load_file(path).items()} == shapes
        assert {n: s.start for n, s in file.tensors.items()} == starts


def test_bfloat16_keeps_the_shape() -> None:
    """A matrix is rounded as the same numbers in a row are, near ties and infinities included."""
    tie = 1 + 2.0**-8
    matrix = np.array([[1.0, tie], [tie + 2.0**-40, np.inf], [tie - 2.0**-40, 2.0]])
    rounded = to_stored(matrix, "BF16")
    assert rounded.shape == matrix.shape
    assert (rounded.ravel() == to_stored(matrix.ravel(), "BF16")).all()


@given(hnp.arrays(np.float64, 16, elements=st.floats(-1e38, 1e38)))
def test_bfloat16_is_rounded_once(block: Any) -> None:
    """Float64 to bfloat16 is to the nearest, ties to even, without a stop at float32."""
    found = to_float(to_stored(block, "BF16"), "BF16").astype(np.float64)
    bits = found.astype(np.float32).view(np.uint32) >> 16
    for value, got, bit in zip(block, found, bits, strict=True):
        neighbours = [
            float(np.uint32((int(bit) + d) << 16).view(np.float32)) for d in (-1, 1) if 0 <= int(bit) + d < 1 << 16
        ]
        for other in filter(np.isfinite, neighbours):
            assert abs(got - value) <= abs(other - value)
            if abs(got - value) == abs(other - value) and other != got:
                assert int(bit) % 2 == 0


@given(hnp.arrays(np.uint16, 16))
def test_bfloat16_comes_back_as_it_went(bits: Any) -> None:
    """Every finite bfloat16 survives the way to float64 and back."""
    wide = to_float(bits, "BF16")
    finite = np.isfinite(wide)
    assert (to_stored(wide.astype(np.float64), "BF16")[finite] == bits[finite]).all()
