"""Tables of the terminal: the ingredients of a soup, the downloads of a plan."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from hfsoup.checkpoints.types import Source
from hfsoup.provenance.reproduce import hub_url
from hfsoup.reports.measurements import format_score
from hfsoup.reports.summary import add_link, replace_unprintable
from hfsoup.utils.text import format_size, one_line, shorten_names

if TYPE_CHECKING:
    from hfsoup.baking.plan import Plan
    from hfsoup.baking.soup import Soup


def make_ingredient_table(soup: Soup) -> Table:
    """Every ingredient with its own score and its weight in the soup."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("ingredient", no_wrap=True, overflow="ellipsis")
    if soup.selection:
        table.add_column(replace_unprintable(f"{one_line(soup.metric, 24)}, selection"), justify="right", no_wrap=True)
    table.add_column("weight", justify="right", no_wrap=True)
    shown = shorten_names([(i.id, i.source.revision) for i in soup.family.ingredients])
    rows = zip(soup.family.ingredients, soup.scores, soup.mix.coefficients, strict=True)
    for n, (ingredient, score, weight) in enumerate(rows):
        style = "" if weight else "dim"
        name = add_link(
            replace_unprintable(ingredient if ingredient.source.revision else shown[n]), hub_url(ingredient.source)
        )
        best = Text(format_score(soup.metric, score), "bold" if n == soup.best else "")
        span = "" if (found := soup.mix.span(n)) is None else f" ({found[0]:.3f} to {found[1]:.3f})"
        cells = [name, *([best] if soup.selection else []), Text(f"{weight:.3f}{span}" if weight else "–")]
        table.add_row(*cells, style=style)
    return table


def make_plan_table(plan: Plan) -> Table:
    """Everything that would be pulled, and how much of it is cached."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("source", no_wrap=True, overflow="ellipsis")
    for title in ("size", "cached"):
        table.add_column(title, justify="right", no_wrap=True)
    for holding in (*plan.ingredients, *plan.bases):
        source = Source(holding.id, holding.revision)
        name = add_link(replace_unprintable(source), hub_url(source))
        table.add_row(
            name, format_size(holding.size), "all" if holding.cached == holding.size else format_size(holding.cached)
        )
    if plan.dataset:
        data = plan.dataset
        table.add_row(
            replace_unprintable(data.id),
            format_size(data.size),
            "all" if data.cached == data.size else format_size(data.cached),
        )
    return table
