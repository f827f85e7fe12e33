"""How much memory this process may still take: of the machine, and of the control groups that it is in."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from hfsoup.utils.control_groups import list_groups


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
    for group in list_groups("memory"):
        home, layout = group.folder, V2 if group.unified else V1
        try:
            limit = (home / layout.limit).read_text().strip()
            used = int((home / layout.used).read_text())
            lines = (home / "memory.stat").read_text().splitlines()
        except (OSError, ValueError):
            continue
        stats = dict(line.split() for line in lines if len(line.split()) == 2)
        if limit.isdigit():
            yield max(int(limit) - used + int(stats.get(layout.droppable, 0)), 0)
