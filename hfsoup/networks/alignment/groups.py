"""Which axes of which tensors may be permuted together without changing what a network computes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hfsoup.utils.errors import MismatchError

Shapes = Mapping[str, tuple[int, ...]]
Order = NDArray[np.int64]


@dataclass(frozen=True)
class Member:
    """An axis of a tensor that follows a group's permutation.

    Unit i of the group is the `width` positions from `at[i]` on, or from i × width on where `at` is None. The positions
    inside a unit may be permuted too, those of all members of one `part` alike: so attention heads are compared.
    """

    tensor: str
    axis: int = 0
    at: tuple[int, ...] | None = None
    width: int = 1
    part: str = ""

    def find_positions(self, size: int) -> NDArray[np.int64]:
        """The positions of the units along the axis, units × width."""
        starts = np.arange(size) * self.width if self.at is None else np.asarray(self.at)
        return starts[:, None] + np.arange(self.width)

    def expand_order(self, size: int, length: int, units: Order) -> Order:
        """The order of all `length` positions of the axis when the units are in the order `units`."""
        positions, order = self.find_positions(size), np.arange(length)
        order[positions.ravel()] = positions[units].ravel()
        return order


@dataclass(frozen=True)
class Group:
    """Axes that share one permutation of `size` units."""

    name: str
    size: int
    members: tuple[Member, ...]


def axes(*names: str, axis: int = 0, at: tuple[int, ...] | None = None) -> Iterator[Member]:
    """The same axis of several tensors."""
    for name in names:
        yield Member(name, axis, at)


def norm(name: str, at: tuple[int, ...] | None = None) -> Iterator[Member]:
    """All tensors of a batch norm."""
    yield from axes(*(f"{name}.{part}" for part in ("weight", "bias", "running_mean", "running_var")), at=at)


def permute_group(state: Mapping[str, Any], group: Group, units: Order) -> dict[str, Any]:
    """A copy of a state dict of arrays or tensors with the units of one group in another order."""
    found = dict(state)
    for member in group.members:
        if member.tensor in found:
            tensor = found[member.tensor]
            order = member.expand_order(group.size, tensor.shape[member.axis], units)
            found[member.tensor] = tensor[(slice(None),) * member.axis + (order,)]
    return found


def check_groups(groups: Sequence[Group], shapes: Shapes) -> tuple[Group, ...]:
    """The groups without members whose tensors do not exist, such as biases of layers that have none.

    Raises:
        MismatchError: an axis has another length than the group, or none of a group's tensors exists.
    """
    found = []
    for group in groups:
        members = tuple(member for member in group.members if member.tensor in shapes)
        if not members:
            what = f"none of the tensors of the group {group.name} exists"
            raise MismatchError(what, where=f"tensor {group.members[0].tensor}")
        for member in members:
            shape, last = shapes[member.tensor], int(member.find_positions(group.size).max())
            whole = member.at is not None or last + 1 == (shape[member.axis] if member.axis < len(shape) else -1)
            if member.axis >= len(shape) or last >= shape[member.axis] or not whole:
                what = f"expected {last + 1} positions along axis {member.axis} for {group.name}, found {list(shape)}"
                raise MismatchError(what, where=f"tensor {member.tensor}")
        found.append(Group(group.name, group.size, members))
    return tuple(found)


@dataclass(frozen=True)
class Step:
    """A layer that is fitted: a convolution with its batch norm, or the head, by the names of their modules.

    `shortcut` is the module whose output is added to the norm's, if there is one.
    """

    layer: str
    norm: str | None = None
    shortcut: str | None = None
