"""The head of a data file: its first bytes as a smaller file of the same kind, to see its columns before a download."""

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import PurePosixPath
from typing import Any

HEAD = 2 << 20
"""Bytes of a head."""
METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
"""Files of an image folder that hold labels and other columns."""
TEXTS = (".csv", ".json", ".jsonl")


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
    if suffix in TEXTS and not data.lstrip().startswith(b"["):
        end = data.rfind(b"\n") + 1
        return data[:end] or None
    return None


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


def hollow_archive(source: Any) -> bytes:
    """A zip file with the same names as another, whose files are empty except for small tables of labels.

    Args:
        source: the other one: a path, or a file that can be read and sought.

    Raises:
        zipfile.BadZipFile: it is none.
    """
    found = io.BytesIO()
    with zipfile.ZipFile(source) as archive, zipfile.ZipFile(found, "w") as hollow:
        for info in archive.infolist():
            table = PurePosixPath(info.filename).name in METADATA and info.file_size <= HEAD
            hollow.writestr(info.filename, archive.read(info) if table else b"")
    return found.getvalue()


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
