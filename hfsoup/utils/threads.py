"""Work in threads: side by side, and how many of them this machine takes."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, as_completed
from contextlib import contextmanager
from queue import Empty, SimpleQueue
from typing import TypeVar

Given = TypeVar("Given")
Found = TypeVar("Found")


def start_thread(work: Callable[[], Found]) -> Future[Found]:
    """Run `work` in a thread that ends with the program, and neither an error nor Ctrl-C waits for.

    A thread of an executor would be waited for when the program ends.
    """
    future: Future[Found] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # noqa: BLE001 - handed on to whoever asks for the result
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


def map_in_threads(work: Callable[[Given], Found], items: Sequence[Given], *, threads: int = 8) -> list[Found]:
    """`work` of every item, in order, in threads that keep neither an error nor Ctrl-C waiting."""
    todo: SimpleQueue[int] = SimpleQueue()
    stopped = threading.Event()
    for n in range(len(items)):
        todo.put(n)

    def loop() -> dict[int, Found]:
        found = {}
        while not stopped.is_set():
            try:
                n = todo.get_nowait()
            except Empty:
                break
            found[n] = work(items[n])
        return found

    found: dict[int, Found] = {}
    try:
        for future in as_completed([start_thread(loop) for _ in range(min(threads, len(items)))]):
            found |= future.result()
    finally:
        stopped.set()
    return [found[n] for n in range(len(items))]


def count_processors() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def single_threaded() -> Iterator[None]:
    """Sums in one order whatever the machine's number of processors, so that the same weights come out."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
