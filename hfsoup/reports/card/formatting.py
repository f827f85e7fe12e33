"""Texts from outside made harmless for Markdown, and weights as cards, reports and notebooks write them."""

from __future__ import annotations

import html
import re
import shlex

from hfsoup.utils.text import one_line


def escape_markdown(text: object, longest: int = 200) -> str:
    """Text that a repository or a dataset chose, so written that it is only text in Markdown, HTML and tables."""
    safe = html.escape(one_line(text, longest), quote=False)
    safe = re.sub(r"([\\`*_{}\[\]()#+!|~$])", r"\\\1", safe)
    # Bare addresses would become links of their own.
    return re.sub(r"(?i)(?<=\bwww)\.", "&#46;", safe.replace("://", "&#58;//").replace("@", "&#64;"))


def format_weight(mean: float, span: tuple[float, float] | None) -> str:
    """An ingredient's weight, with the least and the largest of its tensors where these have their own."""
    return f"{mean:.4g}" if span is None else f"{mean:.4g} ({span[0]:.4g} to {span[1]:.4g})"


def quote_command(command: str) -> str:
    """A command on one line, whatever its words hold: what cannot be printed is written as $'\\n'."""
    return " ".join(_quote_word(word) for word in shlex.split(command))


def _quote_word(word: str) -> str:
    if word.isprintable():
        return shlex.quote(word)
    escaped = word.replace("\\", "\\\\").replace("'", "\\'")
    codes = (c if c.isprintable() else "".join(f"\\x{b:02x}" for b in c.encode("utf-8", "replace")) for c in escaped)
    return f"$'{''.join(codes)}'"
