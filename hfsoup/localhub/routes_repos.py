"""Making, moving, deleting and describing repos."""

from __future__ import annotations

import hashlib
import shutil
from typing import TYPE_CHECKING, Any

from hfsoup.localhub.attributes import default_attributes, is_lfs
from hfsoup.localhub.auth import User, need_owner, need_user
from hfsoup.localhub.call import Call, reply, sees
from hfsoup.localhub.cards import LICENSES, SDKS
from hfsoup.localhub.commits import read_content
from hfsoup.localhub.facts import describe
from hfsoup.localhub.lfs import make_pointer
from hfsoup.localhub.names import RepoName, file_path, repo_name
from hfsoup.localhub.reading import find_commit
from hfsoup.localhub.refusal import MovedError, RefusedError, no_repo
from hfsoup.localhub.routing import Routes
from hfsoup.localhub.store import Meta, Repo, timestamp

if TYPE_CHECKING:
    from starlette.responses import Response

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
def create(call: Call) -> Response:
    """A new repo; 409 with its address if there is one of that name."""
    asked = call.json()
    user = need_user(call.user)
    name = _named(asked, user)
    need_owner(user, name.namespace)
    files = {".gitattributes": default_attributes(name.kind).encode()}
    if name.kind == "spaces":
        sdk = _one_of("sdk", asked.get("sdk"), SDKS)
        files["README.md"] = _SPACE_CARD.format(title=name.id.rpartition("/")[2], sdk=sdk).encode()
    files |= _files(asked.get("files") or [])
    large = {path: files[path] for path in files if is_lfs(files[".gitattributes"].decode(), path)}
    objects = {hashlib.sha256(content).hexdigest(): content for content in large.values()}
    files |= {path: make_pointer(hashlib.sha256(content).hexdigest(), len(content)) for path, content in large.items()}
    if "license" in asked:
        licence = _one_of("license", asked["license"], tuple(LICENSES))
        files.setdefault("README.md", f"---\nlicense: {licence}\n---\n".encode())
    meta = Meta(timestamp(), visibility=_visibility(asked), sdk=asked.get("sdk"))
    made = call.parts.store.create(name, meta, user.name, files)
    for oid, content in objects.items() if made else ():
        with call.parts.lfs.writer(oid, len(content)) as writer:
            writer.write(content)
            writer.finish(call.parts.store.path(name))
    return _answer(call, name, made=made)


@routes("POST", "/api/{kind}/{repo}/duplicate")
def duplicate(call: Call) -> Response:
    """A new repo with all that this one holds."""
    source, user, asked = call.repo_to_discuss(), need_user(call.user), call.json()
    name = repo_name(source.name.kind, str(asked.get("repository")))
    need_owner(user, name.namespace)
    meta = Meta(timestamp(), visibility=_visibility(asked, source.meta.visibility), sdk=source.meta.sdk)
    return _answer(call, name, made=call.parts.store.duplicate(source, name, meta))


@routes("DELETE", "/api/repos/delete")
def delete(call: Call) -> Response:
    """Delete a repo and the large files no other repo holds."""
    user = need_user(call.user)
    repo = _owned(call, user, _named(call.json(), user))
    store = call.parts.store
    grave = store.delete(repo.name)
    with store.still():
        call.parts.lfs.drop(grave, store.paths())
    shutil.rmtree(grave, ignore_errors=True)
    return reply({})


@routes("POST", "/api/repos/move")
def move(call: Call) -> Response:
    """Rename a repo; the caller must own both names."""
    asked = call.json()
    user = need_user(call.user)
    kind = _kind(asked)
    old, new = repo_name(kind, str(asked.get("fromRepo"))), repo_name(kind, str(asked.get("toRepo")))
    repo = _owned(call, user, old)
    need_owner(user, new.namespace)
    call.parts.store.move(repo.name, new)
    return reply({"url": call.web(new)})


@routes("PUT", "/api/{kind}/{repo}/settings")
def settings(call: Call) -> Response:
    """Change who may see or read a repo."""
    asked = call.json()
    with call.changing() as repo:
        repo.meta.visibility = _visibility(asked, repo.meta.visibility)
        if "gated" in asked:
            repo.meta.gated = _one_of("gated", asked["gated"], ("auto", "manual", False))
    return reply(
        {"visibility": repo.meta.visibility, "private": repo.meta.visibility == "private", "gated": repo.meta.gated}
    )


@routes("GET", "/api/{kind}/{repo}", "/api/{kind}/{repo}/revision/{rev}")
def info(call: Call) -> Response:
    """What there is to know about a repo at a revision."""
    repo = call.repo()
    commit = find_commit(repo.git, call.params.get("rev", "main"))
    call.allow_query("expand", "blobs", "securityStatus", "cardData", "config", "full")
    fields = call.expand(repo.name.kind)
    known = describe(repo, commit, call.parts.lfs, blobs=call.flag("blobs"))
    if fields:
        known = {key: value for key, value in known.items() if key in fields}
    return reply(known)


@routes("GET", "/api/{kind}/{repo}/auth-check")
def may_read(call: Call) -> Response:
    """Whether the caller may read the files."""
    call.repo_to_read()
    return reply({})


@routes("GET", "/api/{kind}/{repo}/auth-check/write")
def may_write(call: Call) -> Response:
    """Whether the caller may write."""
    call.repo_to_write()
    return reply({})


def _kind(asked: dict[str, Any]) -> str:
    return f"{asked.get('type') or 'model'}s"


def _visibility(asked: dict[str, Any], default: str = "public") -> str:
    if "private" in asked:
        default = "private" if asked["private"] else "public"
    return str(_one_of("visibility", asked.get("visibility") or default, ("public", "private")))


def _files(asked: Any) -> dict[str, bytes]:
    """The files that a new repo starts with, which the JavaScript client sends along."""
    if not isinstance(asked, list) or not all(isinstance(item, dict) for item in asked):
        raise RefusedError(400, "Expected files, each with a path and its content")
    return {file_path(str(item.get("path"))): read_content(str(item.get("path")), item) for item in asked}


def _answer(call: Call, name: RepoName, *, made: bool) -> Response:
    answer: dict[str, object] = {"url": call.web(name), "name": name.id, "id": name.id}
    if not made:
        raise RefusedError(409, f"You already created this {name.singular} repo: {name.id}", body=answer)
    return reply(answer)


def _named(asked: dict[str, Any], user: User) -> RepoName:
    name, organization = str(asked.get("name", "")), asked.get("organization")
    if organization or "/" not in name:
        name = f"{organization or user.name}/{name}"
    return repo_name(_kind(asked), name)


def _owned(call: Call, user: User, name: RepoName) -> Repo:
    try:
        repo = call.parts.store.open(name)
    except MovedError:
        repo = None
    if repo is None or not sees(user, repo):
        raise no_repo(name.id, anonymous=False)
    need_owner(user, repo.name.namespace)
    return repo


def _one_of(field: str, value: Any, allowed: tuple[Any, ...]) -> Any:
    if value not in allowed:
        raise RefusedError(400, f"Invalid {field}: {value!r}, expected one of {', '.join(map(str, allowed))}")
    return value
