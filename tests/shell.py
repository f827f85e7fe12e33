"""The command line, run in this process."""

from __future__ import annotations

import io
import json
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from typing import Any
from unittest import mock

from hfsoup.cli import main


@dataclass(frozen=True)
class Result:
    """How a command ended and what it printed."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """Standard output as one JSON object."""
        found: dict[str, Any] = json.loads(self.out)
        return found


def run(*words: object) -> Result:
    """Type `hfsoup WORDS...` and wait for its end."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    with mock.patch.object(sys, "argv", ["hfsoup", *map(str, words)]), redirect_stdout(out), redirect_stderr(err):
        try:
            main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
    return Result(code, out.getvalue(), err.getvalue())


def bake(*words: object) -> dict[str, Any]:
    """Type `hfsoup bake WORDS... --json -`, expect success, and return the JSON."""
    done = run("bake", *words, "--json", "-")
    assert done.code == 0, done.err
    return done.json


def refused(*words: object, code: int) -> str:
    """Expect a command to end with one clear block on standard error and nothing else; that block."""
    done = run(*words)
    assert done.code == code, (done.code, done.err)
    assert done.out == ""
    assert "Traceback" not in done.err
    assert done.err.count("error:") == 1, done.err
    block = done.err[done.err.index("error:") :]
    assert block.endswith("\n")
    return block


def only(model: object, other: object) -> list[object]:
    """Words that bake the soup of one model out of two: the last of both, as it is."""
    return [other, model, "--recipe", "latest", "--last", 1]
