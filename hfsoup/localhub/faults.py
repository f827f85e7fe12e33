"""Faults to order: rules that make matching requests fail, stall, drip or break off, and a log of all requests."""

from __future__ import annotations

import asyncio
import json
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any
from urllib.parse import parse_qsl, urlencode

from starlette.types import ASGIApp, Message, Receive, Scope, Send

_TICK = 0.02
_KEPT = 10_000


@dataclass
class Fault:
    """What to do to requests whose path matches.

    Args:
        path: regular expression searched in the raw path and query.
        method: only this method; None for all.
        status: answer with this status instead of handling the request.
        headers: headers of that answer, or added to the real one.
        body: content of that answer; a real answer's body is replaced by it.
        cut: break the connection after this many bytes of body.
        stall: seconds to wait before anything is sent.
        drip: seconds to wait before every 1024 bytes of body.
        drop: handle the request, then break the connection without an answer.
        times: how many matching requests it happens to; None for all.
        skip: how many matching requests to leave alone first.
    """

    path: str
    method: str | None = None
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None
    cut: int | None = None
    stall: float = 0.0
    drip: float = 0.0
    drop: bool = False
    times: int | None = None
    skip: int = 0
    hits: int = field(default=0, init=False)
    over: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        self._pattern = re.compile(self.path)

    def meets(self, method: str, target: str) -> bool:
        """Whether this request is one to fail; counts it."""
        if self.over or self.method not in (None, method) or not self._pattern.search(target):
            return False
        if self.skip > 0:
            self.skip -= 1
            return False
        if self.times is not None and self.hits >= self.times:
            return False
        self.hits += 1
        return True


@dataclass(frozen=True)
class Seen:
    """One request as the log keeps it: never a token, and no signature of an address; status 0 if there was none."""

    method: str
    path: str
    query: str
    status: int
    authorized: bool


class Faults:
    """The rules and the log of one server; an ASGI application around the real one."""

    def __init__(self, app: ASGIApp, log: Path | None) -> None:
        self._app = app
        self._rules: list[Fault] = []
        self._seen: deque[Seen] = deque(maxlen=_KEPT)
        self._lock = threading.Lock()
        self._log: IO[str] | None = log.open("a", encoding="utf-8") if log else None

    def add(self, fault: Fault) -> Fault:
        """Begin to apply a rule; of several that match, the oldest acts."""
        with self._lock:
            self._rules.append(fault)
        return fault

    def clear(self) -> None:
        """Drop all rules and let stalled requests go on."""
        with self._lock:
            for rule in self._rules:
                rule.over = True
            self._rules = []

    @property
    def seen(self) -> list[Seen]:
        """The latest requests that were answered, oldest first."""
        with self._lock:
            return list(self._seen)

    def forget(self) -> None:
        """Empty the log in memory."""
        with self._lock:
            self._seen.clear()

    def close(self) -> None:
        """Let everything go."""
        self.clear()
        if self._log:
            self._log.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        target = scope["raw_path"].decode("latin-1")
        query = scope["query_string"].decode("latin-1")
        with self._lock:
            rule = next(
                (r for r in self._rules if r.meets(scope["method"], f"{target}?{query}" if query else target)), None
            )
        authorized = any(name == b"authorization" for name, _ in scope["headers"])

        def note(status: int) -> None:
            self._note(Seen(scope["method"], target, _unsigned(query), status, authorized))

        await _Wire(scope, receive, send, rule, note).run(self._app)

    def _note(self, seen: Seen) -> None:
        with self._lock:
            self._seen.append(seen)
            if self._log and not self._log.closed:
                self._log.write(json.dumps(asdict(seen)) + "\n")
                self._log.flush()


class _BrokenError(Exception):
    """The connection was broken on purpose."""


class _Wire:
    """One request between client and application, with a rule that may act on it."""

    def __init__(
        self, scope: Scope, receive: Receive, send: Send, rule: Fault | None, note: Callable[[int], None]
    ) -> None:
        self._scope, self._receive, self._send, self._rule, self._note = scope, receive, send, rule, note
        self._sent = 0
        self._noted = False

    async def run(self, app: ASGIApp) -> None:
        """Handle the request, or answer in its stead."""
        rule = self._rule
        try:
            if rule is None:
                await app(self._scope, self._receive, self.send)
                return
            await self._wait(rule.stall)
            if rule.status is not None:
                await self._answer(rule, rule.status)
            else:
                await app(self._scope, self._receive, self.send)
        except _BrokenError:
            return
        finally:
            self._log(0)

    async def send(self, message: Message) -> None:
        """Pass on a message of the answer, harmed as the rule says."""
        rule = self._rule
        if rule is None:
            if message["type"] == "http.response.start":
                self._log(message["status"])
            await self._send(message)
            return
        if rule.drop:
            if message["type"] == "http.response.body" and not message.get("more_body"):
                await self._break()
            return
        if message["type"] == "http.response.start":
            self._log(message["status"])
            await self._send(_with_headers(message, rule))
        else:
            await self._send_body(rule, message)

    async def _answer(self, rule: Fault, status: int) -> None:
        content = rule.body if rule.body is not None else b'{"error":"ordered fault"}'
        headers = [(b"content-length", str(len(content)).encode()), (b"content-type", b"application/json")]
        while (await self._receive()).get("more_body"):
            pass
        await self.send({"type": "http.response.start", "status": status, "headers": headers})
        await self.send({"type": "http.response.body", "body": content})

    async def _send_body(self, rule: Fault, message: Message) -> None:
        content: bytes = message.get("body", b"")
        if rule.body is not None and rule.status is None:
            content = rule.body if not message.get("more_body") else b""
        room = len(content) if rule.cut is None else max(rule.cut - self._sent, 0)
        for piece in _pieces(content[:room], 1024 if rule.drip else max(room, 1)):
            await self._wait(rule.drip)
            await self._send({"type": "http.response.body", "body": piece, "more_body": True})
            self._sent += len(piece)
        if rule.cut is not None and len(content) > room:
            await self._break()
        await self._send({"type": "http.response.body", "body": b"", "more_body": message.get("more_body", False)})

    async def _wait(self, seconds: float) -> None:
        """Wait, unless the rule is dropped meanwhile."""
        until = time.monotonic() + seconds
        while self._rule and not self._rule.over and (left := until - time.monotonic()) > 0:
            await asyncio.sleep(min(left, _TICK))

    def _log(self, status: int) -> None:
        """Note the request, once, and before its client can know the answer."""
        if not self._noted:
            self._noted = True
            self._note(status)

    async def _break(self) -> None:
        self._log(0)
        self._scope["hfsoup.transport"].close()
        while (await self._receive())["type"] != "http.disconnect":
            pass
        raise _BrokenError


def _with_headers(message: Message, rule: Fault) -> Message:
    extra = {name.lower().encode(): value.encode() for name, value in rule.headers.items()}
    if rule.body is not None and rule.status is None:
        extra[b"content-length"] = str(len(rule.body)).encode()
    kept: list[Any] = [(name, value) for name, value in message["headers"] if name.lower() not in extra]
    return {**message, "headers": [*kept, *extra.items()]}


def _pieces(content: bytes, size: int) -> Iterator[bytes]:
    for start in range(0, len(content), size):
        yield content[start : start + size]


def _unsigned(query: str) -> str:
    return urlencode([(name, value) for name, value in parse_qsl(query, keep_blank_values=True) if name != "sig"])
