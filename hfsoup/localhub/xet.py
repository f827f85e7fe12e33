"""Large files as hf-xet stores them, in folders that a client's own hf-xet opens (`local://FOLDER`).

hf-xet cuts a file into chunks, keeps these in xorbs, and lists them in shards; it reads and writes a folder of these as
it does the storage behind the Hub. Its index (`*.redb`) is locked by the process that opens it, so every client is
given a folder of its own: the same xorbs and shards by hard links, and a copy of the index.

    DIR/xet/objects/aa/bb/<sha256>/   every large file; `hash` holds its Xet hash
    DIR/xet/lent/<random>/            what a client downloads from
    DIR/xet/received/<repo>/<random>/ what a client uploads to, until it commits
"""

from __future__ import annotations

import os
import secrets
import shutil
import struct
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LIFETIME = 3600
"""Seconds that a client has a folder for."""
_HASH, _STORE = "hash", "store"
_ROW = 48
_VERIFIED, _DESCRIBED = 1 << 31, 1 << 30
_LARGEST_SHARD = 64 << 20


@dataclass(frozen=True)
class Received:
    """A file in a folder that a client uploaded to."""

    folder: Path
    sha256: str
    hash: str
    size: int


class XetStore:
    """The large files of one Hub, as hf-xet stores them."""

    def __init__(self, folder: Path) -> None:
        from hf_xet import XetSession

        self._objects, self._lent, self._received = (folder / "xet" / name for name in ("objects", "lent", "received"))
        # No client that an earlier run lent a folder to goes on with it.
        for passing in (self._lent, self._received):
            shutil.rmtree(passing, ignore_errors=True)
            passing.mkdir(parents=True)
        self._session = XetSession()

    def add(self, oid: str, content: Path) -> None:
        """Store a large file, if it is not there."""
        from hf_xet import SKIP_SHA256

        if self.hash(oid):
            return
        place = self._place(oid)
        temporary = place.with_name(f"{place.name}.{secrets.token_hex(4)}")
        (temporary / _STORE).mkdir(parents=True)
        try:
            with self._session.new_upload_commit(**_access(temporary / _STORE)) as commit:
                upload = commit.start_upload_file(str(content), sha256=SKIP_SHA256)
            (temporary / _HASH).write_text(upload.result().xet_info.hash)
            # Where another upload of the same file was faster, its folder is as good.
            with suppress(OSError):
                temporary.rename(place)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def hash(self, oid: str) -> str | None:
        """The Xet hash of a large file; None of one that is not stored here."""
        try:
            return (self._place(oid) / _HASH).read_text()
        except FileNotFoundError:
            return None

    def drop(self, oid: str) -> None:
        """Delete a large file."""
        shutil.rmtree(self._place(oid), ignore_errors=True)

    def lend(self, oid: str) -> Path:
        """A folder that one client may download a large file from."""
        _clear(self._lent)
        return _copy(self._place(oid) / _STORE, self._lent / secrets.token_hex(16))

    def expect(self, repo: str) -> Path:
        """An empty folder that a client may upload to."""
        _clear(self._received / repo)
        folder = self._received / repo / secrets.token_hex(16)
        folder.mkdir(parents=True)
        return folder

    def received(self, repo: str) -> list[Received]:
        """What clients uploaded for commits to a repo, newest first."""
        folders = [path for path in (self._received / repo).glob("*") if path.is_dir()]
        folders.sort(key=lambda path: path.stat().st_mtime, reverse=True)
        return [
            Received(folder, *found)
            for folder in folders
            for shard in folder.glob("xet/xorbs/shards/*.mdb")
            if shard.stat().st_size <= _LARGEST_SHARD
            for found in _files(shard.read_bytes())
        ]

    def restore(self, file: Received, target: Path) -> None:
        """Write an uploaded file to `target`.

        Raises:
            RuntimeError: hf-xet cannot read what was uploaded.
        """
        from hf_xet import XetFileInfo

        # The client may have its folder open still.
        folder = _copy(file.folder, self._lent / secrets.token_hex(16))
        try:
            with self._session.new_file_download_group(**_access(folder)) as group:
                group.start_download_file(XetFileInfo(file.hash, file.size), str(target))
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _place(self, oid: str) -> Path:
        return self._objects / oid[:2] / oid[2:4] / oid


def cas_url(folder: Path) -> str:
    """The address by which hf-xet opens a folder."""
    return f"local://{folder}"


def _access(folder: Path) -> dict[str, Any]:
    return {"endpoint": cas_url(folder), "token": "local", "token_expiry_unix_secs": int(time.time()) + LIFETIME}


def _copy(source: Path, target: Path) -> Path:
    def place(one: str, other: str) -> None:
        (shutil.copyfile if one.endswith(".redb") else os.link)(one, other)

    shutil.copytree(source, target, copy_function=place)
    return target


def _clear(folder: Path) -> None:
    """Delete what was lent so long ago that nobody uses it any more."""
    for path in folder.glob("*"):
        with suppress(FileNotFoundError):
            if path.stat().st_mtime < time.time() - LIFETIME:
                shutil.rmtree(path, ignore_errors=True)


def _files(shard: bytes) -> Iterator[tuple[str, str, int]]:
    """Sha256, Xet hash and size of every file that a shard lists with its sha256.

    A shard is a header, then for each file a row of hash, flags and number of segments, a row for each segment, a
    second one for each where the flags say so, and a row with the sha256; all rows are of 48 bytes, and the hash of the
    last is all ones.
    """
    at = _ROW
    while at + _ROW <= len(shard):
        raw, flags, count = struct.unpack_from("<32sII", shard, at)
        if raw == b"\xff" * 32:
            return
        rows = shard[at + _ROW : at + _ROW * (1 + count)]
        size = sum(struct.unpack_from("<36xI", rows, row)[0] for row in range(0, len(rows) - _ROW + 1, _ROW))
        at += _ROW * (1 + count * (2 if flags & _VERIFIED else 1))
        if flags & _DESCRIBED:
            yield _hex(shard[at : at + 32]), _hex(raw), size
            at += _ROW


def _hex(raw: bytes) -> str:
    """A hash as text: hf-xet writes it as four numbers, the lowest byte of each first."""
    return "".join(raw[at : at + 8][::-1].hex() for at in range(0, 32, 8))
