"""The Starlette application: from a raw path to a handler, and from a refusal to an answer."""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Awaitable
from typing import IO, cast

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route as StarletteRoute

from hfsoup.localhub.errors import HttpError, MovedError
from hfsoup.localhub.request import Hub, HubRequest, raw_path, reply
from hfsoup.localhub.routes import (
    access,
    collections,
    commits,
    discussions,
    files,
    git,
    lfs,
    lists,
    misc,
    pages,
    refs,
    repos,
    storage,
    xet,
)
from hfsoup.localhub.routing import Route, find_route
from hfsoup.utils.errors import SoupError

_METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]
_IN_MEMORY = 4 << 20
_SUBJECTS = (misc, lists, collections, access, storage, repos, refs, files, commits, discussions, lfs, xet, git, pages)
_ROUTES: list[Route] = [route for subject in _SUBJECTS for route in subject.routes.rows]


def make_app(hub: Hub) -> Starlette:
    """The Hub's application over a Hub's stores and accounts."""

    async def endpoint(request: Request) -> Response:
        response = await _answer(hub, request)
        sent = request.headers
        response.headers["X-Request-Id"] = sent.get("x-request-id") or sent.get("x-amzn-trace-id") or uuid.uuid4().hex
        return response

    route = StarletteRoute("/{path:path}", endpoint, methods=_METHODS)
    return Starlette(routes=[route])


async def _answer(hub: Hub, request: Request) -> Response:
    try:
        return await _dispatch(hub, request)
    except MovedError as moved:
        return _redirect(request, moved)
    except HttpError as refusal:
        return reply(refusal.body, status=refusal.status, headers=refusal.headers)
    except ClientDisconnect:
        return Response(status_code=400)
    except SoupError as error:
        return reply({"error": error.what}, status=500)


async def _dispatch(hub: Hub, request: Request) -> Response:
    found = find_route(_ROUTES, request.method, raw_path(request))
    if found is None:
        raise HttpError(404, f"Sorry, there is no {request.method} {raw_path(request)} here.")
    route, params = found
    asked = HubRequest(hub, request, params)
    if route.streams:
        return await cast("Awaitable[Response]", route.handler(asked))
    with tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY) as body:
        async for chunk in request.stream():
            body.write(chunk)
            if asked.user is None and body.tell() > _IN_MEMORY:
                raise HttpError(413, "The body is too large for an anonymous request")
        body.seek(0)
        asked.body = cast("IO[bytes]", body)
        return cast("Response", await run_in_threadpool(route.handler, asked))


def _redirect(request: Request, moved: MovedError) -> Response:
    query = request.scope["query_string"].decode("latin-1")
    target = raw_path(request).replace(moved.old, moved.new, 1) + (f"?{query}" if query else "")
    return Response(status_code=307, headers={"Location": target})
