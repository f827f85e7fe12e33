"""Who is told of waits for the Hub: huggingface_hub has one client for all threads, so there is one list for all."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

LISTENERS: list[Callable[[str], None]] = []


def notify_listener(text: str) -> None:
    """Tell the latest listener."""
    if LISTENERS:
        LISTENERS[-1](text)


@contextmanager
def listening(notify: Callable[[str], None] | None) -> Iterator[None]:
    """Tell `notify` of waits for the Hub while the block lasts; None leaves it to whoever is told already."""
    if notify is None:
        yield
        return
    LISTENERS.append(notify)
    try:
        yield
    finally:
        LISTENERS.remove(notify)
