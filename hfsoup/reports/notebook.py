"""A soup as a notebook and a prompt show it."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import TYPE_CHECKING

from hfsoup.reports.card.formatting import format_weight
from hfsoup.reports.measurements import NOTEBOOK, list_lines, read_results
from hfsoup.utils.text import one_line

if TYPE_CHECKING:
    from hfsoup.provenance.result import BakeResult


def format_line(soup: BakeResult) -> str:
    """The soup on one line: what it is made of, what was measured, where it is."""
    return f"<Soup: {'; '.join(_facts(soup))}>"


def format_table(soup: BakeResult) -> str:
    """The soup as an HTML table of its ingredients below the same facts; every text from outside is escaped."""
    metric = escape(one_line(soup.metric))
    scored = any(score is not None for score in soup.scores)
    heads = ["ingredient", *([f"{metric} on selection"] if scored else []), "weight"]
    rows = []
    shares = zip(soup.composition.names, soup.scores, soup.mix.coefficients, strict=True)
    for n, (name, score, share) in enumerate(shares):
        cells = [escape(one_line(name)), *([f"{score.value:.4f}" if score else "–"] if scored else [])]
        rows.append([*cells, format_weight(share, soup.mix.span(n)) if share else "–"])
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    head = "".join(f"<th>{text}</th>" for text in heads)
    facts = "<br>".join(escape(fact) for fact in _facts(soup))
    return f"<p><b>Soup</b><br>{facts}</p><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _facts(soup: BakeResult) -> Iterator[str]:
    used, known = len(soup.mix.members), len(soup.family)
    yield f"{soup.options.chosen_recipe}, {used} of {known} ingredient{'s' if known != 1 else ''}"
    yield from (f"{label}: {text}" for _, label, text in list_lines(read_results(soup), NOTEBOOK))
    if not soup.comparison and soup.selection is not None:
        yield f"{one_line(soup.metric)} {soup.selection.value:.4f} on the selection split, nothing else measured"
    elif not soup.comparison:
        yield "nothing measured"
    if soup.path:
        yield f"in {one_line(soup.path)}"
    if soup.pushed:
        yield f"pushed to {one_line(soup.pushed.url)}"
