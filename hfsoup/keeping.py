"""Safetensors files that are derived from others and kept in hfsoup's cache under their own sha256."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from hfsoup.errors import SoupError
from hfsoup.hashing import file_hash


def keep(folder: Path, key: str, write: Callable[[Path, BinaryIO], None], *, fresh: bool = False) -> Path:
    """The file that is known by `key`, made by `write` unless it is there already.

    The file's own sha256 stands in its name beside the key, so that one that was damaged since is made again; two
    processes that write at once write the same bytes under the same name.

    Args:
        folder: where such files are.
        key: what the content is derived from, without wildcards.
        write: fills a file, given its path and its handle.
        fresh: make it again whatever is there.

    Raises:
        SoupError: the disk does not take it.
    """
    for made in () if fresh else sorted(folder.glob(f"{key}-*.safetensors")):
        if file_hash(made) == made.stem.rpartition("-")[2]:
            return made
        made.unlink(missing_ok=True)
    partial = None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{key}-", suffix=".partial", dir=folder)
        partial = Path(name)
        with os.fdopen(handle, "r+b") as file:
            write(partial, file)
            file.flush()
            os.fsync(file.fileno())
        return partial.rename(folder / f"{key}-{file_hash(partial)}.safetensors")
    except OSError as error:
        what = f"the checkpoint could not be converted: {error.strerror}"
        raise SoupError(what, where=str(folder), hint="free some space, or set HFSOUP_CACHE to another disk") from error
    finally:
        if partial:
            partial.unlink(missing_ok=True)
