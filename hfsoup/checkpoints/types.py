"""The records that the stages hand to each other. Frozen, and free of torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hfsoup.hub.cards import CARD
from hfsoup.hub.download import RemoteFile
from hfsoup.utils.hashing import hash_file, stamp_file

if TYPE_CHECKING:
    from collections.abc import Mapping
    from concurrent.futures import Future


PROCESSORS = ("preprocessor_config.json", "processor_config.json")


@dataclass(frozen=True)
class Source:
    """Where an ingredient is, pinned, before anything of it is read.

    `id` is the folder, or on the Hub `owner/name`, followed by the subfolder if the checkpoint is in one; `revision` is
    the commit on the Hub and None for a local folder; `base` is what an
    adapter is put on, pinned in the same way. `weights_file` is the file that is read in place of the usual ones, and
    `state_dict_key` what its tensors stand under.
    """

    id: str
    revision: str | None = None
    folder: Path | None = None
    files: tuple[RemoteFile, ...] = ()
    base: Source | None = None
    weights_file: str | None = None
    state_dict_key: str | None = None

    @property
    def repo(self) -> str:
        """The repository on the Hub."""
        return "/".join(self.id.split("/")[:2])

    @property
    def subfolder(self) -> str:
        """Where in the repository the checkpoint is; empty for its top."""
        return "/".join(self.id.split("/")[2:])

    def __str__(self) -> str:
        return f"{self.id}@{self.revision[:7]}" if self.revision else self.id


@dataclass(frozen=True)
class WeightFile:
    """One safetensors file of an ingredient.

    `name` and `sha256` are those of the file in the repository; the hash may still be on its way and is waited for when
    it is asked for. `stamp` was taken before `path` was hashed, and differs once anybody has written to it since.
    """

    name: str
    path: Path
    size: int
    hashing: str | Future[str] = field(compare=False)
    stamp: tuple[int, ...]

    @property
    def sha256(self) -> str:
        """The hexadecimal sha256 of the file in the repository."""
        return self.hashing if isinstance(self.hashing, str) else self.hashing.result()

    def __reduce__(self) -> tuple[Any, ...]:
        return WeightFile, (self.name, self.path, self.size, self.sha256, self.stamp)


@dataclass(frozen=True)
class AdapterParts:
    """What an ingredient was merged from: the adapter's config and weights, and the base under them.

    `dtypes` are the types of the tensors that the merged file holds in wider ones.
    """

    config: WeightFile
    weights: WeightFile
    base: Ingredient
    dtypes: Mapping[str, str] = field(default_factory=dict, compare=False)


@dataclass(frozen=True)
class Ingredient:
    """A checkpoint on this disk: its folder with config and processor, its weight files.

    `run` is the folder of the run that a Trainer's checkpoint is one of, which holds what all of its checkpoints share;
    `adapter` tells where these come from if they were merged on this disk. `names` takes a family's name of a tensor to
    the one in these files; empty where all have the family's names.
    """

    source: Source
    folder: Path
    weights: tuple[WeightFile, ...]
    run: Path | None = None
    adapter: AdapterParts | None = None
    names: Mapping[str, str] = field(default_factory=dict, compare=False)

    @property
    def files(self) -> tuple[WeightFile, ...]:
        """The files that its source has: an adapter's own instead of the merged one."""
        return (self.adapter.config, self.adapter.weights) if self.adapter else self.weights

    @property
    def content(self) -> list[Any]:
        """What tells its tensors from all others: the hashes of its files, and which tensors of them it has."""
        return [*(file.sha256 for file in self.weights), *([sorted(self.names.items())] if self.names else [])]

    @property
    def id(self) -> str:
        """The repository or folder, as the user knows it."""
        return self.source.id

    @property
    def processor_folder(self) -> Path:
        """The folder with its image processor: its own, or the run's where only that has one."""
        return self._holding(*PROCESSORS)

    @property
    def card(self) -> Path:
        """Its model card, or the run's where it has none; the file need not be there."""
        return self._holding(CARD) / CARD

    def _holding(self, *names: str) -> Path:
        folders = [folder for folder in (self.folder, self.run) if folder]
        return next((f for f in folders if any((f / name).is_file() for name in names)), self.folder)

    def __str__(self) -> str:
        return str(self.source)


@dataclass(frozen=True)
class LowRankAdapter:
    """A soup as an adapter: its folder in hfsoup's cache, the sha256 of its files, and the model that it gives.

    `error` is ‖ΔW − B·A‖ / ‖ΔW‖ (Frobenius) over all layers, `worst` that of the worst one, `layer`.
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
    return WeightFile(path.name, path, path.stat().st_size, hash_file(path), before)
