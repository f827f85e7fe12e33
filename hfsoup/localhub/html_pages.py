"""A repo as a page for people: its card, files, text of one file, commits and discussions. No script, no other site."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from html import escape
from html.parser import HTMLParser
from posixpath import normpath
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from jinja2 import Environment, PackageLoader
from markdown_it import MarkdownIt
from markupsafe import Markup

# Whatever a card smuggles in, the browser runs nothing and asks no other server.
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; img-src 'self' data:; style-src 'unsafe-inline'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_LONGEST = 1 << 20
_TAGS = frozenset(
    {"a", "b", "blockquote", "br", "center", "code", "dd", "del", "details", "div", "dl", "dt", "em", "h1", "h2", "h3"}
    | {"h4", "h5", "h6", "hr", "i", "img", "kbd", "li", "ol", "p", "picture", "pre", "s", "source", "span", "strong"}
    | {"sub", "summary", "sup", "table", "tbody", "td", "th", "thead", "tr", "u", "ul"}
)
_VOID = frozenset({"br", "hr", "img", "source"})
_SILENT = frozenset({"script", "style", "title", "iframe", "object", "noscript", "template", "textarea", "svg", "math"})
_ATTRIBUTES = frozenset(
    {
        "align",
        "alt",
        "colspan",
        "height",
        "href",
        "media",
        "open",
        "rowspan",
        "src",
        "srcset",
        "start",
        "title",
        "width",
    }
)


def render_page(template: str, **values: Any) -> str:
    """One of the blocks of page.html, filled; everything that is not Markup is escaped."""
    return _environment().get_template("page.html").render(view=template, **values)


def render_card(text: str, *, link: Callable[[str], str], image: Callable[[str], str]) -> Markup:
    """Markdown with HTML in it as HTML of harmless tags; `link` and `image` turn paths within the repo to addresses."""
    if len(text) > _LONGEST:
        return Markup("<pre>{}</pre>").format(f"{text[:_LONGEST]}\n…")
    html = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).render(text)
    cleaner = _Cleaner(link, image)
    cleaner.feed(html)
    cleaner.close()
    # What is written was taken apart and put together anew, each name from a list, each value escaped.
    return Markup(cleaner.result())  # noqa: S704


class _Cleaner(HTMLParser):
    """Writes HTML anew: known tags and attributes, harmless addresses, every tag closed."""

    def __init__(self, link: Callable[[str], str], image: Callable[[str], str]) -> None:
        super().__init__(convert_charrefs=True)
        self._link, self._image = link, image
        self._out: list[str] = []
        self._open: list[str] = []
        self._silent: list[str] = []

    def result(self) -> str:
        return "".join([*self._out, *(f"</{tag}>" for tag in reversed(self._open))])

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in _SILENT:
            self._silent.append(tag)
        if self._silent or tag not in _TAGS:
            return
        shown = "".join(f' {name}="{escape(value)}"' for name, value in self._attributes(attrs))
        self._out.append(f"<{tag}{shown}>")
        if tag not in _VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in _SILENT:
            self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        if self._silent:
            if tag == self._silent[-1]:
                self._silent.pop()
        elif tag in self._open:
            while (last := self._open.pop()) != tag:
                self._out.append(f"</{last}>")
            self._out.append(f"</{tag}>")

    def handle_data(self, data: str) -> None:
        if not self._silent:
            self._out.append(escape(data))

    def _attributes(self, attrs: list[tuple[str, str | None]]) -> list[tuple[str, str]]:
        known: list[tuple[str, str]] = []
        for name, value in attrs:
            if name in ("href", "src", "srcset"):
                turn = self._link if name == "href" else self._image
                address = _address((value or "").strip(), turn)
                known += [(name, address)] if address else []
            elif name in _ATTRIBUTES:
                known.append((name, value or ""))
        return known


def _address(text: str, turn: Callable[[str], str]) -> str | None:
    """An address of the web, or of something within the repo; None for any other scheme."""
    if text.startswith("#"):
        return text
    try:
        parts = urlsplit(re.sub(r"[\x00-\x20]", "", text))
    except ValueError:
        return None
    if parts.scheme in ("http", "https", "mailto"):
        return text
    path = normpath(unquote(parts.path)).lstrip("/")
    if parts.scheme or parts.netloc or not parts.path or path.startswith("."):
        return None
    return turn(path) + (f"#{quote(parts.fragment)}" if parts.fragment else "")


@cache
def _environment() -> Environment:
    environment = Environment(autoescape=True, loader=PackageLoader("hfsoup.localhub", "."), trim_blocks=True)
    environment.filters["size"] = _size
    return environment


def _size(count: int) -> str:
    value = float(count)
    for unit in ("Bytes", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "Bytes" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"
