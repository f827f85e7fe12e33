"""The hashes of files that nobody wrote to since are remembered, and those of all others are not."""

from __future__ import annotations

import hashlib
import json
import os
import time
from pathlib import Path

import pytest
from family import Family, copy_model
from shell import bake, run

from hfsoup import hashing, verify


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Every weight file of an ingredient that is read to be hashed."""
    found: list[Path] = []
    real = hashing.file_hash
    for module in (hashing, verify):
        monkeypatch.setattr(module, "file_hash", lambda path: (found.append(path), real(path))[1])
    return found


@pytest.fixture
def copies(vit: Family, alone: Path) -> list[Path]:
    """Two ingredients that no bake has seen."""
    return [copy_model(folder, alone / folder.name) for folder in vit.folders[:2]]


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock goes ten seconds ahead: files that were just written are old enough to be known again."""
    real = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: real() + 10**10)


def recorded() -> list[str]:
    """The sha256 of every ingredient's weights as the soup in `soup` tells them."""
    ingredients = json.loads(Path("soup/soup.json").read_text())["ingredients"]
    return [file["sha256"] for ingredient in ingredients for file in ingredient["files"]]


@pytest.mark.usefixtures("later")
def test_a_second_bake_reads_no_file_to_hash_it(copies: list[Path], hashed: list[Path]) -> None:
    """Two bakes of the same folders: the first one hashes each file once, the second none."""
    files = {folder / "model.safetensors" for folder in copies}
    first = bake(*copies, "--output", "soup")
    assert files <= set(hashed)
    hashed.clear()
    assert bake(*copies, "--output", "again")["soup"]["sha256"] == first["soup"]["sha256"]
    assert not files & set(hashed)


@pytest.mark.usefixtures("later")
def test_verify_hashes_what_it_looks_at(copies: list[Path], hashed: list[Path]) -> None:
    """Nothing that was remembered counts for the soup that is verified."""
    bake(*copies, "--output", "soup")
    for _ in range(2):
        hashed.clear()
        found = run("verify", "soup")
        assert found.code == 0, found.err
        assert Path("soup/model.safetensors") in hashed


@pytest.mark.usefixtures("later")
def test_other_bytes_under_the_same_name_size_and_time_are_seen(copies: list[Path]) -> None:
    """A file that was written to in place and got its time back has its new hash in soup.json."""
    bake(*copies, "--output", "soup")
    path = copies[1] / "model.safetensors"
    before, content = path.stat(), bytearray(path.read_bytes())
    content[-1] ^= 1
    with path.open("r+b") as file:
        file.write(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    bake(*copies, "--output", "soup", "--overwrite")
    assert recorded()[1] == hashlib.sha256(content).hexdigest()


def test_a_file_that_was_just_written_is_hashed_again(copies: list[Path], hashed: list[Path]) -> None:
    """Another write in the same tick of the clock would leave the same time, so nothing is remembered of it yet."""
    for name in ("soup", "again"):
        hashed.clear()
        bake(*copies, "--output", name)
        assert copies[0] / "model.safetensors" in hashed


@pytest.mark.usefixtures("later")
def test_damaged_notes_cost_time_and_nothing_else(copies: list[Path]) -> None:
    """Whatever stands in the notes, the hash in soup.json is the file's."""
    bake(*copies, "--output", "soup")
    first = recorded()
    for note in (Path(os.environ["HFSOUP_CACHE"]) / "hashes").iterdir():
        note.write_bytes(b"\xff 1 2")
    bake(*copies, "--output", "soup", "--overwrite")
    assert recorded() == first
