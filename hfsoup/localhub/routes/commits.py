"""Uploading: how each file should be sent, and the commit itself."""

from __future__ import annotations

import io
from typing import Any

import pygit2
from starlette.responses import Response

import hfsoup.localhub.discussions as discussions
from hfsoup.localhub.auth import User, require_user
from hfsoup.localhub.commits import Plan, apply_plan, attributes_at, find_etag, read_plan, target_ref
from hfsoup.localhub.contents import find_commit, read_text
from hfsoup.localhub.errors import HttpError, no_revision
from hfsoup.localhub.gitattributes import is_ignored, is_lfs
from hfsoup.localhub.request import HubRequest, reply
from hfsoup.localhub.routing import Routes
from hfsoup.localhub.store import Repo

routes = Routes()
LARGE = 10 * 1024 * 1024


@routes("POST", "/api/{kind}/{repo}/preupload/{rev}")
def choose_upload_modes(request: HubRequest) -> Response:
    """For every file: in the commit (`regular`) or ahead of it (`lfs`), whether it is ignored, what is there now."""
    repo = request.repo_to_commit()
    commit = find_commit(repo.git, request.params["rev"])
    asked = request.json()
    attributes = _text(asked, "gitAttributes", attributes_at(repo.git, commit))
    ignore = _text(asked, "gitIgnore", read_text(repo.git, commit, ".gitignore"))
    files = asked.get("files")
    if not isinstance(files, list) or not all(
        isinstance(file, dict) and isinstance(file.get("path"), str) for file in files
    ):
        raise HttpError(400, "Expected files, each with a path and a size")
    answers = []
    for file in files:
        path = file["path"]
        large = is_lfs(attributes, path) or (isinstance(file.get("size"), int) and file["size"] > LARGE)
        answer = {"path": path, "uploadMode": "lfs" if large else "regular", "shouldIgnore": is_ignored(ignore, path)}
        held = find_etag(repo.git, commit, path)
        answers.append({**answer, "oid": held} if held else answer)
    return reply({"files": answers, "commitOid": str(commit.id)})


@routes("POST", "/api/{kind}/{repo}/commit/{rev}")
def create_commit(request: HubRequest) -> Response:
    """Commit to a branch, or to a new pull request from it."""
    repo, user = request.repo_to_commit(), require_user(request.user)
    plan = read_plan(repo, request.hub.lfs, request.body or io.BytesIO())
    with request.hub.store.lock(repo.name):
        repo = request.reopen(repo)
        if request.flag("create_pr"):
            return reply(_open_pull_request(request, repo, plan, user))
        ref = target_ref(repo.git, request.params["rev"])
        base = repo.git.references[ref].peel(pygit2.Commit)
        oid = apply_plan(repo, plan, base=base, author=user.name, ref=ref)
        _add_to_pull_request(request, repo, ref, plan, user, oid)
    return reply(_describe_commit(request, repo, oid))


def _open_pull_request(request: HubRequest, repo: Repo, plan: Plan, user: User) -> dict[str, Any]:
    ref = (
        f"refs/heads/{'main' if request.params['rev'] == 'HEAD' else request.params['rev'].removeprefix('refs/heads/')}"
    )
    if ref not in repo.git.references:
        raise no_revision(request.params["rev"])
    base = repo.git.references[ref].peel(pygit2.Commit)
    oid = apply_plan(repo, plan, base=base, author=user.name, ref=None)
    opened = discussions.open_discussion(
        repo, title=plan.summary, description=plan.description, author=user.name, base=ref
    )
    discussions.add_commit(opened, user.name, plan.summary, oid)
    repo.git.references.create(discussions.pr_ref(opened["num"]), pygit2.Oid(hex=oid))
    request.hub.store.save(repo)
    return {
        **_describe_commit(request, repo, oid),
        "pullRequestUrl": request.web_url(repo.name, "discussions", str(opened["num"])),
    }


def _describe_commit(request: HubRequest, repo: Repo, oid: str) -> dict[str, Any]:
    return {"success": True, "commitOid": oid, "commitUrl": request.web_url(repo.name, "commit", oid), "hookOutput": ""}


def _add_to_pull_request(request: HubRequest, repo: Repo, ref: str, plan: Plan, user: User, oid: str) -> None:
    for item in repo.meta.discussions:
        if item["isPullRequest"] and discussions.pr_ref(item["num"]) == ref:
            discussions.add_commit(item, user.name, plan.summary, oid)
            request.hub.store.save(repo)


def _text(asked: dict[str, Any], key: str, default: str) -> str:
    value = asked.get(key)
    return value if isinstance(value, str) else default
