"""Discussions and pull requests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import hfsoup.localhub.discussions as discussions
from hfsoup.localhub.auth import User, need_owner, need_user
from hfsoup.localhub.call import Call, reply
from hfsoup.localhub.reading import find_commit
from hfsoup.localhub.refusal import RefusedError
from hfsoup.localhub.routing import Routes
from hfsoup.localhub.store import MAIN

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.responses import Response

    from hfsoup.localhub.discussions import Discussion
    from hfsoup.localhub.store import Repo

routes = Routes()
_PAGE = 50


@routes("POST", "/api/{kind}/{repo}/discussions")
def create(call: Call) -> Response:
    """Open a discussion, or a draft pull request that starts at main."""
    user, asked = need_user(call.user), call.json()
    repo = call.repo_to_discuss()
    is_pr = asked.get("pullRequest") is True
    with call.parts.store.lock(repo.name):
        repo = call.again(repo)
        opened = discussions.start(
            repo,
            title=_text(asked, "title"),
            description=str(asked.get("description") or ""),
            author=user.name,
            status="draft" if is_pr else "open",
            base=MAIN if is_pr else None,
        )
        if is_pr:
            repo.git.references.create(discussions.pr_ref(opened["num"]), find_commit(repo.git, "main").id)
        call.parts.store.save(repo)
    number = str(opened["num"])
    return reply({"num": opened["num"], "pullRequest": is_pr, "url": call.web(repo.name, "discussions", number)})


@routes("GET", "/api/{kind}/{repo}/discussions")
def list_all(call: Call) -> Response:
    """The discussions of a repo, newest first, fifty to a page."""
    repo = call.repo()
    query = call.request.query_params
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
    items = [_head(repo, item) for item in found[start : start + _PAGE]]
    return reply({"discussions": items, "count": len(found), "start": start, "numClosedDiscussions": 0})


@routes("GET", "/api/{kind}/{repo}/discussions/{number}")
def details(call: Call) -> Response:
    """One discussion with all that happened in it."""
    repo = call.repo_to_read()
    found = discussions.find(repo, call.params["number"])
    answer = {**_head(repo, found), "events": found["events"]}
    if found["isPullRequest"]:
        changes = {"base": found["base"]}
        if "mergeCommitId" in found:
            changes["mergeCommitId"] = found["mergeCommitId"]
        answer |= {"changes": changes, "filesWithConflicts": discussions.conflicts(repo, found)}
        if call.flag("diff"):
            answer["diff"] = discussions.diff(repo, found)
    return reply(answer)


@routes("POST", "/api/{kind}/{repo}/discussions/{number}/comment")
def comment(call: Call) -> Response:
    """Add a comment."""
    text = _text(call.json(), "comment")
    return _change(call, "newMessage", lambda item, user: discussions.comment(item, user.name, text), anyone=True)


@routes("POST", "/api/{kind}/{repo}/discussions/{number}/comment/{comment}/edit")
def edit_comment(call: Call) -> Response:
    """Change the text of one's own comment."""
    return _edit(call, _text(call.json(), "content"))


@routes("POST", "/api/{kind}/{repo}/discussions/{number}/comment/{comment}/hide")
def hide_comment(call: Call) -> Response:
    """Take the text of one's own comment away for good."""
    return _edit(call, None)


@routes("POST", "/api/{kind}/{repo}/discussions/{number}/status")
def change_status(call: Call) -> Response:
    """Open or close; a comment may go with it."""
    asked = call.json()

    def change(item: Discussion, user: User) -> dict[str, Any]:
        if asked.get("comment"):
            discussions.comment(item, user.name, str(asked["comment"]))
        return discussions.change_status(item, user.name, str(asked.get("status")))

    return _change(call, "newStatus", change)


@routes("POST", "/api/{kind}/{repo}/discussions/{number}/title")
def rename(call: Call) -> Response:
    """Give it another title."""
    title = _text(call.json(), "title")
    return _change(call, "newTitle", lambda item, user: discussions.rename(item, user.name, title))


@routes("POST", "/api/{kind}/{repo}/discussions/{number}/merge")
def merge(call: Call) -> Response:
    """Merge a pull request into main."""
    repo = call.repo_to_write()
    user, asked = need_user(call.user), call.json()
    with call.parts.store.lock(repo.name):
        repo = call.again(repo)
        found = discussions.find(repo, call.params["number"])
        oid = discussions.merge(repo, found, user.name)
        if asked.get("comment"):
            discussions.comment(found, user.name, str(asked["comment"]))
        call.parts.store.save(repo)
    return reply({"mergeCommitId": oid})


def _change(
    call: Call, answer: str, change: Callable[[Discussion, User], dict[str, Any]], *, anyone: bool = False
) -> Response:
    """Change a discussion of one's own, or of a repo one may write to."""
    repo = call.repo_to_discuss()
    user = need_user(call.user)
    with call.parts.store.lock(repo.name):
        repo = call.again(repo)
        found = discussions.find(repo, call.params["number"])
        if not anyone and found["author"] != user.name:
            need_owner(user, repo.name.namespace)
        event = change(found, user)
        call.parts.store.save(repo)
    return reply({answer: event})


def _edit(call: Call, text: str | None) -> Response:
    def change(item: Discussion, user: User) -> dict[str, Any]:
        owner = user.writes_to(call.repo().name.namespace)
        return discussions.edit_comment(item, call.params["comment"], user.name, text, owner=owner)

    return _change(call, "updatedComment", change, anyone=True)


def _head(repo: Repo, item: Discussion) -> dict[str, Any]:
    kept = {key: item[key] for key in ("num", "title", "status", "isPullRequest", "createdAt")}
    return {**kept, "author": {"name": item["author"]}, "repo": {"name": repo.name.id, "type": repo.name.singular}}


def _text(asked: dict[str, Any], key: str) -> str:
    value = asked.get(key)
    if not isinstance(value, str) or not value.strip():
        raise RefusedError(400, f"Expected a {key}")
    return value
