"""Branches, tags and history."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from typing import Any

import pygit2
from pygit2.enums import ObjectType
from starlette.responses import Response

from hfsoup.localhub.auth import require_user
from hfsoup.localhub.commits import branch_ref, remove_ref, target_ref
from hfsoup.localhub.contents import find_commit, history
from hfsoup.localhub.errors import HttpError
from hfsoup.localhub.request import HubRequest, reply
from hfsoup.localhub.routing import Routes
from hfsoup.localhub.store import signature, timestamp

routes = Routes()
_GROUPS = {"branches": "refs/heads/", "converts": "refs/convert/", "tags": "refs/tags/"}


@routes("GET", "/api/{kind}/{repo}/refs")
def list_refs(request: HubRequest) -> Response:
    """All branches and tags; on request pull requests."""
    git = request.repo_to_read().git
    groups = {**_GROUPS, **({"pullRequests": "refs/pr/"} if request.flag("include_prs") else {})}
    return reply({group: _find_refs(git, prefix) for group, prefix in groups.items()})


@routes("GET", "/api/{kind}/{repo}/commits/{rev}")
def list_commits(request: HubRequest) -> Response:
    """History of a revision, newest first."""
    repo, commit = request.commit_to_read()
    found = list(history(repo.git, commit))
    page, headers = request.page(found)
    formatted = "formatted" in request.values("expand")
    return reply(
        [_describe_commit(item, formatted=formatted) for item in page],
        headers={**headers, "X-Total-Count": str(len(found))},
    )


@routes("POST", "/api/{kind}/{repo}/branch/{name}")
def create_branch(request: HubRequest) -> Response:
    """A branch at main, at a starting point, or with one commit of no files."""
    repo, asked = request.repo_to_write(), request.json()
    start, empty, overwrite = (asked.get(key) for key in ("startingPoint", "emptyBranch", "overwrite"))
    ref, author = branch_ref(request.params["name"]), signature(require_user(request.user).name)
    git = repo.git
    with request.hub.store.lock(repo.name):
        if ref in git.references and overwrite is not True:
            raise HttpError(409, f"Reference {ref} already exists")
        if empty is True:
            target = git.create_commit(None, author, author, "initial commit", git.TreeBuilder().write(), [])
        else:
            target = find_commit(git, str(start or "main")).id
        if empty is True or start or ref not in git.references:
            with _refusing_conflicts(ref):
                git.references.create(ref, target, force=overwrite is True)
    return reply({})


@routes("DELETE", "/api/{kind}/{repo}/branch/{name}")
def delete_branch(request: HubRequest) -> Response:
    """Delete a branch, but not main."""
    repo, name = request.repo_to_write(), request.params["name"]
    if name == "main":
        raise HttpError(403, "Cannot delete refs/heads/main: it is the branch of this repo")
    with request.hub.store.lock(repo.name):
        remove_ref(repo.git, branch_ref(name))
    return reply({})


@routes("POST", "/api/{kind}/{repo}/tag/{rev}")
def create_tag(request: HubRequest) -> Response:
    """A tag on a revision, annotated if it has a message."""
    repo, asked = request.repo_to_write(), request.json()
    name = str(asked.get("tag") or "")
    ref = f"refs/tags/{name}"
    with request.hub.store.lock(repo.name):
        commit = find_commit(repo.git, request.params["rev"])
        if not pygit2.reference_is_valid_name(ref):
            raise HttpError(400, f"Invalid tag name: {name!r}")
        if ref in repo.git.references:
            raise HttpError(409, f"Reference {ref} already exists")
        with _refusing_conflicts(ref):
            if asked.get("message") and request.user:
                person = signature(request.user.name)
                repo.git.create_tag(name, commit.id, ObjectType.COMMIT, person, str(asked["message"]))
            else:
                repo.git.references.create(ref, commit.id)
    return reply({})


@routes("DELETE", "/api/{kind}/{repo}/tag/{name}")
def delete_tag(request: HubRequest) -> Response:
    """Delete a tag."""
    repo, name = request.repo_to_write(), request.params["name"]
    with request.hub.store.lock(repo.name):
        remove_ref(repo.git, f"refs/tags/{name}")
    return reply({})


@routes("POST", "/api/{kind}/{repo}/super-squash/{rev}")
def squash_branch(request: HubRequest) -> Response:
    """Make the newest commit of a branch its only one."""
    repo, message = request.repo_to_write(), str(request.json().get("message") or "Super-squash")
    author = signature(require_user(request.user).name)
    with request.hub.store.lock(repo.name):
        ref = target_ref(repo.git, request.params["rev"])
        tree = repo.git.references[ref].peel(pygit2.Commit).tree_id
        made = repo.git.create_commit(None, author, author, message, tree, [])
        repo.git.references[ref].set_target(made)
    return reply({"success": True, "commitOid": str(made)})


@contextmanager
def _refusing_conflicts(ref: str) -> Iterator[None]:
    """HttpError 409 where git has no room for a reference, such as `x/y` beside `x`."""
    try:
        yield
    except (OSError, pygit2.GitError) as error:
        raise HttpError(409, f"Cannot create {ref}: another reference is in its way") from error


def _find_refs(git: pygit2.Repository, prefix: str) -> list[dict[str, Any]]:
    found = []
    for ref in sorted(git.references):
        if ref.startswith(prefix):
            target = git.references[ref].peel(pygit2.Commit).id
            found.append({"name": ref.removeprefix(prefix), "ref": ref, "targetCommit": str(target)})
    return found


def _describe_commit(commit: pygit2.Commit, *, formatted: bool) -> dict[str, Any]:
    title, _, message = commit.message.partition("\n")
    item: dict[str, Any] = {
        "id": str(commit.id),
        "title": title,
        "message": message.strip("\n"),
        "date": timestamp(commit.commit_time),
        "authors": [{"user": commit.author.name}],
    }
    if formatted:
        item["formatted"] = {"title": escape(title), "message": escape(message.strip("\n"))}
    return item
