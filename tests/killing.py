"""Bakes that are killed: a process with everything imported forks a child per bake and kills it at a chosen point.

Run as a script it reads one JSON object a line, {"words": […], "cache": DIR, "event": N or null, "after": SECONDS or
null}, and answers each with {"killed": …, "code": …, "events": …, "out": …, "err": …}.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# What touches the disk or the network; each is a point at which a bake may be killed.
EVENTS = ("open", "os.", "shutil.", "sqlite3.", "tempfile.", "socket.connect", "socket.sendto")


@dataclass(frozen=True)
class Ended:
    """How a bake ended; `events` it passed."""

    killed: bool
    code: int
    events: int
    out: str
    err: str


class Killer:
    """Starts bakes and kills them; close it at the end.

    Args:
        threads: of every library in a bake, and the processors that it sees.
    """

    def __init__(self, threads: int = 1) -> None:
        here = Path(__file__).parent
        paths = os.pathsep.join([str(here), str(here.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
        environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": str(threads)}
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True
        )

    def bake(self, *words: object, cache: Path, event: int | None = None, after: float | None = None) -> Ended:
        """Type `hfsoup WORDS…` with `cache` as hfsoup's cache, and kill -9 at the n-th event or after some seconds."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        asked = {"words": [str(w) for w in words], "cache": str(cache), "event": event, "after": after}
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        return Ended(**json.loads(self._process.stdout.readline()))

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def _child(asked: dict[str, Any], scratch: Path) -> None:
    """In the fork: run the command, counting events, dying at the one asked for."""
    os.environ["HFSOUP_CACHE"] = asked["cache"]
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(scratch / name, os.O_WRONLY | os.O_CREAT), number)
    count = 0

    def watch(event: str, _: object) -> None:
        nonlocal count
        if not event.startswith(EVENTS):
            return
        count += 1
        if count == asked["event"]:
            os.kill(os.getpid(), signal.SIGKILL)

    if asked["after"] is not None:
        threading.Timer(asked["after"], os.kill, (os.getpid(), signal.SIGKILL)).start()
    sys.addaudithook(watch)
    from hfsoup.cli import main

    sys.argv = ["hfsoup", *asked["words"]]
    code = 0
    try:
        main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    passed = count
    (scratch / "events").write_text(str(passed))
    sys.stdout.flush()
    os._exit(code)


def _serve() -> None:
    processors = set(range(int(os.environ["OMP_NUM_THREADS"])))
    os.sched_getaffinity = lambda _: processors  # type: ignore[assignment]
    import datasets  # noqa: F401
    import transformers.models.vit.image_processing_pil_vit
    import transformers.models.vit.modeling_vit  # noqa: F401

    import hfsoup.baking.pipeline
    import hfsoup.evaluation.scorer
    import hfsoup.provenance.manifest  # noqa: F401

    if importlib.util.find_spec("timm"):
        import timm  # noqa: F401

    answers = os.fdopen(os.dup(1), "w")
    for line in sys.stdin:
        scratch = Path(tempfile.mkdtemp())
        pid = os.fork()
        if pid == 0:
            _child(json.loads(line), scratch)
        _, status = os.waitpid(pid, 0)
        read = {n: (scratch / n).read_text() if (scratch / n).exists() else "" for n in ("out", "err", "events")}
        killed = os.WIFSIGNALED(status)
        code = -1 if killed else os.WEXITSTATUS(status)
        answer = {
            "killed": killed,
            "code": code,
            "events": int(read["events"] or 0),
            "out": read["out"],
            "err": read["err"],
        }
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
        shutil.rmtree(scratch)


if __name__ == "__main__":
    _serve()
