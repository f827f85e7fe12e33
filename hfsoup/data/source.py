"""What datasets loads: splits, from files that are pinned and hashed, and nothing from a stale cache."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from hfsoup.data.decoding import BYTES, BadImageError
from hfsoup.data.files import CARDS, Files
from hfsoup.data.request import Request
from hfsoup.data.rows import Rows
from hfsoup.data.shards import ArrowReader, ParquetReader, Reader, Shard, TableReader, TarReader
from hfsoup.data.splits import is_training
from hfsoup.utils.cache import cache_root
from hfsoup.utils.errors import SoupError, UsageError
from hfsoup.utils.text import join_names, one_line, quoted

# The readers of datasets that only read: others unpickle, or open what a file names.
BUILDERS = ("parquet", "arrow", "imagefolder", "webdataset", "csv", "json")
READ_PER_FILE = ("parquet", "arrow", "webdataset")
"""Those whose files are read one by one, each with the features that it declares itself."""
SUFFIXES = {
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".tar": "webdataset",
    ".csv": "csv",
    ".json": "json",
    ".jsonl": "json",
}
METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")


@dataclass(frozen=True)
class DeclaredFeatures:
    """The features of a split as a file beside its data declares them, and that file's name."""

    features: dict[str, Any]
    name: str


@dataclass
class DatasetSource:
    """A dataset that is ready to be read.

    Args:
        request: what is asked of it.
        files: its files.
        parts: the names of those that each split is made of.
        config: the configuration's name.
        kind: how datasets reads it: parquet, imagefolder …
        shards: gives some files of a split as tables.
        declared: the features that a card declares for a split, and the card's name.
        promised: how many rows its card says that a split has.
    """

    request: Request
    files: Files
    split_files: dict[str, list[str]]
    config: str
    kind: str
    shards: Callable[[str, Sequence[str]], list[Shard]]
    declared_features: Callable[[str], DeclaredFeatures] = lambda _: DeclaredFeatures({}, "")
    expected_rows: dict[str, int] = field(default_factory=dict)

    @property
    def by_folder(self) -> bool:
        """Whether classes may be the names of folders."""
        return self.kind == "imagefolder"

    @property
    def revision(self) -> str | None:
        """The commit on the Hub."""
        return self.files.revision

    def rows(self, split: str, names: Sequence[str] | None = None) -> Rows:
        """The rows of a split, or of some of its files alone; nothing is read before it is needed."""
        shards = self.shards(split, self.split_files[split] if names is None else names)
        return Rows(self.files, shards, self.find_image_file, partial(call_datasets, self.request))

    def draw_files(self, split: str, count: int) -> list[str] | None:
        """The first files of a split that hold `count` rows, in an order that is shuffled by a hash of their places.

        None where that takes all of them, or where datasets reads them together.
        """
        names = [shard.name for shard in self.shards(split, self.split_files[split])]
        if len(names) < 2:
            return None
        order = sorted(range(len(names)), key=lambda n: hashlib.sha256(b"%d" % n).digest())
        rows, found = 0, list[int]()
        while rows < count and len(found) < len(names):
            place = order[len(found)]
            rows += len(self.rows(split, [names[place]]))
            found.append(place)
        return None if len(found) == len(names) else [names[place] for place in sorted(found)]

    def hash_images(self, split: str, column: str, *changes: str, files: Sequence[str] | None = None) -> str:
        """A hash of all that the images of a split depend on: names and bytes of files, their column, and `changes`.

        Args:
            split: the split.
            column: the column of images.
            changes: what is done to the images, as text.
            files: the files of the split that are used, None for all.
        """
        used = self.split_files[split] if files is None else files
        every = sorted({*used, *(name for name in CARDS if name in self.files.fetched)})
        unlisted = [name for name in every if not self.files.revision or self.files.listing[name].sha256 is None]
        call_datasets(self.request, partial(self.files.fetch, unlisted))
        facts = [self.config, split, [(name, self.files.find_sha256(name)) for name in every]]
        content = hashlib.sha256(json.dumps(facts).encode()).hexdigest()
        return hashlib.sha256(" ".join([content, column, *changes]).encode()).hexdigest()

    def read_image(self, cell: Any) -> bytes:
        """The encoded bytes of one cell of an image column.

        Raises:
            BadImageError: there are none, or they lie outside the dataset's files.
        """
        if cell is None:
            raise BadImageError("there is no image")
        if isinstance(cell, bytes):
            return cell
        if cell["bytes"] is not None:
            return bytes(cell["bytes"])
        path = str(cell.get("path") or "")
        if path.startswith("zip://"):
            inner, _, outer = path.removeprefix("zip://").partition("::")
            return self._read_zipped(inner, self.find_image_file({"bytes": None, "path": outer}))
        name = self.find_image_file(cell)
        if name is None or name not in self.files.fetched:
            raise BadImageError(f"the row holds no image, only the name of a file outside the dataset, {quoted(path)}")
        data = (self.files.folder / name).read_bytes()
        if hashlib.sha256(data).hexdigest() != self.files.fetched[name]:
            raise SoupError(f"{quoted(name)} changed while it was read", hint="the same command again")
        return data

    def find_image_file(self, cell: Any) -> str | None:
        """The file of the dataset that a cell points to instead of holding an image; None where it points to none."""
        path = "" if isinstance(cell, bytes) or not cell or cell["bytes"] is not None else str(cell.get("path") or "")
        try:
            return self.files.find_name(path) if Path(path).is_absolute() else None
        except SoupError:
            return None

    def _read_zipped(self, inner: str, name: str | None) -> bytes:
        if name is None or name not in self.files.fetched:
            raise BadImageError(f"{quoted(name)} is not an archive of the dataset")
        try:
            with zipfile.ZipFile(self.files.folder / name) as archive:
                if archive.getinfo(inner).file_size > BYTES:
                    raise BadImageError(f"more than {BYTES:,} bytes")
                return archive.read(inner)
        except (KeyError, zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as error:
            raise BadImageError(f"cannot be unpacked: {one_line(error)}") from error


@contextmanager
def open_dataset(request: Request, *, to_cache: bool = True) -> Iterator[DatasetSource]:
    """The dataset that is asked for, for as long as its rows are needed.

    Args:
        request: what is asked.
        kept: whether its files may be taken; if not, it can only be looked into, and nothing of it is left behind.

    Raises:
        UsageError: datasets cannot load it.
        HubError: the Hub refuses, or sends other bytes than it lists.
    """
    import datasets

    datasets.disable_progress_bars()
    path = Path(request.dataset).expanduser()
    with open_workspace() as work:
        if path.is_file():
            yield _open_file(Files(path.resolve().parent, to_cache=to_cache), path.resolve(), request, work)
        elif (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():
            yield _open_saved(Files(path.resolve(), to_cache=to_cache), request)
        elif path.is_dir():
            yield _open_folder(Files(path.resolve(), to_cache=to_cache), request, work)
        else:
            home = work / "files" / Path(request.dataset).name
            home.mkdir(parents=True)
            yield _open_folder(Files.of_repo(request.dataset, request.revision, home, to_cache=to_cache), request, work)


def _open_folder(files: Files, request: Request, work: Path) -> DatasetSource:
    """A dataset of data files in a folder, with a card or without."""
    import datasets

    files.fetch_cards()
    if files.to_cache:
        files.fetch(name for name in files.listing if name.endswith(".zip"))
    home, config = files.folder, request.config
    if config is not None and (converted := _list_converted_configs(files)):
        if config not in converted:
            what = f"there is no configuration {quoted(config)}; this dataset has {join_names(converted)}"
            raise UsageError(what, where=request.dataset, hint=f"--dataset-config {shlex.quote(converted[0])}")
        home, config = home / config, None
    elif len(converted := _list_converted_configs(files)) > 1:
        what = f"this dataset has several configurations: {join_names(converted)}"
        raise UsageError(what, where=request.dataset, hint=f"--dataset-config {shlex.quote(converted[0])}")
    make = datasets.load_dataset_builder
    builder = call_datasets(request, lambda: make(str(home), config, cache_dir=str(work / "arrow")))
    return _open_builder(files, builder, request)


def _list_converted_configs(files: Files) -> list[str]:
    """The configurations of a branch that the Hub converted to parquet: CONFIG/SPLIT/0000.parquet, without a card."""
    places = [name.split("/") for name in files.listing if not name.startswith(".")]
    if not all(len(place) == 3 and re.fullmatch(r"\d{4}\.parquet", place[2]) for place in places):
        return []
    return sorted({place[0] for place in places})


def _open_file(files: Files, path: Path, request: Request, work: Path) -> DatasetSource:
    """A dataset that is one file; its only split is called validation, or train where the file is called so."""
    import datasets

    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(f"expected a file ending in {', '.join(SUFFIXES)}", where=request.dataset)
    kind, data = SUFFIXES[path.suffix.lower()], {"train" if is_training(path.stem) else "validation": str(path)}
    make = datasets.load_dataset_builder
    builder = call_datasets(request, lambda: make(kind, data_files=data, cache_dir=str(work / "arrow")))
    return _open_builder(files, builder, request)


def _open_builder(files: Files, builder: Any, request: Request) -> DatasetSource:
    kind = str(builder.__module__).rsplit(".", 1)[-1]
    if kind not in BUILDERS:
        what = f"hfsoup reads no datasets of the kind {quoted(kind)}; it reads {', '.join(BUILDERS)}"
        raise UsageError(what, where=request.dataset, hint="a dataset of parquet files or of images in folders")
    found = {str(k): [str(f) for f in v] for k, v in (builder.config.data_files or {}).items()}
    parts = {split: [files.find_name(path) for path in paths] for split, paths in found.items()}
    promised = {name: info.num_examples for name, info in (builder.info.splits or {}).items() if info.num_examples}
    card = next((name for name in CARDS if name in files.fetched), "")
    declared, config = DeclaredFeatures(dict(builder.info.features or {}), card), str(builder.config.name)
    tables = _Tables(files, builder, request, found, parts)

    def shards(split: str, names: Sequence[str]) -> list[Shard]:
        if kind in READ_PER_FILE:
            return [Shard(name, kind, (name,), (name,), partial(_open_shard, files, kind, name)) for name in names]
        return [
            tables.shard(
                split, f"{kind} {config} {[(name, files.find_sha256(name)) for name in CARDS if name in files.fetched]}"
            )
        ]

    # The table that datasets makes of files has the features that the card declares already.
    return DatasetSource(
        request,
        files,
        parts,
        request.config or config,
        kind,
        shards,
        lambda _: declared if kind in READ_PER_FILE else DeclaredFeatures({}, card),
        promised,
    )


def _open_shard(files: Files, kind: str, name: str) -> Reader:
    """Open a file whose rows are its own."""
    if kind == "parquet":
        return ParquetReader(files.open_ranges(name))
    if files.to_cache:
        files.fetch([name])
    path = str(files.folder / name)
    return ArrowReader(path) if kind == "arrow" else TarReader(path)


class _Tables:
    """Splits that datasets makes tables of: rows of text files, or the names of images in folders.

    Args:
        files: the dataset's files.
        builder: datasets' own.
        request: what is asked.
        found: the paths that each split is made of.
        parts: their names.
    """

    def __init__(
        self, files: Files, builder: Any, request: Request, found: dict[str, list[str]], parts: dict[str, list[str]]
    ) -> None:
        self._files, self._builder, self._request, self._found, self._parts = files, builder, request, found, parts
        self._made: dict[str, Any] = {}
        self._folders = str(builder.__module__).endswith("imagefolder")

    def shard(self, split: str, kind: str) -> Shard:
        """A whole split."""
        names = self._parts[split]
        if not self._folders:
            return Shard(split, kind, tuple(names), tuple(names), lambda: self._reader(split))
        # Class folders are counted over all splits; what a file of another split holds does not matter.
        every = tuple(dict.fromkeys(name for names in self._parts.values() for name in names))
        required = tuple(name for name in every if Path(name).name in METADATA or name.endswith(".zip"))
        return Shard(split, f"{kind} {split}", every, required, lambda: self._reader(split), has_paths=True)

    def _reader(self, split: str) -> Reader:
        import datasets

        if split not in self._made:
            if not self._folders:
                self._builder.config.data_files = datasets.data_files.DataFilesDict({split: self._found[split]})
            call_datasets(self._request, lambda: self._builder.download_and_prepare(verification_mode="no_checks"))
            self._made[split] = call_datasets(self._request, partial(self._builder.as_dataset, split=split))
        return TableReader(self._made[split])


def _open_saved(files: Files, request: Request) -> DatasetSource:
    """A dataset that `save_to_disk` wrote."""
    from datasets import Features

    def splits() -> dict[str, str]:
        if (path / "state.json").is_file():
            return {"validation": "."}
        return {str(s): str(s) for s in json.loads((path / "dataset_dict.json").read_text("utf-8"))["splits"]}

    def names(home: str) -> list[str]:
        state = json.loads((path / home / "state.json").read_text("utf-8"))
        wanted = ["state.json", "dataset_info.json", *(str(f["filename"]) for f in state["_data_files"])]
        return [files.find_name(path / home / name) for name in wanted]

    path = files.folder
    homes = call_datasets(request, splits)
    parts = {split: call_datasets(request, partial(names, home)) for split, home in homes.items()}

    def shards(_: str, names: Sequence[str]) -> list[Shard]:
        kind, data = "arrow", [name for name in names if not name.endswith(".json")]
        return [Shard(name, kind, (name,), (name,), partial(_open_shard, files, kind, name)) for name in data]

    def declared(split: str) -> DeclaredFeatures:
        name = next(name for name in parts[split] if name.endswith("dataset_info.json"))
        call_datasets(request, partial(files.fetch, [name]))
        info = call_datasets(request, lambda: json.loads((path / name).read_text("utf-8"))["features"])
        return DeclaredFeatures(call_datasets(request, lambda: dict(Features.from_dict(info or {}))), name)

    return DatasetSource(request, files, parts, "default", "arrow", shards, declared)


def call_datasets(request: Request, act: Callable[[], Any]) -> Any:
    """What datasets raises about a dataset, as an error with its name."""
    from tarfile import TarError

    from datasets.exceptions import DatasetsError
    from pyarrow import ArrowException

    try:
        return act()
    except SoupError:
        raise
    except (
        *(ValueError, OSError, TypeError, KeyError, AttributeError, RuntimeError, IndexError, NotImplementedError),
        *(DatasetsError, ArrowException, TarError),
    ) as error:
        cause = error.__cause__ or error
        text = one_line(cause, 300) or type(cause).__name__
        other = "a Hub dataset, a folder with class folders, or parquet files"
        hint = "--dataset-config NAME" if "onfig" in text else other
        raise UsageError(f"datasets cannot load this: {text}", where=request.dataset, hint=hint) from error


@contextmanager
def open_workspace() -> Iterator[Path]:
    """A folder for what is needed for a while, gone afterwards; what a killed bake left is cleared away."""
    from filelock import FileLock, Timeout

    home = cache_root() / "rows"
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
