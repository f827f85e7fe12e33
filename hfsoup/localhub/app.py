"""The Starlette application: from a raw path to a handler, and from a refusal to an answer."""

from __future__ import annotations

import tempfile
import uuid
from typing import TYPE_CHECKING, cast

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route as StarletteRoute

import hfsoup.localhub.routes_access as routes_access
import hfsoup.localhub.routes_collections as routes_collections
import hfsoup.localhub.routes_commits as routes_commits
import hfsoup.localhub.routes_discussions as routes_discussions
import hfsoup.localhub.routes_files as routes_files
import hfsoup.localhub.routes_git as routes_git
import hfsoup.localhub.routes_lfs as routes_lfs
import hfsoup.localhub.routes_lists as routes_lists
import hfsoup.localhub.routes_misc as routes_misc
import hfsoup.localhub.routes_pages as routes_pages
import hfsoup.localhub.routes_refs as routes_refs
import hfsoup.localhub.routes_repos as routes_repos
import hfsoup.localhub.routes_storage as routes_storage
import hfsoup.localhub.routes_xet as routes_xet
from hfsoup.errors import SoupError
from hfsoup.localhub.call import Call, Parts, raw_path, reply
from hfsoup.localhub.refusal import MovedError, RefusedError
from hfsoup.localhub.routing import find

if TYPE_CHECKING:
    from collections.abc import Awaitable
    from typing import IO

_METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]
_IN_MEMORY = 4 << 20
_ROWS = [
    row
    for module in (
        routes_misc,
        routes_lists,
        routes_collections,
        routes_access,
        routes_storage,
        routes_repos,
        routes_refs,
        routes_files,
        routes_commits,
        routes_discussions,
        routes_lfs,
        routes_xet,
        routes_git,
        routes_pages,
    )
    for row in module.routes.rows
]


def make_app(parts: Parts) -> Starlette:
    """The Hub's application over its parts."""

    async def endpoint(request: Request) -> Response:
        response = await _answer(parts, request)
        sent = request.headers
        response.headers["X-Request-Id"] = sent.get("x-request-id") or sent.get("x-amzn-trace-id") or uuid.uuid4().hex
        return response

    route = StarletteRoute("/{path:path}", endpoint, methods=_METHODS)
    return Starlette(routes=[route])


async def _answer(parts: Parts, request: Request) -> Response:
    try:
        return await _dispatch(parts, request)
    except MovedError as moved:
        return _redirect(request, moved)
    except RefusedError as refusal:
        return reply(refusal.body, status=refusal.status, headers=refusal.headers)
    except ClientDisconnect:
        return Response(status_code=400)
    except SoupError as error:
        return reply({"error": error.what}, status=500)


async def _dispatch(parts: Parts, request: Request) -> Response:
    found = find(_ROWS, request.method, raw_path(request))
    if found is None:
        raise RefusedError(404, f"Sorry, there is no {request.method} {raw_path(request)} here.")
    route, params = found
    call = Call(parts, request, params)
    if route.streams:
        return await cast("Awaitable[Response]", route.handler(call))
    with tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY) as body:
        async for chunk in request.stream():
            body.write(chunk)
            if call.user is None and body.tell() > _IN_MEMORY:
                raise RefusedError(413, "The body is too large for an anonymous request")
        body.seek(0)
        call.body = cast("IO[bytes]", body)
        return cast("Response", await run_in_threadpool(route.handler, call))


def _redirect(request: Request, moved: MovedError) -> Response:
    query = request.scope["query_string"].decode("latin-1")
    target = raw_path(request).replace(moved.old, moved.new, 1) + (f"?{query}" if query else "")
    return Response(status_code=307, headers={"Location": target})
