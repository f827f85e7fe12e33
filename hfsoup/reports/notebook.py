"""A soup as a notebook and a prompt show it: verdict, facts, scores and ingredients."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from html import escape
from typing import TYPE_CHECKING

from hfsoup.reports.card.formatting import format_weight
from hfsoup.reports.figures import draw_picture, list_pictures
from hfsoup.reports.measurements import NOTEBOOK, format_score, list_lines, name_metric, read_results
from hfsoup.reports.score_picture import draw_svg, draw_text, list_panels
from hfsoup.utils.text import one_line

if TYPE_CHECKING:
    from hfsoup.provenance.result import BakeResult


def format_text(soup: BakeResult) -> str:
    """What the soup is made of, what was measured and where it is on one line, and below it the scores, if any."""
    lines = [f"<Soup: {'; '.join(_facts(soup))}>"]
    if panels := list_panels(soup):
        lines += draw_text(panels, soup.metric)
    return "\n".join(lines)


def format_html(soup: BakeResult) -> str:
    """The same facts as HTML, the verdict first, with the scores as a picture and a table of the ingredients.

    Every text from outside is escaped. Where the soup has pictures, that of the scores is the one in its card.
    """
    metric = escape(one_line(name_metric(soup.metric)))
    scored = any(score is not None for score in soup.scores)
    heads = ["ingredient", *([f"{metric} on selection"] if scored else []), "weight"]
    rows = []
    shares = zip(soup.composition.names, soup.scores, soup.mix.coefficients, strict=True)
    for n, (name, score, share) in enumerate(shares):
        cells = [escape(one_line(name)), *([format_score(soup.metric, score)] if scored else [])]
        rows.append([*cells, format_weight(share, soup.mix.span(n)) if share else "–"])
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    head = "".join(f"<th>{text}</th>" for text in heads)
    facts = "<br>".join(escape(fact) for fact in _facts(soup, left_out="verdict"))
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f"<p>{_format_verdict(soup)}<br>{facts}</p>{_draw_picture(soup)}{table}"


def _format_verdict(soup: BakeResult) -> str:
    """The verdict, in its colour."""
    c = soup.comparison
    found = [text for name, _, text in list_lines(read_results(soup), NOTEBOOK) if name == "verdict"]
    if c is None or not found:
        return "<b>Soup</b>"
    colour = {"better": "#2da44e", "worse": "#e5534b"}.get(c.verdict, "#bf8700")
    return f'<b style="color: {colour}">{escape(found[0][0].upper() + found[0][1:])}</b>'


def _draw_picture(soup: BakeResult) -> str:
    """Everything that was scored, as a picture; nothing where nothing was."""
    picture = next((p for p in list_pictures(soup) if p.name == "scores"), None)
    if picture is None:
        return draw_svg(panels, soup.metric) if (panels := list_panels(soup)) else ""
    png = base64.b64encode(draw_picture(soup, picture.name)).decode()
    return f'<img alt="{escape(picture.caption)}" width="640" src="data:image/png;base64,{png}">'


def _facts(soup: BakeResult, left_out: str = "") -> Iterator[str]:
    used, known = len(soup.mix.members), len(soup.family)
    yield f"{soup.options.chosen_recipe}, {used} of {known} ingredient{'s' if known != 1 else ''}"
    lines = list_lines(read_results(soup), NOTEBOOK)
    yield from (f"{label}: {text}" for name, label, text in lines if name != left_out)
    if not soup.comparison and soup.selection is not None:
        score = format_score(soup.metric, soup.selection)
        yield f"{one_line(name_metric(soup.metric))} {score} on the selection split, nothing else measured"
    elif not soup.comparison:
        yield "nothing measured"
    if soup.path:
        yield f"in {one_line(soup.path)}"
    if soup.pushed:
        yield f"pushed to {one_line(soup.pushed.url)}"
