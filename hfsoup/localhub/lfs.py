"""Large files by their sha256: `DIR/lfs/aa/bb/<sha256>`, and in every repo a mark for each object that it has.

The store is shared, the marks are not: who knows a sha256 cannot read a file of a repo that is closed to them.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shutil
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import IO

from hfsoup.localhub.errors import HttpError
from hfsoup.localhub.xet import XetStore

CHUNK = 1 << 20
_OID = re.compile(r"[0-9a-f]{64}")
_POINTER = re.compile(
    rb"version https://git-lfs\.github\.com/spec/v1\n(?:ext-[^\n]*\n)*oid sha256:([0-9a-f]{64})\nsize (\d{1,18})\n?"
)


@dataclass(frozen=True)
class Pointer:
    """The fields of a pointer file: sha256, size in bytes, and the size of the pointer file itself."""

    oid: str
    size: int
    pointer_size: int


def make_pointer(oid: str, size: int) -> bytes:
    """The pointer file that git stores in place of a large one."""
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize {size}\n".encode()


def read_pointer(content: bytes) -> Pointer | None:
    """The pointer in these bytes, if they are one."""
    found = _POINTER.fullmatch(content)
    return Pointer(found[1].decode(), int(found[2]), len(content)) if found else None


def parse_oid(oid: object) -> str:
    """A sha256 in hex; HttpError 400 for anything else."""
    if not isinstance(oid, str) or not _OID.fullmatch(oid):
        raise HttpError(400, f"Invalid LFS oid: {oid!r}, expected 64 hexadecimal digits of a sha256")
    return oid


class LfsStore:
    """The large files of one Hub; `xet` stores them as hf-xet does, None where that is not installed."""

    def __init__(self, folder: Path) -> None:
        self._root = folder / "lfs"
        self._temp = self._root / "tmp"
        # What an earlier run left half-written is of no use: no client resumes an upload.
        shutil.rmtree(self._temp, ignore_errors=True)
        self._temp.mkdir(parents=True)
        self._lock, self._claiming = threading.Lock(), threading.Lock()
        self.xet = XetStore(folder) if find_spec("hf_xet") else None

    def path(self, oid: str) -> Path:
        """The path of an object, whether it exists or not."""
        return self._root / oid[:2] / oid[2:4] / oid

    def writer(self, oid: str, size: int) -> ObjectWriter:
        """Start receiving an object."""
        return ObjectWriter(self, self._temp / secrets.token_hex(16), oid, size)

    def part(self, upload: str, number: int) -> Path:
        """Where part `number` of a multipart upload waits for the others."""
        if not re.fullmatch(r"[0-9a-f]{32}", upload):
            raise HttpError(400, "Invalid upload id")
        folder = self._temp / f"parts-{upload}"
        folder.mkdir(exist_ok=True)
        return folder / f"{number:05d}"

    def join(self, upload: str, count: int, oid: str, size: int, repo: Path) -> None:
        """Put the parts of a multipart upload together, check them, and give the object to the repo."""
        parts = [self.part(upload, number) for number in range(1, count + 1)]
        missing = [part.name for part in parts if not part.exists()]
        if missing:
            raise HttpError(400, f"Upload incomplete: parts {', '.join(missing)} are missing")
        with self.writer(oid, size) as writer:
            for part in parts:
                with part.open("rb") as file:
                    while chunk := file.read(CHUNK):
                        writer.write(chunk)
            writer.finish(repo)
        shutil.rmtree(parts[0].parent, ignore_errors=True)

    def add(self, oid: str, repo: Path, received: Path | None = None) -> None:
        """Give a repo an object: a checked file, which is moved to its place, or one that another repo has."""
        target = self.path(oid)
        with self._lock:
            if not repo.exists():
                raise HttpError(404, f"Repository not found: {repo.stem}", code="RepoNotFound")
            if received:
                target.parent.mkdir(parents=True, exist_ok=True)
                received.replace(target)
            mark = _mark(repo, oid)
            mark.parent.mkdir(exist_ok=True)
            mark.touch()
        if self.xet:
            self.xet.add(repo, oid, target)

    def claim(self, oid: str, repo: Path, identifier: str) -> bool:
        """Take an object from the uploads to the repo by Xet; False if it is not among them."""
        if self.xet is None:
            return False
        # One commit at a time: a folder is deleted once its files are claimed, and another commit may read it.
        with self._claiming:
            return self.has(repo, oid) or self._claim(self.xet, oid, repo, identifier)

    def _claim(self, xet: XetStore, oid: str, repo: Path, identifier: str) -> bool:
        files = xet.list_uploads(identifier)
        candidates = [file for file in files if file.sha256 == oid]
        temporary = self._temp / secrets.token_hex(16)
        # Another client may be writing the same file to its folder.
        wanted = next((file for file in candidates if xet.restore(file, temporary)), None)
        if wanted is None:
            if candidates:
                raise HttpError(400, f"Expected content of sha256 {oid}, got what hf-xet cannot read")
            return False
        try:
            with self.writer(oid, wanted.size) as writer:
                for chunk in read_range(temporary, 0, wanted.size):
                    writer.write(chunk)
                writer.finish(repo)
        finally:
            temporary.unlink(missing_ok=True)
        if all(self.has(repo, file.sha256) for file in files if file.folder == wanted.folder):
            shutil.rmtree(wanted.folder, ignore_errors=True)
        return True

    def has(self, repo: Path, oid: str) -> bool:
        """Whether the repo at this place has the object, and it is still there."""
        return _mark(repo, oid).exists() and self.path(oid).exists()

    def size(self, oid: str) -> int:
        """Bytes of an object."""
        return self.path(oid).stat().st_size

    def used(self, repo: Path) -> int:
        """Bytes of the objects of a repo."""
        marks = repo / "hub-lfs"
        places = [self.path(mark.name) for mark in marks.iterdir()] if marks.is_dir() else []
        return sum(place.stat().st_size for place in places if place.exists())

    def drop(self, repo: Path, others: Iterable[Path], *, only: set[str] | None = None) -> None:
        """Take its objects (`only` these, if given) from a repo, and delete those that no other repo has."""
        marks = repo / "hub-lfs"
        with self._lock:
            places = list(others)
            for mark in list(marks.iterdir()) if marks.is_dir() else ():
                if only is not None and mark.name not in only:
                    continue
                mark.unlink()
                if not any(_mark(place, mark.name).exists() for place in places):
                    self.path(mark.name).unlink(missing_ok=True)
        if self.xet:
            # Files share chunks, so those that stay are stored again.
            self.xet.delete(repo)
            for mark in marks.iterdir() if marks.is_dir() else ():
                self.xet.add(repo, mark.name, self.path(mark.name))


class ObjectWriter:
    """Receives one object: hashes while writing, and puts it in place only if hash and size are right."""

    def __init__(self, store: LfsStore, temp: Path, oid: str, size: int) -> None:
        self._store, self._path, self._oid, self._size = store, temp, oid, size
        self._hash = hashlib.sha256()
        self._count = 0
        self._file: IO[bytes] = temp.open("xb")

    def __enter__(self) -> ObjectWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._path.unlink(missing_ok=True)

    def write(self, chunk: bytes) -> None:
        """Take the next bytes; HttpError 400 once there are more than announced."""
        self._count += len(chunk)
        if self._count > self._size:
            raise HttpError(400, f"Expected {self._size} bytes for {self._oid}, got more")
        self._hash.update(chunk)
        self._file.write(chunk)

    def finish(self, repo: Path) -> None:
        """Check the object and put it in its place."""
        if self._count != self._size:
            raise HttpError(400, f"Expected {self._size} bytes for {self._oid}, got {self._count}")
        if self._hash.hexdigest() != self._oid:
            raise HttpError(400, f"Expected content of sha256 {self._oid}, got {self._hash.hexdigest()}")
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._store.add(self._oid, repo, self._path)


def read_range(path: Path, start: int, stop: int) -> Iterator[bytes]:
    """The bytes `start:stop` of a file, in pieces."""
    with path.open("rb") as file:
        file.seek(start)
        left = stop - start
        while left > 0 and (chunk := file.read(min(CHUNK, left))):
            left -= len(chunk)
            yield chunk


def _mark(repo: Path, oid: str) -> Path:
    return repo / "hub-lfs" / oid
