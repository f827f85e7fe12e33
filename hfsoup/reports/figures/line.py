"""Accuracy along the line between the two best ingredients."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hfsoup.reports.figures.style import Paint, Theme, format_axis, name_ingredient, name_metric

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from hfsoup.provenance.result import BakeResult


def paint(soup: BakeResult) -> Paint:
    """Both splits from one end to the other."""
    line = soup.evaluation.evidence.line if soup.evaluation.evidence else None

    def onto(figure: Figure, theme: Theme) -> None:
        if line is None:
            return
        axes = figure.subplots()
        axes.grid(visible=True, linewidth=0.7)
        axes.set_axisbelow(True)
        shares = [knot.share for knot in line.knots]
        selection, test = [k.selection.value for k in line.knots], [k.test.value for k in line.knots]
        axes.plot(shares, selection, marker="o", linestyle="--", color=theme.blue, label="selection split")
        axes.plot(shares, test, marker="s", color=theme.red, label="test split")
        axes.set_xticks(
            [0, 0.25, 0.5, 0.75, 1],
            [name_ingredient(soup, line.first, 24), "¼", "½", "¾", name_ingredient(soup, line.second, 24)],
        )
        axes.set_xlabel("share of the second in the average")
        axes.set_ylabel(name_metric(soup))
        format_axis(soup, axes.yaxis)
        figure.legend(loc="outside right upper", frameon=False)

    return onto
