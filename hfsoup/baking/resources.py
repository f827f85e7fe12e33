"""What a bake takes of the disk, and whether it is there."""

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

# So much is left free: configs, a card, a record, and what else grows meanwhile.
SPARE = 10_000_000
# Models beside the ingredients that learn: the one that scores, the one that learns, its average and the gradient.
EXTRA_MODELS = 4


@dataclass(frozen=True)
class DiskNeed:
    """So many bytes in a folder, which need not be there yet, and what for."""

    purpose: str
    folder: Path
    size: int

    @property
    def existing_parent(self) -> Path:
        """The nearest folder that is there."""
        path = self.folder.absolute()
        return next(p for p in (path, *path.parents) if p.is_dir())

    @property
    def free(self) -> int:
        """Bytes that the disk has left."""
        return shutil.disk_usage(self.existing_parent).free


def require_disk(needs: Sequence[DiskNeed]) -> None:
    """Refuse what does not fit; needs on one disk add up.

    Raises:
        SoupError: a disk is too small; where, and how much it takes.
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
            raise SoupError(what, where=where, hint="make room, or another HF_HOME or --output")


def require_memory(members: int, elements: int) -> None:
    """Refuse to learn from ingredients that do not fit into memory together.

    Raises:
        SoupError: the memory is too small; how much it takes.
    """
    from psutil import virtual_memory

    need, free = estimate_learning_memory(members, elements), virtual_memory().available
    if need > free:
        needed = f"{format_size(need)} for {members} ingredients at once"
        what = f"the memory is too small: expected {needed}, found {format_size(free)}"
        raise SoupError(what, hint="--max-ingredients N, or a recipe that learns no weights")


def estimate_learning_memory(members: int, elements: int) -> int:
    """The least bytes that learning takes: every ingredient in float32, and what comes beside them."""
    return WIDTHS["F32"] * elements * (members + EXTRA_MODELS) if members > 1 else 0


def list_disk_needs(sources: Sequence[Source], options: Options) -> list[DiskNeed]:
    """What the ingredients that are not here yet and the soup take at least."""
    from huggingface_hub import constants

    found = [DiskNeed("ingredients", Path(constants.HF_HUB_CACHE), count_missing_bytes(sources))]
    if options.output or options.push:
        folder = Path(options.output).absolute().parent if options.output else Path(tempfile.gettempdir())
        found.append(DiskNeed("the soup", folder, estimate_soup_size(sources[0], options)))
    return found


def estimate_soup_size(source: Source, options: Options) -> int:
    """The least bytes of a soup like `source`: in another type it may be as much smaller as types differ."""
    whole = sum(file.size for file in list_weight_files(source))
    return whole if options.dtype is None else whole * WIDTHS[FLOAT_DTYPES[options.dtype]] // max(WIDTHS.values())


def estimate_memory(model: Outline, options: Options, learning: int = 0) -> int | None:
    """The least bytes that a bake of such models holds at once: one model, where it scores a batch of images too.

    A recipe that learns holds so many ingredients together, and training holds four more models.
    """
    if model.specs is None:
        return None
    stored = options.stored_dtype
    kinds = [(stored if stored and s.dtype in WIDTHS else s.dtype, s.shape) for s in model.specs]
    whole = sum(count_bytes(dtype, shape) for dtype, shape in kinds)
    trained = 4 * 4 * model.elements if options.distill else 0
    batch = 4 * (options.batch_size or 64) * prod(model.shape) if model.shape and options.dataset else 0
    return max((whole if options.dataset else 0) + trained, estimate_learning_memory(learning, model.elements)) + batch
