"""Reading commits, trees and files of a repo."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import pygit2
from pygit2.enums import ObjectType, SortMode

from hfsoup.localhub.errors import no_entry, no_revision
from hfsoup.localhub.lfs import Pointer, read_pointer

_HEX = re.compile(r"[0-9a-f]{5,40}")
_MAX_POINTER = 1024


@dataclass(frozen=True)
class Entry:
    """A file or folder of a commit. `oid` is git's; `size` is the real size in bytes, also behind a pointer."""

    path: str
    is_file: bool
    oid: str
    size: int = 0
    lfs: Pointer | None = None

    @property
    def etag(self) -> str:
        """What names the content: the sha256 of a large file, else git's blob id."""
        return self.lfs.oid if self.lfs else self.oid


def find_commit(git: pygit2.Repository, revision: str) -> pygit2.Commit:
    """The commit a branch, tag, full ref or (shortened) commit id means; `HEAD` means main."""
    wanted = "main" if revision == "HEAD" else revision
    for ref in (f"refs/heads/{wanted}", f"refs/tags/{wanted}", wanted if wanted.startswith("refs/") else ""):
        if ref and pygit2.reference_is_valid_name(ref) and ref in git.references:
            return git.references[ref].peel(pygit2.Commit)
    if _HEX.fullmatch(wanted):
        try:
            return git.revparse_single(wanted).peel(pygit2.Commit)
        except (KeyError, ValueError, pygit2.InvalidSpecError):
            raise no_revision(revision) from None
    raise no_revision(revision)


def find_entry(git: pygit2.Repository, commit: pygit2.Commit, path: str) -> Entry | None:
    """The file or folder at a path, None if there is none."""
    if not path:
        return Entry("", False, str(commit.tree_id))
    try:
        found = commit.tree[path]
    except (KeyError, ValueError):
        return None
    return _entry(git, found, path)


def find_file(git: pygit2.Repository, commit: pygit2.Commit, path: str) -> Entry:
    """The file at a path; HttpError 404 if there is none."""
    entry = find_entry(git, commit, path)
    if entry is None or not entry.is_file:
        raise no_entry(path, str(commit.id))
    return entry


def read_blob(git: pygit2.Repository, oid: str) -> bytes:
    """Content of a blob, which for a large file is its pointer."""
    content: bytes = git.read(pygit2.Oid(hex=oid))[1]
    return content


def read_text(git: pygit2.Repository, commit: pygit2.Commit, path: str) -> str:
    """A small text file, empty if it is absent, large or not text."""
    entry = find_entry(git, commit, path)
    if entry is None or not entry.is_file or entry.lfs:
        return ""
    return read_blob(git, entry.oid).decode(errors="replace")


def walk(git: pygit2.Repository, tree_oid: str, prefix: str, *, recursive: bool) -> Iterator[Entry]:
    """Files and folders below a tree, a folder before its content."""
    tree = git[tree_oid].peel(pygit2.Tree)
    for item in tree:
        entry = _entry(git, item, f"{prefix}/{item.name}" if prefix else str(item.name))
        if entry is not None:
            yield entry
            if recursive and not entry.is_file:
                yield from walk(git, entry.oid, entry.path, recursive=True)


def history(git: pygit2.Repository, commit: pygit2.Commit) -> Iterator[pygit2.Commit]:
    """The commit and those before it, newest first."""
    return iter(git.walk(commit.id, SortMode.TOPOLOGICAL | SortMode.TIME))


def find_title(commit: pygit2.Commit) -> str:
    """The first line of a commit's message."""
    return str(commit.message.partition("\n")[0])


def last_commits(git: pygit2.Repository, commit: pygit2.Commit, paths: Iterable[str]) -> dict[str, pygit2.Commit]:
    """For every path the newest commit that changed it."""
    left = set(paths)
    found: dict[str, pygit2.Commit] = {}
    for step in history(git, commit):
        if not left:
            break
        parents = [parent.tree for parent in step.parents]
        for path in list(left):
            here = _tree_id(step.tree, path)
            if all(_tree_id(parent, path) != here for parent in parents):
                found[path] = step
                left.discard(path)
    return found


def _tree_id(tree: pygit2.Tree, path: str) -> pygit2.Oid | None:
    return tree[path].id if path in tree else None


def _entry(git: pygit2.Repository, item: pygit2.Object, path: str) -> Entry | None:
    """None for a submodule, whose commit is in another repo."""
    oid = str(item.id)
    if item.type == ObjectType.TREE:
        return Entry(path, False, oid)
    if item.type != ObjectType.BLOB:
        return None
    size = git.odb.read_header(item.id)[1]
    pointer = read_pointer(read_blob(git, oid)) if size <= _MAX_POINTER else None
    return Entry(path, True, oid, pointer.size if pointer else size, pointer)
