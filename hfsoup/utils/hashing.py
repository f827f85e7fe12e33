"""Hashes of files as the Hub lists them, stamps that show whether a file changed, and files with their own hash."""

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
    """The sha256 of a file that is being written in order; it is computed while the file is written.

    Args:
        handle: the file descriptor.
    """

    def __init__(self, handle: int) -> None:
        self._handle, self._digest, self._at = handle, hashlib.sha256(), 0

    def hash_until(self, end: int) -> str:
        """The hexadecimal sha256 of the first `end` bytes, which must be final; `end` never decreases."""
        while self._at < end and (block := read_at(self._handle, min(end - self._at, READ), self._at)):
            self._digest.update(block)
            self._at += len(block)
        return self._digest.hexdigest()


def hash_blob(path: Path) -> str:
    """The git object id of a file's content, which the Hub lists for small files."""
    return _hash_stream(hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False), path)


def hash_json(*facts: Any) -> str:
    """The hexadecimal sha256 of values as JSON; values of other types count as their text."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()


def write_sealed(path: Path, text: str) -> None:
    """Write a text with its sha256 in the first line; the file is renamed to `path` once it is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, suffix=".partial", encoding="utf-8", delete=False) as file:
        file.write(hashlib.sha256(text.encode()).hexdigest() + "\n" + text)
    Path(file.name).rename(path)


def read_sealed(path: Path) -> str | None:
    """The text that `write_sealed` wrote; None if the file is missing or was changed."""
    try:
        digest, text = path.read_text("utf-8").split("\n", 1)
    except (OSError, ValueError):
        return None
    return text if hashlib.sha256(text.encode()).hexdigest() == digest else None


def stamp_file(path: Path | int) -> tuple[int, ...]:
    """Device, inode, size and times of change in nanoseconds, which differ once a file was written to or replaced."""
    info = os.stat(path)  # noqa: PTH116 - also of a file descriptor
    return info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns


def _hash_stream(digest: Any, path: Path) -> str:
    with path.open("rb") as file:
        while block := file.read(READ):
            digest.update(block)
    return str(digest.hexdigest())
