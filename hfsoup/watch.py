"""What a bake tells whoever watches; this one says nothing, the command line's draws a screen."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from hfsoup.types import Decision


class Watch:
    """Hears of stages, notes and decisions as they happen."""

    def note(self, text: str) -> None:
        """Something the user should know, such as what was left out."""

    def decision(self, names: tuple[str, ...], decision: Decision) -> None:
        """A step of the search was taken; `names` are the ingredients."""

    @contextmanager
    def stage(self, title: str, total: int = 0, unit: str = "") -> Iterator[Callable[[int], None]]:  # noqa: ARG002
        """A stage runs inside the block; the function yielded is told of `unit`s as they are done, `total` in all."""
        yield lambda _: None
