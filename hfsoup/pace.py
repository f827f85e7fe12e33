"""How fast this machine scored an architecture at earlier bakes: what an estimate of time stands on."""

from __future__ import annotations

import os
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from hfsoup.hashing import facts_hash
from hfsoup.hub import cache
from hfsoup.journal import LIBRARIES, SILENT, Journal
from hfsoup.options import Options
from hfsoup.timm_config import libraries


def journal_path() -> Path:
    """The file of scores and paces."""
    return cache() / "scores.sqlite"


def keep(journal: Journal, config: dict[str, Any], options: Options, *, images: int, seconds: float) -> None:
    """Remember that so many images took so many seconds; a bake that scored nothing says nothing."""
    if images and seconds > 0:
        journal.put(_key(config, options), {"images": np.array(images), "seconds": np.array(seconds)})


def known(config: dict[str, Any], options: Options) -> float | None:
    """Images a second at the last bake of this architecture with these options; None where there was none."""
    if not journal_path().is_file():
        return None
    found = Journal(journal_path()).get(_key(config, options))
    return float(found["images"] / found["seconds"]) if found else None


def _key(config: dict[str, Any], options: Options) -> str:
    """All that a pace depends on: another architecture, batch size, processor count or library is another pace."""
    kept = {key: value for key, value in config.items() if key not in SILENT}
    how = [options.dtype, options.device, options.bn, options.batch_size]
    machine = [os.cpu_count(), os.environ.get("OMP_NUM_THREADS"), os.environ.get("WORLD_SIZE")]
    return facts_hash("pace", kept, how, machine, [version(name) for name in (*LIBRARIES, *libraries(config))])
