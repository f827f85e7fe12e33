"""soup.json: everything that is needed to bake the same bytes again, and to see that they are the same."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError, field_validator, model_validator

from hfsoup.averaging.mix import Mix
from hfsoup.checkpoints.timm_config import list_libraries
from hfsoup.data.tasks import SINGLE_LABEL
from hfsoup.evaluation.scores import STORED, Precision
from hfsoup.hub.cards import MANIFEST
from hfsoup.hub.download import fetch_file
from hfsoup.hub.notices import notify_listener
from hfsoup.ingredients.pull import list_files
from hfsoup.merges import MERGES
from hfsoup.options.options import Options
from hfsoup.provenance.records import (
    AdapterRecord,
    AlignmentRecord,
    AttemptRecord,
    Commit,
    DecisionRecord,
    DistillationRecord,
    ImportanceRecord,
    IngredientRecord,
    PinnedRecord,
    RelativePath,
    ScoreRecord,
    Sha256,
    ShiftRecord,
    SplitRecord,
    Strict,
    TestRecord,
    Text,
    pin_files,
    record_adapter,
    record_alignment,
    record_attempts,
    record_comparison,
    record_distillation,
    record_importance,
    record_ingredient,
    record_score,
    record_shift,
    record_split,
    record_trace,
)
from hfsoup.provenance.reproduce import reproduce_config
from hfsoup.utils.errors import SoupError
from hfsoup.utils.registry import OWN
from hfsoup.utils.text import quoted, shorten_names
from hfsoup.utils.version import __version__

if TYPE_CHECKING:
    from hfsoup.checkpoints.types import Source
    from hfsoup.provenance.result import BakeResult

FILE_NAME = MANIFEST
FORMAT = 2
"""Since 2, --scale multiplies the mean of the task vectors."""
Arithmetic = Literal["float32", "tf32", "bf16", "fp16"]
SUMMED = ("task-arithmetic", "dare", "breadcrumbs")
"""Merges whose --scale multiplied their sum before."""
MAX_BYTES = 16 << 20
LIBRARIES = (
    "torch",
    "transformers",
    "huggingface_hub",
    "datasets",
    "evaluate",
    "accelerate",
    "safetensors",
    "numpy",
    "pillow",
)


class PrecisionRecord(Strict):
    """What the scores of the selection split were computed in, and all others."""

    selection: Arithmetic
    test: Arithmetic


class DatasetRecord(Strict):
    """The dataset that selected and reported; `backend` is the library that resized its images, with its version.

    `precision` is missing where models computed in the type that their weights are stored in, as they did before.

    `task` says what it was scored as, and `threshold` from which probability on a class counts as predicted, where that
    does not take the likeliest one.

    Coefficients were learned from the labelled images of `learning`, where they were; those are not among `selection`.
    `labels` is the rule by which the dataset's classes became the model's, and `mapping` the file of --labels.
    """

    id: Text
    config: Text | None
    revision: Commit | None
    metric: Text
    selection: SplitRecord
    test: SplitRecord
    backend: Text | None = None
    learning: SplitRecord | None = None
    labels: Text | None = None
    mapping: dict[Text, str | int] | None = None
    task: Text = SINGLE_LABEL.name
    threshold: float | None = None
    precision: PrecisionRecord | None = None

    def read_precision(self) -> Precision:
        """What scores were computed in."""
        found = self.precision
        return Precision(found.selection, found.test) if found else Precision(STORED, STORED)


class BatchNormRecord(Strict):
    """What each mode scored on the selection split, and the re-estimated statistics, if the soup has them.

    Those of a network that was trained are the ones that its training began with.

    `statistics` are base64 of little-endian float32, one per channel, by tensor.
    """

    modes: dict[str, ScoreRecord]
    calibration: SplitRecord
    statistics: dict[Text, str]

    @field_validator("statistics")
    @classmethod
    def _floats(cls, found: dict[str, str]) -> dict[str, str]:
        # Bad base64 is a ValueError, too.
        if any(len(b64decode(text, validate=True)) % 4 for text in found.values()):
            raise ValueError("expected whole float32 numbers")
        return found

    def arrays(self) -> dict[str, NDArray[np.float32]]:
        """The statistics as arrays."""
        return {name: np.frombuffer(b64decode(text), "<f4") for name, text in self.statistics.items()}


class Manifest(Strict):
    """The record of a soup. `files` are all others in its folder, with their sha256; `config` bakes it again.

    `format` says what the options mean; records without one are of format 1.

    `tensors` are those with coefficients of their own, in the order of the ingredients, whose `coefficient` is then of
    all others.
    """

    hfsoup: Text
    format: Annotated[int, Field(ge=1, le=FORMAT)] = 1
    recipe: Text
    merge: Text
    options: dict[str, str | int | float | bool | list[str] | None]
    patterns: list[Text]
    config: Annotated[str, Field(max_length=1 << 20)] | None = None
    ingredients: Annotated[list[IngredientRecord], Field(min_length=1)]
    base: PinnedRecord | None = None
    dataset: DatasetRecord | None
    batch_norm: BatchNormRecord | None
    alignment: AlignmentRecord | None = None
    importance: ImportanceRecord | None = None
    distillation: DistillationRecord | None = None
    trace: list[DecisionRecord]
    score: ScoreRecord | None
    test: TestRecord | None
    files: dict[RelativePath, Sha256]
    versions: dict[str, Text]
    adapter: AdapterRecord | None = None
    ensemble: TestRecord | None = None
    shifts: list[ShiftRecord] = Field(default_factory=list)
    attempts: list[AttemptRecord] = Field(default_factory=list)
    tensors: dict[Text, list[float]] = Field(default_factory=dict)
    numbers: dict[Text, float] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _whole(self) -> Manifest:
        if any(len(coefficients) != len(self.ingredients) for coefficients in self.tensors.values()):
            raise ValueError("expected a coefficient of each tensor for every ingredient")
        if not any(i.coefficient for i in self.ingredients) or not all(map(any, self.tensors.values())):
            raise ValueError("expected a coefficient other than 0 among those of a tensor")
        if self.alignment and len(self.alignment.copies) != len(self.ingredients) - 1:
            raise ValueError("expected an aligned copy of every ingredient but the first")
        return self

    def mix(self) -> Mix:
        """The mix that was baked."""
        tensors = tuple((name, tuple(coefficients)) for name, coefficients in self.tensors.items())
        base = self.base.coefficient if self.base else 0.0
        coefficients = tuple(ingredient.coefficient for ingredient in self.ingredients)
        merge = MERGES.find(self.merge)
        merged = len(coefficients) == 1 and merge is not None and merge.changes_single
        return Mix(coefficients, base, tensors, merged)

    def merge_options(self) -> Options:
        """The options by `Options.from_record`, with the --scale that does today what the recorded one did."""
        options = Options.from_record(self.options)
        if self.format > 1 or self.merge not in SUMMED or options.scale is None:
            return options
        return replace(options, scale=options.scale * len(self.mix().members))

    @property
    def metric(self) -> str:
        """The name of the metric."""
        return self.dataset.metric if self.dataset else str(self.options.get("metric") or "accuracy")

    @property
    def names(self) -> list[str]:
        """What texts call the ingredients, as for `Composition.names`."""
        return shorten_names([(ingredient.id, ingredient.revision) for ingredient in self.ingredients])

    @property
    def names_by_id(self) -> dict[str, str]:
        """The same by the ids of the ingredients."""
        return dict(zip((ingredient.id for ingredient in self.ingredients), self.names, strict=True))

    @property
    def copied(self) -> int | None:
        """The index of the ingredient that the soup is a copy of: out of several, with its very weights; else None."""
        mix, options = self.mix(), self.options
        if not mix.alone or len(self.ingredients) < 2:
            return None
        one = self.ingredients[mix.members[0]]
        changed = (self.distillation, self.adapter, self.alignment, self.batch_norm and self.batch_norm.statistics)
        converted = (one.order, one.base, options.get("dtype"), options.get("on_mismatch") == "backbone-only")
        return None if any(changed) or any(converted) else mix.members[0]

    @property
    def local_places(self) -> list[str]:
        """The folders of a disk that it names: ingredients, their bases, the base and the dataset without a commit."""
        bases = [self.base, *(ingredient.base for ingredient in self.ingredients)]
        named = [(one.id, one.revision) for one in (*self.ingredients, *bases, self.dataset) if one]
        return [name for name, revision in named if revision is None]

    def text(self) -> str:
        """The file's content."""
        found = self.model_dump(exclude=None if self.numbers else {"numbers"})
        return json.dumps(found, indent=2, ensure_ascii=False) + "\n"


def make_manifest(soup: BakeResult, files: dict[str, str]) -> Manifest:
    """The record of a soup.

    Args:
        soup: what was baked and measured.
        files: the other files of its folder and their sha256.
    """
    family = soup.family
    aligned = family.alignment
    originals, orders = (aligned.originals, aligned.orders) if aligned else (family.ingredients, family.orders)
    rows = zip(originals, soup.mix.coefficients, orders, soup.scores, strict=True)
    return Manifest(
        hfsoup=__version__,
        format=FORMAT,
        recipe=soup.options.chosen_recipe,
        merge=soup.options.merge,
        options=soup.options.to_record(),
        patterns=list(soup.patterns),
        config=reproduce_config(soup),
        ingredients=[record_ingredient(*row) for row in rows],
        base=PinnedRecord(**pin_files(family.base.ingredient), coefficient=soup.mix.base) if family.base else None,
        dataset=_record_dataset(soup),
        batch_norm=_record_batch_norm(soup),
        alignment=record_alignment(soup.family),
        importance=record_importance(soup.family.importance),
        distillation=record_distillation(soup.composition.distilled),
        trace=record_trace(soup.trace, soup.family),
        score=record_score(soup.selection),
        test=record_comparison(soup.comparison),
        files=files,
        versions={name: version(name) for name in (*LIBRARIES, *list_libraries(soup.family.config))}
        | _plugin_versions(soup),
        adapter=record_adapter(soup.composition.adapter),
        ensemble=record_comparison(soup.evaluation.ensemble),
        shifts=[record_shift(shift) for shift in soup.evaluation.shifts],
        attempts=record_attempts(soup.search.attempts, soup.mix),
        tensors={name: list(coefficients) for name, coefficients in soup.mix.tensors},
        numbers=dict(soup.evaluation.numbers),
    )


def _plugin_versions(soup: BakeResult) -> dict[str, str]:
    """The packages that recipe, merge and the like come from, where those are not hfsoup, with their versions."""
    origins = {entry.origin for entry in soup.entries} - {OWN}
    return {name: found for name, _, found in (origin.partition(" ") for origin in sorted(origins))}


def read_manifest(folder: Path, *, where: str) -> Manifest:
    """The record in a folder, which may come from anyone.

    Raises:
        SoupError: there is none, or it is not one that hfsoup wrote.
    """
    path = folder / FILE_NAME
    if not path.is_file():
        raise SoupError(
            f"expected {FILE_NAME}, found none", where=where, hint="a folder or repository that hfsoup baked"
        )
    require_size(FILE_NAME, path.stat().st_size, MAX_BYTES, where=where)
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))[:200]
        raise SoupError(f"{FILE_NAME} is damaged: {place}: {first['msg']}", where=where) from error


def fetch_manifest(source: Source, *, where: str) -> Manifest:
    """The record in a repository, which is pulled alone.

    Raises:
        SoupError: there is none, or it is not one that hfsoup wrote.
    """
    listed = list_files(source, source.subfolder).get(FILE_NAME)
    if listed is None:
        raise SoupError(
            f"expected {FILE_NAME}, found none", where=where, hint="a folder or repository that hfsoup baked"
        )
    require_size(FILE_NAME, listed.size, MAX_BYTES, where=where)
    return read_manifest(fetch_file(source.repo, listed, source.revision or "", kind="model").parent, where=where)


def require_size(name: str, size: int, most: int, *, where: str) -> None:
    """Refuse a file that is too large to be what hfsoup wrote.

    Raises:
        SoupError: it is larger than `most` bytes.
    """
    if size > most:
        raise SoupError(f"{name} is over the limit of {most} bytes", where=where)


def is_same_bake(folder: Path, patterns: tuple[str, ...], options: Options) -> bool:
    """Whether a folder holds a soup of the same patterns and options: what a stopped bake left is its own."""
    found = find_manifest(folder)
    return found is not None and found.patterns == list(patterns) and found.options == options.to_record()


def _record_dataset(soup: BakeResult) -> DatasetRecord | None:
    images, precision = soup.images, soup.evaluation.precision
    if images is None:
        return None
    return DatasetRecord(
        id=images.dataset,
        config=images.config,
        revision=images.revision,
        metric=soup.metric,
        selection=record_split(images.selection),
        test=record_split(images.test),
        backend=images.backend,
        learning=record_split(images.learning) if images.learning else None,
        labels=images.test.labelled_by or None,
        mapping=dict(images.mapping) if images.mapping is not None else None,
        task=soup.task.name,
        threshold=soup.task.threshold,
        precision=PrecisionRecord.model_validate(asdict(precision)) if precision else None,
    )


def _record_batch_norm(soup: BakeResult) -> BatchNormRecord | None:
    if soup.images is None or soup.images.calibration is None:
        return None
    encoded = {
        name: b64encode(v.astype("<f4").tobytes()).decode() for name, v in sorted(soup.composition.statistics.items())
    }
    modes = {mode: record_score(score) for mode, score in soup.search.modes.items()}
    return BatchNormRecord(modes=modes, calibration=record_split(soup.images.calibration), statistics=encoded)


def find_manifest(folder: Path) -> Manifest | None:
    """The record in a folder; None where there is none, or none that hfsoup wrote."""
    try:
        return read_manifest(folder, where=str(folder))
    except SoupError:
        return None


def warn_of_copy(record: Manifest) -> None:
    """Say so where a soup is one of its ingredients, which the Hub would then have twice."""
    if (copied := record.copied) is not None:
        notify_listener(f"this is no soup but a copy of {record.ingredients[copied].id}: the weights are the same")


def warn_of_local_paths(record: Manifest) -> None:
    """Say so where others will read from soup.json how folders of this disk are called."""
    paths = [name for name in record.local_places if Path(name).name != name]
    if paths:
        what = f"{FILE_NAME} shows others the paths of this machine, such as {quoted(paths[0])}"
        notify_listener(f"{what}; to avoid that, bake from inside that folder, by the last name alone")
