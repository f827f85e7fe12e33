"""The large files in all commits of a repo: listing them, copying them, removing them for good."""

from __future__ import annotations

import pygit2
from pygit2.enums import SortMode
from starlette.responses import Response

from hfsoup.localhub.contents import walk
from hfsoup.localhub.errors import HttpError, no_repo
from hfsoup.localhub.lfs import parse_oid
from hfsoup.localhub.request import HubRequest, reply
from hfsoup.localhub.routing import Routes
from hfsoup.localhub.store import MAIN, timestamp

routes = Routes()


@routes("GET", "/api/{kind}/{repo}/lfs-files")
def list_large_files(request: HubRequest) -> Response:
    """Every large file of the repo, with a path and a branch that it was pushed to."""
    repo = request.repo_to_write()
    found = []
    for oid, (path, ref) in _find_places(repo.git).items():
        if request.hub.lfs.has(repo.path, oid):
            stat = request.hub.lfs.path(oid).stat()
            item = {"fileOid": oid, "oid": oid, "filename": path, "ref": ref.removeprefix("refs/heads/")}
            found.append({**item, "size": stat.st_size, "pushedAt": timestamp(stat.st_mtime)})
    page, headers = request.page(found)
    return reply(page, headers=headers)


@routes("POST", "/api/{kind}/{repo}/lfs-files/batch")
def delete_large_files(request: HubRequest) -> Response:
    """Remove large files; unless `rewriteHistory` is false, their pointers leave every commit, which get new ids."""
    asked = request.json().get("deletions")
    if not isinstance(asked, dict) or not isinstance(asked.get("sha"), list):
        raise HttpError(400, "Expected deletions with a list of sha")
    gone = {parse_oid(oid) for oid in asked["sha"]}
    repo, store = request.repo_to_write(), request.hub.store
    with store.lock(repo.name):
        if asked.get("rewriteHistory", True):
            _Rewriter(repo.git, gone).rewrite()
    with store.move_lock:
        request.hub.lfs.drop(repo.path, (path for path in store.paths() if path != repo.path), only=gone)
    return reply({"success": True})


@routes("POST", "/api/{kind}/{repo}/lfs-files/duplicate")
def copy_large_files(request: HubRequest) -> Response:
    """Give large files of this repo to another one, where a commit may then name them."""
    source, asked = request.repo_to_discuss(), request.json()
    target, files = asked.get("target"), asked.get("files")
    if not isinstance(target, dict) or not isinstance(files, list) or not all(isinstance(file, dict) for file in files):
        raise HttpError(400, "Expected a target with type and name, and a list of files")
    found = request.visible_repo(f"{target.get('type')}s", str(target.get("name")))
    if found is None:
        raise no_repo(str(target.get("name")), anonymous=False)
    failed = []
    for oid in (parse_oid(file.get("sha256")) for file in files):
        if request.hub.lfs.has(source.path, oid):
            request.hub.lfs.add(oid, found.path)
        else:
            failed.append({"sha256": oid, "error": f"No object {oid} in {source.name.id}"})
    return reply({"success": not failed, "failed": failed})


def _find_places(git: pygit2.Repository) -> dict[str, tuple[str, str]]:
    """For every large file of any commit a path and a ref, those of main first."""
    found: dict[str, tuple[str, str]] = {}
    trees: set[str] = set()
    for ref in sorted(git.references, key=lambda ref: (ref != MAIN, ref)):
        for commit in git.walk(git.references[ref].peel(pygit2.Commit).id, SortMode.TOPOLOGICAL):
            if str(commit.tree_id) not in trees:
                trees.add(str(commit.tree_id))
                for entry in walk(git, str(commit.tree_id), "", recursive=True):
                    if entry.lfs:
                        found.setdefault(entry.lfs.oid, (entry.path, ref))
    return found


class _Rewriter:
    """Writes every commit of a repo again, without the pointers to some large files."""

    def __init__(self, git: pygit2.Repository, gone: set[str]) -> None:
        self._git, self._gone = git, gone
        self._trees: dict[pygit2.Oid, pygit2.Oid | None] = {}
        self._commits: dict[pygit2.Oid, pygit2.Oid] = {}

    def rewrite(self) -> None:
        for ref in list(self._git.references):
            tip = self._git.references[ref].peel(pygit2.Commit)
            for commit in self._git.walk(tip.id, SortMode.TOPOLOGICAL | SortMode.REVERSE):
                if commit.id not in self._commits:
                    self._commits[commit.id] = self._commit(commit)
            if self._commits[tip.id] != tip.id:
                self._git.references.create(ref, self._commits[tip.id], force=True)

    def _commit(self, commit: pygit2.Commit) -> pygit2.Oid:
        tree = self._tree(commit.tree_id) or self._git.TreeBuilder().write()
        parents = [self._commits[parent] for parent in commit.parent_ids]
        if (tree, parents) == (commit.tree_id, commit.parent_ids):
            return commit.id
        return self._git.create_commit(None, commit.author, commit.committer, commit.message, tree, parents)

    def _tree(self, oid: pygit2.Oid) -> pygit2.Oid | None:
        """The tree without them; None if nothing is left."""
        if oid not in self._trees:
            tree = self._git[oid].peel(pygit2.Tree)
            entries = {entry.path: entry for entry in walk(self._git, str(oid), "", recursive=False)}
            builder = self._git.TreeBuilder(tree)
            for item in tree:
                name, entry = str(item.name), entries.get(str(item.name))
                if entry and not entry.is_file:
                    rest = self._tree(item.id)
                    builder.remove(name)
                    if rest:
                        builder.insert(name, rest, item.filemode)
                elif entry and entry.lfs and entry.lfs.oid in self._gone:
                    builder.remove(name)
            self._trees[oid] = builder.write() if len(builder) else None
        return self._trees[oid]
