"""The search step by step; of a recipe that runs several, one walk after the other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hfsoup.reports.figures.style import Paint, Theme, format_axis, name_ingredient, name_metric
from hfsoup.utils.text import one_line

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from hfsoup.evaluation.scores import Attempt, Decision, Score
    from hfsoup.provenance.result import BakeResult

NAMED = 24
"""Steps up to which each is named."""


@dataclass(frozen=True)
class Walk:
    """The decisions of one walk, the score that it began at, where that is known, and its place on the axis."""

    name: str
    start: Score | None
    decisions: tuple[Decision, ...]
    left: int

    @property
    def right(self) -> int:
        """The place of its last decision."""
        return self.left + len(self.decisions)

    def places(self) -> list[tuple[int, Decision]]:
        """Every decision with its place, the start being at `left`."""
        return list(enumerate(self.decisions, self.left + 1))

    def levels(self) -> tuple[list[float], list[float]]:
        """The score of the mix that it stood at after each step, from where it is known."""
        found = [(self.left, self.start.value)] if self.start else []
        found += [(place, decision.score.value) for place, decision in self.places() if decision.accepted]
        if not found:
            return [], []
        places, levels = zip(*found, strict=True)
        return [*places, self.right + 0.5], [*levels, levels[-1]]


def paint(soup: BakeResult) -> Paint:
    """Every candidate at its step: kept, not kept, or stopped early at an upper bound; the level to reach; the soup."""

    def onto(figure: Figure, theme: Theme) -> None:
        axes, walks, whole = figure.subplots(), _walks(soup), _find_whole(soup)
        axes.grid(visible=True, axis="y", linewidth=0.7)
        axes.set_axisbelow(True)
        for n, walk in enumerate(walks):
            axes.plot(
                *walk.levels(), drawstyle="steps-post", color=theme.faint, linewidth=1.4,
                label="where the search stood" if n == 0 else None,
            )  # fmt: skip
        _draw_steps(walks, axes, theme)
        if soup.search.attempts:
            _separate_walks(soup, walks, axes, theme)
        if whole:
            axes.scatter(
                range(_first(whole), -1), [a.score.value for a in whole], label="tried as a whole", zorder=3,
                marker="D", s=56, facecolors=theme.ground, edgecolors=theme.orange, linewidths=1.6,
            )  # fmt: skip
        if soup.search.attempts and soup.selection:
            _draw_soup(soup, axes, theme, walks[-1].right + 2)
        axes.set_ylabel(f"{name_metric(soup)} on the selection split")
        format_axis(soup, axes.yaxis)
        axes.set_xlim(_first(whole) - 0.5, walks[-1].right + (2.8 if soup.search.attempts else 0.8))
        if len(soup.trace) <= NAMED:
            ticks = dict(_ticks(soup, walks, whole))
            axes.set_xticks(list(ticks), list(ticks.values()), rotation=40, ha="right", fontsize=9)
        elif soup.search.attempts:
            axes.set_xticks([])
        else:
            axes.set_xlabel("step")
        figure.legend(loc="outside right upper", frameon=False)

    return onto


def _walks(soup: BakeResult) -> list[Walk]:
    """The walks of a search, in the order that they were begun."""
    starts = {start.walk: start.score for start in soup.evaluation.evidence.starts} if soup.evaluation.evidence else {}
    alone = soup.scores[soup.best] if soup.best is not None else None
    if not soup.evaluation.evidence and alone and soup.trace[0].action == "add":
        # One that adds begins at the best ingredient.
        starts = {soup.trace[0].walk: alone}
    found: list[Walk] = []
    for walk in dict.fromkeys(decision.walk for decision in soup.trace):
        left = found[-1].right + 2 if found else 0
        found.append(Walk(walk, starts.get(walk), tuple(d for d in soup.trace if d.walk == walk), left))
    return found


def _find_whole(soup: BakeResult) -> list[Attempt]:
    """What was tried beside the walks, without steps."""
    walked = {decision.walk or soup.options.chosen_recipe for decision in soup.trace}
    return [attempt for attempt in soup.search.attempts if attempt.name not in walked]


def _first(whole: list[Attempt]) -> int:
    """The place of the first of those, a place before the walks."""
    return -len(whole) - 1 if whole else 0


def _draw_steps(walks: list[Walk], axes: Any, theme: Theme) -> None:
    starts = [(walk.left, walk.start.value) for walk in walks if walk.start]
    every = [pair for walk in walks for pair in walk.places()]
    seen = [(place, d) for place, d in every if not d.score.at_most]
    if starts:
        axes.scatter(*zip(*starts, strict=True), marker="s", s=56, color=theme.blue, label="where it began", zorder=3)
    looks = (
        ("kept", [(x, d) for x, d in seen if d.accepted], {"marker": "o", "s": 56, "color": theme.green}),
        (
            "not kept",
            [(x, d) for x, d in seen if not d.accepted],
            {"marker": "o", "s": 56, "facecolors": theme.ground, "edgecolors": theme.red, "linewidths": 1.6},
        ),
        (
            "stopped early: at most this",
            [(x, d) for x, d in every if d.score.at_most],
            {"marker": "v", "s": 62, "facecolors": theme.ground, "edgecolors": theme.orange, "linewidths": 1.6},
        ),
    )
    for label, decisions, look in looks:
        if decisions:
            sides = [x for x, _ in decisions], [d.score.value for _, d in decisions]
            axes.scatter(*sides, label=label, zorder=3, **look)


def _separate_walks(soup: BakeResult, walks: list[Walk], axes: Any, theme: Theme) -> None:
    """A line around every walk, and its name above it."""
    for at in (-1, *(walk.right + 1 for walk in walks)):
        axes.axvline(at, color=theme.grid, linewidth=1.2)
    for walk in walks:
        axes.annotate(
            one_line(walk.name or soup.options.chosen_recipe, 24),
            ((walk.left + walk.right) / 2, 1), xycoords=("data", "axes fraction"),
            xytext=(0, 4), textcoords="offset points", ha="center", color=theme.faint, fontsize=9.5,
        )  # fmt: skip


def _draw_soup(soup: BakeResult, axes: Any, theme: Theme, right: int) -> None:
    """The score of the mix that is shipped, at the end and across the whole width."""
    if soup.selection is None:
        return
    value = soup.selection.value
    axes.axhline(value, color=theme.red, linewidth=0.9, linestyle=(0, (4, 4)), zorder=1)
    axes.scatter([right], [value], marker="*", s=210, color=theme.red, label="this soup", zorder=4)


def _ticks(soup: BakeResult, walks: list[Walk], whole: list[Attempt]) -> Iterator[tuple[int, str]]:
    for n, attempt in enumerate(whole):
        yield _first(whole) + n, one_line(attempt.name, 22)
    for walk in walks:
        yield walk.left, "start"
        for place, decision in walk.places():
            yield place, _name_step(soup, decision)
    if soup.search.attempts:
        kept = " and ".join(attempt.name for attempt in soup.search.attempts if attempt.mix == soup.mix)
        yield walks[-1].right + 2, f"this soup ({one_line(kept, 22)})" if kept else "this soup"


def _name_step(soup: BakeResult, step: Decision) -> str:
    """What a step tried: an ingredient in or out, or a place on the line from the base."""
    if step.ingredient is None:
        return f"α {step.alpha:g}"
    return f"{'+' if step.action == 'add' else '−'} {name_ingredient(soup, step.ingredient, 22)}"
