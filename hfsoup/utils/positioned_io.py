"""Reading and writing an open file at a place, from several threads at once, on any system.

Windows has neither `pread` nor `pwrite`: there a place is sought and read behind one lock.
"""

from __future__ import annotations

import os
import threading

_seeking = threading.Lock()


def read_at(handle: int, count: int, at: int) -> bytes:
    """At most `count` bytes from byte `at` on."""
    if hasattr(os, "pread"):
        return os.pread(handle, count, at)
    with _seeking:
        os.lseek(handle, at, os.SEEK_SET)
        return os.read(handle, count)


def read_into(handle: int, view: memoryview, at: int) -> int:
    """Fill a view from byte `at` on; how many bytes came, which may be fewer than it has room for."""
    if hasattr(os, "preadv"):
        return os.preadv(handle, [view], at)
    found = read_at(handle, len(view), at)
    view[: len(found)] = found
    return len(found)


def write_at(handle: int, view: memoryview, at: int) -> int:
    """Write a view from byte `at` on; how many bytes were taken."""
    if hasattr(os, "pwrite"):
        return os.pwrite(handle, view, at)
    with _seeking:
        os.lseek(handle, at, os.SEEK_SET)
        return os.write(handle, view)
