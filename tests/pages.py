"""README and the pages of `.github/docs`: their text, their blocks of code, and where their links lead."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

from markdown_it import MarkdownIt

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
DOCS = ROOT / ".github" / "docs"
SKILL = ROOT / ".github" / "SKILL.md"
PAGES = (README, SKILL, *sorted(DOCS.glob("*.md")))


def text_of(name: str) -> str:
    """What a page of `.github/docs` says."""
    return (DOCS / name).read_text()


def all_text() -> str:
    """What README and all pages say."""
    return "\n".join(page.read_text() for page in PAGES)


def blocks(text: str, *kinds: str) -> list[tuple[str, str]]:
    """The fenced blocks of these languages, in order, each as language and text."""
    return re.findall(rf"^```({'|'.join(kinds)})\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def anchors(text: str) -> set[str]:
    """What `#…` may name: the headings, written as GitHub writes them."""
    tokens, found = MarkdownIt("commonmark").enable("table").parse(text), list[str]()
    for opening, inline in pairwise(tokens):
        if opening.type == "heading_open":
            words = "".join(part.content for part in inline.children or () if part.type in ("text", "code_inline"))
            slug = re.sub(r"[^\w\- ]", "", words.lower()).replace(" ", "-")
            found.append(slug + (f"-{found.count(slug)}" if slug in found else ""))
    return set(found)


def links(text: str) -> list[str]:
    """Every address of the page: links, images, and those of HTML."""
    found, pending = list[str](), MarkdownIt("commonmark").enable("table").parse(text)
    while pending:
        token = pending.pop()
        pending += token.children or ()
        found += [str(address) for name in ("href", "src") if (address := token.attrGet(name))]
        if token.type in ("html_block", "html_inline"):
            found += re.findall(r'(?:href|src|srcset)="([^"]+)"', token.content)
    return found
