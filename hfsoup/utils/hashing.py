"""Hashes of files, as the Hub lists them, and what tells that a file is still the one that was hashed."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from hfsoup.utils.positioned_io import read_at

READ = 1 << 20


def hash_file(path: Path) -> str:
    """The hexadecimal sha256 of a file."""
    return _hash_stream(hashlib.sha256(), path)


class GrowingHash:
    """The sha256 of a file that is being written from its start on: hashing goes on beside the writing.

    Args:
        handle: the open file's number.
    """

    def __init__(self, handle: int) -> None:
        self._handle, self._digest, self._at = handle, hashlib.sha256(), 0

    def reach(self, end: int) -> str:
        """The hexadecimal sha256 of the first `end` bytes, which are written for good; `end` never goes back."""
        while self._at < end and (block := read_at(self._handle, min(end - self._at, READ), self._at)):
            self._digest.update(block)
            self._at += len(block)
        return self._digest.hexdigest()


def hash_blob(path: Path) -> str:
    """The git object id of a file's content, which the Hub lists for small files."""
    return _hash_stream(hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False), path)


def hash_json(*facts: Any) -> str:
    """The hexadecimal sha256 of what something depends on, as JSON; what JSON does not know counts as its text."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()


def write_sealed(path: Path, text: str) -> None:
    """Write a text below its sha256; it gets its name once it is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, suffix=".partial", encoding="utf-8", delete=False) as file:
        file.write(hashlib.sha256(text.encode()).hexdigest() + "\n" + text)
    Path(file.name).rename(path)


def read_sealed(path: Path) -> str | None:
    """The text of `write_sealed`; None where it is not there, or not as it was written."""
    try:
        digest, text = path.read_text("utf-8").split("\n", 1)
    except (OSError, ValueError):
        return None
    return text if hashlib.sha256(text.encode()).hexdigest() == digest else None


def stamp_file(path: Path | int) -> tuple[int, ...]:
    """What changes when a file is written to or replaced: device, inode, size and times of change, in nanoseconds."""
    info = os.stat(path)  # noqa: PTH116 - also of an open file's number
    return info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns


def _hash_stream(digest: Any, path: Path) -> str:
    with path.open("rb") as file:
        while block := file.read(READ):
            digest.update(block)
    return str(digest.hexdigest())
