"""The order in which a network's layers are fitted, as data."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Step:
    """A convolution with its batch norm, or the head, by the names of their modules.

    Where the norm's output is added to a shortcut, `shortcut` names the module that gives the other summand.
    """

    layer: str
    norm: str | None = None
    shortcut: str | None = None
