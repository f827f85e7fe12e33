"""Makers of checkpoints that a hostile or careless author could publish, and a meter for what reading one costs."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from family import edit_json, put_weights, weights

Change = Callable[[Path], object]
ONE = {"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}


@dataclass(frozen=True)
class Cost:
    """How a command ended, its standard error, its seconds of work and its peak memory in megabytes."""

    code: int
    err: str
    seconds: float
    megabytes: float


def measured(*words: object, cwd: Path) -> Cost:
    """Type `hfsoup WORDS...` in a process of its own."""
    return spent("-m", "hfsoup", *words, cwd=cwd)


def spent(*words: object, cwd: Path) -> Cost:
    """Run Python with these words."""
    log = cwd / "stderr.txt"
    with log.open("wb") as file:
        child = subprocess.Popen([sys.executable, *map(str, words)], cwd=cwd, stdout=file, stderr=file)
        _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    return Cost(child.returncode, log.read_text(), usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def raw(header: bytes, data: bytes = b"", length: int | None = None) -> Change:
    """Replace the weights by a safetensors file of this header and data."""
    text = struct.pack("<Q", len(header) if length is None else length) + header + data
    return lambda folder: (folder / "model.safetensors").write_bytes(text)


def header(entries: object, size: int = 8) -> Change:
    """Replace the weights by a file of these header entries and so many bytes of data."""
    return raw(json.dumps(entries).encode(), bytes(size))


def config(**changes: Any) -> Change:
    """Change keys of config.json; None takes a key out."""
    return lambda folder: edit_json(folder / "config.json", **changes)


def text_of(name: str, text: str) -> Change:
    """Replace a file by a text."""
    return lambda folder: (folder / name).write_text(text)


def tensors(change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> Change:
    """Change the tensors."""
    return lambda folder: put_weights(folder, change(weights(folder)))


def sharded(
    homes: Callable[[dict[str, str]], object] = lambda homes: homes, extra: str | None = None, **index: Any
) -> Change:
    """Split the weights in two shards with an index; `homes` changes its map, `extra` stands in both shards."""

    def change(folder: Path) -> None:
        state = weights(folder)
        names, shards = sorted(state), ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
        placed = {name: shards[n % 2] for n, name in enumerate(names)}
        for shard in shards:
            part = {n: state[n] for n in names if placed[n] == shard}
            if extra:
                part[extra] = torch.full_like(state[extra], float(len(part)))
            put_weights(folder, part)
            (folder / "model.safetensors").rename(folder / shard)
        values = {"metadata": {}, "weight_map": homes(dict(placed)), **index}
        kept = {key: value for key, value in values.items() if value is not None}
        (folder / "model.safetensors.index.json").write_text(json.dumps(kept))

    return change


def link(name: str, target: Path | None = None) -> Change:
    """Move a file out of the folder, beside it, and leave a symbolic link."""

    def change(folder: Path) -> None:
        outside = folder.parent / f"outside-{name}"
        (folder / name).rename(outside)
        (folder / name).symlink_to(target or outside)

    return change


def instead(name: str, make: Callable[[Path], object]) -> Change:
    """Put something else where a file was."""

    def change(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        make(folder / name)

    return change


def replace_file(name: str, data: bytes) -> Change:
    """Replace the weights by a file of this name."""

    def change(folder: Path) -> None:
        (folder / "model.safetensors").unlink()
        (folder / name).write_bytes(data)

    return change


def many_empty(count: int) -> bytes:
    """A header of so many tensors without elements."""
    text = ",".join(f'"{n}":{{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}' for n in range(count))
    return b"{" + text.encode() + b"}"


def sparse(size: int) -> Change:
    """Replace the weights by a file that is all header and takes no room on the disk."""

    def change(folder: Path) -> None:
        (folder / "model.safetensors").write_bytes(struct.pack("<Q", size - 8))
        os.truncate(folder / "model.safetensors", size)

    return change
