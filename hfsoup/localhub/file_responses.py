"""Answers with the content of a file, whole or in part."""

from __future__ import annotations

import re
from pathlib import Path

from starlette.responses import Response, StreamingResponse

from hfsoup.localhub.lfs import read_range
from hfsoup.localhub.request import HubRequest

_PICTURES = {"jpg": "jpeg", "jpeg": "jpeg", "png": "png", "gif": "gif", "webp": "webp", "svg": "svg+xml"}
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")


def send_content(request: HubRequest, content: bytes | Path, headers: dict[str, str]) -> Response:
    """A file from memory, or from disk in pieces; whole or the part in the Range header."""
    size = len(content) if isinstance(content, bytes) else content.stat().st_size
    start, stop, status, headers = _find_span(request, size, headers)
    if status == 416 or request.http.method == "HEAD":
        return Response(b"", status, headers)
    kind = picture_type(request.params.get("path", "")) or (
        "text/plain" if isinstance(content, bytes) else "application/octet-stream"
    )
    if isinstance(content, bytes):
        return Response(content[start:stop], status, headers, media_type=kind)
    return StreamingResponse(read_range(content, start, stop), status, headers, media_type=kind)


def picture_type(path: str) -> str | None:
    """The media type of a picture that a page may show, by its name."""
    kind = _PICTURES.get(path.rpartition(".")[2].lower())
    return f"image/{kind}" if kind else None


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
