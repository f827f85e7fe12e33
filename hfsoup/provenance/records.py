"""What soup.json says of scores and splits, as strict models and how they are made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from hfsoup.evaluation.scores import Comparison, Intervals, Score

if TYPE_CHECKING:
    from hfsoup.averaging.mix import Mix
    from hfsoup.checkpoints.types import Ingredient, LowRankAdapter
    from hfsoup.data.dataset_split import Split
    from hfsoup.evaluation.measurements import Shift
    from hfsoup.evaluation.scores import Attempt, Decision
    from hfsoup.ingredients.family import Family, Importance
    from hfsoup.networks.distillation.result import Distillation

Commit = Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]
"""A commit, never a branch, which its owner can move."""
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Blake3 = Sha256
RelativePath = Annotated[
    str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*$", max_length=200)
]


Text = Annotated[str, Field(max_length=4096)]
Pair = Annotated[list[float], Field(min_length=2, max_length=2)]
"""A lower and an upper bound."""


class Strict(BaseModel):
    """A record of exactly the named fields in exactly their types."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class ScoreRecord(Strict):
    """A score; `correct` where the metric counts right answers."""

    value: float
    correct: int | None
    total: int

    def to_score(self) -> Score:
        """The score that was recorded."""
        return Score(self.value, self.total, self.correct)


class SplitRecord(Strict):
    """A split, how it was cut, and the fingerprint of what it holds."""

    name: Text
    rule: Text
    images: int
    fingerprint: Text


class ImportanceRecord(Strict):
    """What was estimated of the ingredients for a merge, on which images, and the sha256 of each one's file."""

    kind: Text
    seed: int
    images: SplitRecord
    files: list[Sha256]


class AttemptRecord(Strict):
    """A mix that was measured as a whole: its selection score and weights, and whether it is the soup.

    `base` is the base's share beside the weights.
    """

    name: Text
    score: float
    weights: list[float]
    kept: bool
    base: float = 0.0


class DecisionRecord(Strict):
    """One step of the search; where `at_most`, evaluation was stopped early and `score` is the most it could reach.

    A step along the line from the base has the `alpha` that it leads to, and the base as its `ingredient`.
    """

    step: int
    action: Text
    ingredient: Text
    score: float
    at_most: bool = False
    accepted: bool
    images: int
    walk: Text = ""
    alpha: float | None = None


class AdjustedRecord(Strict):
    """Intervals of soup, best ingredient and difference, each of which covers `level`, in records of before 0.1.0."""

    level: float
    soup: Pair
    best: Pair
    difference: Pair


class TestRecord(Strict):
    """Soup against best ingredient on the test split; every `ci95` covers 95 %.

    `best_bn` is the mode of the best ingredient's batch-norm statistics. Where a recipe runs several, `choices` and
    `adjusted` once widened the intervals; they are read and not used.
    """

    soup: ScoreRecord
    best: ScoreRecord
    ci95: Pair | None
    best_ci95: Pair | None
    difference_ci95: Pair | None
    mcnemar_p: float | None
    verdict: Text
    choices: Annotated[int, Field(ge=1, le=1 << 32)] = 1
    adjusted: AdjustedRecord | None = None
    ece: float | None = None
    best_ece: float | None = None
    best_bn: Text = "average"

    def to_comparison(self) -> Comparison:
        """The comparison that was recorded."""
        ci95 = _to_intervals(self.ci95, self.best_ci95, self.difference_ci95)
        scores = (self.soup.to_score(), replace(self.best.to_score(), bn=self.best_bn))
        return Comparison(*scores, ci95, self.mcnemar_p, self.ece, self.best_ece)


def _to_intervals(soup: Pair | None, best: Pair | None, difference: Pair | None) -> Intervals | None:
    if soup is None or best is None or difference is None:
        return None
    return Intervals((soup[0], soup[1]), (best[0], best[1]), (difference[0], difference[1]))


class ShiftRecord(Strict):
    """Soup against best ingredient on other images: those of a dataset, or the test split's under a corruption."""

    name: Text
    dataset: Text | None
    revision: Commit | None
    images: SplitRecord
    test: TestRecord


class DistillationRecord(Strict):
    """How the network was trained that the soup is, and the sha256 of what came of it. It is no average.

    `members` are the places of the ingredients whose mean logits it was to match; `start` and `base` are the
    coefficients of the mix that it began with, which scored `before` on the selection split; `images` were looked at
    without labels.
    """

    members: Annotated[list[int], Field(min_length=2)]
    start: list[float]
    base: float
    before: ScoreRecord
    images: SplitRecord
    epochs: Annotated[int, Field(ge=1)]
    seed: int
    weights: Sha256


def record_distillation(found: Distillation | None) -> DistillationRecord | None:
    """The record of a training, None of none."""
    if found is None:
        return None
    return DistillationRecord(
        members=list(found.members),
        start=list(found.start.coefficients),
        base=found.start.base,
        before=record_score(found.before),
        images=record_split(found.images),
        epochs=found.epochs,
        seed=found.seed,
        weights=found.ingredient.weights[0].sha256,
    )


def record_split(split: Split) -> SplitRecord:
    """The record of a split."""
    return SplitRecord(name=split.name, rule=split.rule, images=len(split), fingerprint=split.fingerprint)


def record_importance(found: Importance | None) -> ImportanceRecord | None:
    """The record of what was estimated, None of nothing."""
    if found is None:
        return None
    files = [file.sha256 for file in found.files]
    return ImportanceRecord(kind=found.kind, seed=found.seed, images=record_split(found.images), files=files)


def record_score(score: Score | None) -> Any:
    """The record of a score, None of none."""
    return score and ScoreRecord(value=score.value, correct=score.correct, total=score.total)


def record_comparison(c: Comparison | None) -> Any:
    """The record of a comparison, None of none."""
    if c is None:
        return None
    found = c.ci95
    return TestRecord(
        soup=record_score(c.soup),
        best=record_score(c.best),
        ci95=list(found.soup) if found else None,
        best_ci95=list(found.best) if found else None,
        difference_ci95=list(found.difference) if found else None,
        mcnemar_p=c.p_value,
        verdict=c.verdict,
        ece=c.ece,
        best_ece=c.best_ece,
        best_bn=c.best.bn,
    )


def record_shift(shift: Shift) -> ShiftRecord:
    """The record of a shift."""
    return ShiftRecord(
        name=shift.name,
        dataset=shift.dataset,
        revision=shift.revision,
        images=record_split(shift.split),
        test=record_comparison(shift.comparison),
    )


def record_trace(trace: Sequence[Decision], family: Family) -> list[DecisionRecord]:
    """The records of the steps of a search."""
    base = family.base.ingredient.id if family.base else ""
    return [
        DecisionRecord(
            step=d.step,
            action=d.action,
            ingredient=base if d.ingredient is None else family.ingredients[d.ingredient].id,
            score=d.score.value,
            at_most=d.score.at_most,
            accepted=d.accepted,
            images=d.images,
            walk=d.walk,
            alpha=d.alpha,
        )
        for d in trace
    ]


def record_attempts(attempts: Sequence[Attempt], soup: Mix) -> list[AttemptRecord]:
    """The records of mixes that were measured as a whole, of which the soup may be one."""
    return [
        AttemptRecord(
            name=a.name, score=a.score.value, weights=list(a.mix.coefficients), kept=a.mix == soup, base=a.mix.base
        )
        for a in attempts
    ]


class FileRecord(Strict):
    """A file and the hashes of its bytes: BLAKE3, and sha256 of what the Hub lists and of small files.

    Records of before have sha256 alone.
    """

    name: RelativePath
    size: int
    sha256: Sha256 | None
    blake3: Blake3 | None = None

    @model_validator(mode="after")
    def _hashed(self) -> FileRecord:
        if self.sha256 is None and self.blake3 is None:
            raise ValueError("expected a hash")
        return self


class PlaceRecord(Strict):
    """A checkpoint: where it was, and its weight files."""

    id: Text
    revision: Commit | None
    files: list[FileRecord]


class PinnedRecord(PlaceRecord):
    """A checkpoint with its coefficient. The base's is its share beside the merge."""

    coefficient: float


class IngredientRecord(PinnedRecord):
    """An ingredient, with the order of its classes, its own score, and what it was put on if it is an adapter.

    `merged` is the type that base and adapter were added up in; none is recorded where that was the base's.
    """

    order: list[int] | None
    score: ScoreRecord | None
    base: PlaceRecord | None = None
    merged: Text | None = None


class AdapterRecord(Strict):
    """How far a soup that is an adapter is from the average, as relative Frobenius errors."""

    rank: int
    error: float
    worst: float
    layer: Text


class AlignmentRecord(Strict):
    """How ingredients came into the first one's basis, and the sha256 of what came of it.

    `images` were looked at without labels; `copies` are those of the aligned ingredients, the first one left out, and
    `fitted` is that of the network that was fitted to all, which is no average.
    """

    method: Annotated[str, Field(pattern="^(weights|activations)$")]
    seed: int
    images: SplitRecord | None
    copies: list[Sha256]
    fitted: Sha256 | None


def record_adapter(adapter: LowRankAdapter | None) -> AdapterRecord | None:
    """The record of a truncation."""
    a = adapter
    return AdapterRecord(rank=a.rank, error=a.error, worst=a.worst, layer=a.layer) if a else None


def record_ingredient(
    ingredient: Ingredient, coefficient: float, order: tuple[int, ...] | None, score: Score | None
) -> IngredientRecord:
    """The record of an ingredient in a mix, with what an adapter lies on."""
    adapter = ingredient.adapter
    return IngredientRecord(
        **pin_files(ingredient),
        coefficient=coefficient,
        order=list(order) if order else None,
        score=record_score(score),
        base=PlaceRecord(**pin_files(adapter.base)) if adapter else None,
        merged="float64" if adapter else None,
    )


def pin_files(ingredient: Ingredient) -> dict[str, Any]:
    """What pins an ingredient: its name, commit and files."""
    files = [FileRecord(name=w.name, size=w.size, sha256=w.known_sha256, blake3=w.blake3) for w in ingredient.files]
    return {"id": ingredient.id, "revision": ingredient.source.revision, "files": files}


def record_alignment(family: Family) -> AlignmentRecord | None:
    """The record of how ingredients came into one basis; None where they did not have to."""
    found = family.alignment
    if found is None:
        return None
    return AlignmentRecord(
        method=found.method,
        seed=found.seed,
        images=record_split(found.images) if found.images else None,
        copies=[w.sha256 for ingredient in family.ingredients[1:] for w in ingredient.weights],
        fitted=found.fitted.weights[0].sha256 if found.fitted else None,
    )
