"""hfsoup's cache: folders whose names hold the hash of what they depend on and the hash of their content."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from hfsoup.utils.errors import SoupError
from hfsoup.utils.hashing import hash_file


def cached_folder(kind: str, key: str, build: Callable[[Path], object], *, fresh: bool = False) -> Path:
    """The folder that `build` fills, from the cache if it is there and undamaged.

    Its name is the key with the hash of its content, so that a damaged folder is noticed and made again, and two
    processes that build at the same time make the same folder.

    Args:
        kind: the part of the cache.
        key: the hash of everything that the content depends on.
        build: fills an empty folder with files.
        fresh: build it again even if the cache has it.

    Raises:
        SoupError: it cannot be written.
    """
    home = cache_root() / kind
    for made in sorted(home.glob(f"{key}-*")):
        if _hash_folder(made) != made.name.rpartition("-")[2]:
            shutil.rmtree(made, ignore_errors=True)
        elif not fresh:
            return made
    partial = None
    try:
        home.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{key}-", suffix=".partial", dir=home))
        build(partial)
        for path in [*partial.iterdir(), partial]:
            sync_folder(path)
        target = home / f"{key}-{_hash_folder(partial)}"
        try:
            partial.rename(target)
        except OSError:
            # Another process may have made the same folder at the same time.
            if not target.is_dir():
                raise
        return target
    except OSError as error:
        what = f"cannot write to the cache: {error.strerror}"
        raise SoupError(
            what, where=str(home), hint="free some space, or set HFSOUP_CACHE to a folder on another disk"
        ) from error
    finally:
        if partial:
            shutil.rmtree(partial, ignore_errors=True)


def _hash_folder(folder: Path) -> str:
    """One hash over the names and bytes of a folder's files."""
    lines = "".join(f"{hash_file(path)}  {path.name}\n" for path in sorted(folder.iterdir()))
    return hashlib.sha256(lines.encode()).hexdigest()


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


def cache_root() -> Path:
    """hfsoup's own cache: `$HFSOUP_CACHE`, else `hfsoup` in the folder that `HF_HOME` names."""
    from huggingface_hub import constants

    return Path(os.environ.get("HFSOUP_CACHE") or Path(constants.HF_HOME) / "hfsoup")
