"""Records of a checkpoint: its source, its files, its tensors. Frozen, and free of torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hfsoup.hub.cards import CARD
from hfsoup.hub.download import RemoteFile
from hfsoup.utils.errors import SoupError
from hfsoup.utils.hashing import hash_blake3, stamp_file
from hfsoup.utils.known_hashes import SMALL, find_hashes

if TYPE_CHECKING:
    from collections.abc import Mapping
    from concurrent.futures import Future


PROCESSORS = ("preprocessor_config.json", "processor_config.json")


@dataclass(frozen=True)
class Source:
    """Where an ingredient is, pinned to a commit, before any of it is read.

    `id` is the folder, or on the Hub `owner/name`, followed by the subfolder if the checkpoint is in one; `revision` is
    the commit, None for a local folder; `files` are those of the repository at that commit. `base` is the pinned base
    model of an adapter. `weights_file` is read in place of the usual weight files, and `state_dict_key` is the key of
    the tensors in it. `private` says that
    the Hub shows the repository to some users only.
    """

    id: str
    revision: str | None = None
    folder: Path | None = None
    files: tuple[RemoteFile, ...] = ()
    base: Source | None = None
    weights_file: str | None = None
    state_dict_key: str | None = None
    private: bool = field(default=False, compare=False)

    @property
    def repo(self) -> str:
        """The repository on the Hub."""
        return "/".join(self.id.split("/")[:2])

    @property
    def subfolder(self) -> str:
        """Where in the repository the checkpoint is; empty for its top."""
        return "/".join(self.id.split("/")[2:])

    def path_of(self, name: str) -> str:
        """The path of a file of the checkpoint, from the top of the repository or from the local folder on."""
        return f"{self.subfolder}/{name}" if self.subfolder and self.folder is None else name

    def __str__(self) -> str:
        return f"{self.id}@{self.revision[:7]}" if self.revision else self.id


@dataclass(frozen=True)
class WeightFile:
    """One safetensors file of an ingredient.

    `name`, `blake3` and `sha256` are those of the file in the repository, `origin` where `path` is a conversion of it.
    The BLAKE3 may still be in progress; `blake3` waits for it. `stamp` (see `stamp_file`) was taken before the file was
    hashed. `listed` is the sha256 that the Hub lists, or another hash by which a file without tensor data is known.
    """

    name: str
    path: Path
    size: int
    hashing: str | Future[str] = field(compare=False)
    stamp: tuple[int, ...]
    listed: str | None = field(default=None, compare=False)
    origin: Path | None = field(default=None, compare=False)

    @property
    def blake3(self) -> str:
        """The hexadecimal BLAKE3 of the file in the repository."""
        return self.hashing if isinstance(self.hashing, str) else self.hashing.result()

    @property
    def sha256(self) -> str:
        """The hexadecimal sha256 of the file in the repository, computed if it is not known.

        Raises:
            SoupError: the file is not the one that was hashed before.
        """
        if self.listed:
            return self.listed
        path = self.origin or self.path
        blake3, sha256 = find_hashes(path)
        if blake3 != self.blake3:
            raise SoupError("the file changed while it was in use", where=str(path), hint="the same command again")
        return sha256

    @property
    def known_sha256(self) -> str | None:
        """The sha256 of a file that the Hub lists, or that is small; None where it would have to be computed."""
        return self.sha256 if self.listed or self.size < SMALL else None

    def __reduce__(self) -> tuple[Any, ...]:
        return WeightFile, (self.name, self.path, self.size, self.blake3, self.stamp, self.listed, self.origin)


@dataclass(frozen=True)
class AdapterParts:
    """What an ingredient was merged from: an adapter's config and weights, and its base.

    `dtypes` are the dtypes of the base for tensors that the merged file stores as float64.
    """

    config: WeightFile
    weights: WeightFile
    base: Ingredient
    dtypes: Mapping[str, str] = field(default_factory=dict, compare=False)


@dataclass(frozen=True)
class Ingredient:
    """A checkpoint on this disk: its folder with config and processor, its weight files.

    `run` is the folder above a Trainer's checkpoint, with the files that all checkpoints of the run share. `adapter` is
    what the checkpoint was merged from, if it was merged here. `names` are the names in these files by those of the
    family; empty if they are the same.
    """

    source: Source
    folder: Path
    weights: tuple[WeightFile, ...]
    run: Path | None = None
    adapter: AdapterParts | None = None
    names: Mapping[str, str] = field(default_factory=dict, compare=False)

    @property
    def files(self) -> tuple[WeightFile, ...]:
        """The files of its source: an adapter's own, not the merged one."""
        return (self.adapter.config, self.adapter.weights) if self.adapter else self.weights

    @property
    def content(self) -> list[Any]:
        """What identifies its tensors, for cache keys: the hashes of its files, and the names that it takes of them."""
        return [*(file.blake3 for file in self.weights), *([sorted(self.names.items())] if self.names else [])]

    @property
    def id(self) -> str:
        """The repository or folder, as the user knows it."""
        return self.source.id

    @property
    def processor_folder(self) -> Path:
        """The folder with its image processor: its own, or the run's if only that has one."""
        return self._find_folder(*PROCESSORS)

    @property
    def card(self) -> Path:
        """The path of its model card, or of the run's; the file may be missing."""
        return self._find_folder(CARD) / CARD

    def _find_folder(self, *names: str) -> Path:
        folders = [folder for folder in (self.folder, self.run) if folder]
        return next((f for f in folders if any((f / name).is_file() for name in names)), self.folder)

    def __str__(self) -> str:
        return str(self.source)


@dataclass(frozen=True)
class LowRankAdapter:
    """A soup as a LoRA adapter: its folder in hfsoup's cache, and the model that it makes with its base.

    `error` is ‖ΔW − B·A‖ / ‖ΔW‖ (Frobenius norm) over all layers, `worst` that of the worst layer, `layer`.
    """

    folder: Path
    ingredient: Ingredient
    rank: int
    error: float
    worst: float
    layer: str


@dataclass(frozen=True)
class TensorSpec:
    """One tensor of a safetensors file; `start` and `stop` are byte offsets from the beginning of the file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int


def describe_file(path: Path) -> WeightFile:
    """A file on this disk, hashed."""
    before = stamp_file(path)
    return WeightFile(path.name, path, path.stat().st_size, hash_blake3(path), before)
