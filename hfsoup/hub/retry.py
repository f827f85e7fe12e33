"""Time-outs for every request of huggingface_hub, retries where they are safe, and notices of waits."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import partial
from itertools import count
from threading import Lock
from typing import Any

import httpx2
from huggingface_hub import hf_raise_for_status
from huggingface_hub.utils import parse_ratelimit_headers  # type: ignore[attr-defined]

from hfsoup.hub.notices import notify_listener

TRANSIENT = frozenset({408, 429, 500, 502, 503, 504})
CONNECTION_ERRORS = (httpx2.TimeoutException, httpx2.NetworkError, httpx2.RemoteProtocolError)
# POST requests that may be sent twice: they only read, or the second one changes nothing.
REPEATABLE = re.compile(r"/(preupload|branch|paths-info|verify)(/|$)|/(repos/create|validate-yaml|objects/batch)$")
READ_METHODS = ("GET", "HEAD")
XET_BLOCK = 64 << 20
PATH_HEADERS = ("etag", "x-linked-etag", "x-repo-commit")


@dataclass
class Limits:
    """Time-outs in seconds, and counts; a request without an answer fails after `tries` × `read` plus the delays.

    A time-out of the caller, `HF_HUB_DOWNLOAD_TIMEOUT` or `HF_HUB_ETAG_TIMEOUT` has precedence.

    Attributes:
        connect: to connect.
        read: to wait for data; doubled for requests that change something.
        tries: of one request.
        first: the delay before the second try, which doubles with each further one.
        longest: the longest delay that the Hub may ask for; its rate limits have windows of five minutes.
        slowest: bytes per second of an answer, below which it counts as stalled.
        window: how often that is checked.
        silence: after that long without data a download by Xet is retried by HTTP.
        block: the time that hf-xet takes at most for a block of `XET_BLOCK` bytes. An upload by Xet reports no
            progress; one that takes longer than that for all of its blocks is retried by HTTP.
    """

    connect: float = 10.0
    read: float = 25.0
    tries: int = 4
    first: float = 1.0
    longest: float = 360.0
    slowest: float = 1024.0
    window: float = 15.0
    silence: float = 30.0
    block: float = 300.0


LIMITS = Limits()
Send = Callable[..., httpx2.Response]


class RequestFailedError(httpx2.TransportError):
    """A request failed for good; huggingface_hub does not retry errors of this class."""


@contextmanager
def retry_requests() -> Iterator[None]:
    """Make huggingface_hub's client retry requests inside the block.

    The client is shared by all threads, and the calling program may have configured it with a proxy or certificates, so
    its `send` is wrapped instead of replacing the client.
    """
    from huggingface_hub import get_session

    with _lock:
        _blocks.append(get_session())
        if _blocks.count(_blocks[-1]) == 1:
            _blocks[-1].send = partial(_send, _blocks[-1].send)  # type: ignore[method-assign]
        session = _blocks[-1]
    try:
        yield
    finally:
        with _lock:
            _blocks.remove(session)
            if session not in _blocks:
                del session.send


_lock = Lock()
_blocks: list[httpx2.Client] = []
"""The client of every open block."""


def _send(send: Send, request: httpx2.Request, *, stream: bool = False, **options: Any) -> httpx2.Response:
    """Send a request, with retries; what is raised or returned is final."""
    again = may_retry(request)
    _set_timeouts(request)
    for attempt in count(1):
        failure = _send_once(send, request, stream, options)
        if isinstance(failure, httpx2.Response) and failure.status_code not in TRANSIENT:
            return failure
        slow = isinstance(failure, httpx2.TimeoutException) and request.method not in READ_METHODS
        seconds = retry_delay(failure, attempt, tries=LIMITS.tries // 2 if slow else None) if again else None
        if seconds is None:
            _raise_failure(failure, request)
        else:
            wait_to_retry(seconds, f"{describe_failure(failure)} ({request.url.host}{request.url.path})")
    raise RequestFailedError("no attempt was made", request=request)


def _send_once(
    send: Send, request: httpx2.Request, stream: bool, options: dict[str, Any]
) -> httpx2.Response | Exception:
    response = None
    try:
        response = send(request, stream=True, **options)
        _check_headers(response)
        response.stream = _SpeedLimitedBody(response.stream, f"{request.url.host}{request.url.path}" if stream else "")
        if not stream:
            response.read()
    except CONNECTION_ERRORS as error:
        if response is not None:
            response.close()
        return error
    return response


def may_retry(request: httpx2.Request) -> bool:
    """Whether a request can be sent twice, and the second one changes nothing."""
    idempotent = request.method in ("GET", "HEAD", "PUT") or bool(REPEATABLE.search(request.url.path))
    return idempotent and isinstance(request.stream, httpx2.ByteStream)


def retry_delay(failure: httpx2.Response | Exception, attempt: int, *, tries: int | None = None) -> float | None:
    """Seconds to wait after try number `attempt` failed; None if there is no further try."""
    if attempt >= (tries or LIMITS.tries):
        return None
    requested = None
    if isinstance(failure, httpx2.Response):
        if failure.status_code not in TRANSIENT:
            return None
        requested = requested_wait(failure)
    seconds = LIMITS.first * 2 ** (attempt - 1) if requested is None else requested
    return seconds if seconds <= LIMITS.longest else None


def requested_wait(response: httpx2.Response) -> float | None:
    """The seconds that the Hub asks to wait, from the headers `RateLimit` or `Retry-After`."""
    limit = parse_ratelimit_headers(response.headers)
    if response.status_code == 429 and limit is not None and limit.remaining == 0:
        return limit.reset_in_seconds + 1.0
    text = response.headers.get("retry-after", "").strip()
    if re.fullmatch(r"[0-9]{1,9}", text):
        return float(text)
    try:
        until = parsedate_to_datetime(text)
    except ValueError:
        return None
    return max((until - datetime.now(until.tzinfo and UTC)).total_seconds(), 0.0)


def wait_to_retry(seconds: float, why: str) -> None:
    """Notify of the reason, and sleep."""
    notify_listener(f"{why}; retrying in {seconds:.0f} s")
    time.sleep(seconds)


def describe_failure(failure: httpx2.Response | Exception) -> str:
    """A failed request in a few words."""
    if isinstance(failure, httpx2.Response):
        return f"the Hub answered {failure.status_code}"
    if isinstance(failure, httpx2.TimeoutException):
        return "the Hub did not answer in time"
    if isinstance(failure, httpx2.ConnectError):
        return f"no connection to the Hub ({failure})"
    return "the connection to the Hub broke"


def _set_timeouts(request: httpx2.Request) -> None:
    """Set the time-outs that a request does not have; one that changes something gets twice the time."""
    own = request.extensions.get("timeout") or {}
    read = LIMITS.read if request.method in READ_METHODS else 2 * LIMITS.read
    limits = {"connect": LIMITS.connect, "pool": LIMITS.connect, "read": read, "write": read}
    request.extensions["timeout"] = {
        name: seconds if own.get(name) is None else own[name] for name, seconds in limits.items()
    }


def _raise_failure(failure: httpx2.Response | Exception, request: httpx2.Request) -> None:
    """Raise the last failure as an error that huggingface_hub does not retry."""
    if isinstance(failure, httpx2.Response):
        try:
            hf_raise_for_status(failure)
        finally:
            failure.close()
    else:
        raise RequestFailedError(describe_failure(failure), request=request) from failure


def _check_headers(response: httpx2.Response) -> None:
    """Refuse headers that huggingface_hub uses as file names if they lead out of its cache."""
    for name in PATH_HEADERS if "/resolve/" in response.request.url.path else ():
        value = response.headers.get(name, "").removeprefix("W/").strip('"')
        if "/" in value or "\\" in value or value in (".", ".."):
            response.close()
            what = f"the header {name} of the Hub's answer leads out of the cache"
            raise RequestFailedError(what, request=response.request)


class _SpeedLimitedBody(httpx2.SyncByteStream):
    """The body of an answer; raises ReadTimeout if it comes more slowly than `LIMITS.slowest`.

    A download that breaks is resumed by huggingface_hub; `place` names it in the notice.
    """

    def __init__(self, body: Any, place: str) -> None:
        self._body, self._place = body, place

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from self._pieces()
        except CONNECTION_ERRORS as error:
            if self._place:
                notify_listener(f"{describe_failure(error)} ({self._place}); resuming")
            raise

    def _pieces(self) -> Iterator[bytes]:
        begin, arrived = time.monotonic(), 0
        for piece in self._body:
            arrived += len(piece)
            spent = time.monotonic() - begin
            if spent >= LIMITS.window:
                if arrived < LIMITS.slowest * spent:
                    raise httpx2.ReadTimeout("the answer comes too slowly")
                begin, arrived = time.monotonic(), 0
            yield piece

    def close(self) -> None:
        """Close the connection."""
        self._body.close()
