"""One file of a commit on the Hub, on this disk and as the Hub lists it."""

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
from hfsoup.utils.hashing import hash_blob, hash_file
from hfsoup.utils.text import quoted

Advance = Callable[[int], None]


@dataclass
class _Xet:
    """Until when files are not asked for by Xet, in seconds of `time.monotonic`: a moment ago the Hub gave no token for
    it, or it was silent."""

    silent_until: float = 0.0


XET = _Xet()
XET_PAUSE = 600.0
"""Seconds without Xet after that, so that not every file waits for it."""


def fetch_file(repo: str, file: RemoteFile, revision: str, *, kind: str, advance: Advance = lambda _: None) -> Path:
    """A file in huggingface_hub's cache, hashed even if it was there; one that is damaged goes, and is fetched again.

    What Xet does not deliver, or not as listed, is fetched by plain HTTP.

    Args:
        repo: the repository.
        file: its file as the commit lists it.
        revision: the commit.
        kind: model, dataset or space.
        advance: told of bytes as they arrive, and of the rest of the file's once it is there.

    Raises:
        HubError: the Hub refuses, or sends other bytes than it lists.
        SoupError: the copy on this disk is damaged and cannot be taken away.
    """
    where, listed = f"{repo}@{revision[:7]}, {quoted(file.name)}", file.sha256 or file.blob
    for again in (True, False):
        path, seen = _download(repo, file, revision, kind, where, advance, plain=not again)
        found = hash_file(path) if file.sha256 else hash_blob(path)
        if found == listed:
            advance(file.size - seen)
            return path
        advance(-seen)
        _remove_cached(path)
        if again:
            notify_listener(f"{where} on this disk is not the file that the Hub lists; it is fetched again")
    if not seen:
        hint = f"rm {shlex.quote(str(path.resolve()))}, then {SAME_COMMAND}"
        raise SoupError("the copy of this file in the cache is damaged and stays there", where=where, hint=hint)
    raise make_hash_error(found, file, where)


def make_hash_error(found: str, file: RemoteFile, where: str) -> HubError:
    """The error for a file of another hash than the Hub lists."""
    expected = file.sha256 or file.blob
    what = f"the file that arrives is not the one the Hub lists (hash {found[:12]}, expected {expected[:12]})"
    return HubError(what, where=where, hint=f"later, {SAME_COMMAND}")


@dataclass
class _Transfer:
    """What arrived of a file: bytes `seen`, and when the latest of them came by Xet (`at`, None before it begins)."""

    advance: Advance
    seen: int = 0
    at: float | None = None

    def count(self, size: int) -> None:
        """So many more bytes."""
        self.seen += size
        self.advance(size)
        if self.at is not None:
            self.at = time.monotonic()

    @property
    def overdue(self) -> bool:
        """Whether nothing came by Xet for too long."""
        from hfsoup.hub.retry import LIMITS

        return self.at is not None and time.monotonic() - self.at > LIMITS.silence

    def end(self) -> None:
        """Count nothing any more, and what was counted not either."""
        advance, self.advance = self.advance, lambda _: None
        advance(-self.seen)

    @property
    def bar(self) -> type[Any]:
        """What huggingface_hub takes for the class of a progress bar; it shows nothing, and only counts."""
        from huggingface_hub.utils.tqdm import tqdm

        class Bar(tqdm):
            def __init__(bar, *args: Any, **options: Any) -> None:  # noqa: N805 - self is the arrival
                if "bar_format" in options:  # hf-xet's bars have one of their own
                    self.at = time.monotonic()
                super().__init__(*args, **{**options, "disable": True})  # type: ignore[no-untyped-call]

            def update(bar, n: float | None = 1) -> None:  # noqa: N805
                self.count(int(n or 0))

            def update_transfer(bar, _: float | None = 1) -> None:  # noqa: N805
                """Bytes on the wire, ahead of those of the file; where this is, there is one bar and not two."""
                self.count(0)

            def set_transfer_postfix_str(bar, *_: object, **__: object) -> None:  # noqa: N805
                """How fast they come."""

        return Bar


def _download(
    repo: str, file: RemoteFile, revision: str, kind: str, where: str, advance: Advance, *, plain: bool
) -> tuple[Path, int]:
    """A file in huggingface_hub's cache, and how many of its bytes had to come for it."""
    from httpx2 import HTTPError
    from huggingface_hub import hf_hub_download

    def get(arrival: _Transfer) -> Path:
        return Path(hf_hub_download(repo, file.name, repo_type=kind, revision=revision, tqdm_class=arrival.bar))

    with expect_answer(where, listed=True):
        if not plain and time.monotonic() >= XET.silent_until:
            first = _Transfer(advance)
            try:
                return wait_unless_overdue(partial(get, first), lambda: first.overdue), first.seen
            except (HTTPError, RuntimeError, OSError, ValueError) as error:
                begun = first.at is not None
                if not is_xet_error(error, begun=begun):
                    raise
                stalled = isinstance(error, StalledError)
                notify_listener(
                    f"{where}: {'nothing arrives' if stalled else 'it does not arrive'} by Xet; once more by HTTP"
                )
            first.end()
            if stalled or not begun:
                XET.silent_until = time.monotonic() + XET_PAUSE
            if stalled:
                _remove_lock(repo, kind, file)
        last = _Transfer(advance)
        with disable_xet():
            return get(last), last.seen


def _remove_lock(repo: str, kind: str, file: RemoteFile) -> None:
    """Take away the lock that a download which was left to itself holds; cached files are safe without it."""
    from huggingface_hub import constants

    folder = Path(constants.HF_HUB_CACHE) / ".locks" / f"{kind}s--{repo.replace('/', '--')}"
    (folder / f"{file.sha256 or file.blob}.lock").unlink(missing_ok=True)


def _remove_cached(path: Path) -> None:
    """Take a file out of the cache: its name in the snapshot, and all that this links to inside the cache.

    A file that several repositories have is one blob, to which a blob of each is a link.
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
    """One file of a Hub repository as listed; `sha256` only where the Hub stores it as a large file."""

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
        raise HubError("offline mode is on, and the cache does not hold this file", where=where, hint=ONCE)
    with open(found, "rb") as file:
        file.seek(begin)
        return file.read(end - begin)
