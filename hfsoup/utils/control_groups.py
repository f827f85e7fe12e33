"""The control groups of Linux that this process is in, by which a container or a job is given less than the machine."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

ROOT = Path("/sys/fs/cgroup")
OWN = Path("/proc/self/cgroup")


@dataclass(frozen=True)
class Group:
    """The folder of a control group, and whether it is of version 2."""

    folder: Path
    unified: bool


def list_groups(controller: str) -> Iterator[Group]:
    """This process's group and all groups that it is in; inside a container the root is its own.

    Args:
        controller: `memory` or `cpu`.

    Source: https://docs.kernel.org/admin-guide/cgroup-v2.html and cgroup-v1/index.html
    """
    try:
        lines = OWN.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        number, kinds, path = line.split(":", 2)
        unified = number == "0" and not kinds
        if not unified and controller not in kinds.split(","):
            continue
        own, root = PurePosixPath(path.lstrip("/")), ROOT if unified else ROOT / controller
        for place in dict.fromkeys([own, *own.parents, PurePosixPath()]):
            yield Group(root / place, unified)
