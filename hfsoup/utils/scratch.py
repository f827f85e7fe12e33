"""Memory that each thread allocates once: the system clears every page of new memory, which costs more than a sum."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Scratch:
    """Scratch arrays of every thread, by their use."""

    def __init__(self) -> None:
        self._local = threading.local()

    def array(self, use: str, dtype: type[Any], count: int) -> NDArray[Any]:
        """An uninitialised array of `count` numbers, valid until the same thread asks for the same use again."""
        found: NDArray[Any] | None = getattr(self._local, use, None)
        if found is None or found.size < count or found.dtype != dtype:
            found = np.empty(count, dtype)
            setattr(self._local, use, found)
        return found[:count]
