"""Hashes of files: BLAKE3, by which hfsoup knows them, and those that the Hub lists; stamps; files with their own hash.

BLAKE3 takes a third of the processor time of sha256, and several processors for one file.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any, BinaryIO

from blake3 import blake3

from hfsoup.utils.positioned_io import read_at

READ = 1 << 22
"""Bytes that are hashed at once: enough to be worth several threads."""
STEP = 1 << 20
"""Bytes of a growing file that are read at once."""
_threads = [blake3.AUTO]
if hasattr(os, "register_at_fork"):
    # A forked process has none of the threads of BLAKE3's pool, and would wait for them forever.
    os.register_at_fork(after_in_child=lambda: _threads.__setitem__(0, 1))


def hash_blake3(path: Path) -> str:
    """The hexadecimal BLAKE3 of a file.

    The file is read, not memory-mapped: a process whose mapped file is truncated is killed.
    """
    _update(path, digest := blake3(max_threads=_threads[0]))
    return digest.hexdigest()


def hash_bytes(data: bytes, file: BinaryIO | None = None) -> str:
    """The hexadecimal BLAKE3 of bytes, followed by those of an open file."""
    digest = blake3(data, max_threads=_threads[0])
    if file:
        file.seek(0)
        while block := file.read(READ):
            digest.update(block)
    return digest.hexdigest()


def hash_file(path: Path) -> str:
    """The hexadecimal sha256 of a file."""
    _update(path, digest := hashlib.sha256())
    return digest.hexdigest()


def hash_both(path: Path) -> tuple[str, str]:
    """The hexadecimal BLAKE3 and sha256 of the same bytes of a file, which is read once."""
    _update(path, first := blake3(max_threads=_threads[0]), second := hashlib.sha256())
    return first.hexdigest(), second.hexdigest()


class GrowingHash:
    """The sha256 of a file that is being written in order; it is computed while the file is written.

    Args:
        handle: the file descriptor.
    """

    def __init__(self, handle: int) -> None:
        self._handle, self._digest, self._at = handle, hashlib.sha256(), 0

    def hash_until(self, end: int) -> str:
        """The hexadecimal sha256 of the first `end` bytes, which must be final; `end` never decreases."""
        while self._at < end and (block := read_at(self._handle, min(end - self._at, STEP), self._at)):
            self._digest.update(block)
            self._at += len(block)
        return self._digest.hexdigest()


def hash_blob(path: Path) -> str:
    """The git object id of a file's content, which the Hub lists for small files."""
    _update(path, digest := hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False))
    return digest.hexdigest()


def hash_json(*facts: Any) -> str:
    """The hexadecimal sha256 of values as JSON; values of other types count as their text."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()


def write_sealed(path: Path, text: str) -> None:
    """Write a text with its BLAKE3 in the first line; the file is renamed to `path` once it is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, suffix=".partial", encoding="utf-8", delete=False) as file:
        file.write(hash_bytes(text.encode()) + "\n" + text)
    Path(file.name).rename(path)


def read_sealed(path: Path) -> str | None:
    """The text that `write_sealed` wrote; None if the file is missing or was changed."""
    try:
        digest, text = path.read_text("utf-8").split("\n", 1)
    except (OSError, ValueError):
        return None
    return text if hash_bytes(text.encode()) == digest else None


def stamp_file(path: Path | int) -> tuple[int, ...]:
    """Device, inode, size and times of change in nanoseconds, which differ once a file was written to or replaced."""
    info = os.stat(path)  # noqa: PTH116 - also of a file descriptor
    return info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns


def _update(path: Path, *digests: Any) -> None:
    """Add the bytes of a file to digests."""
    with path.open("rb", buffering=0) as file:
        block = memoryview(bytearray(min(READ, max(path.stat().st_size, 1))))
        while count := file.readinto(block):
            for digest in digests:
                digest.update(block[:count])
