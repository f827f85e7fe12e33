"""Making, moving, deleting and describing repos."""

from __future__ import annotations

import hashlib
import shutil
from typing import Any

from starlette.responses import Response

from hfsoup.localhub.auth import User, require_owner, require_user
from hfsoup.localhub.cards import LICENSES, SDKS
from hfsoup.localhub.commits import read_content
from hfsoup.localhub.contents import find_commit
from hfsoup.localhub.errors import HttpError, MovedError, no_repo, require_one_of
from hfsoup.localhub.gitattributes import default_attributes, is_lfs
from hfsoup.localhub.lfs import make_pointer
from hfsoup.localhub.names import RepoName, check_path, parse_repo_name
from hfsoup.localhub.repo_info import describe_repo
from hfsoup.localhub.request import HubRequest, can_see, reply
from hfsoup.localhub.routing import Routes
from hfsoup.localhub.store import Meta, Repo, timestamp

routes = Routes()
_SPACE_CARD = """---
title: {title}
emoji: 🚀
colorFrom: blue
colorTo: indigo
sdk: {sdk}
pinned: false
---
"""


@routes("POST", "/api/repos/create")
def create_repo(request: HubRequest) -> Response:
    """A new repo; 409 with its address if there is one of that name."""
    asked = request.json()
    user = require_user(request.user)
    name = _read_name(asked, user)
    require_owner(user, name.namespace)
    files = {".gitattributes": default_attributes(name.kind).encode()}
    if name.kind == "spaces":
        sdk = require_one_of("sdk", asked.get("sdk"), SDKS)
        files["README.md"] = _SPACE_CARD.format(title=name.id.rpartition("/")[2], sdk=sdk).encode()
    files |= _read_files(asked.get("files") or [])
    large = {path: files[path] for path in files if is_lfs(files[".gitattributes"].decode(), path)}
    objects = {hashlib.sha256(content).hexdigest(): content for content in large.values()}
    files |= {path: make_pointer(hashlib.sha256(content).hexdigest(), len(content)) for path, content in large.items()}
    if "license" in asked:
        licence = require_one_of("license", asked["license"], LICENSES)
        files.setdefault("README.md", f"---\nlicense: {licence}\n---\n".encode())
    meta = Meta(timestamp(), visibility=_read_visibility(asked), sdk=asked.get("sdk"))
    made = request.hub.store.create(name, meta, user.name, files)
    for oid, content in objects.items() if made else ():
        with request.hub.lfs.writer(oid, len(content)) as writer:
            writer.write(content)
            writer.finish(request.hub.store.path(name))
    return _reply_created(request, name, made=made)


@routes("POST", "/api/{kind}/{repo}/duplicate")
def duplicate_repo(request: HubRequest) -> Response:
    """A new repo with all that is in this one."""
    source, user, asked = request.repo_to_discuss(), require_user(request.user), request.json()
    name = parse_repo_name(source.name.kind, str(asked.get("repository")))
    require_owner(user, name.namespace)
    meta = Meta(timestamp(), visibility=_read_visibility(asked, source.meta.visibility), sdk=source.meta.sdk)
    return _reply_created(request, name, made=request.hub.store.duplicate(source, name, meta))


@routes("DELETE", "/api/repos/delete")
def delete_repo(request: HubRequest) -> Response:
    """Delete a repo and the large files that no other repo has."""
    user = require_user(request.user)
    repo = _open_own(request, user, _read_name(request.json(), user))
    store = request.hub.store
    removed = store.delete(repo.name)
    with store.move_lock:
        request.hub.lfs.drop(removed, store.paths())
    shutil.rmtree(removed, ignore_errors=True)
    return reply({})


@routes("POST", "/api/repos/move")
def move_repo(request: HubRequest) -> Response:
    """Rename a repo; the caller must own both names."""
    asked = request.json()
    user = require_user(request.user)
    kind = _read_kind(asked)
    old, new = parse_repo_name(kind, str(asked.get("fromRepo"))), parse_repo_name(kind, str(asked.get("toRepo")))
    repo = _open_own(request, user, old)
    require_owner(user, new.namespace)
    request.hub.store.move(repo.name, new)
    return reply({"url": request.web_url(new)})


@routes("PUT", "/api/{kind}/{repo}/settings")
def change_settings(request: HubRequest) -> Response:
    """Change who may see or read a repo."""
    asked = request.json()
    with request.change(request.repo_to_write()) as repo:
        repo.meta.visibility = _read_visibility(asked, repo.meta.visibility)
        if "gated" in asked:
            repo.meta.gated = require_one_of("gated", asked["gated"], ("auto", "manual", False))
    visibility = repo.meta.visibility
    return reply({"visibility": visibility, "private": visibility == "private", "gated": repo.meta.gated})


@routes("GET", "/api/{kind}/{repo}", "/api/{kind}/{repo}/revision/{rev}")
def show_repo(request: HubRequest) -> Response:
    """The info of a repo at a revision."""
    repo = request.repo()
    commit = find_commit(repo.git, request.params.get("rev", "main"))
    request.allow_query("expand", "blobs", "securityStatus", "cardData", "config", "full")
    fields = request.expand(repo.name.kind)
    known = describe_repo(repo, commit, request.hub.lfs, blobs=request.flag("blobs"))
    if fields:
        known = {key: value for key, value in known.items() if key in fields}
    return reply(known)


@routes("GET", "/api/{kind}/{repo}/auth-check")
def check_read_access(request: HubRequest) -> Response:
    """Whether the caller may read the files."""
    request.repo_to_read()
    return reply({})


@routes("GET", "/api/{kind}/{repo}/auth-check/write")
def check_write_access(request: HubRequest) -> Response:
    """Whether the caller may write."""
    request.repo_to_write()
    return reply({})


def _read_kind(asked: dict[str, Any]) -> str:
    return f"{asked.get('type') or 'model'}s"


def _read_visibility(asked: dict[str, Any], default: str = "public") -> str:
    if "private" in asked:
        default = "private" if asked["private"] else "public"
    return str(require_one_of("visibility", asked.get("visibility") or default, ("public", "private")))


def _read_files(asked: Any) -> dict[str, bytes]:
    """The files that a new repo starts with, which the JavaScript client sends along."""
    if not isinstance(asked, list) or not all(isinstance(item, dict) for item in asked):
        raise HttpError(400, "Expected files, each with a path and its content")
    return {check_path(str(item.get("path"))): read_content(str(item.get("path")), item) for item in asked}


def _reply_created(request: HubRequest, name: RepoName, *, made: bool) -> Response:
    answer: dict[str, object] = {"url": request.web_url(name), "name": name.id, "id": name.id}
    if not made:
        raise HttpError(409, f"You already created this {name.singular} repo: {name.id}", body=answer)
    return reply(answer)


def _read_name(asked: dict[str, Any], user: User) -> RepoName:
    name, organization = str(asked.get("name", "")), asked.get("organization")
    if organization or "/" not in name:
        name = f"{organization or user.name}/{name}"
    return parse_repo_name(_read_kind(asked), name)


def _open_own(request: HubRequest, user: User, name: RepoName) -> Repo:
    try:
        repo = request.hub.store.open(name)
    except MovedError:
        repo = None
    if repo is None or not can_see(user, repo):
        raise no_repo(name.id, anonymous=False)
    require_owner(user, repo.name.namespace)
    return repo
