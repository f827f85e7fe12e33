"""Discussions and pull requests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from starlette.responses import Response

import hfsoup.localhub.discussions as discussions
from hfsoup.localhub.auth import User, require_owner, require_user
from hfsoup.localhub.contents import find_commit
from hfsoup.localhub.discussions import Discussion
from hfsoup.localhub.errors import HttpError
from hfsoup.localhub.request import HubRequest, reply
from hfsoup.localhub.routing import Routes
from hfsoup.localhub.store import MAIN, Repo

routes = Routes()
_PAGE = 50


@routes("POST", "/api/{kind}/{repo}/discussions")
def create_discussion(request: HubRequest) -> Response:
    """Open a discussion, or a draft pull request that starts at main."""
    user, asked = require_user(request.user), request.json()
    is_pr = asked.get("pullRequest") is True
    with request.change(request.repo_to_discuss()) as repo:
        opened = discussions.open_discussion(
            repo,
            title=_text(asked, "title"),
            description=str(asked.get("description") or ""),
            author=user.name,
            status="draft" if is_pr else "open",
            base=MAIN if is_pr else None,
        )
        if is_pr:
            repo.git.references.create(discussions.pr_ref(opened["num"]), find_commit(repo.git, "main").id)
    number = str(opened["num"])
    return reply({"num": opened["num"], "pullRequest": is_pr, "url": request.web_url(repo.name, "discussions", number)})


@routes("GET", "/api/{kind}/{repo}/discussions")
def list_discussions(request: HubRequest) -> Response:
    """The discussions of a repo, newest first, fifty to a page."""
    repo = request.repo()
    query = request.http.query_params
    kind, status, author = query.get("type", "all"), query.get("status", "all"), query.get("author")
    statuses = {"open": ("open", "draft"), "closed": ("closed", "merged")}.get(status, discussions.STATUSES)
    found = [
        item
        for item in reversed(repo.meta.discussions)
        if item["status"] in statuses
        and kind in ("all", "pull_request" if item["isPullRequest"] else "discussion")
        and author in (None, "", item["author"])
    ]
    page = query.get("p", "0")
    start = _PAGE * (int(page) if page.isdecimal() and len(page) < 9 else 0)
    items = [_summarize(repo, item) for item in found[start : start + _PAGE]]
    return reply({"discussions": items, "count": len(found), "start": start, "numClosedDiscussions": 0})


@routes("GET", "/api/{kind}/{repo}/discussions/{number}")
def show_discussion(request: HubRequest) -> Response:
    """One discussion with all that happened in it."""
    repo = request.repo_to_read()
    found = discussions.find_discussion(repo, request.params["number"])
    answer = {**_summarize(repo, found), "events": found["events"]}
    if found["isPullRequest"]:
        changes = {"base": found["base"]}
        if "mergeCommitId" in found:
            changes["mergeCommitId"] = found["mergeCommitId"]
        answer |= {"changes": changes, "filesWithConflicts": discussions.find_conflicts(repo, found)}
        if request.flag("diff"):
            answer["diff"] = discussions.diff_pull_request(repo, found)
    return reply(answer)


@routes("POST", "/api/{kind}/{repo}/discussions/{number}/comment")
def add_comment(request: HubRequest) -> Response:
    """Add a comment."""
    text = _text(request.json(), "comment")
    return _change_discussion(
        request, "newMessage", lambda item, user: discussions.add_comment(item, user.name, text), anyone=True
    )


@routes("POST", "/api/{kind}/{repo}/discussions/{number}/comment/{comment}/edit")
def edit_comment(request: HubRequest) -> Response:
    """Change the text of one's own comment."""
    return _edit_comment(request, _text(request.json(), "content"))


@routes("POST", "/api/{kind}/{repo}/discussions/{number}/comment/{comment}/hide")
def hide_comment(request: HubRequest) -> Response:
    """Take the text of one's own comment away for good."""
    return _edit_comment(request, None)


@routes("POST", "/api/{kind}/{repo}/discussions/{number}/status")
def change_status(request: HubRequest) -> Response:
    """Open or close; a comment may go with it."""
    asked = request.json()

    def change(item: Discussion, user: User) -> dict[str, Any]:
        if asked.get("comment"):
            discussions.add_comment(item, user.name, str(asked["comment"]))
        return discussions.change_status(item, user.name, str(asked.get("status")))

    return _change_discussion(request, "newStatus", change)


@routes("POST", "/api/{kind}/{repo}/discussions/{number}/title")
def change_title(request: HubRequest) -> Response:
    """Give it another title."""
    title = _text(request.json(), "title")
    return _change_discussion(request, "newTitle", lambda item, user: discussions.change_title(item, user.name, title))


@routes("POST", "/api/{kind}/{repo}/discussions/{number}/merge")
def merge_pull_request(request: HubRequest) -> Response:
    """Merge a pull request into main."""
    user, asked = require_user(request.user), request.json()
    with request.change(request.repo_to_write()) as repo:
        found = discussions.find_discussion(repo, request.params["number"])
        oid = discussions.merge_pull_request(repo, found, user.name)
        if asked.get("comment"):
            discussions.add_comment(found, user.name, str(asked["comment"]))
    return reply({"mergeCommitId": oid})


def _change_discussion(
    request: HubRequest, answer: str, change: Callable[[Discussion, User], dict[str, Any]], *, anyone: bool = False
) -> Response:
    """Change a discussion of one's own, or of a repo one may write to."""
    user = require_user(request.user)
    with request.change(request.repo_to_discuss()) as repo:
        found = discussions.find_discussion(repo, request.params["number"])
        if not anyone and found["author"] != user.name:
            require_owner(user, repo.name.namespace)
        event = change(found, user)
    return reply({answer: event})


def _edit_comment(request: HubRequest, text: str | None) -> Response:
    def change(item: Discussion, user: User) -> dict[str, Any]:
        owner = user.writes_to(request.repo().name.namespace)
        return discussions.edit_comment(item, request.params["comment"], user.name, text, owner=owner)

    return _change_discussion(request, "updatedComment", change, anyone=True)


def _summarize(repo: Repo, item: Discussion) -> dict[str, Any]:
    known = {key: item[key] for key in ("num", "title", "status", "isPullRequest", "createdAt")}
    return {**known, "author": {"name": item["author"]}, "repo": {"name": repo.name.id, "type": repo.name.singular}}


def _text(asked: dict[str, Any], key: str) -> str:
    value = asked.get(key)
    if not isinstance(value, str) or not value.strip():
        raise HttpError(400, f"Expected a {key}")
    return value
