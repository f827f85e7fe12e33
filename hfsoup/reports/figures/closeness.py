"""How close the ingredients' weights are, pair by pair."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from hfsoup.ingredients.diagnose import compare_weights
from hfsoup.ingredients.similarity import BASIN
from hfsoup.reports.figures.style import Paint, Theme, name_ingredient

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from hfsoup.ingredients.similarity import Matrix
    from hfsoup.provenance.result import BakeResult

NUMBERED, NAMED = 12, 40
"""Ingredients up to which each pair has its number, and each row its name."""


def paint(soup: BakeResult) -> Paint:
    """A heat map of cosines, the ingredients in the order given; those in the soup are marked."""
    cosines = compare_weights(soup.family).body

    def onto(figure: Figure, theme: Theme) -> None:
        axes, size = figure.subplots(), len(cosines)
        low = _lowest_color(cosines)
        shown = axes.imshow(cosines, cmap="cividis", vmin=low, vmax=1.0, interpolation="nearest")
        axes.spines[:].set_visible(False)
        if size <= NAMED:
            used = soup.mix.members
            names = [f"{name_ingredient(soup, i)}{' ●' if i in used else ''}" for i in range(size)]
            small = 9 if size <= 16 else 6
            axes.set_xticks(range(size), names, rotation=40, ha="right", fontsize=small)
            axes.set_yticks(range(size), names, fontsize=small)
        if size <= NUMBERED:
            _draw_numbers(axes, cosines, low)
        figure.colorbar(shown, ax=axes, label="cosine", shrink=0.9)
        figure.supxlabel(
            f"● is in the soup; fine-tunings that share a basin are above {BASIN}", fontsize=9, color=theme.faint
        )

    return onto


def _lowest_color(cosines: Matrix) -> float:
    """Where the colours begin: a tenth below the least, so that close ones do not all look far apart."""
    return float(min(np.floor(cosines.min() * 10 - 1e-9) / 10, BASIN))


def _draw_numbers(axes: Any, cosines: Matrix, low: float) -> None:
    for (row, column), cosine in np.ndenumerate(cosines):
        ink = "#000000" if cosine - low > 0.5 * (1 - low) else "#ffffff"
        places = 3 if cosine > BASIN and row != column else 2
        axes.text(column, row, f"{cosine:.{places}f}", ha="center", va="center", fontsize=8.5, color=ink)
