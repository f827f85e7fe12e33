"""Large files as hf-xet stores them, in folders that the hf-xet of a client opens (`local://FOLDER`).

hf-xet cuts a file into chunks, stores these in xorbs, and lists them in shards; it reads and writes such a folder as it
does the storage behind the Hub. Its index (`*.redb`) is locked by the process that opens it, so every client gets
a folder for itself: the same xorbs and shards by hard links, and a copy of the index.

    DIR/repos/…/NAME.git/hub-xet/store     the large files of a repo
    DIR/repos/…/NAME.git/hub-xet/<sha256>  the Xet hash of one of them
    DIR/xet/downloads/<random>             what a client downloads from
    DIR/xet/uploads/<repo>/<random>        what a client uploads to, until it commits
"""

from __future__ import annotations

import os
import secrets
import shutil
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LIFETIME = 3600
"""Seconds for which a client may use a folder."""
_ROW = 48
_VERIFIED, _DESCRIBED = 1 << 31, 1 << 30
_LARGEST_SHARD = 64 << 20


@dataclass(frozen=True)
class UploadedFile:
    """A file in a folder that a client uploaded to."""

    folder: Path
    sha256: str
    hash: str
    size: int


class XetStore:
    """The large files of every repo of one Hub, as hf-xet stores them."""

    def __init__(self, folder: Path) -> None:
        from hf_xet import XetSession

        self._downloads, self._uploads = (folder / "xet" / name for name in ("downloads", "uploads"))
        # No client continues with a folder of an earlier run.
        for passing in (self._downloads, self._uploads):
            shutil.rmtree(passing, ignore_errors=True)
            passing.mkdir(parents=True)
        self._session = XetSession()
        self._lock = threading.Lock()

    def add(self, repo: Path, oid: str, content: Path) -> None:
        """Store a large file for a repo, if it is not there."""
        from hf_xet import SKIP_SHA256

        if self.hash(repo, oid):
            return
        store = _store(repo)
        store.mkdir(parents=True, exist_ok=True)
        with self._lock:
            with self._session.new_upload_commit(**_access(store)) as commit:
                upload = commit.start_upload_file(str(content), sha256=SKIP_SHA256)
            _hash_file(repo, oid).write_text(upload.result().xet_info.hash)

    def hash(self, repo: Path, oid: str) -> str | None:
        """The Xet hash of a large file of a repo; None of one that is not stored so."""
        try:
            return _hash_file(repo, oid).read_text()
        except FileNotFoundError:
            return None

    def delete(self, repo: Path) -> None:
        """Delete all large files of a repo."""
        with self._lock:
            shutil.rmtree(_store(repo).parent, ignore_errors=True)

    def lend(self, repo: Path) -> Path | None:
        """A folder from which one client may download the large files of a repo; None if it has none."""
        _delete_old(self._downloads)
        if not _store(repo).exists():
            return None
        with self._lock:
            return _copy(_store(repo), self._downloads / secrets.token_hex(16))

    def receive(self, repo: str) -> Path:
        """An empty folder that a client may upload to."""
        _delete_old(self._uploads / repo)
        folder = self._uploads / repo / secrets.token_hex(16)
        folder.mkdir(parents=True)
        return folder

    def list_uploads(self, repo: str) -> list[UploadedFile]:
        """What clients uploaded for commits to a repo, newest first."""
        folders = [path for path in (self._uploads / repo).glob("*") if path.is_dir()]
        folders.sort(key=lambda path: path.stat().st_mtime, reverse=True)
        return [
            UploadedFile(folder, *found)
            for folder in folders
            for shard in folder.glob("xet/xorbs/shards/*.mdb")
            if shard.stat().st_size <= _LARGEST_SHARD
            for found in _read_shard(shard.read_bytes())
        ]

    def restore(self, file: UploadedFile, target: Path) -> bool:
        """Write an uploaded file to `target`; False if hf-xet cannot read it."""
        from hf_xet import XetFileInfo

        folder = self._downloads / secrets.token_hex(16)
        try:
            # The client may have its folder open still.
            _copy(file.folder, folder)
            with self._session.new_file_download_group(**_access(folder)) as group:
                group.start_download_file(XetFileInfo(file.hash, file.size), str(target))
        except (RuntimeError, OSError):
            target.unlink(missing_ok=True)
            return False
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        return True


def _store(repo: Path) -> Path:
    return repo / "hub-xet" / "store"


def _hash_file(repo: Path, oid: str) -> Path:
    return repo / "hub-xet" / oid


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


def _delete_old(folder: Path) -> None:
    """Delete folders that are too old to be in use."""
    for path in folder.glob("*"):
        with suppress(FileNotFoundError):
            if path.stat().st_mtime < time.time() - LIFETIME:
                shutil.rmtree(path, ignore_errors=True)


def _read_shard(shard: bytes) -> Iterator[tuple[str, str, int]]:
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
