"""The architectures whose permutation groups are known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hfsoup.networks.alignment import efficientnet, padded_resnet, resnet, vit
from hfsoup.networks.alignment.groups import Group, Shapes, Step, check_groups
from hfsoup.utils.errors import SoupError
from hfsoup.utils.text import quoted


@dataclass(frozen=True)
class Table:
    """An architecture: its groups, and the order in which it is fitted, each told from the shapes of its tensors."""

    groups: Callable[[Shapes, dict[str, Any]], tuple[Group, ...]]
    steps: Callable[[Shapes], tuple[Step, ...]] | None = None


TABLES = {
    "resnet": Table(resnet.groups, resnet.steps),
    "efficientnet": Table(efficientnet.groups),
    "vit": Table(vit.groups),
    "padded-resnet": Table(padded_resnet.groups, padded_resnet.steps),
}
HINT = (
    "a file in hfsoup/networks/alignment with a function groups(shapes, config), named in TABLES of its tables.py; "
    "from Python, hfsoup.align(…, groups=[…])"
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
        found = table.groups(shapes, config)
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
        able = ", ".join(name for name, other in TABLES.items() if other.steps)
        raise SoupError(f"fitting layer by layer is not known for {kind}; known for {able}", hint="leave out --fit")
    return table.steps(shapes)


def _find_table(kind: str) -> Table:
    if kind not in TABLES:
        what = f"the permutation groups of {quoted(kind)} are not known; known: {', '.join(TABLES)}"
        raise SoupError(what, hint=HINT)
    return TABLES[kind]
