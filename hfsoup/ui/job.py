"""A bake or a dry run in a thread of its own, with its progress for a page that polls."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar

from hfsoup.utils.errors import SoupError
from hfsoup.utils.progress import SearchStep, Stage, Watch
from hfsoup.utils.text import format_duration

T = TypeVar("T")
# Seconds between two updates.
PACE = 0.25


@dataclass
class StageLine(Stage):
    """A stage or a note on the page."""

    state: str = "running"


class Job(Watch, Generic[T]):
    """A bake or dry run in a thread.

    `lines` and `steps` grow meanwhile; at the end there is a `result` or an `error`, or it was `stopped`.

    Args:
        act: what to run; it reports its progress to the job.
        longest: the seconds after which it is stopped, None for no limit.
    """

    def __init__(self, act: Callable[[Watch], T], longest: float | None = None) -> None:
        self.lines: list[StageLine] = []
        self.steps: list[SearchStep] = []
        self.result: T | None = None
        self.error: SoupError | None = None
        self.stopped = False
        self._act, self._stop, self._news = act, threading.Event(), threading.Event()
        self._longest, self._began = longest, time.monotonic()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def updates(self) -> Iterator[None]:
        """Start, and yield whenever there may be news and once at the end. Leaving the loop stops the job."""
        self._thread.start()
        try:
            while self._thread.is_alive():
                yield
                self._news.wait(1.0)
                self._thread.join(PACE)
                self._news.clear()
            yield
        finally:
            self.stop()

    def stop(self) -> None:
        """Stop at the next step, as Ctrl-C would; cached scores are kept."""
        self._stop.set()

    def note(self, text: str) -> None:
        """Keep a note."""
        self.lines.append(StageLine(text, state="note"))
        self._moved()

    def decision(self, step: SearchStep) -> None:
        """Keep a step of the search."""
        self.steps.append(step)
        self._moved()

    @contextmanager
    def stage(self, title: str, total: int = 0, unit: str = "") -> Iterator[Stage]:
        """Keep a line for the stage."""
        line = StageLine(title, unit, total, moved=self._moved)
        self.lines.append(line)
        self._moved()
        ended = False
        try:
            yield line
            ended = True
        finally:
            line.state = "done" if ended else "broken"
        self._moved()

    def _moved(self) -> None:
        self._news.set()
        if self._stop.is_set():
            raise KeyboardInterrupt
        if self._longest is not None and time.monotonic() - self._began > self._longest:
            what = f"this page stops after {format_duration(self._longest)}"
            raise SoupError(what, hint="the command line above, on a machine of yours")

    def _run(self) -> None:
        found = SoupError("hfsoup failed with an unexpected error", hint="see the terminal that serves the page")
        try:
            self.result = self._act(self)
        except KeyboardInterrupt:
            self.stopped = True
        except SoupError as error:
            found = error
        except OSError as error:
            found = SoupError(f"the disk reports: {error.strerror or error}", where=str(error.filename or ""))
        finally:
            if self.result is None and not self.stopped:
                self.error = found
            self._news.set()
