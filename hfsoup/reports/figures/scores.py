"""Selection score against test score of everything that was scored."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hfsoup.evaluation.measurements import CANDIDATE, INGREDIENT, UNIFORM, Point
from hfsoup.reports.figures.style import Paint, Theme, format_axis, name_ingredient, name_metric

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from hfsoup.evaluation.scores import Bounds
    from hfsoup.provenance.result import BakeResult


CROWDED = 3.0
"""How many times as wide as their upper half all selection scores must be for that half to be shown larger, too."""


def paint(soup: BakeResult) -> Paint:
    """Ingredients, candidates, the mean of all, and soup and best ingredient with their intervals on the test split."""

    def onto(figure: Figure, theme: Theme) -> None:
        points = soup.evaluation.evidence.points if soup.evaluation.evidence else ()
        upper = _find_crowded(soup, points)
        panels = figure.subplots(1, 2 if upper else 1, squeeze=False)[0]
        for axes, chosen in zip(panels, (points, upper), strict=False):
            _draw_panel(soup, chosen, axes, theme)
            _draw_diagonal(axes, theme)
            axes.set_xlabel(f"{name_metric(soup, 24)}, selection split")
        if upper:
            panels[0].set_title("all", fontsize=9.5)
            panels[1].set_title("the better half, closer", fontsize=9.5)
        panels[0].set_ylabel(f"{name_metric(soup, 24)}, test split")
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)

    return onto


def _draw_panel(soup: BakeResult, points: tuple[Point, ...], axes: Any, theme: Theme) -> None:
    axes.grid(visible=True, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.margins(0.12)
    for label, chosen, look in _group_points(soup, points, theme):
        if chosen:
            sides = [p.selection.value for p in chosen], [p.test.value for p in chosen]
            axes.scatter(*sides, label=label, **look)
    _draw_intervals(soup, points, axes, theme)
    format_axis(soup, axes.xaxis)
    format_axis(soup, axes.yaxis)
    axes.locator_params(nbins=5)


def _find_crowded(soup: BakeResult, points: tuple[Point, ...]) -> tuple[Point, ...]:
    """The upper half by selection score, where others are so far below that they would crowd it into a corner."""
    ranked = sorted(points, key=lambda p: p.selection.value)
    upper = ranked[len(ranked) // 2 :]
    if len(ranked) < 4 or soup.selection is None:
        return ()
    top = max(soup.selection.value, ranked[-1].selection.value)
    crowded = top - ranked[0].selection.value > CROWDED * (top - upper[0].selection.value)
    return tuple(upper) if crowded else ()


def _draw_diagonal(axes: Any, theme: Theme) -> None:
    """Where both scores are the same, with its name, without moving the limits."""
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    axes.set_xlim(left, right)
    axes.set_ylim(bottom, top)
    axes.axline((left, left), slope=1, color=theme.faint, linewidth=0.9, linestyle=(0, (4, 4)), zorder=1)
    low, high = max(left, bottom), min(right, top)
    if low < high:
        place = low + 0.5 * (high - low)
        axes.text(
            place, place, "same on both", color=theme.faint, fontsize=8, rotation=45, rotation_mode="anchor",
            transform_rotates_text=True, ha="center", va="bottom",
        )  # fmt: skip


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


def _draw_intervals(soup: BakeResult, points: tuple[Point, ...], axes: Any, theme: Theme) -> None:
    """The soup, and the intervals that its test score and that of the best ingredient have."""
    c, selection = soup.comparison, soup.selection
    if c is None or selection is None:
        return
    best = [p.selection.value for p in points if p.kind == INGREDIENT and p.number == soup.best]
    if c.ci95 and best:
        _draw_interval(best[0], c.best.value, c.ci95.best, axes, color=theme.blue)
    if c.ci95:
        _draw_interval(selection.value, c.soup.value, c.ci95.soup, axes, color=theme.red, label="95 % intervals")
    axes.scatter([selection.value], [c.soup.value], marker="*", s=210, color=theme.red, label="this soup", zorder=4)


def _draw_interval(across: float, value: float, bounds: Bounds, axes: Any, **look: Any) -> None:
    sides = [[max(value - bounds[0], 0.0)], [max(bounds[1] - value, 0.0)]]
    axes.errorbar(across, value, yerr=sides, linewidth=1.2, capsize=3, zorder=2, **look)
