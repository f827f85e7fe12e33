"""A repo as a page for people: its card, files, text of one file, commits and discussions. No script, no other site."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from posixpath import normpath
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import nh3
from jinja2 import Environment, PackageLoader
from markdown_it import MarkdownIt
from markupsafe import Markup

# Whatever is in a card, the browser runs nothing and asks no other server.
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; img-src 'self' data:; style-src 'unsafe-inline'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_LONGEST = 1 << 20
_DROPPED = {"script", "style", "title", "iframe", "object", "noscript", "template", "textarea", "svg", "math"}
_TAGS = (nh3.ALLOWED_TAGS | {"picture", "source"}) - _DROPPED
_ATTRIBUTES = {"align", "alt", "colspan", "height", "href", "media", "open", "rowspan", "src", "srcset", "start"}
_ATTRIBUTES |= {"title", "width"}


def render_page(view: str, **values: Any) -> str:
    """page.html with one of its views, filled; everything that is not Markup is escaped."""
    return _environment().get_template("page.html").render(view=view, **values)


def render_card(text: str, *, link: Callable[[str], str], image: Callable[[str], str]) -> Markup:
    """Markdown with HTML in it as HTML of harmless tags; `link` and `image` turn paths within the repo to addresses."""
    if len(text) > _LONGEST:
        return Markup("<pre>{}</pre>").format(f"{text[:_LONGEST]}\n…")

    def replace_address(_tag: str, name: str, value: str) -> str | None:
        if name in ("href", "src", "srcset"):
            return _address(value.strip(), link if name == "href" else image)
        return value

    html = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).render(text)
    cleaned = nh3.clean(
        html,
        tags=_TAGS,
        clean_content_tags=_DROPPED,
        attributes={"*": _ATTRIBUTES},
        attribute_filter=replace_address,
        url_schemes={"http", "https", "mailto"},
        link_rel=None,
    )
    return Markup(cleaned)  # noqa: S704 (cleaned by nh3)


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
    environment.filters["size"] = _format_size
    return environment


def _format_size(count: int) -> str:
    value = float(count)
    for unit in ("Bytes", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "Bytes" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"
