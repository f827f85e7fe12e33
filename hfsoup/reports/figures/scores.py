"""Selection score against test score of everything that was scored."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hfsoup.evaluation.measurements import CANDIDATE, INGREDIENT, UNIFORM, Point
from hfsoup.reports.figures.style import Paint, Theme, format_axis, name_ingredient, name_metric

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from hfsoup.provenance.result import BakeResult


CROWDED = 3.0
"""How many times as wide as their upper half all selection scores must be for that half to be shown larger, too."""


def paint(soup: BakeResult) -> Paint:
    """Ingredients, candidates, the mean of all, and the soup with its interval on the test split."""

    def onto(figure: Figure, theme: Theme) -> None:
        points = soup.evaluation.evidence.points if soup.evaluation.evidence else ()
        upper = _find_crowded(soup, points)
        panels = figure.subplots(1, 2 if upper else 1, squeeze=False)[0]
        for axes in panels:
            _draw_panel(soup, points, axes, theme)
        if upper:
            _zoom(soup, upper, panels[1])
        for axes in panels:
            _draw_diagonal(axes, theme)
            axes.set_xlabel(f"{name_metric(soup, 24)}, selection split")
        panels[0].set_ylabel(f"{name_metric(soup, 24)}, test split")
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)

    return onto


def _draw_panel(soup: BakeResult, points: tuple[Point, ...], axes: Any, theme: Theme) -> None:
    axes.grid(visible=True, linewidth=0.7)
    axes.set_axisbelow(True)
    for label, chosen, look in _group_points(soup, points, theme):
        if chosen:
            sides = [p.selection.value for p in chosen], [p.test.value for p in chosen]
            axes.scatter(*sides, label=label, **look)
    _draw_soup(soup, axes, theme)
    format_axis(soup, axes.xaxis)
    format_axis(soup, axes.yaxis)
    axes.locator_params(nbins=5)


def _find_crowded(soup: BakeResult, points: tuple[Point, ...]) -> list[Point]:
    """The upper half by selection score, where others are so far below that they would crowd it into a corner."""
    ranked = sorted(points, key=lambda p: p.selection.value)
    upper = ranked[len(ranked) // 2 :]
    if len(ranked) < 4 or soup.selection is None:
        return []
    top = max(soup.selection.value, ranked[-1].selection.value)
    return upper if top - ranked[0].selection.value > CROWDED * (top - upper[0].selection.value) else []


def _zoom(soup: BakeResult, upper: list[Point], axes: Any) -> None:
    c, selection = soup.comparison, soup.selection
    tests, chosen = [p.test.value for p in upper], [p.selection.value for p in upper]
    if c and selection:
        tests, chosen = [*tests, c.soup.value], [*chosen, selection.value]
    for limit, values in ((axes.set_xlim, chosen), (axes.set_ylim, tests)):
        room = 0.25 * (max(values) - min(values)) or 0.01 * abs(max(values)) or 0.01
        limit(min(values) - room, max(values) + room)
    axes.set_title("the upper half, closer", fontsize=9.5)


def _draw_diagonal(axes: Any, theme: Theme) -> None:
    """Where both scores are the same, without moving the limits."""
    axes.set_xlim(*axes.get_xlim())
    axes.set_ylim(*axes.get_ylim())
    axes.axline((0, 0), slope=1, color=theme.faint, linewidth=0.9, linestyle=(0, (4, 4)), zorder=1)


def _group_points(
    soup: BakeResult, points: tuple[Point, ...], theme: Theme
) -> list[tuple[str, list[Point], dict[str, Any]]]:
    """What is drawn alike: every group has a shape of its own, too."""
    alone = [p for p in points if p.kind == INGREDIENT]
    tried = [p for p in points if p.kind == CANDIDATE]
    best = f"best ingredient, {name_ingredient(soup, soup.best or 0, 20)}"
    full, hollow = {"s": 46}, {"s": 46, "facecolors": "none", "linewidths": 1.5}
    return [
        ("ingredient", [p for p in alone if p.number != soup.best], {**full, "marker": "o", "color": theme.blue}),
        (best, [p for p in alone if p.number == soup.best], {"s": 62, "marker": "s", "color": theme.blue}),
        ("candidate, kept", [p for p in tried if p.kept], {**full, "marker": "^", "color": theme.green}),
        (
            "candidate, not kept",
            [p for p in tried if not p.kept],
            {**hollow, "marker": "v", "edgecolors": theme.green},
        ),
        (
            "mean of all",
            [p for p in points if p.kind == UNIFORM],
            {**hollow, "marker": "D", "edgecolors": theme.orange},
        ),
    ]


def _draw_soup(soup: BakeResult, axes: Any, theme: Theme) -> None:
    """The soup, with the interval that its test score has."""
    c, selection = soup.comparison, soup.selection
    if c is None or selection is None:
        return
    if c.ci95:
        below, above = c.soup.value - c.ci95.soup[0], c.ci95.soup[1] - c.soup.value
        axes.errorbar(
            selection.value, c.soup.value, yerr=[[below], [above]], color=theme.red, linewidth=1.2, capsize=3, zorder=2,
            label="its 95 % interval",
        )  # fmt: skip
    axes.scatter([selection.value], [c.soup.value], marker="*", s=210, color=theme.red, label="this soup", zorder=4)
