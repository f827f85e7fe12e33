"""The head of a data file: its first bytes as a smaller file of the same kind, to see its columns before a download."""

from __future__ import annotations

import io
import json
import re
import tarfile
import zipfile
from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Any

from hfsoup.data.shards import IMAGE_SUFFIXES

HEAD = 2 << 20
"""Bytes of a head."""
METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
"""Files of an image folder that hold labels and other columns."""
ROW_GROUP = 64 << 20
"""Bytes of the largest row group of a parquet file of which rows are read for a head."""
ROWS = 1000
"""Rows of the head of a parquet file, and files of the head of an archive."""
QUOTE, NEWLINE = b'"', b"\n"
# What stands between two objects of an array.
NEXT_OBJECT = re.compile(r"[\s,]*(?={)")


def cut_head(name: str, data: bytes) -> bytes | None:
    """A file with the first whole rows of `data`, or with columns alone; None if its kind, by `name`, cannot be cut.

    Args:
        name: the file's name.
        data: its first bytes.
    """
    suffix = PurePosixPath(name).suffix.lower()
    if suffix == ".tar":
        return _cut_tar(data)
    if suffix == ".arrow":
        return _cut_arrow(data)
    if suffix == ".csv":
        return _cut_csv(data)
    if suffix in (".json", ".jsonl"):
        return _cut_json(data)
    return None


def _cut_csv(data: bytes) -> bytes | None:
    """The first rows; a line break between quotation marks ends none, unless those marks quote nothing."""
    end = last = data.rfind(NEWLINE) + 1
    header = data.find(NEWLINE) + 1
    odd = data.count(QUOTE, 0, end) % 2
    while odd and end > header:
        line = data.rfind(NEWLINE, 0, end - 1) + 1
        odd ^= data.count(QUOTE, line, end) % 2
        end = line
    return data[: end if end > header else last] or None


def _cut_json(data: bytes) -> bytes | None:
    """The first lines, if each is an object, or the first objects of an array."""
    text, decoder, ends = data.decode("utf-8-sig", "ignore"), json.JSONDecoder(), list[int]()
    start = len(text) - len(text.lstrip())
    is_array = text.startswith("[", start)
    if not is_array:
        first, line, _ = data.removeprefix(b"\xef\xbb\xbf").partition(NEWLINE)
        return data[: data.rfind(NEWLINE) + 1] if line and _is_object(first) else None
    at = start + 1
    try:
        while (found := NEXT_OBJECT.match(text, at)) is not None:
            _, at = decoder.raw_decode(text, found.end())
            ends.append(at)
    except (ValueError, RecursionError):
        # The first bytes end within an object.
        pass
    return f"{text[start : ends[-1]]}]".encode() if ends else None


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def cut_parquet(source: Any) -> bytes | None:
    """A parquet file with the first rows of another; None if its first row group is too large.

    Args:
        source: the other one: a path, or a file that can be read and sought.
    """
    from pyarrow import BufferOutputStream
    from pyarrow.parquet import ParquetFile, write_table

    file = ParquetFile(source)
    if not file.num_row_groups or file.metadata.row_group(0).total_byte_size > ROW_GROUP:
        return None
    sink = BufferOutputStream()
    write_table(file.read_row_group(0).slice(0, ROWS), sink)
    return bytes(sink.getvalue().to_pybytes())


def choose_sample(names: Iterable[str]) -> list[str]:
    """Of the files of an image folder those that say what its columns and classes are: its tables, or else one image
    of each folder.

    Args:
        names: their paths.
    """
    every = [PurePosixPath(name) for name in names]
    if tables := [path for path in every if path.name in METADATA]:
        return [str(path) for path in tables]
    first = {path.parent: str(path) for path in reversed(every) if path.name.lower().endswith(IMAGE_SUFFIXES)}
    return list(reversed(first.values()))


def _cut_tar(data: bytes) -> bytes | None:
    """The rows that are there as a whole: members of one name up to the first dot."""
    end, row = 0, ""
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
            for member in archive:
                folder, _, base = member.name.rpartition("/")
                if (place := f"{folder}/{base.partition('.')[0]}") != row:
                    end, row = member.offset, place
    except tarfile.TarError:
        # The first bytes end within a header.
        pass
    return data[:end] + bytes(2 * tarfile.BLOCKSIZE) if end else None


def hollow_archive(source: Any) -> bytes | None:
    """A zip file with the heads of another's tables of labels and, empty, the first of its other files.

    Args:
        source: the other one: a path, or a file that can be read and sought.

    Returns:
        None if a table has no head that can be read alone.

    Raises:
        zipfile.BadZipFile: it is none.
    """
    found = io.BytesIO()
    with zipfile.ZipFile(source) as archive, zipfile.ZipFile(found, "w") as hollow:
        names = archive.namelist()
        tables = [name for name in names if PurePosixPath(name).name in METADATA]
        for name in dict.fromkeys([*names[:ROWS], *tables]):
            head = _read_table(archive, name) if name in tables else b""
            if head is None:
                return None
            hollow.writestr(name, head)
    return found.getvalue()


def _read_table(archive: zipfile.ZipFile, name: str) -> bytes | None:
    """A table in an archive, or the head of a large one."""
    with archive.open(name) as table:
        data = table.read(HEAD + 1)
        if len(data) <= HEAD:
            return data
        if not name.endswith(".parquet"):
            return cut_head(name, data)
        small = archive.getinfo(name).file_size <= ROW_GROUP
        return cut_parquet(table) if small else None


def _cut_arrow(data: bytes) -> bytes | None:
    """The columns, without rows."""
    import pyarrow

    magic = b"ARROW1\0\0"
    try:
        schema = pyarrow.ipc.open_stream(pyarrow.BufferReader(data.removeprefix(magic))).schema
    except (OSError, pyarrow.ArrowInvalid):
        return None
    sink = pyarrow.BufferOutputStream()
    pyarrow.ipc.new_stream(sink, schema).close()
    return bytes(sink.getvalue().to_pybytes())
