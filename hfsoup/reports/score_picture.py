"""The scores of a soup and its ingredients as a picture: SVG for a notebook, characters for a prompt; no matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

from hfsoup.evaluation.scores import Score
from hfsoup.reports.card.formatting import format_weight
from hfsoup.reports.measurements import format_score, name_metric
from hfsoup.utils.text import format_count, one_line, shorten_names

if TYPE_CHECKING:
    from hfsoup.provenance.result import BakeResult

MOST = 12
"""Ingredients in a picture; of more, those with the largest weights and scores are shown."""
LABEL = 28
"""The most characters of a name."""
STRIP = 32
"""The characters of a row of the picture at a prompt."""
WIDTH, LEFT, RIGHT, PITCH = 640, 210, 560, 20
"""Pixels: the SVG, where its plot begins and ends, and from row to row."""
INGREDIENT, BEST, SOUP = "ingredient", "best ingredient", "soup"
MARKS = {INGREDIENT: "●", BEST: "■", SOUP: "◆"}
COLOURS = {INGREDIENT: "#3987c9", BEST: "#3987c9", SOUP: "#d9601a"}
"""Readable on a light and on a dark ground."""


@dataclass(frozen=True)
class ScoreRow:
    """A model with its score on one split, the score's 95 % interval where there is one, and its weight in the soup."""

    name: str
    kind: str
    value: float
    bounds: tuple[float, float] | None = None
    weight: str = ""


@dataclass(frozen=True)
class ScorePanel:
    """The scores on one split; `left_out` ingredients have no row."""

    title: str
    rows: tuple[ScoreRow, ...]
    left_out: int = 0


def list_panels(soup: BakeResult) -> list[ScorePanel]:
    """The scores of ingredients and soup on the selection split, and of soup and best ingredient on the test split."""
    sources = [(each.id, each.source.revision) for each in soup.family.ingredients]
    names, kind = [one_line(name, LABEL) for name in shorten_names(sources)], soup.composition.kind
    panels = []
    if soup.selection is not None:
        known = [i for i, score in enumerate(soup.scores) if score is not None]
        shown = sorted(sorted(known, key=lambda i: _rank(soup, i), reverse=True)[:MOST])
        rows = [_make_ingredient_row(soup, i, names[i]) for i in shown]
        rows.append(ScoreRow(kind, SOUP, soup.selection.value))
        title = f"{one_line(name_metric(soup.metric), LABEL)} on the selection split"
        panels.append(ScorePanel(title, tuple(rows), len(known) - len(shown)))
    if (c := soup.comparison) is not None:
        best = ScoreRow(names[soup.best or 0], BEST, c.best.value, c.ci95.best if c.ci95 else None)
        tested = ScoreRow(kind, SOUP, c.soup.value, c.ci95.soup if c.ci95 else None)
        title = f"{one_line(name_metric(soup.metric), LABEL)} on the test split" + (
            ", with 95 % intervals" if c.ci95 else ""
        )
        panels.append(ScorePanel(title, (best, tested)))
    return panels


def _rank(soup: BakeResult, i: int) -> tuple[float, float, int]:
    score = soup.scores[i]
    return soup.mix.coefficients[i], score.key if score else 0.0, -i


def _make_ingredient_row(soup: BakeResult, i: int, name: str) -> ScoreRow:
    score, share = soup.scores[i], soup.mix.coefficients[i]
    weight = format_weight(share, soup.mix.span(i)) if share else "–"
    return ScoreRow(name, BEST if i == soup.best else INGREDIENT, score.value if score else 0.0, weight=weight)


class _Scale:
    """Where a score is between the lowest and the highest of all panels, from 0 to 1."""

    def __init__(self, panels: Sequence[ScorePanel]) -> None:
        every = [x for panel in panels for row in panel.rows for x in (row.value, *(row.bounds or ()))]
        self.low, self.high = min(every), max(every)

    def __call__(self, value: float) -> float:
        return (value - self.low) / (self.high - self.low) if self.high > self.low else 0.5


def draw_text(panels: Sequence[ScorePanel], metric: str) -> list[str]:
    """The panels as lines of characters: name, score, weight, and the score on a scale that all panels share."""
    scale, rows = _Scale(panels), [row for panel in panels for row in panel.rows]
    name, weight = max(len(row.name) for row in rows), max(len(row.weight) for row in rows)
    score = max(len(_format(metric, row.value)) for row in rows)
    lines = []
    for panel in panels:
        lines.append(f"  {panel.title}, from {_format(metric, scale.low)} to {_format(metric, scale.high)}")
        for row in panel.rows:
            numbers = f"{_format(metric, row.value):>{score}}  {row.weight:>{weight}}"
            lines.append(f"    {row.name:<{name}}  {numbers}  {_draw_strip(row, scale)}")
        if panel.left_out:
            lines.append(f"    and {format_count(panel.left_out, 'ingredient')} more")
    return lines


def _format(metric: str, value: float) -> str:
    return format_score(metric, Score(value))


def _draw_strip(row: ScoreRow, scale: _Scale) -> str:
    cells = ["·"] * STRIP
    if row.bounds:
        first, last = (round(scale(x) * (STRIP - 1)) for x in row.bounds)
        cells[first : last + 1] = "─" * (last + 1 - first)
        cells[first], cells[last] = "├", "┤"
    cells[round(scale(row.value) * (STRIP - 1))] = MARKS[row.kind]
    return "".join(cells)


def draw_svg(panels: Sequence[ScorePanel], metric: str) -> str:
    """The panels as SVG on one line: a mark for every score, a line for its interval, one scale for all."""
    scale, parts, y = _Scale(panels), [], 0
    for panel in panels:
        more = f"; {format_count(panel.left_out, 'ingredient')} more not shown" if panel.left_out else ""
        y += PITCH
        parts.append(f'<text x="0" y="{y}" font-weight="600" fill="currentColor">{escape(panel.title + more)}</text>')
        for row in panel.rows:
            y += PITCH
            parts.append(_draw_row(row, y, scale, metric))
        y += PITCH // 2
    parts += [
        f'<text x="{x}" y="{y + PITCH}" text-anchor="middle" fill="currentColor" opacity="0.65">{shown}</text>'
        for x, shown in ((LEFT, _format(metric, scale.low)), (RIGHT, _format(metric, scale.high)))
    ]
    size = f'width="{WIDTH}" height="{y + 2 * PITCH}" viewBox="0 0 {WIDTH} {y + 2 * PITCH}"'
    style = 'style="max-width: 100%; font: 13px sans-serif"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} {style} role="img">{"".join(parts)}</svg>'


def _draw_row(row: ScoreRow, y: int, scale: _Scale, metric: str) -> str:
    """A name, the score as a mark on its line, and as a number."""
    x, middle, colour = _place(scale(row.value)), y - 4, COLOURS[row.kind]
    parts = [
        f'<text x="{LEFT - 16}" y="{y}" text-anchor="end" fill="currentColor">{escape(row.name)}</text>',
        f'<line x1="{LEFT}" x2="{RIGHT}" y1="{middle}" y2="{middle}" stroke="currentColor" opacity="0.15"/>',
    ]
    if row.bounds:
        first, last = (_place(scale(bound)) for bound in row.bounds)
        parts.append(
            f'<path d="M{first} {middle - 4}v8m0 -4H{last}m0 -4v8" fill="none" stroke="{colour}" stroke-width="1.5"/>'
        )
    shapes = {
        INGREDIENT: f'<circle cx="{x}" cy="{middle}" r="4.5" fill="{colour}"/>',
        BEST: f'<rect x="{x - 4.5:g}" y="{middle - 4.5}" width="9" height="9" fill="{colour}"/>',
        SOUP: f'<path d="M{x - 6:g} {middle}l6 -6l6 6l-6 6z" fill="{colour}"/>',
    }
    number = f'<text x="{RIGHT + 16}" y="{y}" fill="currentColor">{escape(_format(metric, row.value))}</text>'
    return "".join([*parts, shapes[row.kind], number])


def _place(part: float) -> float:
    return round(LEFT + part * (RIGHT - LEFT), 1)
