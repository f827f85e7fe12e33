"""Pickled checkpoints: no payload runs, no bomb goes off, and what is converted is what was in the file."""

from __future__ import annotations

import builtins
import collections
import functools
import importlib
import io
import os
import pickle
import pickletools
import runpy
import struct
import subprocess
import tarfile
import threading
import webbrowser
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from family import Family, copy_model, weights
from hostile import spent
from safetensors.torch import load_file
from shell import bake, refused

from hfsoup.checkpoints.pickles import convert_pickle, load_pickle
from hfsoup.utils.cache import cache_root
from hfsoup.utils.errors import SoupError
from hfsoup.utils.hashing import hash_file

MARK = "open('marker', 'w').close()"
SHELL = "touch marker"


class Calls:
    """An object whose unpickling calls something."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.call


PAYLOADS: dict[str, Any] = {
    "os.system": Calls(os.system, SHELL),
    "os.popen": Calls(os.popen, SHELL),
    "os.execl": Calls(os.execl, "/bin/sh", "sh", "-c", SHELL),
    "os.mkdir": Calls(os.mkdir, "marker"),
    "os.putenv": Calls(os.putenv, "MARKER", "1"),
    "eval": Calls(builtins.eval, MARK),
    "exec": Calls(builtins.exec, MARK),
    "open": Calls(builtins.open, "marker", "w"),
    "compile": Calls(builtins.compile, MARK, "x", "exec"),
    "__import__": Calls(builtins.__import__, "os"),
    "getattr": Calls(builtins.getattr, "", "join"),
    "map": Calls(builtins.map, builtins.eval, [MARK]),
    "subprocess.run": Calls(subprocess.run, ["touch", "marker"]),
    "subprocess.Popen": Calls(subprocess.Popen, ["touch", "marker"]),
    "subprocess.check_output": Calls(subprocess.check_output, SHELL),
    "importlib.import_module": Calls(importlib.import_module, "antigravity"),
    "runpy": Calls(runpy.run_path, "marker.py"),
    "webbrowser": Calls(webbrowser.open, "http://127.0.0.1:1"),
    "threading.Thread": Calls(threading.Thread, None, os.system, "x", (SHELL,)),
    "torch.load": Calls(torch.load, "inner.bin"),
    "torch.hub.load": Calls(torch.hub.load, "evil/evil", "evil"),
    "torch.jit.load": Calls(torch.jit.load, "inner.pt"),
    "torch.save": Calls(torch.save, {}, "marker"),
    "numpy.load": Calls(np.load, "inner.npy"),
    "numpy.save": Calls(np.save, "marker", [1]),
    "numpy array": np.zeros(3),
    "partial": functools.partial(os.system, SHELL),
    "partial of a call": Calls(functools.partial(os.system, SHELL)),
    "reduce": Calls(functools.reduce, os.system, [SHELL]),
    "pickle.loads": Calls(pickle.loads, pickle.dumps(Calls(os.system, SHELL))),
    "bytearray bomb": Calls(builtins.bytearray, 1 << 40),
    "counter bomb": Calls(collections.Counter, ["a"]),
    "tensor bomb": Calls(torch.Tensor, 1 << 40),
    "lambda by name": Calls(Path.write_text, Path("marker"), "x"),
}


def archive(program: bytes, storages: dict[str, bytes] | None = None, compression: int = zipfile.ZIP_STORED) -> bytes:
    """An archive as torch.save writes it, with this pickle."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as made:
        made.writestr("x/data.pkl", program)
        made.writestr("x/version", "3\n")
        made.writestr("x/byteorder", "little")
        for name, data in (storages or {}).items():
            made.writestr(f"x/data/{name}", data)
    return out.getvalue()


def saved(value: Any, **options: Any) -> bytes:
    out = io.BytesIO()
    torch.save(value, out, **options)
    return out.getvalue()


def tampered(old: bytes, new: bytes) -> bytes:
    """A saved tensor of eight floats whose pickle was changed."""
    with zipfile.ZipFile(io.BytesIO(saved({"a": torch.arange(8.0)}))) as good:
        program = good.read("archive/data.pkl")
    assert program.count(old) == 1
    return archive(program.replace(old, new), {"0": bytes(32)})


def legacy_tar() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as made:
        for name in ("storages", "tensors", "pickle"):
            data = pickle.dumps(Calls(os.system, SHELL), protocol=2)
            info = tarfile.TarInfo(name)
            info.size = len(data)
            made.addfile(info, io.BytesIO(data))
    return out.getvalue()


def large_directory(count: int) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as made:
        for n in range(count):
            made.writestr(f"x/{n:080}", b"")
    return out.getvalue()


TRILLION = b"\x8a\x06" + (10**12).to_bytes(6, "little")
NUMEL, SHAPE = b"K\x08tq\x07", b"K\x08\x85q\x08"
FILES: dict[str, tuple[Callable[[], bytes], str]] = {
    "legacy pickle": (lambda: saved({"a": torch.zeros(2)}, _use_new_zipfile_serialization=False), "an archive"),
    "legacy payload": (lambda: pickle.dumps(Calls(os.system, SHELL), protocol=2), "an archive"),
    "legacy tar": (legacy_tar, "an archive"),
    "nothing": (lambda: b"", "an archive"),
    "noise": (lambda: b"PK\3\4" + bytes(range(256)), "damaged"),
    "wrapped": (lambda: saved({"state_dict": {"a": torch.zeros(2)}}), "expected tensors by name"),
    "a number": (lambda: saved({"a": 1.5}), "expected tensors by name"),
    "a tensor alone": (lambda: saved(torch.zeros(2)), "expected tensors by name"),
    "no names": (lambda: saved({0: torch.zeros(2)}), "expected tensors by name"),
    "empty": (lambda: saved({}), "expected tensors by name"),
    "sparse": (lambda: saved({"a": torch.zeros(2).to_sparse()}), "_rebuild_sparse_tensor"),
    "elsewhere": (lambda: saved({"a": torch.zeros(2, device="meta")}), "_rebuild_meta_tensor_no_storage"),
    "complex": (lambda: saved({"a": torch.zeros(2, dtype=torch.complex64)}), "complex64"),
    "expanded": (lambda: saved({"a": torch.zeros(1).expand(10**12)}), "larger than what is stored"),
    "storage claims more": (
        lambda: tampered(NUMEL, TRILLION + NUMEL[2:]),
        "damaged",
    ),
    "shape claims more": (lambda: tampered(SHAPE, TRILLION + SHAPE[2:]), "damaged"),
    "shape is negative": (lambda: tampered(SHAPE, b"J" + struct.pack("<i", -1) + SHAPE[2:]), "damaged"),
    "many on one storage": (
        lambda: saved((lambda t: {str(n): t for n in range(100)})(torch.zeros(4096))),
        "larger than their file",
    ),
    "compressed": (lambda: archive(pickle.dumps({}), {"0": bytes(1 << 24)}, zipfile.ZIP_DEFLATED), "compressed"),
    "long pickle": (lambda: archive(b"\x80\x02" + b"N0" * (3 << 20) + b"N."), "over 4194304 bytes"),
    "busy pickle": (lambda: archive(b"\x80\x02" + b"N0" * (1 << 20) + b"N."), "more than tensors"),
    "nested": (lambda: archive(b"\x80\x02" + b"]" * 180_000 + b"a" * 179_999 + b"."), "by name"),
    "indirect global": (lambda: archive(b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x01x\x85R."), "STACK_GLOBAL"),
    "instance": (lambda: archive(b"(S'touch marker'\nios\nsystem\n."), "INST"),
    "twice": (lambda: archive(pickle.dumps({}), {"data.pkl": b""}), "contradict"),
    "many entries": (lambda: large_directory(70_000), "directory"),
    "bytes after it": (lambda: saved({"a": torch.zeros(2)}) + b"more", "damaged"),
    "cut": (lambda: saved({"a": torch.zeros(2)})[:-30], "damaged"),
}


def pickled(folder: Path, target: Path, data: bytes) -> Path:
    """A copy of a model folder whose weights are this pickle."""
    copy_model(folder, target)
    (target / "model.safetensors").unlink()
    (target / "pytorch_model.bin").write_bytes(data)
    return target


def program(value: Any) -> bytes:
    return pickle.dumps({"classifier.weight": value}, protocol=2)


@pytest.mark.parametrize("name", PAYLOADS)
def test_no_payload_runs(name: str, vit: Family, alone: Path) -> None:
    """The pickle is refused as an ingredient, alone and inside a dict of tensors, and its marker never appears."""
    bad = pickled(vit.folders[1], alone / "bad", archive(program(PAYLOADS[name])))
    block = refused("bake", bad, code=1)
    assert "not run" in block
    assert "pytorch_model.bin" in block
    for data in (archive(pickle.dumps(PAYLOADS[name], protocol=4)), pickle.dumps(PAYLOADS[name], protocol=2)):
        (bad / "pytorch_model.bin").write_bytes(data)
        with pytest.raises(SoupError):
            load_pickle(bad / "pytorch_model.bin", where="here")
    assert [p.name for p in alone.iterdir()] == ["bad"]
    assert "MARKER" not in os.environ


def test_every_payload_is_a_payload() -> None:
    """Each of them calls something when it is unpickled without care."""
    for name, payload in PAYLOADS.items():
        operations = {operation.name for operation, _, _ in pickletools.genops(pickle.dumps(payload, protocol=2))}
        assert operations & {"REDUCE", "NEWOBJ"}, name


@pytest.mark.parametrize("name", FILES)
def test_a_bad_pickle_is_refused(name: str, vit: Family, alone: Path) -> None:
    """It ends in one block that names the file, and nothing is written or run."""
    make, text = FILES[name]
    bad = pickled(vit.folders[1], alone / "bad", make())
    block = refused("bake", vit.words[0], bad, code=1)
    assert text in block, block
    assert "pytorch_model.bin" in block
    assert [p.name for p in alone.iterdir()] == ["bad"]


READ = """
import sys
from pathlib import Path
from hfsoup.utils.errors import SoupError
from hfsoup.checkpoints.pickles import load_pickle
for path in sys.argv[1:]:
    try:
        load_pickle(Path(path), where=path)
    except SoupError:
        continue
    sys.exit(path)
"""


def test_bombs_cost_little(alone: Path) -> None:
    """The archives that cost most end, all together, within ten seconds and two gigabytes, torch included."""
    names = ("busy pickle", "nested", "expanded", "storage claims more", "many entries", "shape claims more")
    for name in names:
        (alone / name).write_bytes(FILES[name][0]())
    cost = spent("-c", READ, *names, cwd=alone)
    assert cost.code == 0, cost
    assert cost.seconds < 10, cost
    assert cost.megabytes < 2048, cost


def test_a_pickle_and_its_safetensors_are_the_same_ingredient(family: Family, alone: Path) -> None:
    """A soup of pickles has the bytes of the soup of the same weights in safetensors, buffers and all."""
    made = [pickled(f, alone / f.name, saved(weights(f))) for f in family.folders[:2]]
    assert bake(*made, "--output", "a")["soup"]["sha256"] == bake(*family.words[:2], "--output", "b")["soup"]["sha256"]


def test_what_training_leaves_in_a_pickle_is_read(tmp_path: Path) -> None:
    """Parameters, views, scalars, empty and half tensors, and a state dict with metadata, come out as they are."""
    module = torch.nn.BatchNorm1d(3)
    state = {
        **module.state_dict(),
        "view": torch.arange(12.0).view(3, 4).t(),
        "none": torch.zeros(0, 2),
        "half": torch.ones(2).bfloat16(),
        "own": torch.nn.Parameter(torch.ones(2)),
        "bits": torch.tensor([True]),
    }
    for value in (state, module.state_dict()):
        torch.save(value, tmp_path / "m.bin")
        found = load_pickle(tmp_path / "m.bin", where="here")
        assert found.keys() == value.keys()
        converted = convert_pickle(tmp_path / "m.bin", hash_file(tmp_path / "m.bin"), where="here")
        for name, tensor in load_file(converted).items():
            assert tensor.dtype == value[name].dtype
            assert torch.equal(tensor, value[name])


def test_a_damaged_conversion_is_made_again(tmp_path: Path) -> None:
    """A byte flipped in the cache is found by the hash in the file's name."""
    torch.save({"a": torch.arange(8.0)}, tmp_path / "m.bin")
    sha = hash_file(tmp_path / "m.bin")
    made = convert_pickle(tmp_path / "m.bin", sha, where="here")
    good = made.read_bytes()
    made.write_bytes(good[:-1] + b"\xff")
    assert convert_pickle(tmp_path / "m.bin", sha, where="here").read_bytes() == good


def test_conversions_at_once_do_not_meet(tmp_path: Path) -> None:
    """Eight at a time end with the same file, and leave nothing else."""
    torch.save({"a": torch.arange(8.0) + 1}, tmp_path / "m.bin")
    sha = hash_file(tmp_path / "m.bin")
    with ThreadPoolExecutor(8) as pool:
        made = set(pool.map(lambda _: convert_pickle(tmp_path / "m.bin", sha, where="here"), range(8)))
    assert len(made) == 1
    found = [p for p in (cache_root() / "converted").iterdir() if sha in p.name and not p.name.endswith(".lock")]
    assert found == [path.parent for path in made]
