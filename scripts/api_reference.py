"""Write .github/docs/api.md: the public names of hfsoup with their docstrings, and the options of a bake.

    python scripts/api_reference.py

A test fails where that file does not match the docstrings.
"""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import hfsoup
from hfsoup.options.options import GROUPS, get_option_types, option_fields

TARGET = Path(__file__).parents[1] / ".github" / "docs" / "api.md"
HEAD = """\
# API

The public names of `hfsoup`, written from their docstrings by `python scripts/api_reference.py`. The examples run as
tests. `import hfsoup` imports neither torch nor transformers; they are imported where they are used.
"""
SECTION = re.compile(r"^(Args|Attributes|Returns|Raises|Example|Options):\n", re.MULTILINE)
ITEM = re.compile(r"^    (\S[^:]*): ", re.MULTILINE)
RESULTS = ("Found", "Soup")
"""Classes that users get and do not make."""


def make_page() -> str:
    """The text of the page."""
    names = sorted((name for name in hfsoup.__all__ if name != "__version__"), key=_order)
    lines = [line for name in names for line in _describe(name, getattr(hfsoup, name))]
    return HEAD + "\n".join([*lines, *_list_options()]) + "\n"


def _order(name: str) -> tuple[bool, str]:
    """What a first reader looks for comes first."""
    first = ("bake", "Soup", "search", "Found", "SoupCallback")
    return name not in first, f"{first.index(name)}" if name in first else name.lower()


def _describe(name: str, thing: Any) -> Iterator[str]:
    """The part of one name."""
    yield f"\n## {name}\n"
    if name not in RESULTS:
        yield f"```text\n{_format_signature(name, thing)}\n```\n"
    yield from _format_docstring(inspect.getdoc(thing) or "")
    members = [(key, inspect.getdoc(value) or "") for key, value in _list_members(thing)] if name in RESULTS else []
    if members:
        yield "\n| | |\n|---|---|"
        yield from (_format_row(f"`{key}`", " ".join(text.split("\n\n")[0].split())) for key, text in members)


def _list_members(thing: type) -> list[tuple[str, Any]]:
    """Public methods, with their arguments, and properties."""
    found = [(key, value) for key, value in inspect.getmembers_static(thing) if not key.startswith("_")]
    methods = [
        (f"{key}({_format_arguments(value, skip=1)})", value) for key, value in found if inspect.isfunction(value)
    ]
    return methods + [(key, value) for key, value in found if isinstance(value, property)]


def _format_signature(name: str, thing: Any) -> str:
    """A call with its arguments and defaults, one a line where they are many."""
    if name == "bake":
        return "hfsoup.bake(*ingredients, progress=None, **options) -> Soup"
    made = f"hfsoup.{name}({_format_arguments(thing)})"
    if len(made) <= 100:
        return made
    inner = textwrap.fill(_format_arguments(thing), 96, initial_indent="    ", subsequent_indent="    ")
    return f"hfsoup.{name}(\n{inner}\n)"


def _format_arguments(thing: Any, *, skip: int = 0) -> str:
    """The arguments with their defaults, without types, which the texts say; the first `skip` are left out."""
    parts, starred = list[str](), False
    for p in list(inspect.signature(thing).parameters.values())[skip:]:
        if p.kind is p.KEYWORD_ONLY and not starred:
            parts, starred = [*parts, "*"], True
        prefix = "*" if p.kind is p.VAR_POSITIONAL else "**" if p.kind is p.VAR_KEYWORD else ""
        starred |= bool(prefix)
        default = "" if p.default is p.empty else "=…" if callable(p.default) else f"={p.default!r}"
        parts.append(f"{prefix}{p.name}{default}")
    return ", ".join(parts)


def _format_docstring(text: str) -> Iterator[str]:
    """A Google-style docstring as Markdown: lists of arguments and errors, examples as blocks."""
    parts = SECTION.split(text)
    yield parts[0].strip()
    for title, body in zip(parts[1::2], parts[2::2], strict=True):
        if title == "Options":
            yield "\nThe options are [below](#options-of-a-bake)."
        elif title == "Example":
            yield from _format_example(textwrap.dedent(body).strip())
        elif title == "Returns":
            yield f"\n**Returns** {' '.join(body.split())}"
        else:
            yield f"\n**{ {'Args': 'Arguments'}.get(title, title) }**\n"
            items = ITEM.split("\n" + body if body.startswith("    ") else body)
            yield from (
                f"- `{n.strip()}`: {' '.join(t.split())}" for n, t in zip(items[1::2], items[2::2], strict=True)
            )


def _format_example(text: str) -> Iterator[str]:
    """What stands before the first prompt as words, the rest as a block."""
    words, prompt, code = text.partition(">>>")
    if words.strip():
        yield f"\n{words.strip()}"
    yield f"\n```pycon\n{prompt}{code}\n```"


def _list_options() -> Iterator[str]:
    """Every option of a bake by group; the flag of `limit_x` is `--limit-x`."""
    yield "\n## Options of a bake\n\nThe flag of `test_split` is `--test-split`, the key of a YAML file `test_split`."
    for group in GROUPS:
        yield f"\n### {group}\n\n| option | type | |\n|---|---|---|"
        for f in (f for f in option_fields() if f.metadata["group"] == group):
            kind = get_option_types()[f.name]
            names = [getattr(k, "__name__", str(k)) for k in get_args(kind) or (kind,)]
            shown = " or ".join(n for n in names if n != "NoneType").replace("list", "list of str")
            default = "" if f.default is None or f.default is False else f" [{f.default}]"
            yield _format_row(f"`{f.name}`", shown, f"{f.metadata['help']}{default}")


def _format_row(*cells: str) -> str:
    """A row of a Markdown table."""
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


if __name__ == "__main__":
    TARGET.write_text(make_page(), encoding="utf-8")
