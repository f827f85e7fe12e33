"""Git over HTTP: clone, fetch and push, through git's own `http-backend`."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack

from starlette.responses import Response, StreamingResponse

from hfsoup.localhub.auth import require_owner, require_user
from hfsoup.localhub.errors import HttpError
from hfsoup.localhub.request import HubRequest
from hfsoup.localhub.routing import Routes
from hfsoup.localhub.store import Repo

routes = Routes()
_CHUNK = 1 << 16


@routes("GET", "/{web}/info/refs")
def list_refs(request: HubRequest) -> Response:
    """The refs of a repo, for git."""
    service = request.http.query_params.get("service")
    if service not in ("git-upload-pack", "git-receive-pack"):
        raise HttpError(403, "Only git's smart protocol is spoken here")
    return _run_git(request, _open_repo(request, writing=service == "git-receive-pack"), "info/refs")


@routes("POST", "/{web}/git-upload-pack")
def send_pack(request: HubRequest) -> Response:
    """Clone or fetch."""
    return _run_git(request, _open_repo(request, writing=False), "git-upload-pack")


@routes("POST", "/{web}/git-receive-pack")
def receive_pack(request: HubRequest) -> Response:
    """Push."""
    return _run_git(request, _open_repo(request, writing=True), "git-receive-pack")


def _open_repo(request: HubRequest, *, writing: bool) -> Repo:
    try:
        repo = request.repo_to_read()
    except HttpError as refusal:
        # Without this header git does not ask its user for a token.
        if refusal.status == 401:
            refusal.headers["WWW-Authenticate"] = 'Basic realm="Hub"'
        raise
    if writing:
        require_user(request.user)
        require_owner(request.user, repo.name.namespace)
    return repo


def _run_git(request: HubRequest, repo: Repo, service: str) -> Response:
    git = shutil.which("git")
    if git is None:
        raise HttpError(501, "This Hub's machine has no git: use the Hub's own clients")
    # The request is read to its end by now: whoever answers before that lets go of what is still to come.
    process = subprocess.Popen(
        [git, "http-backend"],
        stdin=request.body or subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        env=_make_environment(request, repo, service),
    )
    with ExitStack() as undo:
        undo.enter_context(process)
        status, headers = _read_headers(process)
        undo.pop_all()
    return StreamingResponse(_stream_body(process), status, headers)


def _make_environment(request: HubRequest, repo: Repo, service: str) -> dict[str, str]:
    headers = request.http.headers
    known = {
        "GIT_PROJECT_ROOT": str(repo.path),
        "GIT_HTTP_EXPORT_ALL": "1",
        "PATH_INFO": f"/{service}",
        "REQUEST_METHOD": request.http.method,
        "QUERY_STRING": request.http.url.query,
        "CONTENT_TYPE": headers.get("content-type", ""),
        "HTTP_CONTENT_ENCODING": headers.get("content-encoding", ""),
        "GIT_PROTOCOL": headers.get("git-protocol", ""),
        "REMOTE_USER": request.user.name if request.user else "",
        "REMOTE_ADDR": request.http.client.host if request.http.client else "",
    }
    passed = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    return {**passed, **{name: value for name, value in known.items() if value}}


def _read_headers(process: subprocess.Popen[bytes]) -> tuple[int, dict[str, str]]:
    """Status and headers git answers with."""
    status, headers = 200, {"Cache-Control": "no-cache"}
    while process.stdout and (line := process.stdout.readline().decode("latin-1").strip()):
        name, _, value = line.partition(":")
        if name.lower() == "status":
            status = int(value.split()[0])
        else:
            headers[name.strip()] = value.strip()
    if len(headers) == 1:
        raise HttpError(500, "git http-backend gave no answer")
    return status, headers


def _stream_body(process: subprocess.Popen[bytes]) -> Iterator[bytes]:
    with process:
        try:
            while process.stdout and (chunk := process.stdout.read1(_CHUNK)):  # type: ignore[attr-defined]
                yield chunk
        except GeneratorExit:
            process.kill()
            raise
