"""Files are known by BLAKE3 at every bake; sha256 is computed once, where others have it."""

from __future__ import annotations

import json
import os
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
from family import Family
from misbehave import blobs, flip, forget
from shell import bake, only, refused, run

from hfsoup.checkpoints import types
from hfsoup.localhub import LocalHub
from hfsoup.utils import known_hashes
from hfsoup.utils.cache import cache_root
from hfsoup.utils.hashing import hash_blake3, hash_both, hash_file

MODEL = "kit/vit-1"


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that both hashes were computed of; every file counts as large."""
    seen: list[Path] = []

    def count(path: Path) -> tuple[str, str]:
        seen.append(path)
        return hash_both(path)

    monkeypatch.setattr(known_hashes, "SMALL", 0)
    monkeypatch.setattr(types, "SMALL", 0)
    monkeypatch.setattr(known_hashes, "hash_both", count)
    shutil.rmtree(cache_root() / "hashes", ignore_errors=True)
    return seen


@pytest.fixture
def pulled(on_hub: LocalHub, signed_in: LocalHub, vit: Family, alone: Path, large: list[Path]) -> bytes:
    """The soup of a model of the Hub, whose weight file was hashed by sha256 when it arrived."""
    forget(MODEL)
    assert run("bake", *only(MODEL, vit.words[1]), "--output", "soup").code == 0
    assert [path.name for path in large] == ["model.safetensors"]
    large.clear()
    return Path("soup/model.safetensors").read_bytes()


@pytest.mark.usefixtures("pulled")
def test_a_hub_file_is_hashed_by_sha256_once(large: list[Path], vit: Family) -> None:
    """The second bake compares it by the BLAKE3 that is recorded beside its sha256."""
    assert run("bake", *only(MODEL, vit.words[1]), "--output", "again").code == 0
    assert large == []


def test_a_flip_in_a_recorded_file_is_caught(pulled: bytes, vit: Family) -> None:
    """A cached file whose hashes are recorded, with another bit, is fetched again."""
    flip(blobs(MODEL)["model.safetensors"], random.Random(3))
    done = run("bake", *only(MODEL, vit.words[1]), "--output", "again")
    assert done.code == 0, done.err
    assert "is not the file that the Hub lists; downloading it again" in done.err
    assert Path("again/model.safetensors").read_bytes() == pulled


@pytest.mark.parametrize("seed", range(4))
def test_a_flip_in_the_record_itself_costs_a_sha256(seed: int, pulled: bytes, large: list[Path], vit: Family) -> None:
    """A record with another bit is not believed, and the file is hashed by sha256 again."""
    (record,) = (cache_root() / "hashes").iterdir()
    flip(record, random.Random(seed))
    assert run("bake", *only(MODEL, vit.words[1]), "--output", "again").code == 0
    assert [path.name for path in large] == ["model.safetensors"]
    assert Path("again/model.safetensors").read_bytes() == pulled


def test_a_local_file_is_recorded_by_blake3_alone(large: list[Path], vit: Family, alone: Path) -> None:
    """No sha256 of a large local file is computed to bake it, nor to verify the soup."""
    bake(*vit.words[:2], "--output", "soup")
    files = [file for one in _read(Path("soup"))["ingredients"] for file in one["files"]]
    expected = [hash_blake3(folder / "model.safetensors") for folder in vit.folders[:2]]
    assert [(file["sha256"], file["blake3"]) for file in files] == [(None, blake3) for blake3 in expected]
    assert run("verify", "soup").code == 0
    assert large == []


@pytest.mark.usefixtures("pulled")
def test_a_hub_file_is_recorded_by_both() -> None:
    """The sha256 is the one that the Hub lists."""
    (file,) = _read(Path("soup"))["ingredients"][1]["files"]
    path = blobs(MODEL)["model.safetensors"]
    assert (file["blake3"], file["sha256"]) == (hash_blake3(path), hash_file(path))


def test_a_record_with_sha256_alone_still_verifies(vit: Family, alone: Path) -> None:
    """Records of before know files by sha256; a wrong one is refused."""
    bake(*vit.words[:2], "--output", "soup")
    for sha256, code in ((None, 0), ("0" * 64, 1)):
        record = _read(Path("soup"))
        for n, ingredient in enumerate(record["ingredients"]):
            for file in ingredient["files"]:
                file.pop("blake3", None)
                file["sha256"] = sha256 or hash_file(vit.folders[n] / file["name"])
        _write(Path("soup"), record)
        assert run("verify", "soup").code == code


@pytest.mark.parametrize("hashes", [{"blake3": "0" * 64}, {"sha256": "0" * 64}], ids=["blake3", "sha256"])
def test_every_recorded_hash_is_compared(hashes: dict[str, str], vit: Family, alone: Path) -> None:
    """One hash that is wrong is enough to refuse a file, whatever the other says."""
    bake(*vit.words[:2], "--output", "soup")
    record = _read(Path("soup"))
    record["ingredients"][0]["files"][0] |= hashes
    _write(Path("soup"), record)
    assert "its weight files differ from those that were baked" in refused("verify", "soup", code=1)


def test_a_record_without_a_hash_is_refused(vit: Family, alone: Path) -> None:
    """A file that nothing is known of could be any."""
    bake(*vit.words[:2], "--output", "soup")
    record = _read(Path("soup"))
    record["ingredients"][0]["files"][0] |= {"blake3": None, "sha256": None}
    _write(Path("soup"), record)
    assert "soup.json is damaged" in refused("verify", "soup", code=1)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_process_hashes_too(tmp_path: Path) -> None:
    """It has none of the threads that its parent hashed with."""
    path = tmp_path / "file"
    path.write_bytes(random.Random(0).randbytes(9 << 20))
    expected = hash_blake3(path)
    if not (child := os.fork()):
        os._exit(hash_blake3(path) != expected)
    assert os.waitpid(child, 0)[1] == 0


def _read(soup: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((soup / "soup.json").read_text())
    return found


def _write(soup: Path, record: dict[str, Any]) -> None:
    (soup / "soup.json").write_text(json.dumps(record))
