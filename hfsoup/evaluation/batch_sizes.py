"""How many images a forward pass has, and how many are in memory meanwhile; what fits a device, as it was found."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from hfsoup.evaluation.journal import hash_architecture
from hfsoup.utils.cache import cache_root, mark_used
from hfsoup.utils.hashing import read_sealed, write_sealed

USUAL = 64
"""Images of a forward pass on a processor."""
MOST = {"cuda": 512}
"""The first batch size to try where a device has memory of its own."""
CALIBRATION = 128
"""Images of a forward pass that estimates batch-norm statistics."""
AHEAD = 2
"""Batches that are ready before they are asked for."""
IN_MEMORY = AHEAD + 2
"""Batches that are in memory at once: those, the one that is being read and the one that is computed."""


def record_batch_size(config: dict[str, Any], how: Sequence[Any], size: int) -> None:
    """Record the images of a forward pass that fit, so that later scores are found in batches of the same size.

    Without a cache that can be written it is found again.

    Args:
        config: of the models, whose architecture it is for.
        how: what else it depends on, such as the device.
        size: how many images.
    """
    with suppress(OSError):
        write_sealed(_batch_size_path(config, how), json.dumps(size))


def read_batch_size(config: dict[str, Any], how: Sequence[Any]) -> int | None:
    """What `record_batch_size` recorded; None where it recorded nothing."""
    path = _batch_size_path(config, how)
    text = read_sealed(path)
    if text is None or not text.isdigit() or not int(text):
        return None
    with suppress(OSError):
        mark_used(path)
    return int(text)


def _batch_size_path(config: dict[str, Any], how: Sequence[Any]) -> Path:
    return cache_root() / "batches" / f"{hash_architecture('batch', config, list(how))[:32]}.json"
