"""What hfsoup is measured against: other tools where they are installed, and loops that are written out here."""

from __future__ import annotations

import copy
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from hfsoup.utils.threads import count_processors

BLOCK = 1 << 16
"""Elements that a bare loop takes at a time, few enough to stay in a processor's cache."""
Command = list[str | Path]


class Peers:
    """The tools that were found: on PATH, beside this Python, or in the folders that were named.

    Args:
        folders: folders of programs, such as an environment's `bin`.
    """

    def __init__(self, folders: Sequence[Path]) -> None:
        self._places = [*map(str, folders), str(Path(sys.executable).parent), os.environ.get("PATH", "")]

    def program(self, name: str) -> Path | None:
        """A program by name, or None."""
        found = shutil.which(name, path=os.pathsep.join(self._places))
        return Path(found) if found else None

    def mergekit(self, ingredients: list[Path], output: Path, config: Path) -> Command | None:
        """`mergekit-pytorch`, the linear method, all with the same weight."""
        program = self.program("mergekit-pytorch")
        if program is None:
            return None
        models = [{"model": str(i / "model.safetensors"), "parameters": {"weight": 1.0}} for i in ingredients]
        # JSON is YAML too.
        config.write_text(json.dumps({"merge_method": "linear", "dtype": "float32", "models": models}))
        return [program, config, output]

    def timm(self, ingredients: Path, output: Path) -> Command | None:
        """`avg_checkpoints.py` of timm's repository, which its package does not hold, with a Python that has timm."""
        script = self.file("avg_checkpoints.py")
        if script is None:
            return None
        for place in [script.parent, *map(Path, self._places[:-1])]:
            python = place / "python"
            asked: Command = [python, "-c", "from timm.models import load_state_dict"]
            if python.exists() and not subprocess.run(asked, capture_output=True, check=False).returncode:
                what: Command = ["--input", ingredients, "--filter", "*/model.safetensors", "--no-sort"]
                return [python, script, *what, "--output", output]
        return None

    def file(self, name: str) -> Path | None:
        """A file in one of the folders, or None."""
        places = os.pathsep.join(self._places).split(os.pathsep)
        return next((p for p in (Path(place, name) for place in places) if p.is_file()), None)


def bare_average(files: list[Path], output: Path) -> None:
    """Read everything once in blocks, sum, divide, write: as little as averaging float32 files can be."""
    handles = [os.open(path, os.O_RDONLY) for path in files]
    size = os.fstat(handles[0]).st_size
    out = os.open(output, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    os.truncate(out, size)
    begin = 8 + int.from_bytes(os.pread(handles[0], 8, 0), "little")
    os.pwrite(out, os.pread(handles[0], begin, 0), 0)

    def form(at: int) -> None:
        total, block = np.zeros(BLOCK, np.float32), np.empty(BLOCK, np.float32)
        for handle in handles:
            got = os.preadv(handle, [block.data.cast("B")], at)
            np.add(total, block, out=total)
        total *= 1 / len(handles)
        os.pwrite(out, total.data.cast("B")[:got], at)

    try:
        with ThreadPoolExecutor(count_processors()) as pool:
            list(pool.map(form, range(begin, size, 4 * BLOCK)))
    finally:
        for handle in (*handles, out):
            os.close(handle)


def bare_read(path: Path, into: np.ndarray[Any, np.dtype[np.uint8]]) -> None:
    """Read a file once into memory that is there already, with as many threads as hfsoup uses."""
    handle, step = os.open(path, os.O_RDONLY), 4 * BLOCK
    try:
        with ThreadPoolExecutor(count_processors()) as pool:
            list(pool.map(lambda at: os.preadv(handle, [into[at : at + step].data], at), range(0, len(into), step)))
    finally:
        os.close(handle)


def safe_open_average(files: list[Path], output: Path) -> None:
    """Tensor by tensor with safetensors: load it from every file, add, divide; save all."""
    from contextlib import ExitStack

    from safetensors import safe_open
    from safetensors.torch import save_file

    with ExitStack() as stack:
        opened = [stack.enter_context(safe_open(path, framework="pt")) for path in files]
        found = {}
        for name in opened[0].keys():  # noqa: SIM118 - not a mapping
            total = opened[0].get_tensor(name).clone()
            for file in opened[1:]:
                total += file.get_tensor(name)
            found[name] = total / len(files)
        save_file(found, output, {"format": "pt"})


def load_file_average(files: list[Path], output: Path) -> None:
    """Model by model with safetensors: load it, add it; divide, save."""
    from safetensors.torch import load_file, save_file

    total = {name: tensor.clone() for name, tensor in load_file(files[0]).items()}
    for path in files[1:]:
        for name, tensor in load_file(path).items():
            total[name] += tensor
    save_file({name: tensor / len(files) for name, tensor in total.items()}, output, {"format": "pt"})


def seed_step(model: Any, total: dict[str, Any], members: int, path: Path) -> None:
    """A candidate by a plain loop: a deep copy of the sum, one more added, divided, loaded."""
    from safetensors.torch import load_file

    candidate = copy.deepcopy(total)
    for name, tensor in load_file(path).items():
        candidate[name] += tensor
    model.load_state_dict({name: tensor / (members + 1) for name, tensor in candidate.items()})
