"""Writing commits: changes that a client sends, applied to the newest state of a branch."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any

import pygit2
from pygit2.enums import FileMode

from hfsoup.localhub.contents import find_commit, find_entry, read_blob, read_text
from hfsoup.localhub.errors import HttpError, no_entry, no_revision
from hfsoup.localhub.gitattributes import add_lfs_lines
from hfsoup.localhub.lfs import LfsStore, make_pointer, parse_oid
from hfsoup.localhub.names import check_path
from hfsoup.localhub.store import Repo, signature

OUTDATED = "The branch was updated since you opened this page. Please refresh and try again."


@dataclass(frozen=True)
class Change:
    """One change: the blob to put at a path, or a path to remove."""

    path: str
    blob: str | None = None
    lfs: bool = False
    folder: bool = False


@dataclass(frozen=True)
class Plan:
    """A commit to be made."""

    summary: str
    description: str
    parent: str | None
    changes: list[Change]

    @property
    def message(self) -> str:
        """The git message: summary, blank line, description."""
        return f"{self.summary}\n\n{self.description}" if self.description else self.summary


def read_plan(repo: Repo, lfs: LfsStore, body: IO[bytes]) -> Plan:
    """Parse the lines of a commit request; contents are stored as blobs on the way, one at a time."""
    header: dict[str, Any] | None = None
    changes: list[Change] = []
    for key, value in _read_lines(body):
        if key == "header":
            header = value
        else:
            changes.append(_read_change(repo, lfs, key, value))
    if header is None or not isinstance(header.get("summary"), str) or not header["summary"]:
        raise HttpError(400, "Expected a first line with a header and its summary")
    parent = header.get("parentCommit")
    return Plan(header["summary"], str(header.get("description") or ""), parent and str(parent), changes)


def target_ref(git: pygit2.Repository, revision: str) -> str:
    """The full ref a commit to this revision moves; HttpError if it is not one that moves."""
    wanted = "main" if revision == "HEAD" else revision
    for ref in (f"refs/heads/{wanted}", wanted):
        if ref.startswith(("refs/heads/", "refs/pr/", "refs/convert/")) and ref in git.references:
            return ref
    find_commit(git, revision)
    raise HttpError(400, f"Cannot commit to {revision!r}: it is not a branch")


def apply_plan(repo: Repo, plan: Plan, *, base: pygit2.Commit, author: str, ref: str | None) -> str:
    """Make the commit on top of `base` and move `ref` to it; hold the repo's lock. Returns the commit's id."""
    git = repo.git
    if plan.parent and not str(base.id).startswith(plan.parent):
        raise HttpError(412, OUTDATED)
    index = pygit2.Index()
    index.read_tree(base.tree)
    for change in plan.changes:
        _change_index(index, change, str(base.id))
    _cover_large_files(git, index, [change.path for change in plan.changes if change.lfs])
    person = signature(author)
    try:
        made = git.create_commit(ref, person, person, plan.message, index.write_tree(git), [base.id])
    except pygit2.GitError as error:
        # A git push moves refs without our lock: git's own lock failed.
        raise HttpError(412, OUTDATED) from error
    return str(made)


def _read_lines(body: IO[bytes]) -> Iterator[tuple[str, dict[str, Any]]]:
    for line in body:
        if not line.strip():
            continue
        try:
            item = json.loads(line)
            key, value = item["key"], item["value"]
        except (ValueError, KeyError, TypeError) as error:
            raise HttpError(400, 'Expected lines of {"key": ..., "value": {...}}') from error
        if not isinstance(key, str) or not isinstance(value, dict):
            raise HttpError(400, 'Expected lines of {"key": ..., "value": {...}}')
        yield key, value


def _read_change(repo: Repo, lfs: LfsStore, key: str, value: dict[str, Any]) -> Change:
    path = value.get("path")
    if not isinstance(path, str):
        raise HttpError(400, f"Expected a path in the {key!r} line")
    if key == "file":
        return Change(check_path(path), blob=str(repo.git.create_blob(read_content(path, value))))
    if key == "lfsFile":
        oid = parse_oid(value.get("oid"))
        if not lfs.has(repo.path, oid) and not lfs.claim(oid, repo.path, repo.meta.identifier):
            raise HttpError(400, f"LFS pointer of {path!r} points to a file that was not uploaded: {oid}")
        pointer = make_pointer(oid, lfs.size(oid))
        return Change(check_path(path), blob=str(repo.git.create_blob(pointer)), lfs=True)
    if key == "deletedFile":
        return Change(path)
    if key == "deletedFolder":
        return Change(path.strip("/"), folder=True)
    raise HttpError(400, f"Unknown line {key!r}, expected one of header, file, lfsFile, deletedFile, deletedFolder")


def read_content(path: str, value: dict[str, Any]) -> bytes:
    """The bytes that a client sends as text or base64; HttpError 400 for anything else."""
    text, encoding = value.get("content"), value.get("encoding", "utf-8")
    if not isinstance(text, str) or encoding not in ("base64", "utf-8"):
        raise HttpError(400, f"Expected base64 or utf-8 content for {path!r}")
    if encoding == "utf-8":
        return text.encode()
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise HttpError(400, f"Expected valid base64 for {path!r}") from error


def _change_index(index: pygit2.Index, change: Change, base: str) -> None:
    if change.blob is not None:
        index.add(pygit2.IndexEntry(change.path, pygit2.Oid(hex=change.blob), FileMode.BLOB))
        return
    prefix = "" if change.folder and not change.path else f"{change.path}/"
    gone = [entry.path for entry in index if entry.path == change.path or entry.path.startswith(prefix)]
    if not gone or (change.folder and change.path in gone):
        kind = "folder" if change.folder else "file"
        raise no_entry(change.path, base, what=f"A {kind} with this name doesn't exist")
    for path in gone:
        index.remove(path)


def _cover_large_files(git: pygit2.Repository, index: pygit2.Index, paths: list[str]) -> None:
    """Name in .gitattributes the large files it does not cover, or git would check out their pointers."""
    name = ".gitattributes"
    paths = [path for path in paths if path in index]
    old = read_blob(git, str(index[name].id)).decode(errors="replace") if name in index else ""
    new = add_lfs_lines(old, paths)
    if new != old:
        index.add(pygit2.IndexEntry(name, git.create_blob(new.encode()), FileMode.BLOB))


def attributes_at(git: pygit2.Repository, commit: pygit2.Commit) -> str:
    """The text of .gitattributes in a commit."""
    return read_text(git, commit, ".gitattributes")


def branch_ref(name: str) -> str:
    """The full ref of a branch, or of a conversion such as `refs/convert/parquet`; HttpError 400 for a bad name."""
    ref = name if name.startswith("refs/convert/") else f"refs/heads/{name}"
    if not pygit2.reference_is_valid_name(ref) or name == "HEAD":
        raise HttpError(400, f"Invalid branch name: {name!r}")
    return ref


def find_etag(git: pygit2.Repository, commit: pygit2.Commit, path: str) -> str | None:
    """What names the file now at a path, None if there is none."""
    entry = find_entry(git, commit, path)
    return entry.etag if entry and entry.is_file else None


def remove_ref(git: pygit2.Repository, ref: str) -> None:
    """Delete a branch or tag; HttpError 404 if there is none."""
    if not pygit2.reference_is_valid_name(ref) or ref not in git.references:
        raise no_revision(ref)
    git.references.delete(ref)
