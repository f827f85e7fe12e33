"""Ranges of bytes of a file on the Hub, so that a header does not cost a whole file."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from hfsoup.hub.client import hub_api
from hfsoup.hub.offline import ONCE, is_offline
from hfsoup.utils.errors import HubError
from hfsoup.utils.text import quoted


def range_reader(repo: str, revision: str, name: str, *, kind: str = "model") -> Callable[[int, int], bytes]:
    """Reads ranges of bytes of a file on the Hub; offline, of the cached one."""
    from huggingface_hub import HfFileSystem

    if is_offline():
        return partial(_cached_range, repo, revision, name, kind)
    hub, prefix = hub_api(), "" if kind == "model" else f"{kind}s/"
    files = HfFileSystem(endpoint=hub.endpoint, token=hub.token)
    path = f"{prefix}{repo}@{revision}/{name}"
    return lambda begin, end: bytes(files.cat_file(path, start=begin, end=end, cache_type="none"))


def _cached_range(repo: str, revision: str, name: str, kind: str, begin: int, end: int) -> bytes:
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(repo, name, revision=revision, repo_type=kind)
    if not isinstance(found, str):
        where = f"{repo}@{revision[:7]}, {quoted(name)}"
        raise HubError("offline mode is on, and the cache does not hold this file", where=where, hint=ONCE)
    with open(found, "rb") as file:
        file.seek(begin)
        return file.read(end - begin)
