"""What datasets loads: splits, from files that are pinned and hashed, and nothing from a stale cache."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from hfsoup.datafiles import CARDS, Files
from hfsoup.decoding import BYTES, BadImageError
from hfsoup.errors import SoupError, UsageError
from hfsoup.hub import cache
from hfsoup.names import flat, shown
from hfsoup.request import Request

# The readers of datasets that only read: others unpickle, or open what a file names.
READERS = ("parquet", "arrow", "imagefolder", "csv", "json")
SUFFIXES = {".parquet": "parquet", ".arrow": "arrow", ".csv": "csv", ".json": "json", ".jsonl": "json"}
METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")


@dataclass
class Source:
    """A dataset that is ready to be loaded.

    `files` are its files; `parts` the names of those that each split is made of; `config` the configuration's name;
    `by_folder` whether classes may be the names of folders; `read` takes the files of splits and loads them.
    """

    files: Files
    parts: dict[str, list[str]]
    config: str
    by_folder: bool
    read: Callable[[Sequence[str]], dict[str, Any]]
    _content: dict[str, str] = field(default_factory=dict)

    @property
    def revision(self) -> str | None:
        """The commit on the Hub."""
        return self.files.revision

    def load(self, splits: Sequence[str]) -> dict[str, Any]:
        """Some splits as datasets.Dataset, from files that were hashed before and are the same after."""
        rows = self.read(splits)
        self.files.unchanged()
        return rows

    def content(self, split: str) -> str:
        """The sha256 of what a loaded split is made from: file names and bytes, wherever they lie."""
        if split not in self._content:
            names = sorted({*self.parts[split], *(name for name in CARDS if name in self.files.taken)})
            facts = [self.config, split, [(name, self.files.taken[name]) for name in names]]
            self._content[split] = hashlib.sha256(json.dumps(facts).encode()).hexdigest()
        return self._content[split]

    def image(self, cell: Any) -> bytes:
        """The encoded bytes of one cell of an image column.

        Raises:
            BadImageError: there are none, or they lie outside the hashed files.
        """
        if cell is None:
            raise BadImageError("there is no image")
        if cell["bytes"] is not None:
            return bytes(cell["bytes"])
        path = str(cell["path"] or "")
        try:
            if path.startswith("zip://"):
                inner, _, outer = path.removeprefix("zip://").partition("::")
                return self._unzipped(inner, self.files.name_of(outer))
            name = self.files.name_of(path) if Path(path).is_absolute() else ""
        except SoupError:
            name = ""
        if name not in self.files.taken:
            raise BadImageError(f"the row holds no image, only the name of a file outside the dataset, {shown(path)}")
        data = (self.files.folder / name).read_bytes()
        if hashlib.sha256(data).hexdigest() != self.files.taken[name]:
            raise SoupError(f"{shown(name)} changed while it was read", hint="the same command again")
        return data

    def _unzipped(self, inner: str, name: str) -> bytes:
        if name not in self.files.taken:
            raise BadImageError(f"{shown(name)} is not an archive of the dataset")
        try:
            with zipfile.ZipFile(self.files.folder / name) as archive:
                if archive.getinfo(inner).file_size > BYTES:
                    raise BadImageError(f"more than {BYTES:,} bytes")
                return archive.read(inner)
        except (KeyError, zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as error:
            raise BadImageError(f"cannot be unpacked: {flat(error)}") from error


@contextmanager
def opened(request: Request) -> Iterator[Source]:
    """The dataset that is asked for, for as long as its rows are needed.

    Raises:
        UsageError: datasets cannot load it.
        HubError: the Hub refuses, or sends other bytes than it lists.
    """
    import datasets

    datasets.disable_progress_bars()
    path = Path(request.dataset).expanduser()
    with workspace() as work:
        if path.is_file():
            yield _one_file(path.resolve(), request, work)
        elif (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():
            yield _saved(path.resolve(), request)
        elif path.is_dir():
            yield _folder(Files(path.resolve()), request, work)
        else:
            home = work / "files" / Path(request.dataset).name
            home.mkdir(parents=True)
            yield _folder(Files.of_repo(request.dataset, request.revision, home), request, work)


def _folder(files: Files, request: Request, work: Path) -> Source:
    """A dataset of data files in a folder, with a card or without."""
    import datasets

    files.take_cards()
    files.take(name for name in files.listing if name.endswith(".zip"))
    make = datasets.load_dataset_builder
    builder = loading(request, lambda: make(str(files.folder), request.config, cache_dir=str(work / "arrow")))
    return _built(files, builder, request)


def _one_file(path: Path, request: Request, work: Path) -> Source:
    """A dataset that is one file; its only split is called validation."""
    import datasets

    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(f"expected a file ending in {', '.join(SUFFIXES)}", where=request.dataset)
    kind, data = SUFFIXES[path.suffix.lower()], {"validation": str(path)}
    make = datasets.load_dataset_builder
    builder = loading(request, lambda: make(kind, data_files=data, cache_dir=str(work / "arrow")))
    return _built(Files(path.parent), builder, request)


def _built(files: Files, builder: Any, request: Request) -> Source:
    import datasets

    kind = str(builder.__module__).rsplit(".", 1)[-1]
    if kind not in READERS:
        what = f"hfsoup reads no datasets of the kind {shown(kind)}; it reads {', '.join(READERS)}"
        raise UsageError(what, where=request.dataset, hint="a dataset of parquet files or of images in folders")
    found = {str(k): [str(f) for f in v] for k, v in (builder.config.data_files or {}).items()}
    parts = {split: [files.name_of(path) for path in paths] for split, paths in found.items()}
    expected = {name: info.num_examples for name, info in (builder.info.splits or {}).items()}

    def read(splits: Sequence[str]) -> dict[str, Any]:
        loading(request, partial(files.take, [name for split in splits for name in parts[split]]))
        if kind == "imagefolder":
            # Class folders are counted over all splits; what a file of another split holds does not matter.
            every = [name for names in parts.values() for name in names]
            files.take(name for name in every if Path(name).name in METADATA or name.endswith(".zip"))
        else:
            builder.config.data_files = datasets.data_files.DataFilesDict({k: found[k] for k in splits})
        loading(request, lambda: builder.download_and_prepare(verification_mode="no_checks"))
        rows = {split: loading(request, partial(builder.as_dataset, split=split)) for split in splits}
        for split, table in rows.items():
            if expected.get(split) and expected[split] != len(table):
                what = f"its card promises {expected[split]} rows in the split {shown(split)}, found {len(table)}"
                raise SoupError(what, where=request.dataset, hint="a complete copy of the dataset")
        return rows

    return Source(files, parts, str(builder.config.name), kind == "imagefolder", read)


def _saved(path: Path, request: Request) -> Source:
    """A dataset that `save_to_disk` wrote."""
    import datasets

    def splits() -> dict[str, str]:
        if (path / "state.json").is_file():
            return {"validation": "."}
        return {str(s): str(s) for s in json.loads((path / "dataset_dict.json").read_text("utf-8"))["splits"]}

    def names(home: str) -> list[str]:
        state = json.loads((path / home / "state.json").read_text("utf-8"))
        wanted = ["state.json", "dataset_info.json", *(str(f["filename"]) for f in state["_data_files"])]
        return [files.name_of(path / home / name) for name in wanted]

    files = Files(path)
    homes = loading(request, splits)
    parts = {split: loading(request, partial(names, home)) for split, home in homes.items()}

    def read(wanted: Sequence[str]) -> dict[str, Any]:
        loading(request, partial(files.take, [name for split in wanted for name in parts[split]]))
        return {s: loading(request, partial(datasets.load_from_disk, str(path / homes[s]))) for s in wanted}

    return Source(files, parts, "default", False, read)


def loading(request: Request, act: Callable[[], Any]) -> Any:
    """What datasets raises about a dataset, as an error with its name."""
    from datasets.exceptions import DatasetsError

    try:
        return act()
    except SoupError:
        raise
    except (
        *(ValueError, OSError, TypeError, KeyError, AttributeError, RuntimeError, IndexError, NotImplementedError),
        DatasetsError,
    ) as error:
        cause = error.__cause__ or error
        text = flat(cause, 300) or type(cause).__name__
        other = "a Hub dataset, a folder with class folders, or parquet files"
        hint = "--dataset-config NAME" if "onfig" in text else other
        raise UsageError(f"datasets cannot load this: {text}", where=request.dataset, hint=hint) from error


@contextmanager
def workspace() -> Iterator[Path]:
    """A folder for what is needed for a while, gone afterwards; what a killed bake left is cleared away."""
    from filelock import FileLock, Timeout

    home = cache() / "rows"
    home.mkdir(parents=True, exist_ok=True)
    for left in [path for path in home.iterdir() if path.is_dir()]:
        lock = FileLock(left.with_suffix(".lock"))
        try:
            with lock.acquire(timeout=0):
                shutil.rmtree(left, ignore_errors=True)
                left.with_suffix(".lock").unlink(missing_ok=True)
        except Timeout:
            continue
    with tempfile.NamedTemporaryFile(dir=home, suffix=".lock", delete=False) as file:
        path = Path(file.name)
    work = path.with_suffix("").resolve()
    with FileLock(path):
        work.mkdir()
        try:
            yield work
        finally:
            shutil.rmtree(work, ignore_errors=True)
            path.unlink(missing_ok=True)
