"""Write hfsoup/options/bake_options.py: the options of `hfsoup.bake` as a TypedDict, for editors and type checkers.

python scripts/option_types.py

A test fails where that file does not match the options, or the arguments of hfsoup's own recipes and merges.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from dataclasses import Field
from pathlib import Path
from typing import Any, get_args

from hfsoup.merges import MERGES
from hfsoup.options.options import get_option_types, option_fields
from hfsoup.recipes import RECIPES

TARGET = Path(__file__).parents[1] / "hfsoup" / "options" / "bake_options.py"
HEAD = '''\
"""The options of `hfsoup.bake` with their types, for editors and type checkers; written by scripts/option_types.py."""

from __future__ import annotations

from collections.abc import Iterable
from os import PathLike
from typing import Literal, TypedDict


class BakeOptions(TypedDict, total=False):
    """Every option of `hfsoup.bake`, with the arguments of hfsoup's own recipes and merges.

    To a type checker those of plug-ins are known in a dictionary only: `given: dict[str, Any] = {"trim": 0.1}`, and
    `hfsoup.bake("org/model-*", **given)`.
    """
'''


def make_source() -> str:
    """The text of the file."""
    lines = [line for f in option_fields() for line in _declare(f.name, _name_type(f), _describe(f))]
    lines += [line for name, kind, text in _list_parameters() for line in _declare(name, kind, text)]
    return HEAD + "\n".join(lines) + "\n"


def _declare(name: str, kind: str, text: str) -> Iterator[str]:
    """A key with its docstring."""
    yield f"\n    {name}: {kind}"
    # Flags of the command line are keywords here; a Greek letter stays as it is.
    text = re.sub(r"--([a-z][a-z-]*)", lambda flag: f"`{flag[1].replace('-', '_')}`", text)
    words = text[0].upper() + text[1:] if text[0].isascii() else text
    lines = textwrap.wrap(f'"""{words}."""', 116, break_on_hyphens=False)
    yield from (f"    {line}" for line in lines)


def _describe(f: Field[Any]) -> str:
    """An option's help, with its default where the help does not say it."""
    return str(f.metadata["help"]) + ("" if f.default is None or f.default is False else f" [{f.default}]")


def _name_type(f: Field[Any]) -> str:
    """The type of an option's value in Python, which is wider than that of its flag."""
    kind = get_option_types()[f.name]
    names = [getattr(k, "__name__", str(k)) for k in get_args(kind) or (kind,)]
    empty = " | None" if "NoneType" in names else ""
    if f.name == "weights":
        return f"str | Iterable[float]{empty}"
    if f.metadata["choices"]:
        choices = ", ".join(f'"{choice}"' for choice in f.metadata["choices"])
        return f"Literal[{choices}]{empty}"
    if f.metadata["is_path"]:
        return f"str | PathLike[str]{empty}"
    if "list" in names:
        return f"list[str] | tuple[str, ...]{empty}"
    return f"{names[0]}{empty}"


def _list_parameters() -> Iterator[tuple[str, str, str]]:
    """The arguments of hfsoup's own recipes and merges that are no options of a bake: name, type and help."""
    known = set(get_option_types())
    for registry in (RECIPES, MERGES):
        for entry in registry.list_built_in():
            for p in (p for p in entry.parameters if p.name not in known):
                known.add(p.name)
                yield p.name, f"{p.type.__name__} | None", f"{p.help or entry.summary} ({registry.kind} {entry.name})"


if __name__ == "__main__":
    TARGET.write_text(make_source(), encoding="utf-8")
    print(f"wrote {TARGET}")
