"""What a bake tells whoever watches; this one says nothing, the command line's draws a screen."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True)
class SearchStep:
    """A step of a search: what was tried with which ingredient, how it scored (at most), and what became of it."""

    number: int
    action: str
    ingredient: str
    score: float
    at_most: bool
    accepted: bool
    outcome: str


class Stage:
    """A stage that runs, called with the number of units as they are done; this one shows nothing."""

    def __call__(self, count: int) -> None:
        """So many more units are done."""

    def expect(self, total: int) -> None:
        """How many units there will be, known by now."""

    def reach(self, done: int, text: str) -> None:
        """So many units are behind us, whatever was counted; `text` says how things stand."""

    def done(self, text: str) -> None:
        """What the stage did, in the one line that stays of it."""


class Watch:
    """Hears of stages, notes and decisions as they happen."""

    def note(self, text: str) -> None:
        """Something the user should know, such as what was left out."""

    def decision(self, step: SearchStep) -> None:
        """A step of the search was taken."""

    @contextmanager
    def stage(self, title: str, total: int = 0, unit: str = "") -> Iterator[Stage]:  # noqa: ARG002
        """A stage runs inside the block; the one yielded is told of `unit`s as they are done, `total` in all."""
        yield Stage()


class Clock:
    """Seconds by stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Count the block towards `name`."""
        begin = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - begin
