"""A cache of predictions and batch-norm statistics, so that a stopped bake continues where it stopped.

They are stored under all that they depend on: the bytes of the ingredients, the coefficients, the images, the device
and the versions. A result is reused only where all of these are equal.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import sqlite3
import zlib
from collections.abc import Callable, Sequence
from contextlib import closing
from importlib.metadata import version
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from hfsoup.averaging.mix import Mix
from hfsoup.checkpoints.timm_config import list_libraries
from hfsoup.hub.branch_files import BranchFiles
from hfsoup.ingredients.family import Family
from hfsoup.utils.cache import cache_root
from hfsoup.utils.errors import SoupError
from hfsoup.utils.hashing import hash_json
from hfsoup.utils.version import __version__

SCHEMA = "CREATE TABLE IF NOT EXISTS results (key TEXT PRIMARY KEY, digest TEXT, data BLOB) STRICT"
LIBRARIES = ("torch", "transformers", "numpy")
MOST = 2_000_000_000
"""Bytes of the file at which the older half of the results is dropped."""
OLDER_HALF = "DELETE FROM results WHERE rowid <= (SELECT rowid FROM results ORDER BY rowid LIMIT 1 OFFSET ?)"
BRANCH = "hfsoup-journal"
"""The branch of the soup's repository on which a job keeps its results until the soup is pushed."""
SHARED = "HFSOUP_JOURNAL"
"""The environment variable of a job that names the repository of its soup."""
KEY = re.compile(r"[0-9a-f]{64}")
SILENT = ("_name_or_path", "transformers_version", "id2label", "label2id")


class Journal:
    """A file of results that any number of bakes may share.

    Args:
        path: the SQLite file; made if it is not there.
        read: whether to reuse results; new results are stored in any case.
        notify: called once if the file is unusable, in which case nothing is stored.
    """

    def __init__(self, path: Path, *, read: bool = True, notify: Callable[[str], None] = lambda _: None) -> None:
        self.path, self.read, self._notify = path, read, notify
        self._usable = True

    def get(self, key: str) -> dict[str, NDArray[Any]] | None:
        """The arrays under `key`, by name, or None; a damaged row counts as none."""
        row = self._run("SELECT digest, data FROM results WHERE key = ?", (key,)) if self.read else None
        if row is None or hashlib.sha256(row[1]).hexdigest() != row[0]:
            return None
        with np.load(io.BytesIO(row[1]), allow_pickle=False) as found:
            return {name: found[name] for name in found.files}

    def put(self, key: str, arrays: dict[str, NDArray[Any]]) -> None:
        """Store arrays; they are on the disk when this returns. Of a file that has grown to MOST, half is dropped."""
        file = io.BytesIO()
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
        self.store_data(key, file.getvalue())
        if self._usable and self.path.stat().st_size > MOST:
            count = self._run("SELECT count(*) FROM results", ())
            free = self._run("SELECT freelist_count * page_size FROM pragma_freelist_count, pragma_page_size", ())
            if count and free and free[0] < MOST // 4:
                self._run(OLDER_HALF, (count[0] // 2,))

    def fetch(self) -> None:
        """Store what is shared, before anything is scored; a journal of this machine only has nothing to do."""

    def send(self) -> None:
        """Share what is not shared yet."""

    def withdraw(self) -> None:
        """Share nothing any more: the soup is where it belongs."""

    def list_keys(self) -> set[str]:
        """The keys of all results."""
        found = self._run("SELECT json_group_array(key) FROM results", ())
        return set(json.loads(found[0])) if found else set()

    def read_data(self, key: str) -> bytes | None:
        """A result as it is stored; None if there is none."""
        found = self._run("SELECT data FROM results WHERE key = ?", (key,))
        return found[0] if found else None

    def store_data(self, key: str, data: bytes) -> None:
        """Store a result as `read_data` gives it."""
        self._run("INSERT OR REPLACE INTO results VALUES (?, ?, ?)", (key, hashlib.sha256(data).hexdigest(), data))

    def _run(self, statement: str, values: tuple[Any, ...]) -> Any:
        if not self._usable:
            return None
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(self.path, timeout=30)) as database, database:
                database.execute("PRAGMA synchronous = FULL")
                database.execute(SCHEMA)
                return database.execute(statement, values).fetchone()
        except (sqlite3.Error, OSError) as error:
            self._usable = False
            self._notify(f"scores cannot be cached in {self.path} ({error}); if this bake is stopped, they are lost")
            return None


class SharedJournal(Journal):
    """A journal whose results are on the Hub too, beside the soup to be, for a job that is started again elsewhere.

    Every result is sent as it is stored, or together with a later one where the Hub limits the number of commits.
    What cannot be sent is noted once, and is sent with the next.

    Args:
        files: where the results are on the Hub.
        path, read, notify: as of `Journal`.
    """

    def __init__(self, files: BranchFiles, path: Path, *, read: bool, notify: Callable[[str], None]) -> None:
        super().__init__(path, read=read, notify=notify)
        self._files, self._known, self._noted = files, set[str](), False

    def fetch(self) -> None:
        """Store what the Hub has.

        Raises:
            HubError: the branch cannot be read.
        """
        found = {name: data for name, data in self._files.fetch().items() if KEY.fullmatch(name) and _is_result(data)}
        for name, data in found.items():
            self.store_data(name, data)
        self._known |= found.keys()

    def put(self, key: str, arrays: dict[str, NDArray[Any]]) -> None:
        """Store arrays here, and on the Hub with all that it lacks; those of a key that it has are replaced."""
        super().put(key, arrays)
        self._known.discard(key)
        if self._files.may_send():
            self.send()

    def send(self) -> None:
        """Send all that the Hub lacks."""
        keys = sorted(self.list_keys() - self._known)
        files = {key: data for key in keys if (data := self.read_data(key)) is not None}
        if not files:
            return
        try:
            self._files.send(files, f"Keep {len(files)} scores of a bake that is running")
        except SoupError as error:
            if not self._noted:
                self._notify(f"scores cannot be kept on the Hub for now: {error.what}")
            self._noted = True
            return
        self._known |= files.keys()

    def withdraw(self) -> None:
        """Delete the branch."""
        try:
            self._files.delete()
        except SoupError as error:
            self._notify(f"the branch {BRANCH} could not be deleted: {error.what}")


def _is_result(data: bytes) -> bool:
    """Whether these bytes are arrays by name, as a journal stores them."""
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as found:
            return all(found[name].dtype != object for name in found.files)
    except (ValueError, OSError, EOFError, BadZipFile, zlib.error):
        return False


def open_journal(*, read: bool, notify: Callable[[str], None]) -> Journal:
    """The journal of this machine; in a job, one that is on the Hub too."""
    if repo := os.environ.get(SHARED):
        return SharedJournal(journal_files(repo), journal_path(), read=read, notify=notify)
    return Journal(journal_path(), read=read, notify=notify)


def journal_files(repo: str) -> BranchFiles:
    """Where the results of a bake into `repo` are kept on the Hub until it is pushed."""
    return BranchFiles(repo, BRANCH, "scores")


def hash_mix(family: Family, mix: Mix, **depends: Any) -> str:
    """The key of what was found for a mix.

    Args:
        family: its ingredients, known by the hashes of their files, the order of their classes, the config, the tensors
            with their dtypes, and the reference where every mix keeps tensors of it; what was estimated of them, by the
            hashes of its files.
        mix: the coefficients, also of single tensors.
        depends: everything else that it depends on, such as merge and base, as JSON values.
    """
    members = [[mix.coefficients[i], family.ingredients[i].content, family.orders[i]] for i in mix.members]
    tensors = hashlib.sha256(repr(sorted((spec.name, spec.dtype) for spec in family.tensors)).encode()).hexdigest()
    kept = [sorted(family.reference_only), family.reference.content] if family.reference_only else None
    if family.fitted and len(mix.members) > 1:
        depends = {**depends, "fitted": [w.blake3 for w in family.fitted.weights]}
    if family.importance and len(mix.members) > 1:
        depends = {**depends, "importance": [family.importance.files[i].blake3 for i in mix.members]}
    if mix.tensors:
        own = [[name, [coefficients[i] for i in mix.members]] for name, coefficients in mix.tensors]
        depends = {**depends, "tensors": own}
    config = {k: v for k, v in family.config.items() if k not in SILENT}
    versions = {"hfsoup": __version__, **{name: version(name) for name in (*LIBRARIES, *list_libraries(family.config))}}
    return hash_json(members, tensors, kept, config, len(family.labels), versions, depends)


def journal_path() -> Path:
    """The file of scores and paces."""
    return cache_root() / "scores.sqlite"


def record_pace(journal: Journal, config: dict[str, Any], how: Sequence[Any], *, images: int, seconds: float) -> None:
    """Record how many seconds a number of images took; a bake that scored nothing is not recorded.

    Args:
        journal: where it is recorded.
        config: of the models, whose architecture a pace is of.
        how: what the user set that a pace depends on, such as dtype, device and batch size.
        images: that were scored.
        seconds: that it took.
    """
    if images and seconds > 0:
        journal.put(_hash_pace(config, how), {"images": np.array(images), "seconds": np.array(seconds)})


def read_pace(config: dict[str, Any], how: Sequence[Any]) -> float | None:
    """Images a second at the last bake of this architecture in this way; None where there was none."""
    if not journal_path().is_file():
        return None
    found = Journal(journal_path()).get(_hash_pace(config, how))
    return float(found["images"] / found["seconds"]) if found else None


def _hash_pace(config: dict[str, Any], how: Sequence[Any]) -> str:
    """All that a pace depends on: another architecture, batch size, processor count or library is another pace."""
    machine = [os.cpu_count(), os.environ.get("OMP_NUM_THREADS"), os.environ.get("WORLD_SIZE")]
    return hash_architecture("pace", config, how, machine)


def hash_architecture(kind: str, config: dict[str, Any], *facts: Any) -> str:
    """The key of something of a kind that depends on an architecture, the libraries and other facts."""
    kept = {key: value for key, value in config.items() if key not in SILENT}
    return hash_json(kind, kept, *facts, [version(name) for name in (*LIBRARIES, *list_libraries(config))])
