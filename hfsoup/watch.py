"""What a bake tells whoever watches; this one says nothing, the command line's draws a screen."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from hfsoup.scores import Decision


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

    def decision(self, names: tuple[str, ...], decision: Decision) -> None:
        """A step of the search was taken; `names` are the ingredients."""

    @contextmanager
    def stage(self, title: str, total: int = 0, unit: str = "") -> Iterator[Stage]:  # noqa: ARG002
        """A stage runs inside the block; the one yielded is told of `unit`s as they are done, `total` in all."""
        yield Stage()
