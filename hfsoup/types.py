"""The records that the stages hand to each other. Frozen, and free of torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from math import fsum
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from concurrent.futures import Future

    from hfsoup.images import Split
    from hfsoup.importance import Importance

PROCESSORS = ("preprocessor_config.json", "processor_config.json")
CARD = "README.md"
SIGNATURE = "model.sig"
UNPUSHED = "PATH/TO/THIS/FOLDER"
"""What a card tells to load where its soup was not pushed yet."""


@dataclass(frozen=True)
class RemoteFile:
    """One file of a Hub repository as listed; `sha256` only where the Hub stores it as a large file."""

    name: str
    size: int
    sha256: str | None
    blob: str


@dataclass(frozen=True)
class Source:
    """Where an ingredient is, pinned, before anything of it is read.

    `id` is the folder, or on the Hub `owner/name`, followed by the subfolder if the checkpoint is in one; `revision` is
    the commit on the Hub and None for a local folder; `asked` is what the user's pattern stood for; `base` is what an
    adapter is put on, pinned in the same way. `weights_file` is the file that is read in place of the usual ones, and
    `state_dict_key` what its tensors stand under.
    """

    id: str
    asked: str
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
class Adapted:
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
    adapter: Adapted | None = None
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
class Truncated:
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


@dataclass(frozen=True)
class Base:
    """The model that the ingredients were fine-tuned from.

    `names` are its own names of the family's tensors that it has in the same shape and for the same classes, `lacking`
    the floats among the others; `order` takes the reference's class c to its row, None where the order is the same.
    """

    ingredient: Ingredient
    names: dict[str, str]
    lacking: tuple[str, ...] = ()
    order: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Alignment:
    """How the ingredients of a family came into the first one's basis.

    `method` and `seed` say how units were matched, `images` which ones were looked at without their labels. `originals`
    are the ingredients as they were pulled, `orders` those of their classes, which the aligned copies have no more;
    `fitted` is the network that was fitted to all of them, if one was.
    """

    method: str
    seed: int
    originals: tuple[Ingredient, ...]
    orders: tuple[tuple[int, ...] | None, ...]
    images: Split | None = None
    fitted: Ingredient | None = None


@dataclass(frozen=True)
class Family:
    """Ingredients that may be averaged, in the order given; the first one is the reference.

    `orders[i]` takes the reference's class c to ingredient i's row, or is None where the labels are in the same order;
    `heads` names the tensors whose axis runs over the classes; `shards` are the reference's tensors, file by file, with
    the dtype of the soup. `kept` are tensors that are the reference's own in every mix; `processed_by` is the index of
    the ingredient whose image processor is the soup's. `dropped` are tensors that the classifier does not have,
    `dtypes` the float types where ingredients differ in them, and `skipped` those left out, each with the reason;
    `wrappers` are ingredients with what a wrapper had added to the names of their tensors, `custom` those that name
    code of their own.
    `base` is there where recipe or merge need it, `importance` once it was estimated for a merge; `alignment` is set
    once the ingredients were permuted: then they are copies in the cache.
    """

    ingredients: tuple[Ingredient, ...]
    config: dict[str, Any]
    labels: tuple[str, ...]
    shards: tuple[tuple[TensorSpec, ...], ...]
    orders: tuple[tuple[int, ...] | None, ...]
    heads: dict[str, int] = field(default_factory=dict)
    kept: frozenset[str] = frozenset()
    processed_by: int = 0
    dropped: tuple[str, ...] = ()
    dtypes: tuple[str, ...] = ()
    skipped: tuple[tuple[Ingredient, str], ...] = ()
    custom: tuple[Ingredient, ...] = ()
    base: Base | None = None
    alignment: Alignment | None = None
    importance: Importance | None = None
    wrappers: tuple[tuple[Ingredient, str], ...] = ()

    @property
    def fitted(self) -> Ingredient | None:
        """The network that takes the place of every average, where one was fitted."""
        return self.alignment.fitted if self.alignment else None

    @property
    def processing(self) -> Ingredient:
        """The ingredient whose image processor is the soup's."""
        return self.ingredients[self.processed_by]

    @property
    def reference(self) -> Ingredient:
        """The first ingredient: its layout, config and processor are the soup's."""
        return self.ingredients[0]

    @property
    def tensors(self) -> tuple[TensorSpec, ...]:
        """Every tensor of the reference."""
        return tuple(spec for shard in self.shards for spec in shard)

    @property
    def has_batch_norm(self) -> bool:
        """Whether the model keeps statistics of its activations."""
        return any(spec.name.endswith("running_var") for spec in self.tensors)

    def __len__(self) -> int:
        return len(self.ingredients)


@dataclass(frozen=True)
class Mix:
    """One coefficient per ingredient of the family, in its order, 0 for what is left out; `base` is the base's share.

    The model is (1 − base) times the merge of the ingredients plus base times the base. `tensors` are those with
    coefficients of their own; `coefficients` are then the mean over these, and of everything else.
    """

    coefficients: tuple[float, ...]
    base: float = 0.0
    tensors: tuple[tuple[str, tuple[float, ...]], ...] = ()

    @classmethod
    def of(cls, members: tuple[int, ...], size: int) -> Mix:
        """The plain mean of `members` among `size` ingredients."""
        share = 1.0 / len(members)
        return cls(tuple(share if i in members else 0.0 for i in range(size)))

    @classmethod
    def weighted(cls, weights: dict[int, float], size: int) -> Mix:
        """The mean weighted by `weights`, ingredient to weight, in any scale; equal ones give the plain mean."""
        taken = tuple(i for i, weight in weights.items() if weight)
        if len({weights[i] for i in taken}) == 1:
            return cls.of(taken, size)
        total = fsum(weights.values())
        if abs(total - 1) < 1e-12:
            # Coefficients of a mix stay as they are when they are given again.
            total = 1.0
        return cls(tuple(weights.get(i, 0.0) / total for i in range(size)))

    @cached_property
    def members(self) -> tuple[int, ...]:
        """Indices of the ingredients that take part."""
        return tuple(i for i, c in enumerate(self.coefficients) if c)

    @cached_property
    def _own(self) -> dict[str, Mix]:
        return {name: Mix(coefficients, self.base) for name, coefficients in self.tensors}

    def at(self, tensor: str) -> Mix:
        """The mix of one tensor."""
        return self._own.get(tensor, self)

    def span(self, ingredient: int) -> tuple[float, float] | None:
        """The least and the largest coefficient of an ingredient among `tensors`; None where there are none."""
        found = [coefficients[ingredient] for _, coefficients in self.tensors]
        return (min(found), max(found)) if found else None

    @property
    def alone(self) -> bool:
        """Whether this is one ingredient, as it is."""
        return len(self.members) == 1 and not self.base
