"""How close the ingredients are, pair by pair: their weights, or with a base what fine-tuning changed in it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from hfsoup.ingredients.diagnose import compare_task_vectors, compare_weights
from hfsoup.ingredients.similarity import BASIN
from hfsoup.reports.figures.style import Paint, Theme, name_ingredient

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from hfsoup.ingredients.similarity import Matrix
    from hfsoup.provenance.result import BakeResult

NUMBERED, NAMED = 12, 40
"""Ingredients up to which each pair has its number, and each row its name."""
NARROWEST = 0.01
"""The least range of the colours: what differs by less looks alike."""


def paint(soup: BakeResult) -> Paint:
    """A heat map of cosines, the ingredients in the order given; those in the soup are marked."""
    based = soup.family.base is not None
    cosines = compare_task_vectors(soup.family) if based else compare_weights(soup.family).body
    note = "0 is at right angles" if based else f"fine-tunings that share a basin are above {BASIN}"

    def onto(figure: Figure, theme: Theme) -> None:
        axes, size = figure.subplots(), len(cosines)
        low, high = _find_range(cosines)
        # Every ingredient is like itself, which would take up the range.
        others = np.ma.masked_array(cosines, np.eye(size, dtype=bool))
        axes.set_facecolor(theme.grid)
        shown = axes.imshow(others, cmap="cividis", vmin=low, vmax=high, interpolation="nearest")
        axes.spines[:].set_visible(False)
        if size <= NAMED:
            used = soup.mix.members
            names = [f"{name_ingredient(soup, i)}{' ●' if i in used else ''}" for i in range(size)]
            small = 9 if size <= 16 else 6
            axes.set_xticks(range(size), names, rotation=40, ha="right", fontsize=small)
            axes.set_yticks(range(size), names, fontsize=small)
        if size <= NUMBERED:
            _draw_numbers(axes, cosines, low, high, theme)
        label = "cosine of the changes" if based else "cosine of the weights"
        figure.colorbar(shown, ax=axes, label=label, shrink=0.9)
        figure.supxlabel(f"● is in the soup; {note}", fontsize=9, color=theme.faint)

    return onto


def _find_range(cosines: Matrix) -> tuple[float, float]:
    """The least and the largest cosine of two ingredients, at least `NARROWEST` apart."""
    pairs = cosines[np.triu_indices(len(cosines), 1)]
    low, high = float(pairs.min()), float(pairs.max())
    high = min(high + max(NARROWEST - (high - low), 0.0) / 2, 1.0)
    return min(low, high - NARROWEST), high


def _draw_numbers(axes: Any, cosines: Matrix, low: float, high: float, theme: Theme) -> None:
    places = 4 if high - low < 0.02 else 3 if high - low < 0.2 else 2
    for (row, column), cosine in np.ndenumerate(cosines):
        if row == column:
            axes.text(column, row, "1", ha="center", va="center", fontsize=8.5, color=theme.faint)
            continue
        ink = "#000000" if cosine - low > 0.5 * (high - low) else "#ffffff"
        axes.text(column, row, f"{cosine:.{places}f}", ha="center", va="center", fontsize=8.5, color=ink)
