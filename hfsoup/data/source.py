"""A dataset that is open for reading: its splits, the files of each, its rows and encoded images."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any

from hfsoup.data.decoding import BYTES, BadImageError
from hfsoup.data.files import CARDS, Files
from hfsoup.data.request import Request
from hfsoup.data.rows import Rows
from hfsoup.data.shards import Shard
from hfsoup.utils.cache import cache_root
from hfsoup.utils.errors import SoupError, UsageError
from hfsoup.utils.text import one_line, quoted

SPREAD, LOOKED = 1 << 30, 64
"""Bytes of files that are downloaded at most for images of more classes, and how many footers are read for that."""
WORKSPACES = "rows"
"""The part of hfsoup's cache that holds temporary folders, one for each open dataset."""


@dataclass(frozen=True)
class DeclaredFeatures:
    """The features that a card, or the `dataset_info.json` of a split, declares, and the name of that file."""

    features: dict[str, Any]
    name: str


@dataclass
class DatasetSource:
    """A dataset that is open for reading.

    Args:
        request: what is asked of it.
        files: its files.
        split_files: the names of the files of each split.
        config: the configuration's name.
        kind: the builder of datasets that reads it: parquet, imagefolder …
        shards: returns the shards of a split that some of its files are.
        declared_features: returns the features that a card declares for a split.
        expected_rows: how many rows its card says that a split has.
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
        """Whether the folders that images lie in may name their classes."""
        return self.kind == "imagefolder"

    @property
    def revision(self) -> str | None:
        """The commit on the Hub."""
        return self.files.revision

    def rows(self, split: str, names: Sequence[str] | None = None) -> Rows:
        """The rows of a split, or of some of its files; files are read when their rows are."""
        shards = self.shards(split, self.split_files[split] if names is None else names)
        return Rows(self.files, shards, self.find_image_file, partial(call_datasets, self.request))

    def draw_files(self, split: str, count: int) -> list[str] | None:
        """The first files of a split that hold `count` rows, in an order shuffled by a hash of their position.

        If their footers say that they lack classes, as files sorted by class do, files with further classes are added
        until there are SPREAD bytes, or LOOKED footers were read. None if all files are needed, or if datasets reads
        them together.
        """
        names = [shard.name for shard in self.shards(split, self.split_files[split])]
        if len(names) < 2:
            return None
        order = sorted(range(len(names)), key=lambda n: hashlib.sha256(b"%d" % n).digest())
        rows, size, found, lacking = 0, 0, list[int](), None
        for looked, place in enumerate(order):
            if rows >= count and (not lacking or looked >= LOOKED or size + self.files.size(names[place]) > SPREAD):
                break
            part = self.rows(split, [names[place]])
            held, every = self._find_class_range(split, part)
            lacking = set(every) if lacking is None else lacking
            if rows < count or lacking & set(held):
                rows, size = rows + len(part), size + self.files.size(names[place])
                found.append(place)
                lacking -= set(held)
        return None if len(found) == len(names) else [names[place] for place in sorted(found)]

    def _find_class_range(self, split: str, part: Rows) -> tuple[range, range]:
        """From the lowest to the highest class of a file by its footer, and all classes; both empty if not known."""
        from datasets import ClassLabel

        (facts,) = part.metadata()
        declared = self.declared_features(split).features
        for name, (least, most) in facts.bounds.items():
            for feature in (facts.features.get(name), declared.get(name)):
                if isinstance(feature, ClassLabel) and least >= 0:
                    return range(least, most + 1), range(len(feature.names))
        return range(0), range(0)

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
            raise BadImageError(f"expected an image, found only the path of a file outside the dataset, {quoted(path)}")
        data = (self.files.folder / name).read_bytes()
        if hashlib.sha256(data).hexdigest() != self.files.fetched[name]:
            raise SoupError(f"{quoted(name)} changed while it was read", hint="the same command again")
        return data

    def find_image_file(self, cell: Any) -> str | None:
        """The file of the dataset whose path a cell has instead of an image, or None."""
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


def _hide_workspace(text: str, dataset: str) -> str:
    """An error of datasets, with the dataset's name in place of the temporary folder that stands for a repository."""
    home = re.escape(str(cache_root() / WORKSPACES))
    return re.sub(rf"{home}[/\\][^/\\]+[/\\]files[/\\][^/\\\s'\"]+", lambda _: dataset, text)


def call_datasets(request: Request, act: Callable[[], Any]) -> Any:
    """Call datasets, and turn what it raises into an error with the dataset's name.

    Raises:
        UsageError: datasets cannot load the dataset.
    """
    from tarfile import TarError

    from datasets.exceptions import DatasetsError
    from pyarrow import ArrowException

    try:
        return act()
    except SoupError:
        raise
    except (
        *(ValueError, OSError, TypeError, KeyError, AttributeError, RuntimeError, IndexError, NotImplementedError),
        *(DatasetsError, ArrowException, TarError, zipfile.BadZipFile, StopIteration),
    ) as error:
        cause = error.__cause__ or error
        text = one_line(_hide_workspace(str(cause), request.dataset), 300) or type(cause).__name__
        hint = "a Hub dataset, a folder of class folders, or parquet files"
        if "Invalid string class label" in text:
            # It takes the folder that an archive lies in for the class of all its images.
            hint = "unpack archives of class folders, or add a metadata.csv with file_name and label to each"
        elif "onfig" in text:
            names = re.findall(r"'([^']+)'", text.rpartition("vailable")[2])
            near = [*get_close_matches(request.config or "", names, 1), *names, "NAME"][0]
            hint = f"--dataset-config {shlex.quote(near)}"
        raise UsageError(f"datasets cannot load this: {text}", where=request.dataset, hint=hint) from error
