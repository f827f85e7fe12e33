"""Merges: each combines one tensor of every ingredient into one. One file a merge; a new file here is a new merge."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hfsoup.registry import Registry

Array = NDArray[np.float64]
MERGES: Registry[Callable[[Iterable[NDArray[Any]], Sequence[float]], Array]] = Registry("merge", "hfsoup.merges")
merge = MERGES.register
