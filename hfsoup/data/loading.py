"""Open a dataset as `datasets.load_dataset` does: a Hub repository, a folder, one file, what `save_to_disk` wrote."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from hfsoup.data.files import CARDS, SMALL, Files
from hfsoup.data.heads import METADATA, choose_sample
from hfsoup.data.request import Request
from hfsoup.data.shards import ArrowReader, ParquetReader, Reader, Shard, TableReader, TarReader
from hfsoup.data.source import WORKSPACES, DatasetSource, DeclaredFeatures, call_datasets
from hfsoup.data.splits import is_training
from hfsoup.hub.client import expect_answer
from hfsoup.utils.cache import cache_root, register_user
from hfsoup.utils.errors import UsageError
from hfsoup.utils.text import join_names, quoted

BUILDERS = ("parquet", "arrow", "imagefolder", "webdataset", "csv", "json")
"""The builders of datasets that only read; others unpickle, or open what a file names."""
READ_PER_FILE = ("parquet", "arrow", "webdataset")
"""Kinds whose files are read one by one, each with the features that it declares itself."""
SUFFIXES = {
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".tar": "webdataset",
    ".csv": "csv",
    ".json": "json",
    ".jsonl": "json",
}

_hiding_lock = threading.Lock()
_hiding: list[bool] = []
"""One entry for each block that hides progress bars: whether they were hidden before it."""


@contextmanager
def open_dataset(request: Request, *, to_cache: bool = True) -> Iterator[DatasetSource]:
    """The dataset that is asked for, open while the block lasts.

    Args:
        request: what is asked of the dataset.
        to_cache: whether files may be downloaded into the cache; if not, only cards, footers and columns can be read.

    Raises:
        UsageError: datasets cannot load it.
        HubError: the Hub refuses, or sends other bytes than it lists.
    """
    # A record's dataset may be no path at all, which pathlib raises errors for.
    text = os.path.expanduser(request.dataset)  # noqa: PTH111
    path = Path(text)
    with hide_progress_bars(), open_workspace() as work:
        if request.revision:
            # What has a commit is on the Hub, whatever lies on this disk under the same name.
            yield _open_repo(request, work, to_cache=to_cache)
        elif not os.path.exists(text):  # noqa: PTH110
            yield _open_repo(request, work, to_cache=to_cache)
        elif path.is_file():
            yield _open_file(Files(path.resolve().parent, to_cache=to_cache), path.resolve(), request, work)
        elif (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():
            yield _open_saved(Files(path.resolve(), to_cache=to_cache), request)
        else:
            yield _open_folder(Files(path.resolve(), to_cache=to_cache), request, work)


@contextmanager
def hide_progress_bars() -> Iterator[None]:
    """Hide datasets' own progress bars inside the block, in all threads."""
    import datasets
    from datasets.utils import are_progress_bars_disabled

    with _hiding_lock:
        _hiding.append(are_progress_bars_disabled())
        datasets.disable_progress_bars()
    try:
        yield
    finally:
        with _hiding_lock:
            # The first block knows how it was before, whichever is the last to end.
            hidden_before = _hiding[0]
            _hiding.pop()
            if not _hiding and not hidden_before:
                datasets.enable_progress_bars()


def _open_repo(request: Request, work: Path, *, to_cache: bool) -> DatasetSource:
    """A dataset on the Hub, whose name is checked before it becomes that of a folder."""
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    with expect_answer(request.dataset):
        validate_repo_id(request.dataset)
    home = work / "files" / Path(request.dataset).name
    home.mkdir(parents=True)
    return _open_folder(Files.of_repo(request.dataset, request.revision, home, to_cache=to_cache), request, work)


def _open_folder(files: Files, request: Request, work: Path) -> DatasetSource:
    """A dataset of data files in a folder, with a card or without."""
    import datasets

    files.fetch_cards()
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
    return _open_builder(files, builder, request, work)


def _list_converted_configs(files: Files) -> list[str]:
    """The configurations of a `refs/convert/parquet` branch: CONFIG/SPLIT/0000.parquet, without a card."""
    places = [name.split("/") for name in files.listing if not name.startswith(".")]
    if not all(len(place) == 3 and re.fullmatch(r"\d{4}\.parquet", place[2]) for place in places):
        return []
    return sorted({place[0] for place in places})


def _open_file(files: Files, path: Path, request: Request, work: Path) -> DatasetSource:
    """A dataset of one file; its only split is called train if the file is, else validation."""
    import datasets

    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(f"expected a file ending in {', '.join(SUFFIXES)}", where=request.dataset)
    kind, data = SUFFIXES[path.suffix.lower()], {"train" if is_training(path.stem) else "validation": str(path)}
    make = datasets.load_dataset_builder
    builder = call_datasets(request, lambda: make(kind, data_files=data, cache_dir=str(work / "arrow")))
    return _open_builder(files, builder, request, work)


def _open_builder(files: Files, builder: Any, request: Request, work: Path) -> DatasetSource:
    """A dataset that a builder of datasets describes."""
    kind = str(builder.__module__).rsplit(".", 1)[-1]
    if kind not in BUILDERS:
        what = f"expected a dataset of {', '.join(BUILDERS)}, found {quoted(kind)}"
        raise UsageError(what, where=request.dataset, hint="a dataset of parquet files or of images in folders")
    found = {str(k): [str(f) for f in v] for k, v in (builder.config.data_files or {}).items()}
    parts = {split: [files.find_name(path) for path in paths] for split, paths in found.items()}
    promised = {name: info.num_examples for name, info in (builder.info.splits or {}).items() if info.num_examples}
    card = next((name for name in CARDS if name in files.fetched), "")
    declared, config = DeclaredFeatures(dict(builder.info.features or {}), card), str(builder.config.name)
    tables = _Tables(files, builder, request, found, parts, work / "heads")

    def shards(split: str, names: Sequence[str]) -> list[Shard]:
        if kind in READ_PER_FILE:
            return [Shard(name, kind, (name,), (name,), partial(_open_shard, files, kind, name)) for name in names]
        return [
            tables.shard(
                split, f"{kind} {config} {[(name, files.find_sha256(name)) for name in CARDS if name in files.fetched]}"
            )
        ]

    # Tables that datasets makes already have the features that the card declares.
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
    """A reader of one file."""
    if kind == "parquet":
        return ParquetReader(files.open_ranges(name))
    if files.to_cache or files.revision:
        files.fetch([name])
    path = str(files.folder / name)
    return ArrowReader(path) if kind == "arrow" else TarReader(path)


class _Tables:
    """Splits that datasets reads as a whole: rows of text files, or the paths of images in folders.

    Args:
        files: the dataset's files.
        builder: the builder of datasets.
        request: what is asked of the dataset.
        found: the paths of the files of each split.
        parts: their names.
        heads: the folder for heads of files on this disk.
    """

    def __init__(
        self,
        files: Files,
        builder: Any,
        request: Request,
        found: dict[str, list[str]],
        parts: dict[str, list[str]],
        heads: Path,
    ) -> None:
        self._files, self._builder, self._request, self._found, self._parts = files, builder, request, found, parts
        self._heads = heads
        self._made: dict[str, Any] = {}
        self._folders = str(builder.__module__).endswith("imagefolder")

    def shard(self, split: str, kind: str) -> Shard:
        """A whole split as one shard."""
        names = self._parts[split]
        if not self._folders:
            return Shard(split, kind, tuple(names), tuple(names), lambda: self._reader(split))
        # The classes are the folders of all splits, whatever the files of another split hold.
        every = tuple(dict.fromkeys(name for names in self._parts.values() for name in names))
        required = tuple(name for name in every if Path(name).name in METADATA or name.endswith(".zip"))
        return Shard(split, f"{kind} {split}", every, required, lambda: self._reader(split), has_paths=True)

    def _reader(self, split: str) -> Reader:
        import datasets

        if split not in self._made:
            if not self._folders or not self._files.to_cache:
                used = self._choose_sample() if self._folders else {split: self._list_fetched(split)}
                self._builder.config.data_files = datasets.data_files.DataFilesDict(used)
            call_datasets(self._request, lambda: self._builder.download_and_prepare(verification_mode="no_checks"))
            self._made[split] = call_datasets(self._request, partial(self._builder.as_dataset, split=split))
        return TableReader(self._made[split])

    def _list_fetched(self, split: str) -> list[str]:
        """The paths of the files of a split, without those that are empty placeholders."""
        paths = zip(self._found[split], self._parts[split], strict=True)
        return [path for path, name in paths if not self._files.revision or name in self._files.fetched]

    def _choose_sample(self) -> dict[str, list[str]]:
        """The paths of the files of each split that say what its columns and classes are; heads of large ones."""
        tables = any(Path(name).name in METADATA for names in self._parts.values() for name in names)
        sample: dict[str, list[str]] = {}
        for split, names in self._parts.items():
            archives = [name for name in names if name.endswith(".zip")]
            loose = choose_sample(name for name in names if Path(name).name in METADATA or not tables)
            # Other images are rows too, unless a table lists the rows.
            self._files.heads.update(names if not tables and len(loose) + len(archives) < len(names) else ())
            sample[split] = [self._place(name) for name in (*loose, *archives)]
        return sample

    def _place(self, name: str) -> str:
        """The path of a file; of a table or an archive on this disk that is large, the path of its head."""
        if self._files.revision or not (name.endswith(".zip") or self._files.size(name) > SMALL):
            return str(self._files.folder / name)
        path = self._heads / name
        path.parent.mkdir(parents=True, exist_ok=True)
        self._files.write_head(name, path)
        return str(path)


def _open_saved(files: Files, request: Request) -> DatasetSource:
    """A dataset that `save_to_disk` wrote, one or a `DatasetDict`."""
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


@contextmanager
def open_workspace() -> Iterator[Path]:
    """A temporary folder in the cache, removed afterwards; those that a killed bake left are removed as well."""
    from filelock import FileLock, Timeout

    register_user()
    home = cache_root() / WORKSPACES
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
