"""Threads that do not block the end of the program, and the number of processors."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, as_completed
from contextlib import contextmanager
from math import ceil
from queue import Empty, SimpleQueue
from typing import TypeVar

from hfsoup.utils.control_groups import list_groups

Given = TypeVar("Given")
Found = TypeVar("Found")


def start_thread(work: Callable[[], Found]) -> Future[Found]:
    """Run `work` in a daemon thread, which neither an error nor Ctrl-C nor the end of the program waits for.

    Python joins the threads of an executor before it exits.
    """
    future: Future[Found] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # noqa: BLE001 - raised where the result is asked for
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


def map_in_threads(work: Callable[[Given], Found], items: Sequence[Given], *, threads: int = 8) -> list[Found]:
    """The results of `work` for all items, in order; threads are those of `start_thread`."""
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
    """The number of processors that this process may use: by its affinity, and the quota of its control groups."""
    own = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min([own, *_iterate_quotas()])


def _iterate_quotas() -> Iterator[int]:
    """Processors that the control groups of this process may use, a part of one as one."""
    for group in list_groups("cpu"):
        names = ("cpu.max",) if group.unified else ("cpu.cfs_quota_us", "cpu.cfs_period_us")
        try:
            words = " ".join((group.folder / name).read_text() for name in names).split()
            # Without a quota there is the word max, or -1.
            if len(words) == 2 and words[0].isdigit():
                yield max(1, ceil(int(words[0]) / int(words[1])))
        except (OSError, ValueError, ZeroDivisionError):
            continue


@contextmanager
def single_threaded() -> Iterator[None]:
    """Make torch use one thread inside the block, so that results do not depend on the number of processors."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
