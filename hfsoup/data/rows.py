"""The rows of a split as one table over its files: features, whole columns, and the cells of some rows."""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from hfsoup.data.files import SMALL, Files
from hfsoup.data.shards import Reader, Shard
from hfsoup.hub.client import SAME_COMMAND
from hfsoup.utils.cache import cache_root
from hfsoup.utils.errors import HubError, SoupError, UsageError
from hfsoup.utils.hashing import hash_json, read_sealed, write_sealed
from hfsoup.utils.text import one_line, quoted
from hfsoup.utils.threads import map_in_threads

FORMAT = 1
FOLDER = ":folder"
"""Suffix of a column of images: the names of the folders that they lie in."""

END = object()
T = TypeVar("T")


@dataclass
class ShardMetadata:
    """Row count, features and bounds of a shard, and the columns that were read.

    `hashed` says whether all of it comes from bytes that were compared with a hash; if not, rows may be chosen by it,
    and it is compared with the hashed file before they are used.
    """

    count: int
    features: dict[str, Any]
    bounds: dict[str, tuple[int, int]]
    hashed: bool
    columns: dict[str, list[Any]] = field(default_factory=dict)


class Rows:
    """The files of a split, or some of them, as one table.

    Metadata and columns of files on the Hub are cached, so that a second bake opens none of them.

    Args:
        files: the dataset's files.
        shards: those that are read, in order.
        image: returns the file whose path a cell of an image column has, None if it has the image itself.
        wrap: calls a function and turns what readers raise into an error of hfsoup.
    """

    def __init__(
        self,
        files: Files,
        shards: Sequence[Shard],
        image: Callable[[Any], str | None],
        wrap: Callable[[Callable[[], Any]], Any],
    ) -> None:
        self._files, self._shards, self._image, self._wrap = files, shards, image, wrap
        self._facts: list[ShardMetadata] | None = None

    def __len__(self) -> int:
        return sum(facts.count for facts in self.metadata())

    def names(self) -> list[str]:
        """The name of each shard."""
        return [shard.name for shard in self._shards]

    def fetch(self) -> None:
        """Download and hash the files, except those whose columns are cached."""
        known = [self._read_cached(shard) for shard in self._shards]
        self._fetch([shard for shard, facts in zip(self._shards, known, strict=True) if facts is None])

    def are_cached(self) -> bool:
        """Whether the metadata of every shard is cached."""
        return all(self._read_cached(shard) is not None for shard in self._shards)

    def metadata(self) -> list[ShardMetadata]:
        """The metadata of every shard."""
        if self._facts is None:
            self._facts = map_in_threads(self._read, self._shards)
        return self._facts

    def read_column(self, name: str) -> list[list[Any]]:
        """The values of a column, shard by shard."""
        facts = self.metadata()
        lacking = [n for n, fact in enumerate(facts) if name not in fact.columns]
        for n, values in zip(lacking, map_in_threads(lambda n: self._column(n, name), lacking), strict=True):
            facts[n].columns[name] = values
            self._store(self._shards[n], facts[n])
        return [fact.columns[name] for fact in facts]

    def read_folders(self, name: str) -> list[str]:
        """The name of the folder that each image of a column lies in, within its archive if any; may be empty."""
        return [folder for values in self.read_column(name + FOLDER) for folder in values]

    def read_cells(self, name: str, rows: Sequence[int]) -> Iterator[Any]:
        """The cells of a column in ascending rows; only the files that have them are downloaded.

        Raises:
            SoupError: a file has other rows now that it is hashed than when rows were chosen by it.
        """
        touched: list[tuple[int, list[int]]] = []
        first, at = 0, 0
        for n, fact in enumerate(self.metadata()):
            begin, at = at, bisect_left(rows, first + fact.count, at)
            if at > begin:
                touched.append((n, [int(row) - first for row in rows[begin:at]]))
            first += fact.count
        self._fetch([self._shards[n] for n, _ in touched])
        for n, inside in touched:
            self._require_same(n)
            yield from self._in_shard(self._shards[n], name, inside)

    def _in_shard(self, shard: Shard, name: str, rows: Sequence[int]) -> Iterator[Any]:
        cells = iter(self._wrap(lambda: shard.read().read_cells(name, rows)))
        if shard.has_paths:
            held = self._wrap(lambda: list(cells))
            self._wrap(lambda: self._files.fetch(found for found in map(self._image, held) if found))
            cells = iter(held)
        for row in rows:
            cell = self._wrap(lambda: next(cells, END))
            if cell is END:
                raise SoupError(f"expected a row {row}, found none", where=quoted(shard.name), hint="a complete copy")
            yield cell

    def _fetch(self, shards: Sequence[Shard]) -> None:
        needed = [name for shard in shards if self._files.to_cache or shard.has_paths for name in shard.required]
        self._wrap(lambda: self._files.fetch(needed))

    def _read(self, shard: Shard) -> ShardMetadata:
        found = self._read_cached(shard)
        if found is None:
            count, features, bounds = self._read_shard(
                shard, lambda reader: (reader.count, reader.features, reader.bounds)
            )
            found = ShardMetadata(count, features, bounds, self._is_hashed(shard))
            self._store(shard, found)
        return found

    def _column(self, n: int, name: str) -> list[Any]:
        shard = self._shards[n]
        if name.endswith(FOLDER):
            cells = self._read_shard(
                shard, lambda reader: list(reader.read_cells(name.removesuffix(FOLDER), range(reader.count)))
            )
            return [_parent_name(cell) for cell in cells]
        found, count = self._read_shard(shard, lambda reader: (reader.read_column(name), reader.count))
        if len(found) != count:
            raise SoupError(f"expected {count} labels, found {len(found)}", where=quoted(shard.name))
        return found

    def _read_shard(self, shard: Shard, act: Callable[[Reader], T]) -> T:
        """What `act` reads of a shard; from the whole file, hashed, if ranges of it on the Hub cannot be read.

        An error is then about the file if it is the one that the Hub lists, and about the Hub if it is not.
        """
        try:
            found: T = self._wrap(lambda: act(shard.read()))
        except UsageError as error:
            if not self._files.revision or self._is_hashed(shard):
                raise
            if not self._files.to_cache and any(self._files.size(name) > SMALL for name in shard.required):
                what = f"the Hub sends bytes of this file that cannot be read: {one_line(error.__cause__, 300)}"
                where = f"{self._files.repo}, {quoted(shard.name)}"
                raise HubError(what, where=where, hint=f"later, {SAME_COMMAND}") from error
            self._files.fetch(shard.required)
            found = self._wrap(lambda: act(shard.read()))
        return found

    def _is_hashed(self, shard: Shard) -> bool:
        return all(name in self._files.fetched for name in shard.required)

    def _require_same(self, n: int) -> None:
        """Refuse a file that has other metadata or columns now that it is hashed."""
        facts, shard = self.metadata()[n], self._shards[n]
        if facts.hashed:
            return
        count, features = self._read_shard(shard, lambda reader: (reader.count, reader.features))
        again = {name: self._column(n, name) for name in facts.columns}
        if (count, again) != (facts.count, facts.columns) or _to_json(features) != _to_json(facts.features):
            what = f"{quoted(shard.name)} is not the file that was read before"
            raise SoupError(what, where=self._files.repo or str(self._files.folder), hint=SAME_COMMAND)
        facts.hashed = True
        self._store(shard, facts)

    def _cache_path(self, shard: Shard) -> Path | None:
        """The cache file of a shard's metadata; None unless the commit lists the hashes of its files."""
        listing = self._files.listing
        if not self._files.revision or any(listing[name].sha256 is None for name in shard.names):
            return None
        key = hash_json(FORMAT, shard.kind, [(name, listing[name].sha256) for name in shard.names])
        return cache_root() / "columns" / f"{key[:32]}.json"

    def _read_cached(self, shard: Shard) -> ShardMetadata | None:
        from datasets import Features

        home = self._cache_path(shard)
        text = read_sealed(home) if home else None
        if text is None:
            return None
        try:
            values = json.loads(text)
            bounds = {name: (least, most) for name, (least, most) in values["bounds"].items()}
            features = dict(Features.from_dict(values["features"]))
            return ShardMetadata(**{**values, "features": features, "bounds": bounds})
        except (ValueError, KeyError, TypeError):
            return None

    def _store(self, shard: Shard, facts: ShardMetadata) -> None:
        home = self._cache_path(shard)
        if home is None or not self._files.to_cache:
            return
        try:
            text = json.dumps({**vars(facts), "features": _to_json(facts.features)})
        except (TypeError, ValueError):
            return
        write_sealed(home, text)


def _to_json(features: dict[str, Any]) -> Any:
    from datasets import Features

    return Features(features).to_dict()


def _parent_name(cell: Any) -> str:
    path = cell.get("path") if isinstance(cell, dict) else None
    return Path(str(path).split("::")[0]).parent.name if path else ""
