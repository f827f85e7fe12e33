"""The data files of a dataset: of one commit on the Hub, downloaded when needed, or of a folder; each hashed first."""

from __future__ import annotations

import io
import os
import shutil
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from hfsoup.data.heads import HEAD, cut_head, cut_parquet, hollow_archive
from hfsoup.hub.cards import parse_yaml_mapping, read_front_matter
from hfsoup.hub.client import expect_answer, hub_api, is_offline
from hfsoup.hub.download import RemoteFile, fetch_file, make_hash_error, open_range_reader
from hfsoup.hub.offline import find_cached_commit, store_listing
from hfsoup.utils.errors import HubError, SoupError
from hfsoup.utils.hashing import hash_blob, hash_file, stamp_file
from hfsoup.utils.known_hashes import find_sha256
from hfsoup.utils.text import one_line, quoted
from hfsoup.utils.threads import map_in_threads

T = TypeVar("T")
CARDS = ("README.md", ".huggingface.yaml", "dataset_infos.json")
SMALL = 8 << 20
"""Bytes of the largest card, and of the largest file that is read without the cache."""
MAX_VALUES = 500_000
"""Values of the YAML in a dataset's card, which may name many thousand classes and configurations."""
# Images hardly shrink in an archive, so one that grows beyond this is a zip bomb.
ZIP_GROWTH, ZIP_FLOOR = 50, 64 << 20


class TooLargeError(SoupError):
    """A file is too large to be read without the cache, and has no head that can be read alone."""


@dataclass
class Files:
    """The files of a dataset below `folder`; `fetched` maps the names of those in use to their sha256.

    For the Hub, `folder` has an empty placeholder for every file of the commit, so that datasets sees the names. A file
    gets its content when it is fetched, compared with the hash that the commit lists. Without `to_cache`, small files
    are written into their placeholders only; of large ones and archives the `heads`, where they can be cut; others are
    refused.
    """

    folder: Path
    repo: str = ""
    revision: str | None = None
    listing: dict[str, RemoteFile] = field(default_factory=dict)
    to_cache: bool = True
    fetched: dict[str, str] = field(default_factory=dict)
    heads: set[str] = field(default_factory=set)
    _stamps: dict[str, tuple[int, ...]] = field(default_factory=dict)

    @classmethod
    def of_repo(cls, repo: str, revision: str | None, folder: Path, *, to_cache: bool = True) -> Files:
        """The files of a dataset repository at the commit that `revision`, or the head, is now."""
        with expect_answer(repo, kind="dataset"):
            sha, found = (
                find_cached_commit(repo, revision, kind="dataset") if is_offline() else _list_commit(repo, revision)
            )
        listing = {file.name: file for file in found}
        for name in listing:
            _require_inside(name, repo)
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        if to_cache:
            store_listing(repo, sha, found, kind="dataset")
        return cls(folder, repo, sha, listing, to_cache)

    def __contains__(self, name: str) -> bool:
        return name in self.listing if self.revision else (self.folder / name).is_file()

    def fetch(self, names: Iterable[str]) -> None:
        """Download and hash some files, eight at a time."""
        wanted = [name for name in dict.fromkeys(names) if name not in self.fetched]
        for name in wanted:
            _require_inside(name, self.repo or str(self.folder))
        self.fetched.update(zip(wanted, map_in_threads(self._fetch, wanted), strict=True))
        for name in wanted:
            if name.endswith(".zip"):
                _require_bounded_archive(self.folder / name, f"{self.repo or self.folder}, {quoted(name)}")

    def _fetch(self, name: str) -> str:
        path = self.folder / name
        if self.revision and not self.to_cache:
            self._write_small(path, name)
        elif self.revision:
            fetched = fetch_file(self.repo, self.listing[name], self.revision, kind="dataset")
            path.unlink()
            try:
                path.symlink_to(fetched.resolve())
            except OSError:
                # Windows lets only some users make links.
                shutil.copyfile(fetched, path)
        self._stamps[name] = stamp_file(path)
        return find_sha256(path) if self.to_cache else hash_file(path)

    def _write_small(self, path: Path, name: str) -> None:
        """Download a small file past huggingface_hub's cache and compare its hash, or the head of a large one."""
        file, where = self.listing[name], f"{self.repo}, {quoted(name)}"
        if file.size > SMALL or name.endswith(".zip"):
            self.write_head(name, path)
            return
        with expect_answer(where):
            read = open_range_reader(self.repo, self.revision or "", name, kind="dataset")
            path.write_bytes(read(0, file.size) if file.size else b"")
        found = hash_file(path) if file.sha256 else hash_blob(path)
        if found != (file.sha256 or file.blob):
            raise make_hash_error(found, file, where)

    def write_head(self, name: str, path: Path) -> None:
        """Write the head of a file, which is one of the same kind, to `path`.

        Raises:
            TooLargeError: it has no head that can be read alone.
        """
        where, source = f"{self.repo or self.folder}, {quoted(name)}", self.open_ranges(name)
        if name.endswith(".zip"):
            head = _convert_zip_errors(partial(hollow_archive, source), where)
        elif name.endswith(".parquet"):
            head = cut_parquet(source)
        elif isinstance(source, str):
            with open(source, "rb") as file:
                head = cut_head(name, file.read(HEAD))
        else:
            head = cut_head(name, source.read(HEAD))
        if head is None:
            raise TooLargeError(f"expected at most {SMALL:,} bytes, found {self.size(name):,}", where=where)
        path.write_bytes(head)
        self.heads.add(name)

    def find_sha256(self, name: str) -> str:
        """The sha256 of a file: what the Hub lists, else that of its bytes, for which it is fetched."""
        listed = self.listing[name].sha256 if self.revision else None
        if name not in self.fetched and listed is None:
            self.fetch([name])
        return self.fetched.get(name) or str(listed)

    def size(self, name: str) -> int:
        """Bytes of a file."""
        return self.listing[name].size if self.revision else (self.folder / name).stat().st_size

    def open_ranges(self, name: str) -> Any:
        """What pyarrow opens to read a file's footer and columns: its path, or ranges of its bytes on the Hub.

        Bytes of a file that was not fetched are not hashed: rows may be chosen by them, and are compared before use.
        """
        if not self.revision or name in self.fetched:
            return str(self.folder / name)
        from huggingface_hub import try_to_load_from_cache

        found = try_to_load_from_cache(self.repo, name, revision=self.revision, repo_type="dataset")
        if isinstance(found, str):
            return found
        read = open_range_reader(self.repo, self.revision, name, kind="dataset")
        return Ranges(f"{self.repo}, {quoted(name)}", read, self.size(name))

    def find_name(self, path: str | Path) -> str:
        """The name of a file that datasets found.

        Raises:
            SoupError: it is outside the folder.
        """
        name = Path(os.path.relpath(path, self.folder)).as_posix()
        _require_inside(name, self.repo or str(self.folder))
        return name

    def require_unchanged(self) -> None:
        """Refuse files that were written to since they were hashed."""
        for name, before in self._stamps.items():
            if stamp_file(self.folder / name) != before:
                raise SoupError(
                    f"{quoted(name)} changed while it was read", where=str(self.folder), hint="the same command again"
                )

    def fetch_cards(self) -> None:
        """Fetch the dataset's cards, whose YAML says what datasets loads, and refuse files outside the dataset."""
        cards = [name for name in CARDS if name in self]
        for name in cards:
            if (size := self.size(name)) > SMALL:
                where = f"{self.repo or self.folder}, {name}"
                raise SoupError(f"expected at most {SMALL:,} bytes, found {size:,}", where=where)
        self.fetch(cards)
        for name in cards:
            if not name.endswith(".json"):
                require_own_files(self.folder / name, f"{self.repo or self.folder}, {name}")


class Ranges(io.RawIOBase):
    """A file on the Hub that is read by ranges.

    Args:
        where: repository and file, for errors.
        read: returns the bytes from one offset up to another.
        size: its bytes.
    """

    def __init__(self, where: str, read: Callable[[int, int], bytes], size: int) -> None:
        self._where, self._size, self._at, self._read = where, size, 0, read

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def tell(self) -> int:
        """The offset of the next byte."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to an offset from the start, from here or from the end."""
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def read(self, size: int = -1) -> bytes:
        """The next `size` bytes, or all of the rest."""
        end = self._size if size < 0 else min(self._at + size, self._size)
        if end <= self._at:
            return b""
        with expect_answer(self._where, listed=True):
            found = self._read(self._at, end)
        self._at += len(found)
        return found

    def size(self) -> int:
        """Bytes of the file."""
        return self._size


def require_own_files(card: Path, where: str) -> None:
    """Refuse a card whose configurations name files outside the dataset, on this disk or on another machine."""
    text = card.read_text("utf-8", "replace")
    try:
        parse = read_front_matter if card.suffix == ".md" else parse_yaml_mapping
        configs = parse(text, MAX_VALUES).get("configs")
    except ValueError as error:
        raise SoupError(str(error), where=where) from error
    for value in _iterate_strings(configs):
        if "://" in value or "::" in value or value.startswith("/") or ".." in PurePosixPath(value).parts:
            raise SoupError(f"expected data files within the dataset, found {quoted(value)}", where=where)


def _list_commit(repo: str, revision: str | None) -> tuple[str, tuple[RemoteFile, ...]]:
    """The commit of a dataset repository and its files."""
    sha = hub_api().dataset_info(repo, revision=revision).sha
    if sha is None:
        raise HubError("the Hub names no commit", where=repo)
    found = hub_api().list_repo_tree(repo, repo_type="dataset", revision=sha, recursive=True)
    return sha, tuple(file for file in map(_to_remote_file, found) if file)


def _to_remote_file(entry: Any) -> RemoteFile | None:
    """A file of a listing; None for a folder."""
    if not hasattr(entry, "size"):
        return None
    return RemoteFile(entry.path, entry.size, entry.lfs.sha256 if entry.lfs else None, entry.blob_id)


def _require_inside(name: str, where: str) -> None:
    """Refuse a name that leads out of the folder."""
    parts = name.split("/")
    if "\\" in name or "\0" in name or not all(parts) or {".", ".."} & set(parts) or ":" in parts[0]:
        raise SoupError(f"expected a file of the dataset, found {quoted(name)}", where=where)


def _iterate_strings(value: Any, depth: int = 0) -> Iterator[str]:
    """Every text within YAML values, to the depth that datasets reads."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, (dict, list)) and depth < 6:
        for part in value.values() if isinstance(value, dict) else value:
            yield from _iterate_strings(part, depth + 1)


def _convert_zip_errors(act: Callable[[], T], where: str) -> T:
    """What `act` reads of a zip file, or an error that names the file."""
    try:
        return act()
    except (zipfile.BadZipFile, NotImplementedError, ValueError, RuntimeError, EOFError) as error:
        raise SoupError(f"this archive cannot be read: {one_line(error)}", where=where) from error


def _require_bounded_archive(path: Path, where: str) -> None:
    """Refuse a zip file that would be far larger unpacked."""

    def measure() -> int:
        with zipfile.ZipFile(path) as archive:
            return sum(info.file_size for info in archive.infolist())

    size = _convert_zip_errors(measure, where)
    if size > ZIP_FLOOR + ZIP_GROWTH * path.stat().st_size:
        raise SoupError(f"expected an archive of images, found one that unpacks to {size:,} bytes", where=where)
