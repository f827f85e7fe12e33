"""Commits of repositories in the caches, for offline mode (`HF_HUB_OFFLINE=1`)."""

from __future__ import annotations

import json
import re
from dataclasses import astuple
from pathlib import Path

from hfsoup.hub.client import ONCE, is_offline
from hfsoup.hub.download import RemoteFile
from hfsoup.hub.notices import notify_listener
from hfsoup.utils.cache import cache_root
from hfsoup.utils.errors import HubError
from hfsoup.utils.hashing import hash_blob, read_sealed, write_sealed
from hfsoup.utils.text import join_names

_COMMIT, _SHA256 = re.compile(r"[0-9a-f]{40}"), re.compile(r"[0-9a-f]{64}")


def store_listing(repo: str, commit: str, files: tuple[RemoteFile, ...], *, kind: str) -> None:
    """Cache the Hub's listing of a commit: a bake looks at the names of files that it does not download."""
    path = _locate_listings(repo, kind) / f"{commit}.json"
    if _COMMIT.fullmatch(commit) and not is_offline() and read_sealed(path) is None:
        write_sealed(path, json.dumps([astuple(file) for file in files]))


def _locate_listings(repo: str, kind: str) -> Path:
    return cache_root() / "listings" / f"{kind}s--{repo.replace('/', '--')}"


def find_cached_commit(repo: str, revision: str | None, *, kind: str) -> tuple[str, tuple[RemoteFile, ...]]:
    """A cached commit of a repository and its files: the cached listing, or else, with a notice, the cached files.

    huggingface_hub's cache names each file by the hash that the Hub listed, so files can still be checked.

    Args:
        repo: the repository.
        revision: a commit, or a branch or tag that was cached with its commit; None for main.
        kind: model, dataset or space.

    Raises:
        HubError: it is not cached; the error names a commit that is.
    """
    from huggingface_hub import constants
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    validate_repo_id(repo)
    folder = Path(constants.HF_HUB_CACHE) / f"{kind}s--{repo.replace('/', '--')}"
    paths = [*(folder / "snapshots").glob("*"), *_locate_listings(repo, kind).glob("*.json")]
    known = sorted({path.stem for path in paths if _COMMIT.fullmatch(path.stem)})
    wanted = revision or constants.DEFAULT_REVISION
    branch = folder / "refs" / wanted
    if ".." not in wanted.split("/") and branch.is_file():
        commit = branch.read_text().strip()
    else:
        commit = next((name for name in known if len(wanted) >= 7 and name.startswith(wanted)), "")
    if commit not in known:
        where = f"{repo}@{revision}" if revision else repo
        hint = f"{repo}@{known[-1]}, which is cached, or {ONCE}" if known else f"{ONCE}, or a local folder as ./NAME"
        raise HubError("offline mode is on, and this is not cached", where=where, hint=hint)
    if (text := read_sealed(_locate_listings(repo, kind) / f"{commit}.json")) is not None:
        return commit, tuple(RemoteFile(*fields) for fields in json.loads(text))
    snapshot = folder / "snapshots" / commit
    files = {p.relative_to(snapshot).as_posix(): p for p in sorted(snapshot.rglob("*")) if p.is_file()}
    notify_listener(
        f"offline mode is on, and {repo}@{commit[:7]} was cached without its listing: the cached files "
        f"({join_names(list(files), 6)}) are taken as all of its files"
    )
    return commit, tuple(_describe_cached(path, name) for name, path in files.items())


def _describe_cached(path: Path, name: str) -> RemoteFile:
    """A file of a snapshot, which usually links to a blob named by its hash."""
    tag, size = path.readlink().name if path.is_symlink() else "", path.stat().st_size
    if _SHA256.fullmatch(tag):
        return RemoteFile(name, size, tag, "")
    return RemoteFile(name, size, None, tag if _COMMIT.fullmatch(tag) else hash_blob(path))
