"""Faults to order: rules that make matching requests fail, stall, drip or break off, and a log of all requests."""

from __future__ import annotations

import asyncio
import json
import re
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO
from urllib.parse import parse_qsl, urlencode

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_TICK = 0.02
_LONGEST_LOG = 10_000


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
    """One request in the log, without its token and the signature of its address; status 0 if it has no answer."""

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
        self._seen: deque[Seen] = deque(maxlen=_LONGEST_LOG)
        self._lock = threading.Lock()
        self._log: IO[str] | None = log.open("a", encoding="utf-8") if log else None

    def add(self, fault: Fault) -> Fault:
        """Begin to apply a rule; of several that match, the oldest acts."""
        with self._lock:
            self._rules.append(fault)
        return fault

    def clear(self) -> None:
        """Remove all rules and let stalled requests go on."""
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
        """Remove all rules and close the log."""
        self.clear()
        if self._log:
            self._log.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path, query = scope["raw_path"].decode("latin-1"), scope["query_string"].decode("latin-1")
        target = f"{path}?{query}" if query else path
        with self._lock:
            rule = next((rule for rule in self._rules if rule.meets(scope["method"], target)), Fault(""))
        authorized = any(name == b"authorization" for name, _ in scope["headers"])
        unsigned = urlencode([pair for pair in parse_qsl(query, keep_blank_values=True) if pair[0] != "sig"])

        def log(status: int) -> None:
            self._add(Seen(scope["method"], path, unsigned, status, authorized))

        await _Exchange(scope, receive, send, rule, log).run(self._app)

    def _add(self, seen: Seen) -> None:
        with self._lock:
            self._seen.append(seen)
            if self._log and not self._log.closed:
                self._log.write(json.dumps(asdict(seen)) + "\n")
                self._log.flush()


class _BrokenError(Exception):
    """The connection was broken on purpose."""


class _Exchange:
    """One request and its answer, with a rule that may change it."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, rule: Fault, log: Callable[[int], None]) -> None:
        self._scope, self._receive, self._send, self._rule, self._log = scope, receive, send, rule, log
        self._sent = 0
        self._logged = False

    async def run(self, app: ASGIApp) -> None:
        """Handle the request, or answer in place of the application."""
        rule = self._rule
        try:
            await self._wait(rule.stall)
            if rule.status is not None:
                while (await self._receive()).get("more_body"):
                    pass
                content = b'{"error":"ordered fault"}' if rule.body is None else rule.body
                app = Response(content, rule.status, media_type="application/json")
            await app(self._scope, self._receive, self.send)
        except _BrokenError:
            return
        finally:
            self._log_once(0)

    async def send(self, message: Message) -> None:
        """Pass on a message of the answer, changed as the rule says."""
        rule = self._rule
        if rule.drop:
            if message["type"] == "http.response.body" and not message.get("more_body"):
                await self._break()
        elif message["type"] == "http.response.start":
            self._log_once(message["status"])
            await self._send(_change_headers(message, rule))
        else:
            await self._send_body(rule, message.get("body", b""), more=message.get("more_body", False))

    async def _send_body(self, rule: Fault, content: bytes, *, more: bool) -> None:
        if rule.body is not None and rule.status is None:
            content = b"" if more else rule.body
        stop = len(content) if rule.cut is None else max(rule.cut - self._sent, 0)
        size = 1024 if rule.drip else max(stop, 1)
        for start in range(0, min(stop, len(content)), size):
            piece = content[start : min(start + size, stop)]
            await self._wait(rule.drip)
            await self._send({"type": "http.response.body", "body": piece, "more_body": True})
            self._sent += len(piece)
        if len(content) > stop:
            await self._break()
        await self._send({"type": "http.response.body", "body": b"", "more_body": more})

    async def _wait(self, seconds: float) -> None:
        """Wait, unless the rule is removed meanwhile."""
        until = time.monotonic() + seconds
        while not self._rule.over and (left := until - time.monotonic()) > 0:
            await asyncio.sleep(min(left, _TICK))

    def _log_once(self, status: int) -> None:
        """Log the request before its client can know the answer."""
        if not self._logged:
            self._logged = True
            self._log(status)

    async def _break(self) -> None:
        self._log_once(0)
        self._scope["hfsoup.transport"].close()
        while (await self._receive())["type"] != "http.disconnect":
            pass
        raise _BrokenError


def _change_headers(message: Message, rule: Fault) -> Message:
    extra = {name.lower().encode(): value.encode() for name, value in rule.headers.items()}
    if rule.body is not None and rule.status is None:
        extra[b"content-length"] = str(len(rule.body)).encode()
    headers = [(name, value) for name, value in message["headers"] if name.lower() not in extra]
    return {**message, "headers": [*headers, *extra.items()]}
