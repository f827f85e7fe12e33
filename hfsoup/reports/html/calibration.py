"""The reliability diagram of a report: how often each model is right at which confidence, and of how many images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import log10
from typing import TYPE_CHECKING

from hfsoup.evaluation.intervals import wilson_interval

if TYPE_CHECKING:
    from hfsoup.provenance.predictions import CalibrationPair, CalibrationRecord

LEFT, RIGHT, TOP, BOTTOM = 44.0, 388.0, 12.0, 300.0
"""The corners of the diagram in units of the drawing; the bars of the counts stand below it."""
FOOT, HEIGHT = 408.0, 84.0
"""Where the bars stand, and the height of the tallest."""
STEPS = (0, 20, 40, 60, 80, 100)


@dataclass(frozen=True)
class Dot:
    """One bin of one model: where its dot, whisker and bar are drawn, and the numbers.

    `share` is how many of `count` are right, and `interval` its 95 % interval in per cent, empty where there is none.
    """

    x: float
    y: float
    whisker: tuple[float, float] | None
    left: float
    width: float
    height: float
    count: int
    confidence: float
    share: float
    interval: str


@dataclass(frozen=True)
class Series:
    """The bins of one model that are not empty; `name` says which model, and `way` is its line."""

    name: str
    label: str
    dots: tuple[Dot, ...]

    @property
    def way(self) -> str:
        """The points of the line through the dots."""
        return " ".join(f"{dot.x:.1f},{dot.y:.1f}" for dot in self.dots)


@dataclass(frozen=True)
class Diagram:
    """Everything that the drawing has: models, the places of the grid with their labels, and rows of the table."""

    series: tuple[Series, ...]
    across: tuple[tuple[float, str], ...]
    up: tuple[tuple[float, str], ...]
    counts: tuple[tuple[float, str], ...]
    rows: tuple[tuple[str, tuple[Dot | None, ...]], ...]


def draw_calibration(found: CalibrationPair, *, intervals: bool, best: str, kind: str) -> Diagram:
    """The diagram of soup and best ingredient, of one where both are the same.

    Args:
        found: what was counted on the test images.
        intervals: whether the shares have intervals: not of a multi-label model, whose classes of one image are not
            independent of each other.
        best: the name of the best ingredient.
        kind: what the result is called.
    """
    sides = [("soup", f"this {kind}", found.soup), ("best", f"best ingredient, {best}", found.best)]
    if found.soup == found.best:
        sides = [("soup", f"this {kind} and its best ingredient, which predict the same", found.soup)]
    most = max(max(side.count) for _, _, side in sides)
    bins = len(found.soup.count)
    columns = [
        _place_dots(side, most, place=n, of=len(sides), intervals=intervals) for n, (_, _, side) in enumerate(sides)
    ]
    return Diagram(
        tuple(
            Series(name, label, tuple(dot for dot in dots if dot))
            for (name, label, _), dots in zip(sides, columns, strict=True)
        ),
        tuple((_across(step / 100), f"{step} %") for step in STEPS),
        tuple((_up(step / 100), f"{step} %") for step in STEPS),
        tuple((round(FOOT - _tall(10**n, most), 1), f"{10**n:,}") for n in range(len(str(most)))),
        tuple(_list_rows(columns, bins)),
    )


def _list_rows(columns: list[list[Dot | None]], bins: int) -> Iterator[tuple[str, tuple[Dot | None, ...]]]:
    for n, dots in enumerate(zip(*columns, strict=True)):
        if any(dots):
            yield f"{100 * n / bins:.0f} to {100 * (n + 1) / bins:.0f} %", dots


def _place_dots(side: CalibrationRecord, most: int, *, place: int, of: int, intervals: bool) -> list[Dot | None]:
    """The bins of one model, the one at `place` of the `of` models in the drawing; None for an empty bin."""
    room = (RIGHT - LEFT) / len(side.count)
    width = 0.84 * room / of

    def dot(n: int, count: int, right: int, confidence: float) -> Dot:
        low, high = wilson_interval(correct=right, total=count)
        return Dot(
            x=_across(confidence),
            y=_up(right / count),
            whisker=(_up(low), _up(high)) if intervals else None,
            left=round(LEFT + (n + 0.08) * room + place * width, 1),
            width=round(width, 1),
            height=_tall(count, most),
            count=count,
            confidence=confidence,
            share=right / count,
            interval=f"{100 * low:.1f} to {100 * high:.1f}" if intervals else "",
        )

    bins = zip(side.count, side.right, side.confidence, strict=True)
    return [dot(n, *counted) if counted[0] else None for n, counted in enumerate(bins)]


def _across(share: float) -> float:
    return round(LEFT + share * (RIGHT - LEFT), 1)


def _up(share: float) -> float:
    return round(BOTTOM - share * (BOTTOM - TOP), 1)


def _tall(count: int, most: int) -> float:
    """The height of a bar, on a scale of powers of ten that begins at none."""
    return round(HEIGHT * log10(1 + count) / log10(1 + most), 1)
