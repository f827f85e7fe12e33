"""Readers of one data file each: parquet, Arrow, WebDataset tar, and what datasets itself reads as a whole split."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from hfsoup.data.decoding import BYTES
from hfsoup.utils.text import quoted

BATCH = 32
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp")
TEXT_LIMIT = 1 << 20
"""Bytes of the largest text file beside an image in a tar."""


class Reader(Protocol):
    """An open shard: the features that the file itself declares, and how many rows it has.

    `bounds` are the least and the largest value of columns of whole numbers without nulls, if the file has them.
    """

    features: dict[str, Any]
    count: int
    bounds: dict[str, tuple[int, int]]

    def read_column(self, name: str) -> list[Any]:
        """The values of a column, one a row."""

    def read_cells(self, name: str, rows: Sequence[int]) -> Iterator[Any]:
        """The cells of a column in ascending rows; images are not decoded."""


@dataclass(frozen=True)
class Shard:
    """A file of a split, or all its files if datasets reads them together.

    Args:
        name: its name in errors.
        kind: how it is read.
        names: the files that its columns depend on.
        required: those of them that must be downloaded before it is read.
        read: opens it; a parquet file on the Hub is read by ranges.
        has_paths: whether its cells may be paths of image files.
    """

    name: str
    kind: str
    names: tuple[str, ...]
    required: tuple[str, ...]
    read: Callable[[], Reader]
    has_paths: bool = False


class ParquetReader:
    """A parquet file; only the columns and row groups that are needed are read.

    Args:
        source: a path, or a file that can be read and sought.
    """

    def __init__(self, source: Any) -> None:
        from datasets import Features
        from pyarrow.parquet import ParquetFile

        self._file = ParquetFile(source, memory_map=isinstance(source, str))
        self.features = dict(Features.from_arrow_schema(self._file.schema_arrow))
        self.count = int(self._file.metadata.num_rows)
        self.bounds = _read_bounds(self._file.metadata)

    def read_column(self, name: str) -> list[Any]:
        """The values of a column."""
        return list(self._file.read(columns=[name]).column(name).to_pylist())

    def read_cells(self, name: str, rows: Sequence[int]) -> Iterator[Any]:
        """The cells of ascending rows."""
        first, at = 0, 0
        for group in range(self._file.num_row_groups):
            end, begin = first + self._file.metadata.row_group(group).num_rows, at
            while at < len(rows) and rows[at] < end:
                at += 1
            if at > begin:
                yield from self._in_group(group, name, [row - first for row in rows[begin:at]])
            first = end

    def _in_group(self, group: int, name: str, rows: Sequence[int]) -> Iterator[Any]:
        first, left = 0, list(reversed(rows))
        for batch in self._file.iter_batches(BATCH, row_groups=[group], columns=[name]):
            while left and left[-1] < first + batch.num_rows:
                yield batch.column(0)[left.pop() - first].as_py()
            if not left:
                return
            first += batch.num_rows


def _read_bounds(metadata: Any) -> dict[str, tuple[int, int]]:
    """The least and the largest value of columns of whole numbers, from the footer; only those without nulls."""
    found: dict[str, tuple[int, int]] = {}
    doubtful = set()
    for group in range(metadata.num_row_groups):
        for n in range(metadata.num_columns):
            column = metadata.row_group(group).column(n)
            name, statistics = column.path_in_schema, column.statistics
            if (
                statistics is None
                or not statistics.has_min_max
                or statistics.null_count
                or type(statistics.min) is not int
            ):
                doubtful.add(name)
                continue
            least, most = found.get(name, (statistics.min, statistics.max))
            found[name] = min(least, statistics.min), max(most, statistics.max)
    return {name: bounds for name, bounds in found.items() if name not in doubtful}


class ArrowReader:
    """An Arrow file or stream, mapped into memory.

    Args:
        path: its path.
    """

    def __init__(self, path: str) -> None:
        import pyarrow
        from datasets import Features

        with pyarrow.memory_map(path) as mapped:
            try:
                batches = list(pyarrow.ipc.open_stream(mapped))
                schema = pyarrow.ipc.open_stream(pyarrow.memory_map(path)).schema
            except (OSError, pyarrow.ArrowInvalid):
                file = pyarrow.ipc.open_file(pyarrow.memory_map(path))
                schema, batches = file.schema, [file.get_batch(n) for n in range(file.num_record_batches)]
        for batch in batches:
            batch.validate(full=True)
        self._table = pyarrow.Table.from_batches(batches, schema)
        self.features = dict(Features.from_arrow_schema(schema))
        self.count, self.bounds = int(self._table.num_rows), dict[str, tuple[int, int]]()

    def read_column(self, name: str) -> list[Any]:
        """The values of a column."""
        return list(self._table.column(name).to_pylist())

    def read_cells(self, name: str, rows: Sequence[int]) -> Iterator[Any]:
        """The cells of some rows."""
        column = self._table.column(name)
        return (column[row].as_py() for row in rows)


class TableReader:
    """A whole split that datasets read.

    Args:
        table: a datasets.Dataset.
    """

    def __init__(self, table: Any) -> None:
        self._table, self.features, self.count = table, dict(table.features), len(table)
        self.bounds: dict[str, tuple[int, int]] = {}

    def read_column(self, name: str) -> list[Any]:
        """The values of a column."""
        return list(self._select(name)[name])

    def read_cells(self, name: str, rows: Sequence[int]) -> Iterator[Any]:
        """The cells of some rows."""
        table = self._select(name)
        return (table[row][name] for row in rows)

    def _select(self, name: str) -> Any:
        from datasets import Image

        kind = self.features[name]
        table = self._table.select_columns([name])
        return table.cast_column(name, Image(decode=False)) if isinstance(kind, Image) else table


class TarReader:
    """A tar of the WebDataset layout: files of one name up to the first dot are a row, their suffixes columns.

    Columns are images, and short texts as `cls`; a key of the object in a `json` file is the column `json.KEY`. Nothing
    is unpickled or unpacked.

    Args:
        path: its path.
    """

    def __init__(self, path: str) -> None:
        from datasets import Image, Value

        self._path = Path(path)
        self._rows: list[dict[str, tuple[int, int]]] = []
        keys: dict[str, int] = {}
        with tarfile.open(path, "r:") as archive:
            for member in archive:
                folder, _, base = member.name.rpartition("/")
                stem, dot, column = base.partition(".")
                if not member.isfile() or not dot or not stem:
                    continue
                row = keys.setdefault(f"{folder}/{stem}", len(keys))
                if row == len(self._rows):
                    self._rows.append({})
                if self._rows[row].setdefault(column.lower(), (member.offset_data, member.size)) != (
                    member.offset_data,
                    member.size,
                ):
                    raise ValueError(f"{quoted(member.name)} is in the archive twice")
        self.count, self.bounds = len(self._rows), dict[str, tuple[int, int]]()
        self._texts: dict[str, list[Any]] = {}
        columns = dict.fromkeys(name for row in self._rows for name in row)
        images = [name for name in columns if f".{name.rsplit('.', 1)[-1]}" in IMAGE_SUFFIXES]
        for name in columns:
            if name not in images and name in ("cls", "txt", "json", "label"):
                self._texts.update(self._parse_texts(name))
        self.features = {name: Image() for name in images} | {
            name: Value("int64" if all(type(v) is int for v in values if v is not None) else "string")
            for name, values in self._texts.items()
        }

    def read_column(self, name: str) -> list[Any]:
        """The values of a column."""
        return self._texts[name]

    def read_cells(self, name: str, rows: Sequence[int]) -> Iterator[Any]:
        """The images of some rows."""
        with self._path.open("rb") as file:
            for row in rows:
                at, size = self._rows[row].get(name, (0, 0))
                if size > BYTES:
                    yield {"bytes": None, "path": None}
                    continue
                file.seek(at)
                yield {"bytes": file.read(size), "path": None} if name in self._rows[row] else None

    def _parse_texts(self, name: str) -> dict[str, list[Any]]:
        """A column of texts, whole numbers where they all are; an object's keys as columns of their own."""
        found: dict[str, list[Any]] = {}
        with self._path.open("rb") as file:
            for n, row in enumerate(self._rows):
                at, size = row.get(name, (0, 0))
                if name not in row or size > TEXT_LIMIT:
                    continue
                file.seek(at)
                text = file.read(size).decode("utf-8").strip()
                for key, value in _parse_values(name, text).items():
                    found.setdefault(key, [None] * self.count)[n] = value
        return {key: _parse_numbers(values) for key, values in found.items()}


def _parse_values(name: str, text: str) -> dict[str, Any]:
    if name != "json":
        return {name: text}
    values = json.loads(text)
    if not isinstance(values, dict):
        return {name: values} if isinstance(values, (str, int)) else {}
    return {f"{name}.{key}": value for key, value in values.items() if isinstance(value, (str, int, list))}


def _parse_numbers(values: list[Any]) -> list[Any]:
    """Texts as the whole numbers that they all are."""
    texts = [value for value in values if value is not None]
    if not all(isinstance(text, str) and text.isascii() and text.removeprefix("-").isdigit() for text in texts):
        return values
    return [None if value is None else int(value) for value in values]
