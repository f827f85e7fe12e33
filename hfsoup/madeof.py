"""The records of what a soup was made of: pinned files, ingredients, adapters, alignment."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from hfsoup.records import ScoreRecord, SplitRecord, Strict, Text, score_record, split_record

if TYPE_CHECKING:
    from hfsoup.scores import Score
    from hfsoup.types import Family, Ingredient, Truncated


Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


Plain = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*$", max_length=200)]


class FileRecord(Strict):
    """A file and the sha256 of its bytes."""

    name: Plain
    size: int
    sha256: Sha256


class PlaceRecord(Strict):
    """A checkpoint: where it was, and its weight files."""

    id: Text
    revision: Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")] | None
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

    method: Text
    seed: int
    images: SplitRecord | None
    copies: list[Sha256]
    fitted: Sha256 | None


def adapter_record(adapter: Truncated | None) -> AdapterRecord | None:
    """The record of a truncation."""
    a = adapter
    return AdapterRecord(rank=a.rank, error=a.error, worst=a.worst, layer=a.layer) if a else None


def ingredient_record(
    ingredient: Ingredient, coefficient: float, order: tuple[int, ...] | None, score: Score | None
) -> IngredientRecord:
    """The record of an ingredient in a mix, with what an adapter lies on."""
    adapter = ingredient.adapter
    return IngredientRecord(
        **pinned(ingredient),
        coefficient=coefficient,
        order=list(order) if order else None,
        score=score_record(score),
        base=PlaceRecord(**pinned(adapter.base)) if adapter else None,
        merged="float64" if adapter else None,
    )


def pinned(ingredient: Ingredient) -> dict[str, Any]:
    """What pins an ingredient: its name, commit and files."""
    files = [FileRecord(name=w.name, size=w.size, sha256=w.sha256) for w in ingredient.files]
    return {"id": ingredient.id, "revision": ingredient.source.revision, "files": files}


def alignment_record(family: Family) -> AlignmentRecord | None:
    """The record of how ingredients came into one basis; None where they did not have to."""
    found = family.alignment
    if found is None:
        return None
    return AlignmentRecord(
        method=found.method,
        seed=found.seed,
        images=split_record(found.images) if found.images else None,
        copies=[w.sha256 for ingredient in family.ingredients[1:] for w in ingredient.weights],
        fitted=found.fitted.weights[0].sha256 if found.fitted else None,
    )
