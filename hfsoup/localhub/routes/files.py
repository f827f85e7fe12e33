"""Files and folders: listing, describing, downloading."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pygit2
from starlette.responses import Response

from hfsoup.localhub.contents import Entry, find_entry, find_file, find_title, last_commits, read_blob, walk
from hfsoup.localhub.errors import HttpError, no_entry
from hfsoup.localhub.file_responses import send_content
from hfsoup.localhub.request import HubRequest, reply
from hfsoup.localhub.routing import Routes
from hfsoup.localhub.store import Repo, timestamp

routes = Routes()


@routes("GET", "/api/{kind}/{repo}/tree/{rev}/{path}")
def list_tree(request: HubRequest) -> Response:
    """What is in a folder."""
    repo, commit = request.commit_to_read()
    folder = find_entry(repo.git, commit, request.params["path"])
    if folder is None or folder.is_file:
        raise no_entry(request.params["path"], str(commit.id))
    found = list(walk(repo.git, folder.oid, folder.path, recursive=request.flag("recursive")))
    page, headers = request.page(found)
    items = _describe_entries(request, repo, commit, page, expand=request.flag("expand"))
    return reply(items, headers={**headers, "X-Repo-Commit": str(commit.id)})


@routes("POST", "/api/{kind}/{repo}/paths-info/{rev}")
def describe_paths(request: HubRequest) -> Response:
    """The files and folders at the given paths; unknown ones are left out."""
    repo, commit = request.commit_to_read()
    paths, expand = _read_paths(request)
    entries = [find_entry(repo.git, commit, path.strip("/")) for path in paths]
    found = [entry for entry in entries if entry is not None and entry.path]
    return reply(_describe_entries(request, repo, commit, found, expand=expand))


@routes("GET", "/{web}/resolve/{rev}/{path}")
def download(request: HubRequest) -> Response:
    """The content of a file, or the part in its Range header."""
    repo, commit = request.commit_to_read()
    entry = find_file(repo.git, commit, request.params["path"])
    name = quote(entry.path.rpartition("/")[2])
    headers = {"X-Repo-Commit": str(commit.id), "ETag": f'"{entry.etag}"'}
    headers["Content-Disposition"] = f"inline; filename*=UTF-8''{name}"
    if entry.lfs is None:
        return send_content(request, read_blob(repo.git, entry.oid), headers)
    if not request.hub.lfs.has(repo.path, entry.lfs.oid):
        raise no_entry(entry.path, str(commit.id), what="The large file behind this pointer was never uploaded")
    headers |= {"X-Linked-Etag": f'"{entry.lfs.oid}"', "X-Linked-Size": str(entry.size)}
    if known := request.xet_hash(repo, entry.lfs.oid):
        route = f"/api/{repo.name.key}/xet-read-token/{quote(request.params['rev'], safe='')}"
        headers |= {"X-Xet-Hash": known, "X-Xet-Refresh-Route": request.base + route}
    port = request.hub.options.cdn_port
    if port is not None:
        origin = f"{request.http.url.scheme}://{request.http.url.hostname}:{port}"
        headers["Location"] = request.hub.signer.href(origin, "get", entry.lfs.oid)
        return Response(status_code=302, headers=headers)
    return send_content(request, request.hub.lfs.path(entry.lfs.oid), headers)


@routes("GET", "/{web}/raw/{rev}/{path}")
def download_raw(request: HubRequest) -> Response:
    """What git stores at a path: for a large file its pointer."""
    repo, commit = request.commit_to_read()
    entry = find_file(repo.git, commit, request.params["path"])
    headers = {"X-Repo-Commit": str(commit.id), "ETag": f'"{entry.oid}"'}
    return send_content(request, read_blob(repo.git, entry.oid), headers)


def _read_paths(request: HubRequest) -> tuple[list[str], bool]:
    """Python sends a form, JavaScript sends JSON."""
    if "json" in request.http.headers.get("content-type", ""):
        asked = request.json()
        paths, expand = asked.get("paths", []), asked.get("expand") is True
    else:
        form = request.form()
        paths, expand = form.get("paths", []), form.get("expand", [""])[0].lower() == "true"
    if isinstance(paths, str):
        paths = [paths]
    if not isinstance(paths, list) or not all(isinstance(path, str) for path in paths):
        raise HttpError(400, "Expected paths as a list of strings")
    return paths, expand


def _describe_entries(
    request: HubRequest, repo: Repo, commit: pygit2.Commit, entries: list[Entry], *, expand: bool
) -> list[dict[str, Any]]:
    commits = last_commits(repo.git, commit, [entry.path for entry in entries]) if expand else {}
    return [_describe_entry(request, repo, entry, commits.get(entry.path)) for entry in entries]


def _describe_entry(request: HubRequest, repo: Repo, entry: Entry, last: pygit2.Commit | None) -> dict[str, Any]:
    kind = "file" if entry.is_file else "directory"
    item: dict[str, Any] = {"type": kind, "oid": entry.oid, "size": entry.size, "path": entry.path}
    if entry.lfs:
        item["lfs"] = {"oid": entry.lfs.oid, "size": entry.lfs.size, "pointerSize": entry.lfs.pointer_size}
        if known := request.xet_hash(repo, entry.lfs.oid):
            item["xetHash"] = known
    if last is not None:
        item["lastCommit"] = {"id": str(last.id), "title": find_title(last), "date": timestamp(last.commit_time)}
        item["securityFileStatus"] = None
    return item
