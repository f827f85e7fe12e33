"""Downloads single files of a commit on the Hub, checked by the hash that the Hub lists, and reads parts of them."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from hfsoup.hub.client import (
    ONCE,
    SAME_COMMAND,
    StalledError,
    disable_xet,
    expect_answer,
    hub_api,
    is_offline,
    is_xet_error,
    wait_unless_overdue,
)
from hfsoup.hub.notices import notify_listener
from hfsoup.utils.errors import HubError, SoupError
from hfsoup.utils.hashing import hash_blob
from hfsoup.utils.known_hashes import find_hashes
from hfsoup.utils.progress import Advance
from hfsoup.utils.text import quoted


@dataclass
class _Xet:
    """Until when Xet is not used, in seconds of `time.monotonic`: the Hub gave no token for it, or it stalled."""

    silent_until: float = 0.0


XET = _Xet()
XET_PAUSE = 600.0
"""Seconds without Xet after a failure, so that not every file waits for it."""


@dataclass(frozen=True)
class FetchedFile:
    """A file in huggingface_hub's cache, with its BLAKE3 if it was computed."""

    path: Path
    blake3: str | None


def fetch_file(repo: str, file: RemoteFile, revision: str, *, kind: str, advance: Advance = lambda _: None) -> Path:
    """The path of `fetch_hashed_file`."""
    return fetch_hashed_file(repo, file, revision, kind=kind, advance=advance).path


def fetch_hashed_file(
    repo: str, file: RemoteFile, revision: str, *, kind: str, advance: Advance = lambda _: None
) -> FetchedFile:
    """A file in huggingface_hub's cache, downloaded if needed, with the hash that the Hub lists.

    A large file is compared by sha256 when it arrives, and from then on by the BLAKE3 that those bytes have. A damaged
    copy is deleted and downloaded again. What fails by Xet is downloaded by plain HTTP.

    Args:
        repo: the repository.
        file: its file as the commit lists it.
        revision: the commit.
        kind: model, dataset or space.
        advance: called with numbers of bytes as they arrive; their sum is the size of the file.

    Raises:
        HubError: the Hub refuses, or the file does not have the listed hash.
        SoupError: the cached copy is damaged and cannot be deleted.
    """
    where, listed = f"{repo}@{revision[:7]}, {quoted(file.name)}", file.sha256 or file.blob
    for first in (True, False):
        path, received = _download(repo, file, revision, kind, where, advance, plain=not first)
        blake3, found = find_hashes(path) if file.sha256 else (None, hash_blob(path))
        if found == listed:
            advance(file.size - received)
            return FetchedFile(path, blake3)
        advance(-received)
        _remove_cached(path)
        if first:
            notify_listener(f"the cached copy of {where} is not the file that the Hub lists; downloading it again")
    if not received:
        hint = f"rm {shlex.quote(str(path.resolve()))}, then {SAME_COMMAND}"
        raise SoupError("the cached copy of this file is damaged and cannot be deleted", where=where, hint=hint)
    raise make_hash_error(found, file, where)


def make_hash_error(found: str, file: RemoteFile, where: str) -> HubError:
    """The error for a file that does not have the hash that the Hub lists."""
    expected = file.sha256 or file.blob
    what = f"the downloaded file is not the one the Hub lists (expected hash {expected[:12]}, found {found[:12]})"
    return HubError(what, where=where, hint=f"later, {SAME_COMMAND}")


@dataclass
class _Transfer:
    """One download: bytes received, and when the last of them came by Xet (None before Xet begins)."""

    advance: Advance
    received: int = 0
    last_at: float | None = None

    def count(self, size: int) -> None:
        """Count received bytes."""
        self.received += size
        self.advance(size)
        if self.last_at is not None:
            self.last_at = time.monotonic()

    @property
    def overdue(self) -> bool:
        """Whether no byte came by Xet for too long."""
        from hfsoup.hub.retry import LIMITS

        return self.last_at is not None and time.monotonic() - self.last_at > LIMITS.silence

    def end(self) -> None:
        """Take back what was counted, and count no more."""
        advance, self.advance = self.advance, lambda _: None
        advance(-self.received)

    @property
    def bar(self) -> type[Any]:
        """A progress bar class for huggingface_hub that counts bytes and shows nothing."""
        from huggingface_hub.utils.tqdm import tqdm

        class Bar(tqdm):
            def __init__(bar, *args: Any, **options: Any) -> None:  # noqa: N805 - self is the transfer
                if "bar_format" in options:  # only bars of hf-xet have it
                    self.last_at = time.monotonic()
                super().__init__(*args, **{**options, "disable": True})  # type: ignore[no-untyped-call]

            def update(bar, n: float | None = 1) -> None:  # noqa: N805
                self.count(int(n or 0))

            def update_transfer(bar, _: float | None = 1) -> None:  # noqa: N805
                """Note bytes on the wire; hf-xet calls this if it exists, and otherwise makes a second bar."""
                self.count(0)

            def set_transfer_postfix_str(bar, *_: object, **__: object) -> None:  # noqa: N805
                """Ignore the speed."""

        return Bar


def _download(
    repo: str, file: RemoteFile, revision: str, kind: str, where: str, advance: Advance, *, plain: bool
) -> tuple[Path, int]:
    """A file in huggingface_hub's cache, and how many bytes were downloaded for it."""
    from httpx2 import HTTPError
    from huggingface_hub import hf_hub_download

    def get(transfer: _Transfer) -> Path:
        return Path(hf_hub_download(repo, file.name, repo_type=kind, revision=revision, tqdm_class=transfer.bar))

    with expect_answer(where, listed=True):
        if not plain and time.monotonic() >= XET.silent_until:
            first = _Transfer(advance)
            try:
                return wait_unless_overdue(partial(get, first), lambda: first.overdue), first.received
            except (HTTPError, RuntimeError, OSError, ValueError) as error:
                begun = first.last_at is not None
                if not is_xet_error(error, begun=begun):
                    raise
                stalled = isinstance(error, StalledError)
                problem = "no data arrives by Xet" if stalled else "the download by Xet failed"
                notify_listener(f"{where}: {problem}; retrying by HTTP")
            first.end()
            if stalled or not begun:
                XET.silent_until = time.monotonic() + XET_PAUSE
            if stalled:
                _remove_lock(repo, kind, file)
        last = _Transfer(advance)
        with disable_xet():
            return get(last), last.received


def _remove_lock(repo: str, kind: str, file: RemoteFile) -> None:
    """Delete the lock of an abandoned download; cached files are safe without it."""
    from huggingface_hub import constants

    folder = Path(constants.HF_HUB_CACHE) / ".locks" / f"{kind}s--{repo.replace('/', '--')}"
    (folder / f"{file.sha256 or file.blob}.lock").unlink(missing_ok=True)


def _remove_cached(path: Path) -> None:
    """Delete a file of a snapshot from the cache, with all links and blobs that it leads to inside the cache.

    A file of several repositories is one blob, to which the blob of each repository links.
    """
    from huggingface_hub import constants

    cache = Path(constants.HF_HUB_CACHE).resolve()
    chain = [path]
    while chain[-1].is_symlink() and len(chain) < 8:
        chain.append(chain[-1].parent / chain[-1].readlink())
    for link in (part for part in chain if part.parent.resolve().is_relative_to(cache)):
        link.unlink(missing_ok=True)


@dataclass(frozen=True)
class RemoteFile:
    """One file of a Hub repository as listed; large files have a `sha256`, small ones a git object id (`blob`)."""

    name: str
    size: int
    sha256: str | None
    blob: str


def is_cached(repo: str, file: RemoteFile, revision: str | None, kind: str = "model") -> bool:
    """Whether huggingface_hub's cache holds a file of a commit."""
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(repo, file.name, revision=revision, repo_type=kind), str)


def open_range_reader(repo: str, revision: str, name: str, *, kind: str = "model") -> Callable[[int, int], bytes]:
    """A function that reads bytes `begin` to `end` of a file on the Hub; in offline mode, of the cached file."""
    from huggingface_hub import HfFileSystem

    if is_offline():
        return partial(_read_cached_range, repo, revision, name, kind)
    hub, prefix = hub_api(), "" if kind == "model" else f"{kind}s/"
    files = HfFileSystem(endpoint=hub.endpoint, token=hub.token)
    path = f"{prefix}{repo}@{revision}/{name}"
    return lambda begin, end: bytes(files.cat_file(path, start=begin, end=end, cache_type="none"))


def _read_cached_range(repo: str, revision: str, name: str, kind: str, begin: int, end: int) -> bytes:
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(repo, name, revision=revision, repo_type=kind)
    if not isinstance(found, str):
        where = f"{repo}@{revision[:7]}, {quoted(name)}"
        raise HubError("offline mode is on, and this file is not cached", where=where, hint=ONCE)
    with open(found, "rb") as file:
        file.seek(begin)
        return file.read(end - begin)
