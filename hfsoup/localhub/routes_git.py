"""Git over HTTP: clone, fetch and push, through git's own `http-backend`."""

from __future__ import annotations

import asyncio
import os
import shutil
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from starlette.responses import Response, StreamingResponse

from hfsoup.localhub.auth import need_owner, need_user
from hfsoup.localhub.refusal import RefusedError
from hfsoup.localhub.routing import Routes

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from collections.abc import AsyncIterator

    from hfsoup.localhub.call import Call
    from hfsoup.localhub.store import Repo

routes = Routes()
_CHUNK = 1 << 16


@routes("GET", "/{web}/info/refs")
async def advertise(call: Call) -> Response:
    """Tell git which refs there are."""
    service = call.request.query_params.get("service")
    if service not in ("git-upload-pack", "git-receive-pack"):
        raise RefusedError(403, "Only git's smart protocol is spoken here")
    return await _answer(call, _repo(call, writing=service == "git-receive-pack"), "info/refs")


@routes("POST", "/{web}/git-upload-pack")
async def send(call: Call) -> Response:
    """Clone or fetch."""
    return await _answer(call, _repo(call, writing=False), "git-upload-pack")


@routes("POST", "/{web}/git-receive-pack")
async def receive(call: Call) -> Response:
    """Push."""
    return await _answer(call, _repo(call, writing=True), "git-receive-pack")


def _repo(call: Call, *, writing: bool) -> Repo:
    try:
        repo = call.repo_to_read()
    except RefusedError as refusal:
        # Without this header git does not ask its user for a token.
        if refusal.status == 401:
            refusal.headers["WWW-Authenticate"] = 'Basic realm="Hub"'
        raise
    if writing:
        need_user(call.user)
        need_owner(call.user, repo.name.namespace)
    return repo


async def _answer(call: Call, repo: Repo, service: str) -> Response:
    git = shutil.which("git")
    if git is None:
        raise RefusedError(501, "This Hub's machine has no git: use the Hub's own clients")
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        git, "http-backend", stdin=pipe, stdout=pipe, env=_environment(call, repo, service)
    )
    feeding = asyncio.create_task(_feed(call, process))
    async with AsyncExitStack() as undo:
        undo.push_async_callback(_end, process)
        undo.callback(feeding.cancel)
        status, headers = await _head(process)
        undo.pop_all()
    return StreamingResponse(_body(process, feeding), status, headers)


def _environment(call: Call, repo: Repo, service: str) -> dict[str, str]:
    headers = call.request.headers
    known = {
        "GIT_PROJECT_ROOT": str(repo.path),
        "GIT_HTTP_EXPORT_ALL": "1",
        "PATH_INFO": f"/{service}",
        "REQUEST_METHOD": call.request.method,
        "QUERY_STRING": call.request.url.query,
        "CONTENT_TYPE": headers.get("content-type", ""),
        "HTTP_CONTENT_ENCODING": headers.get("content-encoding", ""),
        "GIT_PROTOCOL": headers.get("git-protocol", ""),
        "REMOTE_USER": call.user.name if call.user else "",
        "REMOTE_ADDR": call.request.client.host if call.request.client else "",
    }
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    return {**kept, **{name: value for name, value in known.items() if value}}


async def _feed(call: Call, process: Process) -> None:
    """Hand the request's body to git."""
    stdin = process.stdin
    if stdin is None:
        return
    try:
        async for chunk in call.request.stream():
            stdin.write(chunk)
            await stdin.drain()
    except (BrokenPipeError, ConnectionResetError):
        return
    finally:
        stdin.close()


async def _head(process: Process) -> tuple[int, dict[str, str]]:
    """Status and headers git answers with."""
    status, headers = 200, {"Cache-Control": "no-cache"}
    if process.stdout is None:
        raise RefusedError(500, "git http-backend gave no answer")
    while line := (await process.stdout.readline()).decode("latin-1").strip():
        name, _, value = line.partition(":")
        if name.lower() == "status":
            status = int(value.split()[0])
        else:
            headers[name.strip()] = value.strip()
    if len(headers) == 1:
        raise RefusedError(500, "git http-backend gave no answer")
    return status, headers


async def _body(process: Process, feeding: asyncio.Task[None]) -> AsyncIterator[bytes]:
    try:
        while process.stdout and (chunk := await process.stdout.read(_CHUNK)):
            yield chunk
        await feeding
    finally:
        feeding.cancel()
        await _end(process)


async def _end(process: Process) -> None:
    if process.returncode is None:
        try:
            process.kill()
        except ProcessLookupError:
            return
    await process.wait()
