"""An output folder is complete or absent, whatever the disk does."""

from __future__ import annotations

import errno
import itertools
import os
import random
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from family import Family
from shell import bake, run
from test_resume import contents

FAULTS = (errno.ENOSPC, errno.EIO, errno.EROFS)
WRITES: tuple[tuple[Any, str], ...] = (
    (os, "pwrite"),
    (os, "fsync"),
    (os, "open"),
    (Path, "write_text"),
    (Path, "open"),
    (Path, "rename"),
    (Path, "mkdir"),
    (Path, "chmod"),
    (shutil, "copyfile"),
    (tempfile, "mkdtemp"),
)


class Faulty:
    """Counts the writes, and lets the n-th one fail."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.count, self.fail_at, self.error = itertools.count(1), 0, 0
        self.passed = 0
        for owner, name in WRITES:
            patch.setattr(owner, name, self._wrapped(getattr(owner, name), name))

    def arm(self, at: int, error: int) -> None:
        """Let the `at`-th write from now on fail."""
        self.count, self.fail_at, self.error = itertools.count(1), at, error

    def disarm(self) -> None:
        """Let no write fail."""
        self.fail_at = 0

    def _wrapped(self, real: Callable[..., Any], name: str) -> Callable[..., Any]:
        def call(*given: Any, **named: Any) -> Any:
            how = named.get("mode", given[1] if len(given) > 1 else "r")
            if name == "open" and how in ("r", "rb", os.O_RDONLY, os.O_RDONLY | os.O_CLOEXEC):
                return real(*given, **named)
            self.passed = next(self.count)
            if self.passed == self.fail_at:
                raise OSError(self.error, os.strerror(self.error))
            return real(*given, **named)

        return call


@pytest.mark.timeout(900)
@pytest.mark.parametrize("share", [0.15, pytest.param(1.0, marks=pytest.mark.soak)])
def test_a_failing_write_leaves_the_old_output_as_it_was(
    vit: Family, alone: Path, monkeypatch: pytest.MonkeyPatch, share: float
) -> None:
    """Every write in turn meets a full, a broken and a read-only disk: one block, the old bytes, no rest."""
    bake(*vit.words[:2], "--output", "soup")
    before = contents(Path("soup"))
    command = ["bake", *vit.words, "--output", "soup", "--overwrite"]
    shutil.copytree("soup", "kept")
    faulty = Faulty(monkeypatch)
    assert run(*command).code == 0
    writes = faulty.passed
    lot = random.Random(0)
    for error, at in itertools.product(FAULTS, range(1, writes + 1)):
        if lot.random() > share:
            continue
        shutil.rmtree("soup")
        shutil.copytree("kept", "soup")
        faulty.arm(at, error)
        done = run(*command)
        faulty.disarm()
        found = contents(Path("soup"))
        assert "Traceback" not in done.err
        assert sorted(path.name for path in alone.iterdir()) == ["kept", "soup"], (at, done.err)
        if done.code:
            assert done.err.count("error:") == 1
            assert found == before, (at, done.err)
        else:
            assert found != before


def test_a_read_only_target_is_one_clear_block(vit: Family, alone: Path) -> None:
    """A folder that cannot be made is named, and nothing is left."""
    (alone / "file").write_text("")
    done = run("bake", *vit.words, "--output", "file/soup")
    assert done.code == 1
    assert "file/soup" in done.err
    assert [path.name for path in alone.iterdir()] == ["file"]


def test_an_ingredient_that_changes_while_it_is_read_is_named(
    vit: Family, alone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A weight file rewritten in place after it was hashed ends the bake with its name, and no output."""
    shutil.copytree(vit.folders[0], "model")
    from hfsoup.baking import gather as gathering

    real = gathering.check_compatibility

    def check(ingredients: Any, **options: Any) -> Any:
        family = real(ingredients, **options)
        with Path("model/model.safetensors").open("r+b") as file:
            file.seek(-4, os.SEEK_END)
            file.write(b"\0\0\0\0")
        return family

    monkeypatch.setattr(gathering, "check_compatibility", check)
    done = run("bake", "./model", vit.words[1], "--output", "soup")
    assert done.code == 1
    assert "changed while it was in use" in done.err
    assert "model.safetensors" in done.err
    assert not Path("soup").exists()


def test_a_closed_pipe_ends_without_a_traceback(vit: Family, alone: Path) -> None:
    """Whoever reads the JSON may stop reading."""
    import subprocess
    import sys

    code = f"{sys.executable} -m hfsoup bake {vit.words[0]} {vit.words[1]} --output soup --json - | true"
    done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr
    assert Path("soup", "model.safetensors").exists()
