"""Pages for people, at the addresses that clients print: a repo's card, files, commits and discussions."""

from __future__ import annotations

import functools
from collections.abc import Callable
from itertools import islice
from typing import Any
from urllib.parse import quote

import pygit2
from starlette.responses import Response

import hfsoup.localhub.discussions as discussions
from hfsoup.localhub.cards import CardError, split_card
from hfsoup.localhub.contents import (
    find_commit,
    find_entry,
    find_file,
    find_title,
    history,
    last_commits,
    read_blob,
    read_text,
    walk,
)
from hfsoup.localhub.errors import HttpError, no_entry
from hfsoup.localhub.file_responses import picture_type
from hfsoup.localhub.html_pages import HEADERS, render_card, render_page
from hfsoup.localhub.names import KINDS
from hfsoup.localhub.repo_info import summarize_repo
from hfsoup.localhub.request import HubRequest, reply
from hfsoup.localhub.routes.collections import find_collection
from hfsoup.localhub.routing import Handler, Routes
from hfsoup.localhub.store import Repo, timestamp

routes = Routes()
_LONGEST = 1 << 19
_COMMITS = 100


def _page(*patterns: str) -> Callable[[Callable[[HubRequest], str]], Handler]:
    """A handler that answers with HTML, errors too where a browser sends the request."""

    def add(render: Callable[[HubRequest], str]) -> Handler:
        @functools.wraps(render)
        def handler(request: HubRequest) -> Response:
            try:
                return Response(render(request), headers=HEADERS, media_type="text/html")
            except HttpError as refusal:
                if "text/html" not in request.http.headers.get("accept", ""):
                    raise
                headers = {**HEADERS, **refusal.headers}
                if refusal.status == 401:
                    # A browser then opens its dialog for a user name and a token, as git does.
                    headers["WWW-Authenticate"] = 'Basic realm="Hub"'
                text = render_page("error", title=str(refusal.status), message=refusal.message)
                return Response(text, refusal.status, headers, media_type="text/html")

        return routes("GET", *patterns)(handler)

    return add


@routes("GET", "/")
def show_home(request: HubRequest) -> Response:
    """All repos that the caller may see; for programs, what this server is."""
    if "text/html" not in request.http.headers.get("accept", ""):
        return reply({"name": "a Hub in a folder", "endpoint": request.base})
    text = render_page("list", title="The Hub in a folder", items=_list_repos(request, None))
    return Response(text, headers=HEADERS, media_type="text/html")


@_page("/collections/{owner}/{slug}")
def show_collection(request: HubRequest) -> str:
    """What is in a collection."""
    found = find_collection(request, request.hub.store.collections())
    repos = [request.visible_repo(f"{item['type']}s", item["id"]) for item in found["items"]]
    items = [(repo.name.singular, repo.name.web, repo.name.id, "") for repo in repos if repo]
    return render_page("list", title=f"{found['owner']} / {found['title']}", items=items)


@_page("/{web}/tree/{rev}/{path}")
def show_tree(request: HubRequest) -> str:
    """What is in a folder, with sizes."""
    repo, commit = request.commit_to_read()
    revision, path = request.params["rev"], request.params["path"]
    folder = find_entry(repo.git, commit, path)
    if folder is None or folder.is_file:
        raise no_entry(path, str(commit.id))
    found = sorted(walk(repo.git, folder.oid, path, recursive=False), key=lambda entry: (entry.is_file, entry.path))
    commits = last_commits(repo.git, commit, [entry.path for entry in found])
    entries = [
        {
            "name": entry.path.rpartition("/")[2],
            "is_file": entry.is_file,
            "size": entry.size,
            "address": _address(repo, "blob" if entry.is_file else "tree", revision, entry.path),
            "download": _address(repo, "resolve", revision, entry.path),
            "last": find_title(commits[entry.path]) if entry.path in commits else "",
        }
        for entry in found
    ]
    parts = path.split("/") if path else []
    crumbs = [(part, _address(repo, "tree", revision, "/".join(parts[: at + 1]))) for at, part in enumerate(parts)]
    return _render("tree", request, repo, entries=entries, crumbs=crumbs)


@_page("/{web}/blob/{rev}/{path}")
def show_file(request: HubRequest) -> str:
    """One file: its text or picture, and where to download it."""
    repo, commit = request.commit_to_read()
    revision, path = request.params["rev"], request.params["path"]
    entry = find_file(repo.git, commit, path)
    text = None
    if entry.lfs is None and entry.size <= _LONGEST:
        content = read_blob(repo.git, entry.oid)
        text = content.decode(errors="replace") if b"\0" not in content else None
    known = {"size": entry.size, "oid": entry.lfs.oid if entry.lfs else None, "path": path, "text": text}
    download = _address(repo, "resolve", revision, path)
    return _render("blob", request, repo, **known, download=download, picture=picture_type(path) is not None)


@_page("/{web}/commits/{rev}")
def show_commits(request: HubRequest) -> str:
    """The newest commits of a revision."""
    repo, commit = request.commit_to_read()
    newest = [_describe_commit(found) for found in islice(history(repo.git, commit), _COMMITS)]
    return _render("commits", request, repo, commits=newest)


@_page("/{web}/commit/{rev}")
def show_commit(request: HubRequest) -> str:
    """What one commit changed."""
    repo, found = request.commit_to_read()
    changed = repo.git.diff(found.parents[0], found) if found.parents else found.tree.diff_to_tree(swap=True)
    return _render("commit", request, repo, commit=_describe_commit(found), patch=(changed.patch or "")[:_LONGEST])


@_page("/{web}/discussions")
def show_discussions(request: HubRequest) -> str:
    """The discussions and pull requests of a repo."""
    repo = request.repo()
    return _render("discussions", request, repo, discussions=list(reversed(repo.meta.discussions)))


@_page("/{web}/discussions/{number}")
def show_discussion(request: HubRequest) -> str:
    """One discussion with its comments, or a pull request with what it changes."""
    repo = request.repo()
    item = discussions.find_discussion(repo, request.params["number"])
    events = [_describe_event(repo, event) for event in item["events"]]
    patch = discussions.diff_pull_request(repo, item) if item["isPullRequest"] and request.repo_to_read() else ""
    return _render("discussion", request, repo, item=item, events=events, patch=patch[:_LONGEST])


@_page("/{web}")
def show_card(request: HubRequest) -> str:
    """The card of a repo; for a bare name, what that user or organisation has."""
    if "/" not in request.params["repo"]:
        items = _list_repos(request, request.params["repo"])
        if not items and not request.hub.accounts.is_user(request.params["repo"]):
            raise HttpError(404, f"There is nothing at {request.raw_path}")
        return render_page("list", title=request.params["repo"], items=items)
    repo = request.repo()
    return _render("card", request, repo, card=_card(repo, find_commit(repo.git, "main")))


def _render(view: str, request: HubRequest, repo: Repo, **values: Any) -> str:
    revision = request.params.get("rev", "main")
    main = find_commit(repo.git, "main")
    known = {"repo": repo.name, "facts": summarize_repo(repo, main, request.hub.lfs), "revision": revision}
    return render_page(view, title=repo.name.id, rev=quote(revision, safe=""), **known, **values)


def _card(repo: Repo, commit: pygit2.Commit) -> Any:
    text = read_text(repo.git, commit, "README.md")
    try:
        _, text = split_card(text)
    except CardError as error:
        text = f"{error}\n\n{text}"
    return _markdown(repo, text) if text.strip() else ""


def _markdown(repo: Repo, text: str) -> Any:
    return render_card(
        text,
        link=lambda path: _address(repo, "blob", "main", path),
        image=lambda path: _address(repo, "resolve", "main", path),
    )


def _address(repo: Repo, what: str, revision: str, path: str) -> str:
    return f"/{quote(repo.name.web)}/{what}/{quote(revision, safe='')}/{quote(path)}"


def _describe_commit(found: pygit2.Commit) -> dict[str, str]:
    title, _, message = found.message.partition("\n")
    date = timestamp(found.commit_time)[:16].replace("T", " ")
    return {"id": str(found.id), "title": title, "message": message, "author": found.author.name, "date": date}


def _describe_event(repo: Repo, event: dict[str, Any]) -> dict[str, Any]:
    shown = {"author": event["author"]["name"], "date": event["createdAt"][:16].replace("T", " ")}
    if event["type"] == "comment":
        return {**shown, "text": _markdown(repo, event["data"]["latest"]["raw"])}
    data = event["data"]
    return {**shown, "what": data.get("status") or data.get("subject") or f"renamed to {data.get('to')}"}


def _list_repos(request: HubRequest, namespace: str | None) -> list[tuple[str, str, str, str]]:
    """Kind, path, name and visibility of the repos that the caller may see."""
    found = [repo for kind in KINDS for repo in request.visible_repos(kind, namespace)]
    return [(repo.name.singular, repo.name.web, repo.name.id, repo.meta.visibility) for repo in found]
