"""Files and folders: listing, describing, downloading."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pygit2
from starlette.responses import Response, StreamingResponse

from hfsoup.localhub.contents import Entry, find_entry, find_file, last_commits, read_blob, walk
from hfsoup.localhub.errors import HttpError, no_entry
from hfsoup.localhub.lfs import read_range
from hfsoup.localhub.request import HubRequest, reply
from hfsoup.localhub.routes.xet import headers as xet_headers
from hfsoup.localhub.routing import Routes
from hfsoup.localhub.store import Repo, timestamp

routes = Routes()
_PICTURES = {"jpg": "jpeg", "jpeg": "jpeg", "png": "png", "gif": "gif", "webp": "webp", "svg": "svg+xml"}
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")


@routes("GET", "/api/{kind}/{repo}/tree/{rev}/{path}")
def list_tree(request: HubRequest) -> Response:
    """What is in a folder."""
    repo, commit = request.commit_to_read()
    folder = find_entry(repo.git, commit, request.params["path"])
    if folder is None or folder.is_file:
        raise no_entry(request.params["path"], str(commit.id))
    found = list(walk(repo.git, folder.oid, folder.path, recursive=request.flag("recursive")))
    page, headers = request.page(found)
    items = _describe_entries(repo, commit, page, expand=request.flag("expand"))
    return reply(items, headers={**headers, "X-Repo-Commit": str(commit.id)})


@routes("POST", "/api/{kind}/{repo}/paths-info/{rev}")
def describe_paths(request: HubRequest) -> Response:
    """What lies at the given paths; unknown ones are left out."""
    repo, commit = request.commit_to_read()
    paths, expand = _read_paths(request)
    entries = [find_entry(repo.git, commit, path.strip("/")) for path in paths]
    found = [entry for entry in entries if entry is not None and entry.path]
    return reply(_describe_entries(repo, commit, found, expand=expand))


@routes("GET", "/{web}/resolve/{rev}/{path}")
def download(request: HubRequest) -> Response:
    """The content of a file, or the part in its Range header."""
    repo, commit = request.commit_to_read()
    entry = find_file(repo.git, commit, request.params["path"])
    name = quote(entry.path.rpartition("/")[2])
    headers = {"X-Repo-Commit": str(commit.id), "ETag": f'"{entry.etag}"'}
    headers["Content-Disposition"] = f"inline; filename*=UTF-8''{name}"
    if entry.lfs is None:
        return _send_blob(request, read_blob(repo.git, entry.oid), headers)
    if not request.hub.lfs.holds(repo.path, entry.lfs.oid):
        raise no_entry(entry.path, str(commit.id), what="The large file behind this pointer was never uploaded")
    headers |= {"X-Linked-Etag": f'"{entry.lfs.oid}"', "X-Linked-Size": str(entry.size)}
    headers |= xet_headers(request, repo, entry.lfs.oid)
    port = request.hub.options.cdn_port
    if port is not None:
        origin = f"{request.http.url.scheme}://{request.http.url.hostname}:{port}"
        headers["Location"] = request.hub.signer.href(origin, "get", entry.lfs.oid)
        return Response(status_code=302, headers=headers)
    return send_file(request, request.hub.lfs.path(entry.lfs.oid), entry.size, headers)


@routes("GET", "/{web}/raw/{rev}/{path}")
def download_raw(request: HubRequest) -> Response:
    """What git stores at a path: for a large file its pointer."""
    repo, commit = request.commit_to_read()
    entry = find_file(repo.git, commit, request.params["path"])
    headers = {"X-Repo-Commit": str(commit.id), "ETag": f'"{entry.oid}"'}
    return _send_blob(request, read_blob(repo.git, entry.oid), headers)


def send_file(request: HubRequest, path: Path, size: int, headers: dict[str, str]) -> Response:
    """A file from disk, in pieces."""
    start, stop, status, headers = _find_span(request, size, headers)
    if status == 416 or request.http.method == "HEAD":
        return Response(b"", status, headers)
    kind = picture_type(request.params.get("path", "")) or "application/octet-stream"
    return StreamingResponse(read_range(path, start, stop), status, headers, media_type=kind)


def picture_type(path: str) -> str | None:
    """The media type of a picture that a page may show, by its name."""
    kind = _PICTURES.get(path.rpartition(".")[2].lower())
    return f"image/{kind}" if kind else None


def _send_blob(request: HubRequest, content: bytes, headers: dict[str, str]) -> Response:
    start, stop, status, headers = _find_span(request, len(content), headers)
    if status == 416 or request.http.method == "HEAD":
        return Response(b"", status, headers)
    kind = picture_type(request.params["path"]) or "text/plain"
    return Response(content[start:stop], status, headers, media_type=kind)


def _find_span(request: HubRequest, size: int, headers: dict[str, str]) -> tuple[int, int, int, dict[str, str]]:
    """First byte, byte after the last, status and headers of the part in the Range header."""
    # A picture may be an SVG with a script in it, opened by itself.
    safe = {"X-Content-Type-Options": "nosniff", "Content-Security-Policy": "default-src 'none'; sandbox"}
    headers = {**headers, **safe, "Accept-Ranges": "bytes"}
    asked = request.http.headers
    found = _RANGE.fullmatch(asked.get("range", "").strip())
    if found is None or not any(found.groups()) or asked.get("if-range", headers["ETag"]) != headers["ETag"]:
        return 0, size, 200, {**headers, "Content-Length": str(size)}
    first, last = found.groups()
    start = int(first) if first else max(size - int(last), 0)
    stop = min(int(last) + 1, size) if first and last else size
    if start >= stop:
        return 0, 0, 416, {**headers, "Content-Range": f"bytes */{size}", "Content-Length": "0"}
    part = {"Content-Range": f"bytes {start}-{stop - 1}/{size}", "Content-Length": str(stop - start)}
    return start, stop, 206, {**headers, **part}


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


def _describe_entries(repo: Repo, commit: pygit2.Commit, entries: list[Entry], *, expand: bool) -> list[dict[str, Any]]:
    commits = last_commits(repo.git, commit, [entry.path for entry in entries]) if expand else {}
    return [_describe_entry(entry, commits.get(entry.path)) for entry in entries]


def _describe_entry(entry: Entry, last: pygit2.Commit | None) -> dict[str, Any]:
    item: dict[str, Any] = {
        "type": "file" if entry.is_file else "directory",
        "oid": entry.oid,
        "size": entry.size,
        "path": entry.path,
    }
    if entry.lfs:
        item["lfs"] = {"oid": entry.lfs.oid, "size": entry.lfs.size, "pointerSize": entry.lfs.pointer_size}
    if last is not None:
        title = last.message.partition("\n")[0]
        item["lastCommit"] = {"id": str(last.id), "title": title, "date": timestamp(last.commit_time)}
        item["securityFileStatus"] = None
    return item
