"""Which handler answers a path.

Paths are split before they are unquoted, for a revision such as `refs%2Fpr%2F1` is one segment.
Patterns are segments of text or of one of these holes:

    {kind}   models, datasets or spaces
    {repo}   `ns/name`, or a bare `name`
    {web}    the same with its web prefix: none, `datasets/` or `spaces/`; a final `.git` is dropped
    {rev}    one segment, or the three of a bare `refs/pr/1`
    {path}   all that is left, perhaps nothing
    {x}      one segment, by any other name
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from urllib.parse import unquote

from starlette.responses import Response

from hfsoup.localhub.names import KINDS
from hfsoup.localhub.request import HubRequest

Handler = Callable[[HubRequest], Response | Awaitable[Response]]
Params = dict[str, str]


@dataclass(frozen=True)
class Route:
    """One row of the endpoints table."""

    method: str
    pattern: tuple[str, ...]
    handler: Handler

    @property
    def streams(self) -> bool:
        """Whether the handler reads the request body itself, on the event loop."""
        return inspect.iscoroutinefunction(self.handler)


class Routes:
    """A table of routes, filled by decorators."""

    def __init__(self) -> None:
        self.rows: list[Route] = []

    def __call__(self, methods: str, *patterns: str) -> Callable[[Handler], Handler]:
        """Answer these methods (`"GET POST"`) on these patterns."""

        def add(handler: Handler) -> Handler:
            for pattern in patterns:
                for method in methods.split():
                    self.rows.append(Route(method, tuple(pattern.strip("/").split("/")), handler))
            return handler

        return add


def find_route(rows: list[Route], method: str, raw_path: str) -> tuple[Route, Params] | None:
    """The first route that fits, with the values of its holes. HEAD is answered as GET is, without the body."""
    segments = tuple(unquote(part) for part in raw_path.strip("/").split("/"))
    for row in rows:
        if row.method == method or (row.method, method) == ("GET", "HEAD"):
            for params in _fit(row.pattern, segments):
                return row, params
    return None


def _fit(pattern: tuple[str, ...], segments: tuple[str, ...]) -> Iterator[Params]:
    if not pattern:
        if not segments:
            yield {}
        return
    for used, params in _fill(pattern[0], segments):
        for rest in _fit(pattern[1:], segments[used:]):
            yield {**params, **rest}


def _fill(hole: str, segments: tuple[str, ...]) -> Iterator[tuple[int, Params]]:
    """How many segments a hole may take, the likeliest first, and their value."""
    if hole == "{path}":
        yield len(segments), {"path": "/".join(segments).strip("/")}
    elif not segments:
        return
    elif hole == "{repo}":
        yield from _ids(segments)
    elif hole == "{web}":
        prefix = segments[0] in KINDS[1:]
        kind = segments[0] if prefix else KINDS[0]
        for used, params in _ids(segments[prefix:]):
            yield used + prefix, {"kind": kind, "repo": params["repo"].removesuffix(".git")}
    elif hole == "{rev}":
        if segments[0] == "refs" and len(segments) >= 3:
            yield 3, {"rev": "/".join(segments[:3])}
        yield 1, {"rev": segments[0]}
    elif hole == "{kind}":
        if segments[0] in KINDS:
            yield 1, {"kind": segments[0]}
    elif hole.startswith("{"):
        yield 1, {hole[1:-1]: segments[0]}
    elif hole == segments[0]:
        yield 1, {}


def _ids(segments: tuple[str, ...]) -> Iterator[tuple[int, Params]]:
    if len(segments) >= 2:
        yield 2, {"repo": f"{segments[0]}/{segments[1]}"}
    if segments:
        yield 1, {"repo": segments[0]}
