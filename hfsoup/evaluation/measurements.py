"""Predictions for the test split, image by image, and what is measured after the choice, only to be shown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hfsoup.evaluation.scores import Bounds, Comparison, Score, Start

if TYPE_CHECKING:
    from hfsoup.data.dataset_split import Split
    from hfsoup.data.tasks.task import Calibration, Predicted

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

    `calibration` is how often each is right at which confidence; `starts` are the scores of the mixes that the search
    began at; `points` and `line` are there where figures were requested.
    """

    soup: tuple[Predicted, ...]
    best: tuple[Predicted, ...]
    calibration: tuple[Calibration, Calibration]
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


@dataclass(frozen=True)
class Forecast:
    """How much ingredients differ, measured where they are ranked.

    `agreement` is the share of images on which two of them predict the same, in the mean over pairs. `gain` is the
    score of their ensemble, the mean of their logits, less that of the best one, with its `interval` (95 %); None where
    the logits are too large. `cosine` is the mean between their task vectors, None without a base; `weights_apart`
    says that their weights are too far apart to be averaged.
    """

    agreement: float
    gain: float | None = None
    interval: Bounds | None = None
    cosine: float | None = None
    weights_apart: bool = False

    @property
    def numbers(self) -> dict[str, float]:
        """The numbers by the names under which they are recorded."""
        low, high = self.interval or (None, None)
        found = {
            "agreement": self.agreement,
            "ensemble_gain": self.gain,
            "ensemble_gain_low": low,
            "ensemble_gain_high": high,
            "task_vector_cosine": self.cosine,
            "weights_apart": float(self.weights_apart),
        }
        return {name: value for name, value in found.items() if value is not None}
