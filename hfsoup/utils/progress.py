"""The interface by which a bake reports stages, notes and search steps, and a clock of its stages."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

Advance = Callable[[int], None]
"""Called with a number of units that are done, such as bytes or images."""
Notify = Callable[[str], None]
"""Called with a note for the user."""


START = "start"
"""The action of the step that a search begins with, whose number is 0."""


@dataclass(frozen=True)
class SearchStep:
    """A step of a search: the action, the ingredient, the candidate's score or its upper bound, and the outcome.

    `shown` is the score as texts write it. A search starts with the step `START`, at one ingredient or several.
    """

    number: int
    action: str
    ingredient: str
    score: float
    at_most: bool
    accepted: bool
    outcome: str
    shown: str = ""

    def describe(self, ingredient: str) -> str:
        """What comes behind the outcome, read forward: where the step led to, or what the candidate scored.

        Args:
            ingredient: the ingredient's name as the surface shows it.
        """
        score = self.shown or f"{'≤ ' * self.at_most}{self.score:.4f}"
        if self.action == START:
            return f"{score} {ingredient}"
        return f"{ingredient} → {score}" if self.accepted else f"{ingredient} ({score})"


@dataclass
class Stage:
    """A running stage: `count` of `total` units are done, 0 where the total is not known; this class shows nothing.

    `unit` is `B` for bytes, else a noun, and empty where nothing is counted; `standing` is a text about the current
    state, and `text` the line that stays on the screen. `moved` is called after each change of the count.
    """

    title: str = ""
    unit: str = ""
    total: int = 0
    count: int = 0
    standing: str = ""
    text: str = ""
    moved: Callable[[], None] = field(default=lambda: None, repr=False)

    def __call__(self, count: int) -> None:
        """Count `count` more units as done."""
        self.count += count
        self.moved()

    def expect(self, total: int) -> None:
        """Set the total number of units."""
        self.total = total

    def reach(self, done: int, text: str) -> None:
        """Set the number of units that are done, with a text about the current state."""
        self.count, self.standing = done, text
        self.moved()

    def done(self, text: str) -> None:
        """End the stage with the line that stays on the screen."""
        self.text = text


class Watch:
    """Receives stages, notes and search steps as they happen; this base class shows nothing."""

    def note(self, text: str) -> None:
        """Report something that the user should know, such as an ingredient that was left out."""

    def inform(self, text: str) -> None:
        """Report a finding that asks for nothing; shown as a note."""
        self.note(text)

    def decision(self, step: SearchStep) -> None:
        """Report a step of the search."""

    @contextmanager
    def stage(self, title: str, total: int = 0, unit: str = "") -> Iterator[Stage]:  # noqa: ARG002
        """Run a stage inside the block; it is called with numbers of `unit`s as they are done, `total` in all."""
        yield Stage()


class Clock:
    """The seconds that stages took, by name."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Add the time of the block to `name`."""
        begin = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - begin
