"""The search step by step, read from the top down; of a recipe that runs several, one panel for each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hfsoup.evaluation.intervals import wilson_interval
from hfsoup.reports.figures.style import Paint, Theme, format_axis, name_ingredient, name_metric
from hfsoup.utils.text import one_line

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from hfsoup.evaluation.scores import Attempt, Decision, Score, Start
    from hfsoup.provenance.result import BakeResult

NAMED = 48
"""Rows up to which each is named."""
WIDTH, LEAST, MOST = 7.2, 4.6, 14.0
ROW, AROUND = 0.25, 1.7
"""Inches of a named row, and of title, axis and legend."""


@dataclass(frozen=True)
class Walk:
    """One panel: the start, where its score is known, and the steps; or mixes that were tried as a whole."""

    name: str
    start: Score | None
    origin: str
    decisions: tuple[Decision, ...] = ()
    whole: tuple[Attempt, ...] = ()
    ships: bool = False

    @property
    def rows(self) -> int:
        """How many rows it has; the start is row 0, and this soup, where it comes from here, the last."""
        return len(self.whole) or 1 + len(self.decisions) + self.ships

    def places(self) -> list[tuple[int, Decision]]:
        """Every decision with its row."""
        return list(enumerate(self.decisions, 1))

    def levels(self) -> tuple[list[float], list[float]]:
        """The score of the mix that it stood at, and the rows, from where it is known."""
        found = [(self.start.value, 0.0)] if self.start else []
        found += [(decision.score.value, float(row)) for row, decision in self.places() if decision.accepted]
        if not found:
            return [], []
        levels, rows = zip(*found, strict=True)
        return [*levels, levels[-1]], [*rows, len(self.decisions) + 0.5]


def paint(soup: BakeResult) -> Paint:
    """Every candidate at its step: kept, not kept, or stopped early at an upper bound; the start; the soup."""

    def onto(figure: Figure, theme: Theme) -> None:
        walks = _list_walks(soup)
        rows = sum(walk.rows + 1 for walk in walks)
        figure.set_size_inches(WIDTH, min(max(LEAST, AROUND + ROW * min(rows, NAMED)), MOST))
        panels = figure.subplots(
            len(walks), 1, sharex=True, squeeze=False, gridspec_kw={"height_ratios": [walk.rows + 1 for walk in walks]}
        )[:, 0]
        for axes, walk in zip(panels, walks, strict=True):
            _draw_panel(soup, walk, axes, theme, named=rows <= NAMED)
            if len(walks) > 1:
                axes.set_title(walk.name, loc="left", fontsize=9.5, color=theme.faint)
        panels[-1].set_xlabel(f"{name_metric(soup)} on the selection split")
        format_axis(soup, panels[-1].xaxis)
        found: dict[str, Any] = {}
        for axes in panels:
            found |= {label: handle for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
        figure.legend(handles=[*found.values()], labels=[*found], loc="outside lower center", ncols=3, frameon=False)

    return onto


def _list_walks(soup: BakeResult) -> list[Walk]:
    """The panels: what was tried as a whole, then the walks in the order that they were begun."""
    starts = {start.walk: start for start in soup.evaluation.evidence.starts} if soup.evaluation.evidence else {}
    names = list(dict.fromkeys(decision.walk for decision in soup.trace))
    whole = tuple(
        a for a in soup.search.attempts if a.name not in {name or soup.options.chosen_recipe for name in names}
    )
    shipped = next((a.name for a in soup.search.attempts if a.mix == soup.mix), names[-1])
    found = [Walk("tried as a whole", None, "", whole=whole)] if whole else []
    for name in names:
        steps = tuple(decision for decision in soup.trace if decision.walk == name)
        score, origin = _find_start(soup, starts.get(name), steps[0])
        ships = name == shipped or (name == names[-1] and shipped not in names)
        title = one_line(name or soup.options.chosen_recipe, 24)
        found.append(Walk(title, score, origin, steps, ships=ships))
    return found


def _find_start(soup: BakeResult, start: Start | None, first: Decision) -> tuple[Score | None, str]:
    """The score that a walk began at, and what that was."""
    if start:
        members = start.mix.members
        if len(members) == 1:
            return start.score, name_ingredient(soup, members[0], 24)
        count = "all" if len(members) == len(soup.family) else f"{len(members)} of"
        return start.score, f"{count} {len(soup.family)}"
    if first.action == "add" and soup.best is not None:
        # One that adds begins at the best ingredient.
        return soup.scores[soup.best], name_ingredient(soup, soup.best, 24)
    return None, ""


def _draw_panel(soup: BakeResult, walk: Walk, axes: Any, theme: Theme, *, named: bool) -> None:
    axes.grid(visible=True, axis="x", linewidth=0.7)
    axes.set_axisbelow(True)
    _draw_soup(soup, walk, axes, theme)
    if walk.whole:
        axes.scatter(
            [a.score.value for a in walk.whole], range(len(walk.whole)), label="tried as a whole", zorder=3,
            marker="D", s=42, facecolors=theme.ground, edgecolors=theme.orange, linewidths=1.6,
        )  # fmt: skip
    else:
        axes.plot(*walk.levels(), drawstyle="steps-post", color=theme.faint, linewidth=1.4, label="where it stood")
        _draw_steps(walk, axes, theme)
    axes.set_ylim(walk.rows - 0.5, -0.5)
    if named:
        axes.set_yticks(range(walk.rows), _name_rows(soup, walk), fontsize=9)
    else:
        axes.set_ylabel("step")


def _draw_steps(walk: Walk, axes: Any, theme: Theme) -> None:
    seen = [(row, d) for row, d in walk.places() if not d.score.at_most]
    if walk.start:
        axes.scatter([walk.start.value], [0], marker="s", s=46, color=theme.blue, label="start", zorder=3)
    hollow = {"facecolors": theme.ground, "linewidths": 1.6}
    looks = (
        ("kept", [(row, d) for row, d in seen if d.accepted], {"marker": "o", "s": 46, "color": theme.green}),
        (
            "not kept",
            [(row, d) for row, d in seen if not d.accepted],
            {**hollow, "marker": "o", "s": 46, "edgecolors": theme.red},
        ),
        (
            "stopped early: at most this",
            [(row, d) for row, d in walk.places() if d.score.at_most],
            {**hollow, "marker": "<", "s": 50, "edgecolors": theme.orange},
        ),
    )
    for label, decisions, look in looks:
        if decisions:
            sides = [d.score.value for _, d in decisions], [row for row, _ in decisions]
            axes.scatter(*sides, label=label, zorder=3, **look)


def _draw_soup(soup: BakeResult, walk: Walk, axes: Any, theme: Theme) -> None:
    """The score of the mix that is shipped and its interval, across the panel; a star where it comes from."""
    score = soup.selection
    if score is None:
        return
    axes.axvline(score.value, color=theme.red, linewidth=0.9, linestyle=(0, (4, 4)), zorder=1)
    if score.correct is not None:
        bounds = wilson_interval(correct=score.correct, total=score.total)
        axes.axvspan(*bounds, color=theme.red, alpha=0.1, linewidth=0, label="95 % interval of this soup", zorder=0)
    if walk.ships:
        axes.scatter([score.value], [walk.rows - 1], marker="*", s=170, color=theme.red, label="this soup", zorder=4)


def _name_rows(soup: BakeResult, walk: Walk) -> list[str]:
    if walk.whole:
        return [one_line(attempt.name, 28) for attempt in walk.whole]
    steps = [_name_step(soup, decision) for decision in walk.decisions]
    return [f"start: {walk.origin}" if walk.origin else "start", *steps, *["this soup"] * walk.ships]


def _name_step(soup: BakeResult, step: Decision) -> str:
    """What a step tried: an ingredient in or out, or a place on the line from the base."""
    if step.ingredient is None:
        return f"α {step.alpha:g}"
    return f"{'+' if step.action == 'add' else '−'} {name_ingredient(soup, step.ingredient, 26)}"
