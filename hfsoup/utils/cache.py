"""hfsoup's cache: folders whose names hold the hash of what they depend on and the hash of their content.

`hfsoup cache` lists and prunes it; the downloads of models and datasets are in huggingface_hub's cache.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hfsoup.utils.errors import SoupError, UsageError
from hfsoup.utils.hashing import hash_blake3, hash_bytes

if TYPE_CHECKING:
    from filelock import BaseFileLock

LIMIT = "50GB"
"""The size that the cache is pruned to unless `$HFSOUP_CACHE_LIMIT` or an option says another."""
UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
KINDS = {
    "images": "images of datasets as models take them",
    "copies": "near copies that two splits have in common",
    "columns": "labels and features of data files",
    "hashes": "sha256 of large files by their BLAKE3",
    "listings": "file lists of commits, for offline mode",
    "models": "tensor names of architectures",
    "merged": "adapters merged into their base",
    "converted": "pickled checkpoints as safetensors",
    "aligned": "ingredients aligned to the first one",
    "importance": "importance of weights, for fisher and regmean",
    "distilled": "distilled networks",
    "truncated": "soups as adapters",
    "rows": "tables of datasets, while they are read",
    "batches": "batch sizes that fit a device",
    "scores": "scores of candidates, so that a stopped bake goes on",
}
"""The parts of the cache, in words."""
MARGIN = 60
"""Seconds that the clocks of machines which share a cache may differ."""
USERS, PRUNING = "users", "pruning.lock"
_registered: dict[Path, BaseFileLock] = {}
_registering = threading.Lock()


def cache_root() -> Path:
    """hfsoup's own cache: `$HFSOUP_CACHE`, else `hfsoup` in the folder that `HF_HOME` names."""
    from huggingface_hub import constants

    return Path(os.environ.get("HFSOUP_CACHE") or Path(constants.HF_HOME) / "hfsoup")


def cached_folder(kind: str, key: str, build: Callable[[Path], object], *, fresh: bool = False) -> Path:
    """The folder that `build` fills, from the cache if it is there and undamaged.

    Its name is the key with the hash of its content, so that a damaged folder is noticed and made again. Of two
    processes that want the same folder one builds it, and what a killed one left is removed.

    Args:
        kind: the part of the cache.
        key: the hash of everything that the content depends on.
        build: fills an empty folder with files.
        fresh: build it again even if the cache has it.

    Raises:
        SoupError: it cannot be written.
    """
    from filelock import FileLock

    home = cache_root() / kind
    try:
        register_user()
        if not fresh and (found := _find_folder(home, key)):
            return found
        home.mkdir(parents=True, exist_ok=True)
        with FileLock(home / f".{key}.lock"):
            for left in home.glob(f".{key}-*.partial"):
                shutil.rmtree(left, ignore_errors=True)
            return (None if fresh else _find_folder(home, key)) or _build_folder(home, key, build)
    except OSError as error:
        raise make_write_error(home, error) from error


def make_write_error(home: Path, error: OSError) -> SoupError:
    """The error for a cache that cannot be written."""
    hint = "free some space (hfsoup cache), or set HFSOUP_CACHE to a folder on another disk"
    return SoupError(f"cannot write to the cache: {error.strerror}", where=str(home), hint=hint)


def _find_folder(home: Path, key: str) -> Path | None:
    """The undamaged folder of a key, which counts as used now; damaged ones are removed."""
    for made in sorted(home.glob(f"{key}-*")):
        if _hash_folder(made) == made.name.rpartition("-")[2]:
            mark_used(made)
            return made
        shutil.rmtree(made, ignore_errors=True)
    return None


def _build_folder(home: Path, key: str, build: Callable[[Path], object]) -> Path:
    """Fill a temporary folder, sync it, and rename it."""
    partial = Path(tempfile.mkdtemp(prefix=f".{key}-", suffix=".partial", dir=home))
    try:
        build(partial)
        for path in [*partial.iterdir(), partial]:
            sync_folder(path)
        target = home / f"{key}-{_hash_folder(partial)}"
        try:
            partial.rename(target)
        except OSError:
            # What was built afresh may be there already.
            if not target.is_dir():
                raise
        return target
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _hash_folder(folder: Path) -> str:
    """One hash over the names and bytes of a folder's files."""
    lines = "".join(f"{hash_blake3(path)}  {path.name}\n" for path in sorted(folder.iterdir()))
    return hash_bytes(lines.encode())


def sync_folder(path: Path) -> None:
    """Flush a file or folder to the disk; Windows cannot sync folders, and files only if open for writing."""
    windows = os.name == "nt"
    if windows and path.is_dir():
        return
    handle = os.open(path, os.O_RDWR if windows else os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def register_user() -> None:
    """Register this process as a user of the cache until it ends: what it uses from now on is not pruned.

    The register is a lock of the system, so a killed process leaves it too.
    """
    from filelock import FileLock

    root = cache_root()
    with _registering:
        if root in _registered:
            return
        home = root / USERS
        home.mkdir(parents=True, exist_ok=True)
        with FileLock(root / PRUNING), tempfile.NamedTemporaryFile(dir=home, suffix=".lock", delete=False) as file:
            lock = FileLock(file.name, thread_local=False)
            lock.acquire()
        _registered[root] = lock


def mark_used(path: Path) -> None:
    """Set the time of the last use of an entry to now; an entry that cannot be marked counts as old."""
    now = time.time()
    os.utime(path, (now, now))


@dataclass(frozen=True)
class CacheEntry:
    """Something in the cache that can be removed by itself: its files or folders, their bytes and when it was used."""

    kind: str
    paths: tuple[Path, ...]
    size: int
    used: float


def read_limit(given: str | None = None) -> int:
    """The bytes that the cache may have: `given`, `$HFSOUP_CACHE_LIMIT`, or else LIMIT.

    Raises:
        UsageError: it is no size.
    """
    text = given or os.environ.get("HFSOUP_CACHE_LIMIT") or LIMIT
    size = parse_size(text)
    if size is None:
        raise UsageError(f"expected a size as in 20GB or 0, found {text!r}", hint="--cache-limit 20GB")
    return size


def parse_size(text: str) -> int | None:
    """Bytes of a size as in `20GB`, `1.5 TB` or `0`, in decimal units; None if it is none."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?) ?([KMGT]?B)?", text.strip().upper())
    return int(float(found[1]) * UNITS[found[2] or ""]) if found else None


def list_entries() -> list[CacheEntry]:
    """Everything in the cache, the entry that was used last at the end."""
    root, found = cache_root(), list[CacheEntry]()
    for kind in KINDS:
        groups: dict[str, list[Path]] = {}
        for path in root.glob("scores.sqlite*") if kind == "scores" else (root / kind).glob("*"):
            groups.setdefault(_name_entry(kind, path), []).append(path)
        found += [_describe_entry(kind, paths) for paths in groups.values()]
    return sorted((entry for entry in found if entry.size), key=lambda entry: entry.used)


def _name_entry(kind: str, path: Path) -> str:
    """What files of one entry have in common: pixels and their record, a workspace and its lock, a folder and its."""
    if kind == "scores":
        return kind
    name = path.name.lstrip(".").partition(".")[0]
    return re.sub(
        r"-[^-]*$" if path.name.startswith(".") and path.suffix == ".partial" else r"-[0-9a-f]{64}$", "", name
    )


def _describe_entry(kind: str, paths: list[Path]) -> CacheEntry:
    # Other processes may remove files meanwhile; a lock says nothing of when its entry was used.
    stats = [found for path in paths if path.suffix != ".lock" for found in _iterate_stats(path)]
    used = max((found.st_mtime for found in stats), default=0.0)
    return CacheEntry(
        kind, tuple(sorted(paths)), sum(found.st_size for found in stats if stat.S_ISREG(found.st_mode)), used
    )


def _iterate_stats(path: Path) -> Iterator[os.stat_result]:
    for place in [path, *(path.rglob("*") if path.is_dir() and not path.is_symlink() else ())]:
        try:
            found = place.lstat()
        except OSError:
            continue
        if not place.is_dir() or place == path:
            yield found


def prune_cache(limit: int) -> list[CacheEntry]:
    """Remove what was used longest ago until the cache has at most `limit` bytes; what was removed.

    What a running process has used since it began stays.
    """
    from filelock import FileLock

    root, removed = cache_root(), []
    if not root.is_dir():
        return []
    with FileLock(root / PRUNING):
        begun, entries = _find_oldest_user(root), list_entries()
        left = sum(entry.size for entry in entries)
        for entry in entries:
            if left <= limit or entry.used >= begun - MARGIN:
                break
            # The record of prepared images goes first: pixels without it count as none.
            for path in sorted(entry.paths, key=lambda path: path.suffix != ".json"):
                _remove(path, locks=begun == float("inf"))
            left -= entry.size
            removed.append(entry)
        if begun == float("inf"):
            for path in (root / "locks").glob("*"):
                path.unlink(missing_ok=True)
    return removed


def _remove(path: Path, *, locks: bool) -> None:
    """Remove a file or folder; a lock only if no process may be about to take it."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    elif locks or path.suffix != ".lock":
        path.unlink(missing_ok=True)


def _find_oldest_user(root: Path) -> float:
    """When the oldest of the running processes that use the cache began; infinity where there is none."""
    from filelock import FileLock, Timeout

    begun = float("inf")
    for path in (root / USERS).glob("*.lock"):
        try:
            with FileLock(path, timeout=0):
                path.unlink(missing_ok=True)
        except Timeout:
            begun = min(begun, path.stat().st_mtime)
    return begun
