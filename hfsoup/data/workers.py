"""Processes that prepare images beside this one: decoding holds Python's lock, so threads are of little use.

A worker is this Python with one module of hfsoup, given its work through pipes. It imports nothing of the program that
calls hfsoup, as multiprocessing would, so that scripts without `if __name__ == "__main__"` and notebooks work; and it
ends with the pipe, however this process ends.
"""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from warnings import simplefilter

from hfsoup.utils.errors import LOADING_ERRORS, SoupError

START = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from hfsoup.data.workers import serve; serve()"
ALONE = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
"""The environment of a worker: one thread of torch, and no GPU."""
READY = b"ready"
UNPICKLABLE = (pickle.PicklingError, AttributeError, TypeError)


class Workers:
    """One worker for each of at most `most` threads, started when that thread asks for it.

    Args:
        work: what they do, pickled: an object of a module that is called with what `Worker.call` is given.
        most: how many there are at most.
    """

    def __init__(self, work: bytes, most: int) -> None:
        self._work, self._most = work, most
        self._local, self._lock = threading.local(), threading.Lock()
        self._started: list[Worker] = []

    def get(self) -> Worker | None:
        """This thread's worker; None if it has none, as there are enough, or as they cannot load the work."""
        if not hasattr(self._local, "worker"):
            worker = self._start()
            if worker and not worker.is_ready():
                self._most, worker = 0, None
            self._local.worker = worker
        found: Worker | None = self._local.worker
        return found

    def _start(self) -> Worker | None:
        with self._lock:
            if len(self._started) >= self._most:
                return None
            self._started.append(Worker(self._work))
            return self._started[-1]

    def close(self) -> None:
        """End all workers."""
        for worker in self._started:
            worker.end()


def start_workers(work: Callable[[Any], Any], most: int) -> Workers:
    """Workers for this work; none if it is made of something that another process cannot be given."""
    try:
        return Workers(pickle.dumps(work, pickle.HIGHEST_PROTOCOL), most)
    except UNPICKLABLE:
        return Workers(b"", 0)


class Worker:
    """One process, and the pipes to and from it.

    Args:
        work: what it does, pickled.
    """

    def __init__(self, work: bytes) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", START, json.dumps(sys.path)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env={**os.environ, **ALONE},
        )  # fmt: skip
        self._send(work)

    def is_ready(self) -> bool:
        """Wait until the process has loaded the work; False if it ended instead."""
        try:
            return _read(self._process.stdout) == READY
        except EOFError:
            return False

    def call(self, given: Any) -> Any:
        """What the work makes of `given`.

        Raises:
            SoupError: the work raised it, or the process has ended.
        """
        self._send(pickle.dumps(given, pickle.HIGHEST_PROTOCOL))
        try:
            found = pickle.loads(_read(self._process.stdout))  # noqa: S301 - written by this program
        except EOFError as error:
            what = f"a process that prepares images has ended with code {self._process.wait()}"
            raise SoupError(
                what, hint="the same command again; with fewer processors (taskset) it takes less memory"
            ) from error
        if isinstance(found, Exception):
            raise found
        return found

    def _send(self, data: bytes) -> None:
        # A process that has ended does not answer, which says enough.
        with suppress(BrokenPipeError):
            _write(self._process.stdin, data)

    def end(self) -> None:
        """End the process, whatever it does."""
        self._process.kill()
        self._process.wait()
        for pipe in filter(None, (self._process.stdin, self._process.stdout)):
            with suppress(BrokenPipeError):
                pipe.close()


def _write(pipe: Any, data: bytes) -> None:
    pipe.write(len(data).to_bytes(8, "little") + data)
    pipe.flush()


def _read(pipe: Any) -> bytes:
    """The next message.

    Raises:
        EOFError: the other process has ended.
    """
    size = pipe.read(8)
    data: bytes = pipe.read(int.from_bytes(size, "little")) if len(size) == 8 else b""
    if len(size) < 8 or len(data) < int.from_bytes(size, "little"):
        raise EOFError
    return data


def serve() -> None:
    """The loop of a worker: read the work, then do it with one thing after another until the pipe ends."""
    # The program that started it receives Ctrl-C too, and ends its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    given, results = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    # What libraries print goes nowhere, and not among the results.
    os.dup2(2, 1)
    simplefilter("ignore")
    try:
        work: Callable[[Any], Any] = pickle.loads(_read(given))  # noqa: S301 - written by this program
        _write(results, READY)
        while True:
            _write(results, pickle.dumps(_try(work, pickle.loads(_read(given))), pickle.HIGHEST_PROTOCOL))  # noqa: S301
    except (EOFError, BrokenPipeError):
        return


def _try(work: Callable[[Any], Any], given: Any) -> Any:
    try:
        return work(given)
    except (SoupError, *LOADING_ERRORS) as error:
        return error
