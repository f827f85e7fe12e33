"""Predictions for the test split, image by image, and what is measured after the choice, only to be shown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hfsoup.evaluation.scores import Comparison, Score, Start

if TYPE_CHECKING:
    from hfsoup.data.dataset_split import Split
    from hfsoup.data.tasks.task import Predicted

INGREDIENT, CANDIDATE, UNIFORM = "ingredient", "candidate", "uniform"


@dataclass(frozen=True)
class Point:
    """A mix with its score on both splits.

    `kind` is `ingredient`, `candidate` or `uniform`; `number` is the index of the ingredient or the step of the search
    that tried the candidate, 0 for the mean of all; `kept` says whether the search accepted a candidate.
    """

    kind: str
    number: int
    selection: Score
    test: Score
    kept: bool = False


@dataclass(frozen=True)
class LinePoint:
    """A mix of two ingredients, `share` of the second, with its score on both splits."""

    share: float
    selection: Score
    test: Score


@dataclass(frozen=True)
class Line:
    """The way from the ingredient `first` to the ingredient `second`, both ends included."""

    first: int
    second: int
    knots: tuple[LinePoint, ...]


@dataclass(frozen=True)
class Evidence:
    """The predictions of soup and best ingredient for each test image, and what was measured for figures.

    `starts` are the scores of the mixes that the search began at; `points` and `line` are there where figures were
    requested.
    """

    soup: tuple[Predicted, ...]
    best: tuple[Predicted, ...]
    starts: tuple[Start, ...] = ()
    points: tuple[Point, ...] = ()
    line: Line | None = None


@dataclass(frozen=True)
class Shift:
    """Soup against best ingredient on other images than the test split's.

    `dataset` and `revision` are where they come from; the dataset is None for a corruption of the test split. `notes`
    are what is to be known of them.
    """

    name: str
    dataset: str | None
    revision: str | None
    split: Split
    comparison: Comparison
    notes: tuple[str, ...] = ()
