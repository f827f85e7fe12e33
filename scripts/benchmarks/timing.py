"""How things are timed: side by side, in turn, in one run; what is told are ratios of medians."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import numpy as np

ROOT = Path(__file__).parents[2]
PAUSE = 0.004
"""Seconds between two looks at a process's memory."""


@dataclass(frozen=True)
class Time:
    """Seconds by the clock, and seconds of processor (user and system) over all threads."""

    wall: float
    cpu: float


@dataclass(frozen=True)
class Row:
    """One line of the table.

    `value` is a ratio, hfsoup's over the other's, or a number with a `unit`, or words; None where the
    other is not installed.
    `cpu` is the same ratio of processor seconds. `target` is what the project aims at. `times` are the medians in
    seconds that the ratios are of, for the JSON alone.
    """

    section: str
    what: str
    against: str
    value: float | str | None
    unit: str = ""
    cpu: float | None = None
    target: str = ""
    digits: int = 2
    times: tuple[Time, ...] = field(default=(), repr=False)

    @property
    def shown(self) -> str:
        """The value as the table has it."""
        if self.value is None:
            return "not installed"
        if isinstance(self.value, str):
            return self.value
        return f"{self.value:.0f} MB" if self.unit == "MB" else f"{self.value:.{self.digits}f} {self.unit}".strip()


Way = Callable[[], Time]


def here(act: Callable[[], object]) -> Way:
    """A way that is a call in this process."""

    def run() -> Time:
        wall, cpu = time.perf_counter(), time.process_time()
        act()
        return Time(time.perf_counter() - wall, time.process_time() - cpu)

    return run


def process(command: Sequence[str | Path], *, before: Callable[[], object] = lambda: None) -> Way:
    """A way that is a whole process; `before` is called each time, outside of what is timed."""

    def run() -> Time:
        before()
        return ended(started(command))

    return run


def started(command: Sequence[str | Path]) -> tuple[subprocess.Popen[bytes], float]:
    """A process that was just started, and when. Of this folder bytecode is kept, as it is of what is installed."""
    paths = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    begin = time.perf_counter()
    child = subprocess.Popen(
        list(map(str, command)),
        env={**kept, "PYTHONPATH": paths},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    return child, begin


def ended(start: tuple[subprocess.Popen[bytes], float]) -> Time:
    """Wait for a process that must end well."""
    child, begin = start
    # Read beside the wait: a process that says much would fill the pipe and stop.
    said: list[bytes] = []
    reader = threading.Thread(target=lambda: said.append(child.stderr.read() if child.stderr else b""))
    reader.start()
    try:
        _, status, usage = os.wait4(child.pid, 0)
        wall = time.perf_counter() - begin
        child.returncode = os.waitstatus_to_exitcode(status)
    finally:
        # Where the benchmark itself is stopped, what it started is too.
        if child.returncode is None:
            child.kill()
        reader.join()
    if child.returncode:
        text = b"".join(said).decode(errors="replace")[-2000:]
        raise SystemExit(f"{child.args!r} ended with {child.returncode}:\n{text}")
    return Time(wall, usage.ru_utime + usage.ru_stime)


def medians(ways: Sequence[Way], repeats: int, *, warm: bool = True) -> list[Time]:
    """The median times of each way, run in turn, A B A B; a first round that is not counted fills the caches."""
    found: list[list[Time]] = [[] for _ in ways]
    for lap in range(repeats + warm):
        for times, way in zip(found, ways, strict=True):
            times.append(way())
            if warm and not lap:
                times.clear()
    return [Time(median(t.wall for t in times), median(t.cpu for t in times)) for times in found]


def row(section: str, what: str, against: str, times: Sequence[Time], target: str = "") -> Row:
    """The row of two medians: hfsoup's and the other's."""
    ours, other = times
    cpu = ours.cpu / other.cpu if other.cpu else None
    return Row(section, what, against, ours.wall / other.wall, cpu=cpu, target=target, times=(ours, other))


def missing(section: str, what: str, against: str, target: str = "") -> Row:
    """The row of a peer that is not installed."""
    return Row(section, what, against, None, target=target)


def peak_anonymous(command: Sequence[str | Path]) -> float:
    """The most private memory of a process, in MB: RssAnon, which leaves mapped files out."""
    start = started(command)
    status, most, done = Path(f"/proc/{start[0].pid}/status"), 0, threading.Event()

    def watch() -> None:
        nonlocal most
        while not done.wait(PAUSE):
            try:
                lines = status.read_text().splitlines()
            except (FileNotFoundError, ProcessLookupError):
                return
            most = max([most, *(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))])

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        ended(start)
    finally:
        done.set()
        watcher.join()
    return most * 1024 / 1e6


def straightness(counts: Sequence[int], seconds: Sequence[float]) -> float:
    """R² of the least-squares line of seconds over counts."""
    x, y = np.asarray(counts, float), np.asarray(seconds, float)
    slope, offset = np.polyfit(x, y, 1)
    left = ((y - slope * x - offset) ** 2).sum()
    return float(1 - left / ((y - y.mean()) ** 2).sum())
