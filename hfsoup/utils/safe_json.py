"""Reads JSON and files of unknown origin within limits."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hfsoup.utils.errors import SoupError
from hfsoup.utils.text import one_line, quoted

MAX_JSON = 4 << 20
MAX_DEPTH = 32
MAX_SIDE = 2048
"""The largest height or width in pixels that a config may set for a processor."""
# O_NONBLOCK does not exist on Windows; without O_BINARY it would translate line ends.
FLAGS = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


def open_regular(path: Path, *, where: str) -> int:
    """A file descriptor to read a regular file; pipes and devices are refused without blocking."""
    try:
        handle = os.open(path, FLAGS)
    except FileNotFoundError as error:
        raise SoupError("the file is missing", where=where) from error
    except OSError as error:
        raise SoupError(f"the file cannot be read: {error.strerror}", where=where) from error
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise SoupError("expected a regular file, found something else", where=where)
    return handle


def read_json(path: Path, *, where: str) -> dict[str, Any]:
    """A JSON object from a file of a repository.

    Raises:
        SoupError: the file is larger than `MAX_JSON` bytes, or is not an unambiguous JSON object.
    """
    with os.fdopen(open_regular(path, where=where), "rb") as file:
        text = file.read(MAX_JSON + 1)
    if len(text) > MAX_JSON:
        raise SoupError(f"expected at most {MAX_JSON} bytes of JSON, found more", where=where)
    try:
        found = parse_json(text)
        for _ in walk_json(found):
            pass
    except ValueError as error:
        hint = "download it again"
        raise SoupError(f"expected JSON, found something else: {one_line(error)}", where=where, hint=hint) from error
    if not isinstance(found, dict):
        raise SoupError("expected a JSON object, found something else", where=where)
    return found


def parse_json(text: bytes) -> Any:
    """Parse JSON in UTF-8 without duplicate keys, NaN or infinities, which parsers treat differently.

    Raises:
        ValueError: it is not such JSON.
    """
    try:
        return json.loads(
            text.decode(), object_pairs_hook=_unique, parse_constant=_finite, parse_float=_finite, parse_int=_integer
        )
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def walk_json(value: Any, skip: frozenset[str] = frozenset()) -> Iterator[tuple[str, Any]]:
    """All values inside a JSON value, each with its key; those below the keys `skip` are left out.

    Raises:
        ValueError: it is nested deeper than `MAX_DEPTH`, or a string is not valid Unicode.
    """
    waiting: list[tuple[int, str, Any]] = [(0, "", value)]
    while waiting:
        depth, key, found = waiting.pop()
        if depth > MAX_DEPTH:
            raise ValueError(f"it is nested deeper than {MAX_DEPTH}")
        yield key, found
        if isinstance(found, dict):
            for inner in found:
                inner.encode()
            waiting += [(depth + 1, inner, below) for inner, below in found.items() if inner not in skip]
        elif isinstance(found, list):
            waiting += [(depth + 1, key, below) for below in found]
        elif isinstance(found, str):
            found.encode()


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        double = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {quoted(double)} stands twice")
    return found


def _finite(text: str) -> float:
    number = float(text)
    if number - number != 0:
        raise ValueError(f"{text[:20]} is no finite number")
    return number


def _integer(text: str) -> int | float:
    """An integer; -0 is a float in other parsers."""
    return -0.0 if text == "-0" else int(text)
