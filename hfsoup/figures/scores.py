"""Selection score against test score of everything that was scored."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hfsoup.evidence import CANDIDATE, INGREDIENT, UNIFORM, Point
from hfsoup.figures.style import Paint, Theme, as_metric, metric, name

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from hfsoup.soup import Soup


def paint(soup: Soup) -> Paint:
    """Ingredients, candidates, the mean of all, and the soup with its interval on the test split."""

    def onto(figure: Figure, theme: Theme) -> None:
        axes = figure.subplots()
        axes.grid(visible=True, linewidth=0.7)
        axes.set_axisbelow(True)
        points = soup.evidence.points if soup.evidence else ()
        for label, chosen, look in _groups(soup, points, theme):
            if chosen:
                sides = [p.selection.value for p in chosen], [p.test.value for p in chosen]
                axes.scatter(*sides, label=label, **look)
        _soup(soup, axes, theme)
        axes.axline((_middle(axes),) * 2, slope=1, color=theme.faint, linewidth=0.9, linestyle=(0, (4, 4)), zorder=1)
        axes.set_xlabel(f"{metric(soup)} on the selection split, which chose")
        axes.set_ylabel(f"{metric(soup)} on the test split")
        as_metric(soup, axes.xaxis)
        as_metric(soup, axes.yaxis)
        figure.legend(loc="outside right upper", frameon=False)

    return onto


def _groups(soup: Soup, points: tuple[Point, ...], theme: Theme) -> list[tuple[str, list[Point], dict[str, Any]]]:
    """What is drawn alike: every group has a shape of its own, too."""
    alone = [p for p in points if p.kind == INGREDIENT]
    tried = [p for p in points if p.kind == CANDIDATE]
    hollow = {"facecolors": "none", "linewidths": 1.5}
    best = name(soup, soup.best or 0, 20)
    return [
        ("ingredient", [p for p in alone if p.number != soup.best], {"marker": "o", "s": 46, "color": theme.blue}),
        (f"best ingredient,\n{best}", [p for p in alone if p.number == soup.best], {"marker": "s", "s": 62, "color": theme.blue}),
        ("candidate, kept", [p for p in tried if p.kept], {"marker": "^", "s": 46, "color": theme.green}),
        ("candidate, not kept", [p for p in tried if not p.kept], {"marker": "v", "s": 46, "edgecolors": theme.green, **hollow}),
        ("mean of all", [p for p in points if p.kind == UNIFORM], {"marker": "D", "s": 52, "edgecolors": theme.orange, **hollow}),
    ]  # fmt: skip


def _soup(soup: Soup, axes: Any, theme: Theme) -> None:
    """The soup, with the interval that its test score has."""
    c, selection = soup.comparison, soup.selection
    if c is None or selection is None:
        return
    if c.interval:
        below, above = c.soup.value - c.interval[0], c.interval[1] - c.soup.value
        axes.errorbar(
            selection.value, c.soup.value, yerr=[[below], [above]], color=theme.red, linewidth=1.2, capsize=3, zorder=2,
            label="its 95 % interval",
        )  # fmt: skip
    axes.scatter([selection.value], [c.soup.value], marker="*", s=210, color=theme.red, label="this soup", zorder=4)


def _middle(axes: Any) -> float:
    """A place on the diagonal that changes nothing about the limits."""
    low, high = axes.get_xlim()
    axes.set_xlim(low, high)
    axes.set_ylim(*axes.get_ylim())
    return float(low + high) / 2
