"""Any bytes at all, and good files changed at random, are read rightly or refused; see also tests/soak."""

from __future__ import annotations

import json
from typing import Any

import fuzzing
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from safetensors.numpy import save

GOOD = {
    "a.weight": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]},
    "b": {"dtype": "BF16", "shape": [], "data_offsets": [16, 18]},
    "c": {"dtype": "I8", "shape": [0, 3], "data_offsets": [18, 18]},
    "__metadata__": {"format": "pt"},
}
CONFIG = {
    "model_type": "vit", "architectures": ["ViTForImageClassification"], "hidden_size": 32, "depths": [1, 2],
    "id2label": {"0": "cat", "1": "dog"}, "label2id": {"cat": 0, "dog": 1}, "layer_norm_eps": 1e-6, "image_mean": [0.5],
}  # fmt: skip
INDEX = {"metadata": {}, "weight_map": {"a": "model-1-of-2.safetensors", "b": "model-2-of-2.safetensors"}}
EDGES = [
    0, -1, 1, True, False, None, 1.0, -0.0, 1 << 31, 1 << 63, 1 << 64, -(1 << 63), 10**30, "", "0", "F8_E5M2", "F32",
    [], {}, "\x1b[31m", "../x", "\u202e", "\U0010ffff",
]  # fmt: skip
VALUES = st.recursive(
    st.sampled_from(EDGES) | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths to everything inside a JSON value."""
    below = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, inner in below for place in places(inner, (*path, key)))]


@st.composite
def changed(draw: st.DrawFn, good: Any) -> bytes:
    """A good JSON text with some of its values replaced, dropped or renamed, and perhaps some of its bytes."""
    value = json.loads(json.dumps(good))
    for _ in range(draw(st.integers(0, 3))):
        path = draw(st.sampled_from([p for p in places(value) if p] or [()]))
        if not path:
            break
        home = value
        for key in path[:-1]:
            home = home[key]
        what = draw(st.sampled_from(("set", "drop", "rename")))
        old = home.pop(path[-1]) if isinstance(home, dict) or what == "drop" else home[path[-1]]
        if what == "set":
            new = draw(VALUES)
            home.__setitem__(path[-1], new)
        elif what == "rename" and isinstance(home, dict):
            home[draw(st.text())] = old
    text = bytearray(json.dumps(value, ensure_ascii=draw(st.booleans())).encode(errors="surrogatepass"))
    for _ in range(draw(st.sampled_from((0, 0, 0, 1, 2)))):
        if text:
            at = draw(st.integers(0, len(text) - 1))
            text[at : at + draw(st.integers(0, 2))] = draw(st.binary(max_size=3))
    return bytes(text)


@given(changed(GOOD), st.sampled_from((18, 18, 18, 0, 17, 19, 64)))
@example(json.dumps(GOOD).encode(), 18)
@example(b'{"w":{"dtype":"F32","shape":[-0],"data_offsets":[0,0]}}', 0)
@example(b' {"w":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}', 0)
@example(b'{"w":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}\n', 0)
@example(b'{"__metadata__":{"a":"\\ud800"}}', 0)
@example(b'{"__metadata__":null}', 0)
def test_a_header_is_read_as_safetensors_reads_it_or_refused(header: bytes, size: int) -> None:
    """What is accepted is accepted by safetensors' own parser, with the same names, types, shapes and values."""
    fuzzing.weights(fuzzing.headed(header, bytes(range(size))))


@given(st.binary(max_size=200))
def test_any_bytes_are_weights_or_refused(data: bytes) -> None:
    """Random bytes and random headers end in a SoupError."""
    fuzzing.weights(data)
    fuzzing.weights(fuzzing.headed(data))


@given(VALUES)
def test_any_json_is_read_or_refused(value: Any) -> None:
    """Any JSON value as header, config or index ends in a SoupError, or is right."""
    text = json.dumps(value).encode()
    for read in (fuzzing.config, fuzzing.index, lambda t: fuzzing.weights(fuzzing.headed(t))):
        read(text)


@given(changed(CONFIG))
@example(json.dumps(CONFIG).encode())
def test_a_config_is_read_or_refused(text: bytes) -> None:
    """A changed config gives class names that can be written and shown, or a SoupError."""
    fuzzing.config(text)


@given(changed(INDEX))
def test_an_index_is_read_or_refused(text: bytes) -> None:
    """A changed index names files that are there, or ends in a SoupError."""
    fuzzing.index(text)


@pytest.mark.parametrize("read", [fuzzing.config, fuzzing.index])
@given(data=st.binary(max_size=100))
def test_any_bytes_are_json_or_refused(read: Any, data: bytes) -> None:
    """Random bytes end in a SoupError, but for those that chance to be a JSON object, as `{}` is."""
    if read(data):
        assert isinstance(json.loads(data), dict)


def test_good_files_are_accepted() -> None:
    """The files that the others change are read."""
    import numpy as np

    assert fuzzing.weights(fuzzing.headed(json.dumps(GOOD).encode(), bytes(18)))
    assert fuzzing.weights(save({"a": np.arange(6.0, dtype=np.float16).reshape(2, 3), "b": np.array(3)}))
    assert fuzzing.config(json.dumps(CONFIG).encode())
    assert fuzzing.index(json.dumps(INDEX).encode())
