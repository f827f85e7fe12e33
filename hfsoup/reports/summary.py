"""The end of a bake as rows of a label and a text, for the screen and the page of `hfsoup ui`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.style import Style
from rich.text import Text

from hfsoup.reports.measurements import SCREEN, list_lines, read_results
from hfsoup.utils.text import format_size

if TYPE_CHECKING:
    from hfsoup.provenance.result import BakeResult


Row = tuple[str, Text]


def replace_unprintable(text: object, longest: int = 200) -> Text:
    """Text from outside that can neither steer the terminal nor be taken for markup: every odd character replaced."""
    shortened = str(text) if len(str(text)) <= longest else f"{str(text)[: longest - 1]}…"
    return Text("".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in shortened))


def add_link(text: Text, url: str | None) -> Text:
    """Text that leads to a page, where the terminal knows links."""
    if url and url.isprintable():
        text.stylize(Style(link=url))
    return text


def summarize(soup: BakeResult) -> Iterator[Row]:
    """What came of the bake, each text with its label."""
    c = soup.comparison
    if c is None:
        yield "verdict", Text("nothing was measured: without --dataset it is not known whether the soup is better")
    for name, label, text in list_lines(read_results(soup), SCREEN):
        style = {"better": "green", "worse": "red"}.get(c.verdict, "yellow") if c and name == "verdict" else ""
        shown = replace_unprintable(text, 600)
        shown.stylize(style)
        yield label, shown
    if soup.path:
        size = sum(path.stat().st_size for path in soup.path.rglob("*") if path.is_file())
        yield "saved to", Text.assemble(replace_unprintable(soup.path), f" ({format_size(size)})")
    if soup.pushed:
        yield "pushed to", add_link(replace_unprintable(soup.pushed.url), soup.pushed.url)
        if address := soup.pushed.collection:
            yield "collection", add_link(replace_unprintable(address), address)


def format_usage(soup: BakeResult) -> Text | None:
    """The Python line that uses the soup; None where it is nowhere yet."""
    home = soup.pushed.repo if soup.pushed else soup.path
    call = f'pipeline("{soup.task.auto_class.pipeline_tag}", "'
    return Text.assemble(call, replace_unprintable(home), '")') if home else None
