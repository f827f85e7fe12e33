"""Disk and memory: how much a bake needs, and whether there is enough."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

from hfsoup.checkpoints.dtypes import FLOAT_DTYPES
from hfsoup.checkpoints.safetensors_io import FLOATS as WIDTHS
from hfsoup.checkpoints.safetensors_io import count_bytes
from hfsoup.checkpoints.types import Source
from hfsoup.ingredients.headers import Outline, list_weight_files
from hfsoup.ingredients.pull import count_missing_bytes
from hfsoup.options.options import Options
from hfsoup.utils.errors import SoupError
from hfsoup.utils.text import format_size

# Bytes left free, for configs, card, soup.json and whatever else grows meanwhile.
SPARE = 10_000_000
# Models in memory besides the ingredients while coefficients are learned: two networks, the average, the gradient.
EXTRA_MODELS = 4


@dataclass(frozen=True)
class DiskNeed:
    """`size` bytes needed in a folder, which need not exist yet, and what for."""

    purpose: str
    folder: Path
    size: int

    @property
    def existing_parent(self) -> Path:
        """The nearest parent that exists, or the folder itself."""
        path = self.folder.absolute()
        return next(p for p in (path, *path.parents) if p.is_dir())

    @property
    def free(self) -> int:
        """Free bytes of its disk."""
        return shutil.disk_usage(self.existing_parent).free


def require_disk(needs: Sequence[DiskNeed]) -> None:
    """Refuse a bake that does not fit on its disks; needs on one disk add up.

    Raises:
        SoupError: a disk is too small.
    """
    disks: dict[int, list[DiskNeed]] = {}
    for need in needs:
        if need.size:
            disks.setdefault(need.existing_parent.stat().st_dev, []).append(need)
    for shared in disks.values():
        total, free = sum(need.size for need in shared) + SPARE, min(need.free for need in shared)
        if total > free:
            parts = ", ".join(f"{format_size(need.size)} for {need.purpose}" for need in shared)
            what = f"the disk is too small: expected {format_size(total)} ({parts}), found {format_size(free)}"
            where = ", ".join(dict.fromkeys(str(need.folder) for need in shared))
            raise SoupError(what, where=where, hint="free some space, or use another HF_HOME or --output")


def require_memory(members: int, elements: int) -> None:
    """Refuse a recipe that learns coefficients if the ingredients do not fit into memory together.

    Raises:
        SoupError: the memory is too small.
    """
    from psutil import virtual_memory

    need, free = estimate_learning_memory(members, elements), virtual_memory().available
    if need > free:
        needed = f"{format_size(need)} for {members} ingredients at once"
        what = f"the memory is too small: expected {needed}, found {format_size(free)}"
        raise SoupError(what, hint="--max-ingredients N, or a recipe that learns no weights")


def estimate_learning_memory(members: int, elements: int) -> int:
    """The bytes that learning takes at least: every ingredient in float32, and EXTRA_MODELS more."""
    return WIDTHS["F32"] * elements * (members + EXTRA_MODELS) if members > 1 else 0


def list_disk_needs(sources: Sequence[Source], options: Options) -> list[DiskNeed]:
    """The disk that ingredients still to be pulled and the soup take at least."""
    from huggingface_hub import constants

    found = [DiskNeed("ingredients", Path(constants.HF_HUB_CACHE), count_missing_bytes(sources))]
    if options.output or options.push:
        folder = Path(options.output).absolute().parent if options.output else Path(tempfile.gettempdir())
        found.append(DiskNeed("the soup", folder, estimate_soup_size(sources[0], options)))
    return found


def estimate_soup_size(source: Source, options: Options) -> int:
    """The bytes of a soup of models like `source` at least; another dtype may make it smaller."""
    whole = sum(file.size for file in list_weight_files(source))
    return whole if options.dtype is None else whole * WIDTHS[FLOAT_DTYPES[options.dtype]] // max(WIDTHS.values())


def estimate_memory(model: Outline, options: Options, learning: int = 0) -> int | None:
    """The bytes of memory that a bake takes at least: one model and a batch of images if it scores; None if unknown.

    A recipe that learns holds `learning` ingredients at once; distillation holds four more models.
    """
    if model.specs is None:
        return None
    stored = options.stored_dtype
    kinds = [(stored if stored and s.dtype in WIDTHS else s.dtype, s.shape) for s in model.specs]
    whole = sum(count_bytes(dtype, shape) for dtype, shape in kinds)
    trained = 4 * 4 * model.elements if options.distill else 0
    batch = 4 * (options.batch_size or 64) * prod(model.shape) if model.shape and options.dataset else 0
    return max((whole if options.dataset else 0) + trained, estimate_learning_memory(learning, model.elements)) + batch
