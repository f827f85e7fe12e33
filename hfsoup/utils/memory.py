"""How much memory this process may still take: of the machine, and of the control groups that it is in."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

ROOT = Path("/sys/fs/cgroup")
OWN = Path("/proc/self/cgroup")


@dataclass(frozen=True)
class Layout:
    """The names of a version of control groups: limit, use, and the key in memory.stat of files that can be dropped."""

    limit: str
    used: str
    droppable: str


V1 = Layout("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
V2 = Layout("memory.max", "memory.current", "inactive_file")


def read_free_memory() -> int:
    """Bytes of memory that are free: on the machine, or less where a container or a job is given less.

    Source: https://docs.kernel.org/admin-guide/cgroup-v2.html and cgroup-v1/memory.html
    """
    from psutil import virtual_memory

    return min([int(virtual_memory().available), *_iterate_limits()])


def _iterate_limits() -> Iterator[int]:
    """What every control group with a limit that this process is in has left."""
    for home, layout in _list_groups():
        try:
            limit = (home / layout.limit).read_text().strip()
            used = int((home / layout.used).read_text())
            lines = (home / "memory.stat").read_text().splitlines()
        except (OSError, ValueError):
            continue
        stats = dict(line.split() for line in lines if len(line.split()) == 2)
        if limit.isdigit():
            yield max(int(limit) - used + int(stats.get(layout.droppable, 0)), 0)


def _list_groups() -> Iterator[tuple[Path, Layout]]:
    """The folders of this process's group and of all groups that it is in; inside a container the root is its own."""
    try:
        lines = OWN.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        number, kinds, path = line.split(":", 2)
        if number == "0" and not kinds:
            root, layout = ROOT, V2
        elif "memory" in kinds.split(","):
            root, layout = ROOT / "memory", V1
        else:
            continue
        own = PurePosixPath(path.lstrip("/"))
        for place in dict.fromkeys([own, *own.parents, PurePosixPath()]):
            yield root / place, layout
