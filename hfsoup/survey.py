"""What a dataset holds, told before anything but its cards is read: images and bytes by split."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hfsoup.datafiles import CARD_LIMIT, CARDS, Files, points_inside
from hfsoup.datasource import READERS, SUFFIXES, loading
from hfsoup.errors import UsageError
from hfsoup.headers import reader
from hfsoup.hub import answers
from hfsoup.names import shown
from hfsoup.request import Request
from hfsoup.room import cached
from hfsoup.types import RemoteFile

PICTURES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp")


@dataclass(frozen=True)
class Part:
    """A split: its images, None where its files do not tell, its bytes, and those on this disk already."""

    images: int | None
    size: int
    held: int


@dataclass(frozen=True)
class Survey:
    """A dataset and its splits; `parts` is None where they are not known before the data is there."""

    id: str
    revision: str | None
    parts: dict[str, Part] | None


def survey(request: Request) -> Survey:
    """Look at a dataset through its listing, its cards and the footers of its parquet files; nothing of it is kept.

    Raises:
        UsageError: datasets cannot load it.
        HubError: the Hub refuses or cannot be reached.
    """
    path = Path(request.dataset).expanduser()
    if path.is_file():
        if path.suffix.lower() not in SUFFIXES:
            raise UsageError(f"expected a file ending in {', '.join(SUFFIXES)}", where=request.dataset)
        size = path.stat().st_size
        rows = _rows(path.open) if path.suffix == ".parquet" else None
        return Survey(request.dataset, None, {"validation": Part(rows, size, size)})
    if (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():
        return Survey(request.dataset, None, None)
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch).resolve()
        home = work / "files" / Path(request.dataset).name
        home.mkdir(parents=True)
        files = Files(path.resolve()) if path.is_dir() else Files.of_repo(request.dataset, request.revision, home)
        names = files.listing or [p.name for p in files.folder.rglob("*.zip")]
        if any(name.endswith(".zip") for name in names):
            return Survey(request.dataset, files.revision, None)
        _cards(files)
        return Survey(request.dataset, files.revision, _parts(files, request, work))


def _parts(files: Files, request: Request, work: Path) -> dict[str, Part]:
    import datasets

    make = datasets.load_dataset_builder
    builder = loading(request, lambda: make(str(files.folder), request.config, cache_dir=str(work / "arrow")))
    kind = str(builder.__module__).rsplit(".", 1)[-1]
    if kind not in READERS:
        what = f"hfsoup reads no datasets of the kind {shown(kind)}; it reads {', '.join(READERS)}"
        raise UsageError(what, where=request.dataset, hint="a dataset of parquet files or of images in folders")
    promised = {name: info.num_examples for name, info in (builder.info.splits or {}).items()}
    found = {}
    for split, paths in (builder.config.data_files or {}).items():
        listed = [_file(files, files.name_of(path)) for path in paths]
        held = [f for f in listed if not files.revision or cached(files.repo, f, files.revision, "dataset")]
        images = promised.get(str(split)) or _images(files, listed)
        found[str(split)] = Part(images, sum(f.size for f in listed), sum(f.size for f in held))
    return found


def _file(files: Files, name: str) -> RemoteFile:
    return files.listing.get(name) or RemoteFile(name, (files.folder / name).stat().st_size, None, "")


def _images(files: Files, listed: list[RemoteFile]) -> int | None:
    """How many images some files hold, where that shows from outside."""
    if all(file.name.endswith(".parquet") for file in listed):
        counts = [_rows(_opener(files, file)) for file in listed]
        return sum(counts)
    pictures = [file for file in listed if file.name.lower().endswith(PICTURES)]
    return len(pictures) or None


def _opener(files: Files, file: RemoteFile) -> Callable[[str], Any]:
    if not files.revision:
        return (files.folder / file.name).open
    from huggingface_hub import HfFileSystem

    path = f"datasets/{files.repo}@{files.revision}/{file.name}"
    return lambda mode: HfFileSystem().open(path, mode)


def _rows(opener: Callable[[str], Any]) -> int:
    """The rows that a parquet file's footer names."""
    from pyarrow import ArrowException
    from pyarrow.parquet import read_metadata

    try:
        with opener("rb") as file:
            return int(read_metadata(file).num_rows)
    except ArrowException as error:
        raise UsageError("expected a parquet file, found something else", where=str(opener)) from error


def _cards(files: Files) -> None:
    """Have the cards of a dataset on the Hub in its stand-in folder, held to what cards may say."""
    for name in CARDS:
        if name not in files:
            continue
        path, where = files.folder / name, f"{files.repo or files.folder}, {name}"
        size = _file(files, name).size
        if size > CARD_LIMIT:
            raise UsageError(f"expected at most {CARD_LIMIT:,} bytes, found {size:,}", where=where)
        if files.revision:
            with answers(where):
                path.write_bytes(reader(f"datasets/{files.repo}@{files.revision}/{name}")(0, size) if size else b"")
        if not name.endswith(".json"):
            points_inside(path, where)
