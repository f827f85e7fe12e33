"""Reads and writes at an offset of an open file, from several threads, on any system.

Windows has neither `pread` nor `pwrite`; there, seeking and reading share a lock.
"""

from __future__ import annotations

import os
import threading

_seeking = threading.Lock()


def read_at(handle: int, count: int, at: int) -> bytes:
    """At most `count` bytes from offset `at`."""
    if hasattr(os, "pread"):
        return os.pread(handle, count, at)
    with _seeking:
        os.lseek(handle, at, os.SEEK_SET)
        return os.read(handle, count)


def read_into(handle: int, view: memoryview, at: int) -> int:
    """Read into a view from offset `at`; the number of bytes read, which may be less than its size."""
    if hasattr(os, "preadv"):
        return os.preadv(handle, [view], at)
    found = read_at(handle, len(view), at)
    view[: len(found)] = found
    return len(found)


def write_at(handle: int, view: memoryview, at: int) -> int:
    """Write a view at offset `at`; the number of bytes written."""
    if hasattr(os, "pwrite"):
        return os.pwrite(handle, view, at)
    with _seeking:
        os.lseek(handle, at, os.SEEK_SET)
        return os.write(handle, view)
