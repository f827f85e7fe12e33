"""What a bake takes of the disk, and whether it is there."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hfsoup.errors import SoupError
from hfsoup.human import size
from hfsoup.options import Options
from hfsoup.pull import WEIGHTS, listed_below, needed, weight_names, with_bases
from hfsoup.refusals import FLOATS
from hfsoup.tensorfile import FLOATS as WIDTHS
from hfsoup.types import RemoteFile, Source

# So much is left free: configs, a card, a record, and what else grows meanwhile.
SPARE = 10_000_000
# Models beside the ingredients that learn: the one that scores, the one that learns, its average and the gradient.
BESIDE = 4


@dataclass(frozen=True)
class Need:
    """So many bytes in a folder, which need not be there yet, and what for."""

    purpose: str
    folder: Path
    size: int

    @property
    def home(self) -> Path:
        """The nearest folder that is there."""
        path = self.folder.absolute()
        return next(p for p in (path, *path.parents) if p.is_dir())

    @property
    def free(self) -> int:
        """Bytes that the disk has left."""
        return shutil.disk_usage(self.home).free


def afford(needs: Sequence[Need]) -> None:
    """Refuse what does not fit; needs on one disk add up.

    Raises:
        SoupError: a disk is too small; where, and how much it takes.
    """
    disks: dict[int, list[Need]] = {}
    for need in needs:
        if need.size:
            disks.setdefault(need.home.stat().st_dev, []).append(need)
    for shared in disks.values():
        total, free = sum(need.size for need in shared) + SPARE, min(need.free for need in shared)
        if total > free:
            parts = ", ".join(f"{size(need.size)} for {need.purpose}" for need in shared)
            what = f"the disk is too small: expected {size(total)} ({parts}), found {size(free)}"
            where = ", ".join(dict.fromkeys(str(need.folder) for need in shared))
            raise SoupError(what, where=where, hint="make room, or another HF_HOME or --output")


def hold(members: int, elements: int) -> None:
    """Refuse to learn from ingredients that do not fit into memory together.

    Raises:
        SoupError: the memory is too small; how much it takes.
    """
    from psutil import virtual_memory

    need, free = learning(members, elements), virtual_memory().available
    if need > free:
        what = f"the memory is too small: expected {size(need)} for {members} ingredients at once, found {size(free)}"
        raise SoupError(what, hint="--max-ingredients N, or a recipe that learns no weights")


def learning(members: int, elements: int) -> int:
    """The least bytes that learning takes: every ingredient in float32, and what comes beside them."""
    return WIDTHS["F32"] * elements * (members + BESIDE) if members > 1 else 0


def needs(sources: Sequence[Source], options: Options) -> list[Need]:
    """What the ingredients that are not here yet and the soup take at least."""
    from huggingface_hub import constants

    found = [Need("ingredients", Path(constants.HF_HUB_CACHE), missing(sources))]
    if options.output or options.push:
        folder = Path(options.output).absolute().parent if options.output else Path(tempfile.gettempdir())
        found.append(Need("the soup", folder, least(sources[0], options)))
    return found


def missing(sources: Sequence[Source]) -> int:
    """Bytes of sources and their bases that are not on this disk."""
    return sum(whole - there for whole, there in map(held, with_bases(sources)))


def least(source: Source, options: Options) -> int:
    """The least bytes of a soup like `source`: in another type it may be as much smaller as types differ."""
    whole = sum(file.size for file in weights(source))
    return whole if options.dtype is None else whole * WIDTHS[FLOATS[options.dtype]] // max(WIDTHS.values())


def held(source: Source) -> tuple[int, int]:
    """Bytes of the files that a soup needs of a source, and how many of them are on this disk."""
    if source.folder:
        total = sum(path.stat().st_size for path in source.folder.iterdir() if path.suffix in WEIGHTS)
        return total, total
    files = needed(source)
    return sum(f.size for f in files), sum(f.size for f in files if cached(source.repo, f, source.revision))


def weights(source: Source) -> list[RemoteFile]:
    """The weight files of a source, on the Hub or in its folder; of an adapter those of its base, which is as large."""
    if source.base:
        return weights(source.base)
    if source.folder is None:
        files = listed_below(source, source.subfolder)
        return [files[name] for name in weight_names(files, source)]
    names = weight_names(os.listdir(source.folder), source)  # noqa: PTH208 - names are wanted
    return [RemoteFile(name, (source.folder / name).stat().st_size, None, "") for name in names]


def cached(repo: str, file: RemoteFile, revision: str | None, kind: str = "model") -> bool:
    """Whether huggingface_hub's cache holds a file of a commit."""
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(repo, file.name, revision=revision, repo_type=kind), str)
