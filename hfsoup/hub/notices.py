"""Notices of waits and retries for whoever listens.

huggingface_hub has one client for all threads, so there is one list of listeners for all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

LISTENERS: list[Callable[[str], None]] = []


def notify_listener(text: str) -> None:
    """Pass a notice to the latest listener."""
    if LISTENERS:
        LISTENERS[-1](text)


@contextmanager
def listening(notify: Callable[[str], None] | None) -> Iterator[None]:
    """Call `notify` with notices inside the block; None keeps the present listener."""
    if notify is None:
        yield
        return
    LISTENERS.append(notify)
    try:
        yield
    finally:
        LISTENERS.remove(notify)
