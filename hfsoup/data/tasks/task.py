"""What a classifier's outputs mean: how labels are read, logits become predictions, and predictions a score."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from hfsoup.checkpoints.auto_class import IMAGE_CLASSIFICATION, AutoClass
from hfsoup.data.class_names import ModelClasses
from hfsoup.data.labels import FileLabels, MatchedLabels
from hfsoup.data.metrics import METRICS, PROBABILITIES, Rows
from hfsoup.data.metrics import Labels as Labels
from hfsoup.data.metrics import Predictions as Predictions

if TYPE_CHECKING:
    import torch

BINS = 15
OnRows = Callable[[Predictions, Labels], Callable[[Rows], float]]
Predicted = int | tuple[int, ...]
"""The classes that are predicted for one image: one, or a tuple."""


@dataclass(frozen=True)
class Metric:
    """How a split is scored.

    `value` takes what the task predicts, the first axis over images, and the labels. `on_rows` takes the same and gives
    the function that has this number of any of the images, an image as often as its row is given, for the many draws of
    a bootstrap; None of a metric that is too slow to be drawn.
    `top` is how many of the likeliest classes the task is to name of every image, 0 for probabilities. `counts` says
    that the metric is the share of images that `Task.mark_correct` marks. `source` is the Space and the commit that a
    Hub metric is from.
    """

    name: str
    task: Task
    top: int
    counts: bool
    value: Callable[[Predictions, Labels], float]
    on_rows: OnRows | None
    source: str | None = None


class Task(ABC):
    """One meaning of a classifier's outputs; every stage that depends on it asks this object.

    Attributes:
        auto_class: the Auto class of transformers that loads its models, and the Hub's name of the task.
        name: its name in records.
        problem_type: its name in a config.json of transformers.
        metrics: the names of its own metrics, the default first; all of them are shares in [0, 1].
        one_hot: whether a dataset may have a column of 0 and 1 for every class instead of one of labels.
        scripts: whether metrics of the Hub may score it.
        strata: by what splits are stratified, in words.
        rule: how predictions are made of outputs, for screen and card; may be empty.
        threshold: the least probability of a class that is predicted; None if the likeliest one is.
        correct_text: a sentence for reports about an image that is predicted right.
        tags: the tags of its models on the Hub.
    """

    auto_class: ClassVar[AutoClass] = IMAGE_CLASSIFICATION
    name: ClassVar[str]
    problem_type: ClassVar[str]
    metrics: ClassVar[tuple[str, ...]]
    one_hot: ClassVar[bool] = False
    scripts: ClassVar[bool] = False
    strata: ClassVar[str]
    rule: ClassVar[str] = ""
    threshold: ClassVar[float | None] = None
    correct_text: ClassVar[str]
    tags: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def label_columns(self, features: Mapping[str, Any]) -> list[str]:
        """The columns whose features are labels of this task."""

    @abstractmethod
    def class_names(self, feature: Any) -> Sequence[str] | None:
        """The class names of a column of labels, None if its feature has none."""

    @abstractmethod
    def match_labels(self, labels: Sequence[FileLabels], model: ModelClasses, *, where: str) -> MatchedLabels:
        """Labels in the order of the model's classes; arguments and errors as for `hfsoup.data.labels.match_labels`."""

    @abstractmethod
    def is_unlabelled(self, values: Sequence[Any]) -> bool:
        """Whether no row of a split has a label."""

    def load_metric(self, name: str) -> Metric:
        """The registered metric of that name, as it is computed of what this task predicts."""
        entry = METRICS.get(name)
        whole, sign = entry.needs == PROBABILITIES, 1 if entry.larger_is_better else -1

        def take(predictions: Predictions) -> Predictions:
            return predictions if whole else self.take_predictions(predictions, entry.top)

        def compute(predictions: Predictions, labels: Labels) -> float:
            return sign * float(entry.function(take(predictions), labels))

        def value(predictions: Predictions, labels: Labels) -> float:
            return compute(predictions, labels) if whole else compute(*self.check_predictions(predictions, labels))

        def draw(predictions: Predictions, labels: Labels) -> Callable[[Rows], float]:
            if entry.on_rows is None:
                return lambda rows: compute(predictions[rows], labels[rows])
            drawn = entry.on_rows(take(predictions), labels)
            return lambda rows: sign * drawn(rows)

        top = 0 if whole or self.threshold is not None else entry.top
        return Metric(name, self, top, entry.counts, value, draw)

    @abstractmethod
    def take_predictions(self, predictions: Predictions, top: int) -> Predictions:
        """The predictions for a metric that needs no probabilities, with the `top` likeliest classes of an image."""

    def check_predictions(self, predictions: Any, labels: Any) -> tuple[Predictions, Labels]:
        """Both, if a metric of them is defined."""
        return predictions, labels

    @abstractmethod
    def probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        """The scores of `pipeline()`, images × classes."""

    @abstractmethod
    def outputs(self, logits: torch.Tensor, labels: Labels, top: int) -> Mapping[str, torch.Tensor]:
        """What is stored of a batch, the first axis of everything over images.

        Returns:
            `predictions`, what a metric is computed of; `confidence`, the probability of the likeliest class; and
            `true_class_probability`, that of the true class, if the task has a metric that counts.
        """

    @abstractmethod
    def mark_correct(self, predictions: Predictions, labels: Labels) -> NDArray[np.bool_]:
        """Whether each image is predicted right."""

    @abstractmethod
    def list_predicted(self, predictions: Predictions) -> tuple[Predicted, ...]:
        """The predicted classes of each image, as class indices."""

    @abstractmethod
    def list_true(self, labels: Labels) -> list[Any]:
        """The true classes of each image, as class indices."""

    @abstractmethod
    def confidences(
        self, predictions: Predictions, confidence: NDArray[np.float32], labels: Labels
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """The probabilities whose calibration is measured, and whether what each is of is true."""

    @abstractmethod
    def loss(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The loss that transformers trains such a model with."""

    @abstractmethod
    def divergence(self, logits: torch.Tensor, target: torch.Tensor, temperature: float) -> torch.Tensor:
        """The divergence of the target's softened probabilities from those of `logits`, per image."""

    @abstractmethod
    def rooted_fisher(self, logits: torch.Tensor, signs: torch.Tensor) -> torch.Tensor:
        """The root of the covariance of ∂ log p(y) / ∂ logits for y ~ p, times random signs."""

    @abstractmethod
    def describe_classes(self, names: Sequence[str]) -> str:
        """The classes as a card lists them, without a full stop."""


@dataclass(frozen=True)
class Calibration:
    """Confidences in 15 equal bins from 0 to 1: how many, how many of them right, and their mean (0 of none)."""

    count: tuple[int, ...]
    right: tuple[int, ...]
    confidence: tuple[float, ...]


def calibration_error(confidence: NDArray[np.float32], right: NDArray[np.bool_]) -> float:
    """The expected calibration error: Σ nᵦ/n · |accuracy − mean confidence| over 15 equal bins of the confidence.

    Args:
        confidence: the probability that the model gives its likeliest class, one per image.
        right: whether that class is the true one.
    """
    gaps = np.bincount(_find_bins(confidence), weights=right - confidence.astype(np.float64), minlength=BINS)
    return float(np.abs(gaps).sum() / len(right))


def measure_calibration(confidence: NDArray[np.float32], right: NDArray[np.bool_]) -> Calibration:
    """The bins of `calibration_error`, for a reliability diagram; arguments as there."""
    bins = _find_bins(confidence)
    count, correct = (np.bincount(each, minlength=BINS) for each in (bins, bins[right]))
    total = np.bincount(bins, weights=confidence.astype(np.float64), minlength=BINS)
    return Calibration(*(tuple(each.tolist()) for each in (count, correct, total / np.maximum(count, 1))))


def _find_bins(confidence: NDArray[np.float32]) -> NDArray[np.int64]:
    return np.digitize(confidence, np.linspace(0, 1, BINS + 1)[1:-1], right=True)
