"""Discussions and pull requests: entries in a repo's hub.json; a pull request also has the ref `refs/pr/N`."""

from __future__ import annotations

import secrets
from typing import Any

import pygit2

from hfsoup.localhub.errors import HttpError
from hfsoup.localhub.store import Repo, signature, timestamp

STATUSES = ("open", "closed", "draft", "merged")
Discussion = dict[str, Any]


def pr_ref(number: int) -> str:
    """The ref of a pull request."""
    return f"refs/pr/{number}"


def open_discussion(
    repo: Repo, *, title: str, description: str, author: str, status: str = "open", base: str | None = None
) -> Discussion:
    """Add a discussion, or a pull request to the branch `base`; the caller saves the repo and makes the new ref."""
    number = 1 + max((item["num"] for item in repo.meta.discussions), default=0)
    found: Discussion = {
        "num": number,
        "title": title,
        "status": status,
        "isPullRequest": base is not None,
        "createdAt": timestamp(),
        "author": author,
        "events": [],
    }
    if base:
        found["base"] = base
    add_comment(found, author, description)
    repo.meta.discussions.append(found)
    return found


def find_discussion(repo: Repo, number: str) -> Discussion:
    """The discussion of that number; HttpError 404 if there is none."""
    for item in repo.meta.discussions:
        if str(item["num"]) == number:
            return item
    raise HttpError(404, f"No discussion {number} in {repo.name.id}")


def add_comment(discussion: Discussion, author: str, text: str) -> dict[str, Any]:
    """Add a comment."""
    content = {"edited": False, "hidden": False, "latest": {"raw": text, "updatedAt": timestamp()}}
    return _add_event(discussion, author, "comment", content)


def edit_comment(
    discussion: Discussion, identifier: str, author: str, text: str | None, *, owner: bool
) -> dict[str, Any]:
    """Change the text of one's own comment, or hide it for good with None, which the repo's owner may do as well."""
    events: list[dict[str, Any]] = discussion["events"]
    for event in events:
        if event["id"] == identifier and event["type"] == "comment":
            if event["author"]["name"] != author and not (owner and text is None):
                raise HttpError(403, "Only the author of a comment may change it")
            if event["data"]["hidden"]:
                raise HttpError(400, "This comment is hidden")
            event["data"] |= {"edited": True, "hidden": text is None, "hiddenBy": author if text is None else None}
            event["data"]["latest"] = {"raw": text or "This comment has been hidden", "updatedAt": timestamp()}
            return event
    raise HttpError(404, f"No comment {identifier}")


def change_status(discussion: Discussion, author: str, status: str) -> dict[str, Any]:
    """Open or close it."""
    if status not in STATUSES[:3]:
        raise HttpError(400, f"Unknown status {status!r}, expected one of open, closed, draft")
    if discussion["status"] == "merged":
        raise HttpError(400, "A merged pull request keeps its status")
    discussion["status"] = status
    return _add_event(discussion, author, "status-change", {"status": status})


def change_title(discussion: Discussion, author: str, title: str) -> dict[str, Any]:
    """Give it another title."""
    old, discussion["title"] = discussion["title"], title
    return _add_event(discussion, author, "title-change", {"from": old, "to": title})


def add_commit(discussion: Discussion, author: str, subject: str, oid: str) -> None:
    """Record a commit made to the pull request."""
    _add_event(discussion, author, "commit", {"subject": subject, "oid": oid})


def merge_pull_request(repo: Repo, discussion: Discussion, author: str) -> str:
    """Merge a pull request into main with a merge commit; hold the repo's lock. Returns the commit's id."""
    if not discussion["isPullRequest"] or discussion["status"] not in ("open", "draft"):
        raise HttpError(400, f"Discussion {discussion['num']} is not an open pull request")
    git = repo.git
    ours, theirs = _find_tips(repo, discussion)
    index = git.merge_commits(ours, theirs)
    if index.conflicts is not None:
        raise HttpError(409, f"Conflicts in: {', '.join(_list_conflicts(index))}")
    person = signature(author)
    message = f"{discussion['title']} (#{discussion['num']})"
    oid = str(
        git.create_commit(discussion["base"], person, person, message, index.write_tree(git), [ours.id, theirs.id])
    )
    discussion["status"] = "merged"
    discussion["mergeCommitId"] = oid
    _add_event(discussion, author, "status-change", {"status": "merged"})
    return oid


def find_conflicts(repo: Repo, discussion: Discussion) -> list[str]:
    """Paths for which an open pull request cannot be merged."""
    if discussion["status"] not in ("open", "draft"):
        return []
    return _list_conflicts(repo.git.merge_commits(*_find_tips(repo, discussion)))


def diff_pull_request(repo: Repo, discussion: Discussion) -> str:
    """What a pull request changes, as a patch."""
    git = repo.git
    ours, theirs = _find_tips(repo, discussion)
    if "mergeCommitId" in discussion:
        ours = git[discussion["mergeCommitId"]].peel(pygit2.Commit).parents[0]
    # A branch whose history was squashed has no commit in common with main.
    base = git.merge_base(ours.id, theirs.id)
    return git.diff(git[base].peel(pygit2.Commit) if base else ours, theirs).patch or ""


def _find_tips(repo: Repo, discussion: Discussion) -> tuple[pygit2.Commit, pygit2.Commit]:
    references = repo.git.references
    ref = pr_ref(discussion["num"])
    for name in (ref, discussion["base"]):
        if name not in references:
            raise HttpError(409, f"The branch {name} of this pull request is gone")
    return references[discussion["base"]].peel(pygit2.Commit), references[ref].peel(pygit2.Commit)


def _list_conflicts(index: pygit2.Index) -> list[str]:
    sides = [next(side for side in conflict if side is not None) for conflict in index.conflicts or ()]
    return sorted({side.path for side in sides})


def _add_event(discussion: Discussion, author: str, kind: str, data: dict[str, Any]) -> dict[str, Any]:
    event: dict[str, Any] = {"id": secrets.token_hex(12), "type": kind, "createdAt": timestamp()}
    event |= {"author": {"name": author}, "data": data}
    discussion["events"].append(event)
    return event
