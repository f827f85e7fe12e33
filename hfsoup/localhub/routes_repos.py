"""Making, moving, deleting and describing repos."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

from hfsoup.localhub.auth import User, need_owner, need_user
from hfsoup.localhub.call import Call, reply, sees
from hfsoup.localhub.facts import describe
from hfsoup.localhub.names import RepoName, repo_name
from hfsoup.localhub.reading import find_commit
from hfsoup.localhub.refusal import MovedError, RefusedError, no_repo
from hfsoup.localhub.routing import Routes
from hfsoup.localhub.store import Meta, Repo, timestamp

if TYPE_CHECKING:
    from starlette.responses import Response

routes = Routes()
_VISIBILITIES = ("public", "private")


@routes("POST", "/api/repos/create")
def create(call: Call) -> Response:
    """A new repo; 409 with its address if there is one of that name."""
    asked = call.json()
    user = need_user(call.user)
    name = _named(asked, user)
    need_owner(user, name.namespace)
    if name.kind == "spaces" and not asked.get("sdk"):
        raise RefusedError(400, "Expected the sdk of the space: gradio, streamlit, docker or static")
    private = asked.get("private") is True or asked.get("visibility") == "private"
    meta = Meta(timestamp(), visibility="private" if private else "public", sdk=asked.get("sdk"))
    answer: dict[str, object] = {"url": call.web(name), "name": name.id, "id": name.id}
    if not call.parts.store.create(name, meta, user.name):
        raise RefusedError(409, f"You already created this {name.singular} repo: {name.id}", body=answer)
    return reply(answer)


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
    repo = call.repo_to_write()
    with call.parts.store.lock(repo.name):
        repo = call.again(repo)
        if "private" in asked:
            asked.setdefault("visibility", "private" if asked["private"] else "public")
        if "visibility" in asked:
            repo.meta.visibility = _one_of("visibility", asked["visibility"], _VISIBILITIES)
        if "gated" in asked:
            repo.meta.gated = _one_of("gated", asked["gated"], ("auto", "manual", False))
        call.parts.store.save(repo)
    return reply(
        {"visibility": repo.meta.visibility, "private": repo.meta.visibility == "private", "gated": repo.meta.gated}
    )


@routes("GET HEAD", "/api/{kind}/{repo}", "/api/{kind}/{repo}/revision/{rev}")
def info(call: Call) -> Response:
    """What there is to know about a repo at a revision."""
    repo = call.repo()
    commit = find_commit(repo.git, call.params.get("rev", "main"))
    fields = call.values("expand")
    known = describe(repo, commit, call.parts.lfs, blobs=call.flag("blobs"))
    if fields:
        known = {key: value for key, value in known.items() if key in ("_id", "id", *fields)}
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
    need_owner(user, name.namespace)
    return repo


def _one_of(field: str, value: Any, allowed: tuple[Any, ...]) -> Any:
    if value not in allowed:
        raise RefusedError(400, f"Invalid {field}: {value!r}, expected one of {', '.join(map(str, allowed))}")
    return value
