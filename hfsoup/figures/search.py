"""The search step by step."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from hfsoup.figures.style import Paint, Theme, as_metric, metric, name

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from hfsoup.scores import Score
    from hfsoup.soup import Soup

NAMED = 24
"""Steps up to which each is named."""


def paint(soup: Soup) -> Paint:
    """Every candidate at its step: kept, not kept, or given up at an upper bound; and the level to reach."""

    def onto(figure: Figure, theme: Theme) -> None:
        axes = figure.subplots()
        axes.grid(visible=True, axis="y", linewidth=0.7)
        axes.set_axisbelow(True)
        steps, levels = _levels(soup)
        axes.plot(
            steps, levels, drawstyle="steps-post", color=theme.faint, linewidth=1.4, label="where the search stood"
        )
        _tried(soup, axes, theme)
        axes.set_ylabel(f"{metric(soup)} on the selection split")
        as_metric(soup, axes.yaxis)
        axes.set_xlim(-0.5, len(soup.trace) + 0.8)
        if len(soup.trace) <= NAMED:
            axes.set_xticks(range(len(soup.trace) + 1), list(_ticks(soup)), rotation=40, ha="right", fontsize=9)
        else:
            axes.set_xlabel("step")
        figure.legend(loc="outside right upper", frameon=False)

    return onto


def _start(soup: Soup) -> Score | None:
    """The score of the mix that the search began at: one that adds begins at the best ingredient."""
    if soup.evidence:
        return soup.evidence.start
    return soup.scores[soup.best] if soup.best is not None and soup.trace[0].action == "add" else None


def _levels(soup: Soup) -> tuple[list[int], list[float]]:
    """The score of the mix that the search stood at after each step, from where it is known."""
    start = _start(soup)
    steps, levels = ([0], [start.value]) if start else ([], [])
    for decision in soup.trace:
        if decision.accepted:
            steps.append(decision.step)
            levels.append(decision.score.value)
    if steps:
        steps.append(len(soup.trace) + 1)
        levels.append(levels[-1])
    return steps, levels


def _tried(soup: Soup, axes: Any, theme: Theme) -> None:
    given_up = [d for d in soup.trace if d.score.at_most]
    seen = [d for d in soup.trace if not d.score.at_most]
    start = _start(soup)
    if start:
        axes.scatter([0], [start.value], marker="s", s=56, color=theme.blue, label="where it began", zorder=3)
    looks = (
        ("kept", [d for d in seen if d.accepted], {"marker": "o", "s": 56, "color": theme.green}),
        (
            "not kept",
            [d for d in seen if not d.accepted],
            {"marker": "o", "s": 56, "facecolors": theme.ground, "edgecolors": theme.red, "linewidths": 1.6},
        ),
        (
            "given up: at most this",
            given_up,
            {"marker": "v", "s": 62, "facecolors": theme.ground, "edgecolors": theme.orange, "linewidths": 1.6},
        ),
    )
    for label, decisions, look in looks:
        if decisions:
            sides = [d.step for d in decisions], [d.score.value for d in decisions]
            axes.scatter(*sides, label=label, zorder=3, **look)


def _ticks(soup: Soup) -> Iterator[str]:
    yield "start"
    for decision in soup.trace:
        yield f"{'+' if decision.action == 'add' else '−'} {name(soup, decision.ingredient, 22)}"
