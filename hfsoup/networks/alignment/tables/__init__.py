"""Permutation groups of architectures. One file an architecture; a new file here is a new architecture.

A table is a function `groups(shapes, config)` of the shapes of a weight file's tensors, by their names, and of its
config.json, registered under a model type of transformers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hfsoup.networks.alignment.groups import Group, Shapes, Step, check_groups
from hfsoup.utils.errors import SoupError
from hfsoup.utils.registry import Entry, Registry
from hfsoup.utils.text import quoted


@dataclass(frozen=True, kw_only=True)
class TableEntry(Entry):
    """An architecture; `steps` gives the order in which it is fitted, from the shapes of its tensors."""

    steps: Callable[[Shapes], tuple[Step, ...]] | None = None


TABLES = Registry("permutation table", "hfsoup.networks.alignment.tables", TableEntry, "hfsoup.alignment")
permutations = TABLES.register
HINT = (
    "a package with a function groups(shapes, config) under @permutations(MODEL_TYPE), as in hfsoup/networks/alignment;"
    " from Python, hfsoup.align(…, groups=[…])"
)


def find_groups(kind: str, shapes: Shapes, config: dict[str, Any]) -> tuple[Group, ...]:
    """The permutation groups of a network.

    Args:
        kind: a model type of transformers, or `padded-resnet`.
        shapes: the tensors of its weight file.
        config: its config.json.

    Raises:
        SoupError: the architecture is not known, or the tensors are not those of it.
    """
    table = _find_table(kind)
    try:
        found: tuple[Group, ...] = table.function(shapes, config)
    except (KeyError, IndexError, TypeError) as error:
        what = f"the tensors are not those that the alignment of {kind} knows: {quoted(str(error))}"
        raise SoupError(what, hint="--align none") from error
    return check_groups(found, shapes)


def find_steps(kind: str, shapes: Shapes) -> tuple[Step, ...]:
    """The layers of a network in the order in which they are fitted.

    Raises:
        SoupError: the architecture is not known, or only its groups are.
    """
    table = _find_table(kind)
    if table.steps is None:
        able = ", ".join(other.name for other in TABLES if other.steps)
        raise SoupError(f"fitting layer by layer is not known for {kind}; known for {able}", hint="leave out --fit")
    return table.steps(shapes)


def _find_table(kind: str) -> TableEntry:
    found = TABLES.find(kind)
    if found is None:
        what = f"the permutation groups of {quoted(kind)} are not known; known: {', '.join(t.name for t in TABLES)}"
        raise SoupError("\n  ".join([what, *TABLES.broken]), hint=HINT)
    return found
