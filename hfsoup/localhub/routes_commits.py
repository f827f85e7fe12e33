"""Uploading: how each file should be sent, and the commit itself."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import pygit2

import hfsoup.localhub.discussions as discussions
from hfsoup.localhub.attributes import is_ignored, is_lfs
from hfsoup.localhub.auth import User, need_owner, need_user
from hfsoup.localhub.call import Call, reply
from hfsoup.localhub.commits import Plan, apply, attributes_at, held_etag, read_plan, target_ref
from hfsoup.localhub.reading import find_commit, read_text
from hfsoup.localhub.refusal import RefusedError, no_revision
from hfsoup.localhub.routing import Routes

if TYPE_CHECKING:
    from starlette.responses import Response

    from hfsoup.localhub.store import Repo

routes = Routes()
LARGE = 10 * 1024 * 1024


@routes("POST", "/api/{kind}/{repo}/preupload/{rev}")
def preupload(call: Call) -> Response:
    """For every file: in the commit (`regular`) or ahead of it (`lfs`), whether to leave it out, what is there now."""
    repo = call.repo_to_discuss()
    if not call.flag("create_pr"):
        need_right(call, repo, call.params["rev"])
    commit = find_commit(repo.git, call.params["rev"])
    asked = call.json()
    attributes = _text(asked, "gitAttributes", attributes_at(repo.git, commit))
    ignore = _text(asked, "gitIgnore", read_text(repo.git, commit, ".gitignore"))
    files = asked.get("files")
    if not isinstance(files, list) or not all(
        isinstance(file, dict) and isinstance(file.get("path"), str) for file in files
    ):
        raise RefusedError(400, "Expected files, each with a path and a size")
    answers = []
    for file in files:
        path = file["path"]
        large = is_lfs(attributes, path) or (isinstance(file.get("size"), int) and file["size"] > LARGE)
        answer = {"path": path, "uploadMode": "lfs" if large else "regular", "shouldIgnore": is_ignored(ignore, path)}
        held = held_etag(repo.git, commit, path)
        answers.append({**answer, "oid": held} if held else answer)
    return reply({"files": answers, "commitOid": str(commit.id)})


@routes("POST", "/api/{kind}/{repo}/commit/{rev}")
def commit(call: Call) -> Response:
    """Commit to a branch, or to a new pull request from it."""
    repo = call.repo_to_discuss()
    user = need_user(call.user)
    revision = call.params["rev"]
    create_pr = call.flag("create_pr")
    if not create_pr:
        need_right(call, repo, revision)
    plan = read_plan(repo, call.parts.lfs, call.body or io.BytesIO())
    with call.parts.store.lock(repo.name):
        repo = call.again(repo)
        if create_pr:
            return reply(_propose(call, repo, plan, user))
        ref = target_ref(repo.git, revision)
        base = repo.git.references[ref].peel(pygit2.Commit)
        oid = apply(repo, plan, base=base, author=user.name, ref=ref)
        _note(call, repo, ref, plan, user, oid)
    return reply(_made(call, repo, oid))


def _propose(call: Call, repo: Repo, plan: Plan, user: User) -> dict[str, Any]:
    ref = f"refs/heads/{'main' if call.params['rev'] == 'HEAD' else call.params['rev'].removeprefix('refs/heads/')}"
    if ref not in repo.git.references:
        raise no_revision(call.params["rev"])
    base = repo.git.references[ref].peel(pygit2.Commit)
    oid = apply(repo, plan, base=base, author=user.name, ref=None)
    opened = discussions.start(repo, title=plan.summary, description=plan.description, author=user.name, base=ref)
    discussions.note_commit(opened, user.name, plan.summary, oid)
    repo.git.references.create(discussions.pr_ref(opened["num"]), pygit2.Oid(hex=oid))
    call.parts.store.save(repo)
    return {**_made(call, repo, oid), "pullRequestUrl": call.web(repo.name, "discussions", str(opened["num"]))}


def _made(call: Call, repo: Repo, oid: str) -> dict[str, Any]:
    return {"success": True, "commitOid": oid, "commitUrl": call.web(repo.name, "commit", oid), "hookOutput": ""}


def _note(call: Call, repo: Repo, ref: str, plan: Plan, user: User, oid: str) -> None:
    for item in repo.meta.discussions:
        if item["isPullRequest"] and discussions.pr_ref(item["num"]) == ref:
            discussions.note_commit(item, user.name, plan.summary, oid)
            call.parts.store.save(repo)


def need_right(call: Call, repo: Repo, revision: str) -> None:
    """Owners write anywhere; who opened a pull request writes to it."""
    user = need_user(call.user)
    for item in repo.meta.discussions:
        if discussions.pr_ref(item["num"]) == revision and item["isPullRequest"] and item["author"] == user.name:
            return
    need_owner(user, repo.name.namespace)


def _text(asked: dict[str, Any], key: str, default: str) -> str:
    value = asked.get(key)
    return value if isinstance(value, str) else default
