"""The repos of one Hub, bare git repositories `DIR/repos/<kind>/<ns>/<name>.git` with a hub.json each; collections."""

from __future__ import annotations

import secrets
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pygit2
from pygit2.enums import FileMode, RepositoryInitFlag

from hfsoup.localhub.errors import HttpError, MovedError
from hfsoup.localhub.json_files import read_json, write_json
from hfsoup.localhub.names import KINDS, RepoName, parse_repo_name

MAIN = "refs/heads/main"
Collection = dict[str, Any]


@dataclass
class Meta:
    """What a repo knows beside its refs: the content of its hub.json."""

    created: str
    identifier: str = field(default_factory=lambda: secrets.token_hex(12))
    visibility: str = "public"
    gated: str | bool = False
    access: list[dict[str, Any]] = field(default_factory=list)
    disabled: bool = False
    sdk: str | None = None
    discussions: list[dict[str, Any]] = field(default_factory=list)

    def grant_access(self, user: str) -> None:
        """Let a user read the files of a gated repo; HttpError 409 if they may already."""
        found = next((item for item in self.access if item["user"] == user), None)
        if found is None:
            found = {"id": secrets.token_hex(12), "user": user, "timestamp": timestamp()}
            self.access.append(found)
        elif found["status"] == "accepted":
            raise HttpError(409, f"{user} has access already")
        found["status"] = "accepted"


@dataclass(frozen=True)
class Repo:
    """A repo opened for one request."""

    name: RepoName
    path: Path
    meta: Meta
    git: pygit2.Repository


class Store:
    """All repos below one folder."""

    def __init__(self, folder: Path) -> None:
        self._root = folder / "repos"
        self._temp = folder / "tmp"
        self._moves = folder / "moved.json"
        self._collections = folder / "collections.json"
        shutil.rmtree(self._temp, ignore_errors=True)
        self._temp.mkdir(parents=True)
        self._root.mkdir(exist_ok=True)
        self._locks: dict[str, threading.RLock] = {}
        self.move_lock = threading.Lock()
        """Held, it keeps every repo in its place."""

    def path(self, name: RepoName) -> Path:
        """The path of a repo, whether it exists or not."""
        return self._root / name.kind / f"{name.id}.git"

    def lock(self, name: RepoName) -> threading.RLock:
        """The lock under which refs and hub.json of this repo change."""
        with self.move_lock:
            return self._locks.setdefault(name.key, threading.RLock())

    def open(self, name: RepoName) -> Repo | None:
        """The repo, whatever the case of its name; None if there is none; MovedError if it was renamed."""
        path = self.path(name)
        known = read_json(path / "hub.json", None)
        if known is None:
            new = self._moved().get(name.key)
            if new is not None:
                raise MovedError(name.id, new)
            spelled = self.find_spelling(name)
            return self.open(spelled) if spelled and spelled != name else None
        meta = Meta(**{key: known[key] for key in known if key in Meta.__dataclass_fields__})
        return Repo(name, path, meta, pygit2.Repository(str(path)))

    def find_spelling(self, name: RepoName) -> RepoName | None:
        """The name of a repo here that differs from this one in case at most."""
        return next((known for known in self.names(name.kind) if known.id.lower() == name.id.lower()), None)

    def save(self, repo: Repo) -> None:
        """Write a repo's hub.json; hold its lock from before it was opened."""
        write_json(repo.path / "hub.json", asdict(repo.meta))

    def names(self, kind: str) -> Iterator[RepoName]:
        """All repos of a kind, in order of their names."""
        for path in sorted(self._root.glob(f"{kind}/*/*.git")):
            yield RepoName(kind, f"{path.parent.name}/{path.name.removesuffix('.git')}")

    def paths(self) -> Iterator[Path]:
        """The paths of the repos of all kinds."""
        for kind in KINDS:
            yield from (self.path(name) for name in self.names(kind))

    def create(self, name: RepoName, meta: Meta, author: str, files: dict[str, bytes]) -> bool:
        """Make a repo with a first commit of these files; False if the name is taken."""
        fresh = self._temp / secrets.token_hex(8)
        _init(fresh, files, author)
        return self._place(name, meta, fresh)

    def duplicate(self, repo: Repo, name: RepoName, meta: Meta) -> bool:
        """Make a copy of a repo, without its pull requests; False if the name is taken."""
        fresh = self._temp / secrets.token_hex(8)
        with self.lock(repo.name):
            shutil.copytree(repo.path, fresh)
        copied = pygit2.Repository(str(fresh)).references
        for ref in [ref for ref in copied if ref.startswith("refs/pr/")]:
            copied.delete(ref)
        return self._place(name, meta, fresh)

    def _place(self, name: RepoName, meta: Meta, fresh: Path) -> bool:
        """Give a repo that was made aside its place."""
        write_json(fresh / "hub.json", asdict(meta))
        path = self.path(name)
        with self.lock(name), self.move_lock:
            if self.find_spelling(name):
                shutil.rmtree(fresh)
                return False
            path.parent.mkdir(parents=True, exist_ok=True)
            fresh.rename(path)
        return True

    def delete(self, name: RepoName) -> Path:
        """Move a repo to a temporary folder at once; returns its path, for the caller to delete."""
        removed = self._temp / secrets.token_hex(8)
        with self.lock(name):
            self.path(name).rename(removed)
        return removed

    def move(self, old: RepoName, new: RepoName) -> None:
        """Give a repo another name; the old one leads to it from then on."""
        first, second = sorted((old, new), key=lambda name: name.key)
        with self.lock(first), self.lock(second), self.move_lock:
            place = self.path(new)
            if self.find_spelling(new) not in (None, old):
                raise HttpError(409, f"A {new.singular} repository called {new.id} already exists")
            place.parent.mkdir(parents=True, exist_ok=True)
            self.path(old).rename(place)
            known = [(key, RepoName(key.partition("/")[0], to)) for key, to in self._moved().items()]
            moved = {key: new.id if target == old else target.id for key, target in known}
            moved[old.key] = new.id
            moved.pop(new.key, None)
            write_json(self._moves, moved)

    def collections(self) -> list[Collection]:
        """All collections, of each owner in their order."""
        found: list[Collection] = read_json(self._collections, [])
        return found

    @contextmanager
    def change_collections(self) -> Iterator[list[Collection]]:
        """The list of collections to change; it is written when the block ends without an error."""
        with self.move_lock:
            found = self.collections()
            yield found
            write_json(self._collections, found)

    def _moved(self) -> dict[str, str]:
        known: dict[str, str] = read_json(self._moves, {})
        return known


def signature(author: str) -> pygit2.Signature:
    """A commit's author: a user of this Hub, now."""
    now = int(datetime.now(UTC).timestamp())
    return pygit2.Signature(author, f"{author}@localhub.invalid", now, 0)


def timestamp(seconds: float | None = None) -> str:
    """A time as the Hub writes it, now if none is given."""
    moment = datetime.now(UTC) if seconds is None else datetime.fromtimestamp(seconds, UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"


def parse_name(kind: str, repo_id: str) -> RepoName | None:
    """The name if it is one a repo here can have, else None."""
    try:
        return parse_repo_name(kind, repo_id)
    except HttpError:
        return None


def _init(path: Path, files: dict[str, bytes], author: str) -> None:
    flags = RepositoryInitFlag.BARE | RepositoryInitFlag.MKPATH | RepositoryInitFlag.NO_REINIT
    git = pygit2.init_repository(str(path), flags=flags, initial_head="main")
    index = pygit2.Index()
    for name, content in files.items():
        index.add(pygit2.IndexEntry(name, git.create_blob(content), FileMode.BLOB))
    person = signature(author)
    git.create_commit(MAIN, person, person, "initial commit", index.write_tree(git), [])
