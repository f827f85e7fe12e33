"""One file of a commit on the Hub, on this disk and as the Hub lists it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hfsoup.errors import HubError
from hfsoup.hashing import blob_hash, file_hash
from hfsoup.hub import AGAIN, answers
from hfsoup.names import shown
from hfsoup.types import RemoteFile
from hfsoup.waits import tell

Advance = Callable[[int], None]


def fetch(repo: str, file: RemoteFile, revision: str, *, kind: str, advance: Advance = lambda _: None) -> Path:
    """A file in huggingface_hub's cache, hashed even if it was there; one that is damaged goes, and is fetched again.

    Args:
        repo: the repository.
        file: its file as the commit lists it.
        revision: the commit.
        kind: model, dataset or space.
        advance: told of bytes as they arrive, and of the rest of the file's once it is there.

    Raises:
        HubError: the Hub refuses, or sends other bytes than it lists.
    """
    where, listed = f"{repo}@{revision[:7]}, {shown(file.name)}", file.sha256 or file.blob
    for again in (True, False):
        counter = _Counter(advance)
        path = _download(repo, file, revision, kind, where, counter)
        found = file_hash(path) if file.sha256 else blob_hash(path)
        if found == listed:
            advance(file.size - counter.seen)
            return path
        advance(-counter.seen)
        _drop(path)
        if again:
            tell(f"{where} on this disk is not the file that the Hub lists; it is fetched again")
    what = f"the file that arrives is not the one the Hub lists (hash {found[:12]}, expected {listed[:12]})"
    raise HubError(what, where=where, hint=f"later, {AGAIN}")


def _download(repo: str, file: RemoteFile, revision: str, kind: str, where: str, counter: _Counter) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.utils.tqdm import disable_progress_bars

    disable_progress_bars()
    with answers(where, listed=True):
        bar: Any = counter.opened
        return Path(hf_hub_download(repo, file.name, repo_type=kind, revision=revision, tqdm_class=bar))


class _Counter:
    """What huggingface_hub takes for a bar, and only counts."""

    def __init__(self, advance: Advance) -> None:
        self._advance, self.seen = advance, 0

    def opened(self, **_: object) -> _Counter:
        """Itself, where a bar would be made."""
        return self

    def update(self, count: float | None) -> None:
        """So many more bytes."""
        self.seen += int(count or 0)
        self._advance(int(count or 0))

    def __enter__(self) -> _Counter:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing to close."""


def _drop(path: Path) -> None:
    """Take a file out of the cache: its name in the snapshot, and the blob that this is a link to."""
    blob = Path(os.path.normpath(path.parent / path.readlink())) if path.is_symlink() else path
    path.unlink(missing_ok=True)
    if blob.parent.name == "blobs":
        blob.unlink(missing_ok=True)
