"""Who is told of waits for the Hub: huggingface_hub has one client for all threads, so there is one list for all."""

from __future__ import annotations

from collections.abc import Callable

LISTENERS: list[Callable[[str], None]] = []


def tell(text: str) -> None:
    """Tell the latest listener."""
    if LISTENERS:
        LISTENERS[-1](text)
