"""What the page's server answers at all: the page's own routes, asked for by the page itself, within limits."""

from __future__ import annotations

import json
import re
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import SplitResult, urlsplit

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

GET = re.compile(
    r"/(config|theme\.css|favicon\.ico|robots\.txt|manifest\.json|pwa_icon(/\d+)?|((svelte|static|assets)/.+))?"
    r"|/gradio_api/(app_id|info|startup-events|heartbeat/[^/]+|queue/(data|status)|upload_progress|file=.+)"
)
POST = re.compile(r"/gradio_api/(queue/join|run/predict|cancel|reset|upload)/?")
"""All other routes of gradio are for other pages: they fetch addresses, run functions by name, or record usage."""
WORK = re.compile(r"/gradio_api/(queue/join|run/predict)/?")
ADDRESS = re.compile(r"\s*([a-z][a-z0-9+.-]*:)?[/\\]{2}", re.IGNORECASE)
JSON_LIMIT, UPLOAD_LIMIT = 1 << 20, 65 << 20
"""Bytes of a request, and of one that uploads an image of at most 64 MB."""
SPAN = 600.0
"""Seconds over which a public page counts requests and uploads."""
REQUESTS, UPLOADS = 600, 1 << 30
"""The most requests of one visitor to a public page, and bytes of all uploads, within `SPAN`."""


class RefusedError(Exception):
    """A request that is not answered: its status and why."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status, self.why = status, why


@dataclass
class Meter:
    """Adds up amounts over the last `SPAN` seconds of a clock."""

    clock: Callable[[], float]
    _entries: deque[tuple[float, int]] = field(default_factory=deque)
    total: int = 0

    def add(self, amount: int = 0) -> int:
        """Add an amount; the sum of the last `SPAN` seconds."""
        now = self.clock()
        if amount:
            self._entries.append((now, amount))
            self.total += amount
        while self._entries and self._entries[0][0] < now - SPAN:
            self.total -= self._entries.popleft()[1]
        return self.total


class Guard:
    """Middleware around the page.

    Args:
        app: the page.
        hosts: the values of the Host header that are answered, so that no other site reaches the page by DNS rebinding;
            empty on a public page, which has names that it does not know.
        proxied: whether a proxy that can be trusted names the visitors of a public page.
        clock: seconds, for the limits of a public page.
    """

    def __init__(
        self,
        app: ASGIApp,
        hosts: Sequence[str] = (),
        *,
        proxied: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.app, self.hosts, self.proxied, self.clock = app, frozenset(hosts), proxied, clock
        self._requests: dict[str, Meter] = {}
        self._uploads = Meter(clock)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or say why not."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        try:
            if scope["type"] != "http":
                raise RefusedError(404, "not found")
            self._check(scope["method"], scope["path"], Headers(scope=scope), str((scope["client"] or ("",))[0]))
            limit = UPLOAD_LIMIT if scope["path"].rstrip("/").endswith("/upload") else JSON_LIMIT
            reading = self._read_whole if WORK.fullmatch(scope["path"]) else self._count
            await self.app(scope, await reading(receive, limit), send)
        except RefusedError as error:
            await PlainTextResponse(error.why, error.status)(scope, receive, send)

    def _check(self, method: str, path: str, headers: Headers, client: str) -> None:
        """Refuse a request by its first lines.

        Raises:
            RefusedError: it is for another host, of another site, of no use to the page, or one too many.
        """
        if self.hosts and parse_address(f"//{headers.get('host', '')}").hostname not in self.hosts:
            raise RefusedError(400, "this page has another name")
        if self.hosts and is_foreign(headers):
            raise RefusedError(403, "this request comes from another site")
        if not (GET.fullmatch(path) if method in ("GET", "HEAD") else method == "POST" and POST.fullmatch(path)):
            raise RefusedError(404, "not found")
        if ADDRESS.match(path.partition("file=")[2]):
            raise RefusedError(403, "this page fetches nothing from elsewhere")
        if not self.hosts and method == "POST":
            # The proxy of a Space appends the address that it was asked from; elsewhere anyone may write this header.
            visitor = headers.get("x-forwarded-for", client).rpartition(",")[2].strip() if self.proxied else client
            if self._requests.setdefault(visitor, Meter(self.clock)).add(1) > REQUESTS:
                raise RefusedError(429, "too many requests; wait some minutes")
            for idle in [name for name, meter in self._requests.items() if not meter.add()]:
                del self._requests[idle]

    async def _count(self, receive: Receive, limit: int) -> Receive:
        """Pass a body on, up to `limit` bytes of it."""
        seen = 0

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += (size := len(message.get("body", b"")))
            if seen > limit or (not self.hosts and self._uploads.add(size) > UPLOADS):
                raise RefusedError(413, "this is too large, or too much was uploaded in the last minutes")
            return message

        return counted

    async def _read_whole(self, receive: Receive, limit: int) -> Receive:
        """Read the body of a call and refuse one that names files elsewhere, which gradio would fetch."""
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if len(body) > limit:
                raise RefusedError(413, "this is too large")
            if not message.get("more_body"):
                break
        try:
            values = list(list_files(json.loads(body)))
        except (ValueError, RecursionError) as error:
            raise RefusedError(400, "expected JSON") from error
        if any(ADDRESS.match(value) for value in values):
            raise RefusedError(403, "this page fetches nothing from elsewhere")
        waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def whole() -> Message:
            return waiting.pop() if waiting else await receive()

        return whole


def parse_address(text: str) -> SplitResult:
    """The parts of an address; none of what is no address."""
    try:
        return urlsplit(text)
    except ValueError:
        return SplitResult("", "", "", "", "")


def is_foreign(headers: Mapping[str, str]) -> bool:
    """Whether another site makes a browser send this request; a link to the page from elsewhere may be followed."""
    origin, site = headers.get("origin"), headers.get("sec-fetch-site", "none")
    followed = headers.get("sec-fetch-mode") == "navigate" and origin is None
    elsewhere = origin is not None and parse_address(origin).netloc != headers.get("host")
    return elsewhere or (site not in ("none", "same-origin") and not followed)


def list_files(value: Any) -> Iterator[str]:
    """The paths of all files that a JSON value names."""
    if isinstance(value, dict):
        if isinstance(path := value.get("path"), str):
            yield path
        for inner in value.values():
            yield from list_files(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from list_files(inner)
