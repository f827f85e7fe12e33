"""Metrics of class indices as `evaluate.Metric`s of our own, so that nothing is fetched and no remote code runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import datasets
import evaluate
import numpy as np

from hfsoup.data.tasks.task import Labels
from hfsoup.utils.errors import SoupError


class _Local(evaluate.Metric):  # type: ignore[misc]
    """A metric whose code is this file; `predictions` are lists of class indices, the likeliest first."""

    key = ""

    def _info(self) -> evaluate.MetricInfo:
        one = datasets.Value("int64")
        features = datasets.Features({"predictions": datasets.Sequence(one), "references": one})
        return evaluate.MetricInfo(description=self.__doc__ or "", citation="", features=features)

    def _compute(self, *, predictions: Any, references: Any) -> dict[str, float]:
        return {self.key: self.of(np.asarray(predictions), np.asarray(references))}

    @staticmethod
    def of(predictions: Labels, references: Labels) -> float:
        """The metric's number."""
        raise NotImplementedError


class Accuracy(_Local):
    """The share of images whose likeliest class is the true one."""

    key = "accuracy"

    @staticmethod
    def of(predictions: Labels, references: Labels) -> float:
        """Right answers over images."""
        return float((predictions == references[:, None]).any(axis=1).mean())


class TopFive(Accuracy):
    """The share of images whose true class is among the five likeliest."""

    key = "top5_accuracy"


class MacroF1(_Local):
    """The unweighted mean over classes of the harmonic mean of precision and recall."""

    key = "f1_macro"

    @staticmethod
    def of(predictions: Labels, references: Labels) -> float:
        """2·tp / (2·tp + fp + fn) of each class that occurs or is guessed, averaged."""
        guesses, size = predictions[:, 0], 1 + max(predictions.max(), references.max())
        right = np.bincount(references[guesses == references], minlength=size)
        named = np.bincount(guesses, minlength=size) + np.bincount(references, minlength=size)
        return float(np.mean(2 * right[named > 0] / named[named > 0]))


class BalancedAccuracy(_Local):
    """The unweighted mean over classes of the share of their images that are right."""

    key = "balanced_accuracy"

    @staticmethod
    def of(predictions: Labels, references: Labels) -> float:
        """Recall of each class that occurs, averaged."""
        right = predictions[:, 0] == references
        return float(np.mean([right[references == c].mean() for c in np.unique(references)]))


OURS: dict[str, tuple[type[_Local], int, bool]] = {
    "accuracy": (Accuracy, 1, True),
    "top5_accuracy": (TopFive, 5, True),
    "f1_macro": (MacroF1, 1, False),
    "balanced_accuracy": (BalancedAccuracy, 1, False),
}


def check_predictions(predictions: Any, references: Any) -> tuple[Labels, Labels]:
    """Predictions and references, if a metric of them means anything.

    Args:
        predictions: whole numbers from 0 on, images × classes named.
        references: whole numbers from 0 on, one per image.

    Raises:
        SoupError: there are none, they are floats, missing or negative, or their counts differ.
    """
    found = []
    for name, given, axes in (("predictions", predictions, 2), ("references", references, 1)):
        array = np.asarray(given)
        if array.ndim != axes or not array.size:
            raise SoupError(f"expected {name} with {axes} axes, found the shape {array.shape}")
        if array.dtype.kind not in "iu":
            raise SoupError(f"expected whole numbers as {name}, found {array.dtype}")
        if array.min() < 0:
            raise SoupError(f"expected classes from 0 on as {name}, found {array.min()}")
        found.append(array.astype(np.int64))
    if len(found[0]) != len(found[1]):
        raise SoupError(f"expected one prediction a reference, found {len(found[0])} for {len(found[1])}")
    return found[0], found[1]


def local_metric(kind: type[_Local]) -> Callable[[Labels, Labels], float]:
    """One of hfsoup's own metrics of class indices, by way of `evaluate`."""
    local = kind(keep_in_memory=True)

    def value(predictions: Labels, references: Labels) -> float:
        guesses, truth = check_predictions(predictions, references)
        return float(local.compute(predictions=guesses, references=truth)[kind.key])

    return value
