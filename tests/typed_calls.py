"""Calls of `hfsoup.bake` as mypy must see them: an ignored error that mypy no longer finds fails its run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import hfsoup


def typed_calls(plug_in: dict[str, Any]) -> None:
    """What type checkers take."""
    hfsoup.bake("a", Path("b"), dataset=Path("pets"), recipe="weighted", weights=[0.5, 0.5], bn="average", limit=None)
    hfsoup.bake("a", "b", progress=False, exclude=["b"], **plug_in)


def mistyped_calls() -> None:
    """What type checkers find: a wrong name, a wrong type, no choice of an option, and a text in place of a list."""
    hfsoup.bake("a", recipee="greedy")  # type: ignore[call-arg]
    hfsoup.bake("a", limit="many")  # type: ignore[arg-type]
    hfsoup.bake("a", bn="off")  # type: ignore[arg-type]
    hfsoup.bake("a", exclude="b")  # type: ignore[arg-type]
