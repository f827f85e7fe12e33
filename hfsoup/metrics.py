"""Metrics as `evaluate.Metric`s of our own, so that nothing is fetched and no remote code runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import datasets
import evaluate
import numpy as np
from numpy.typing import NDArray

from hfsoup.errors import SoupError, UsageError

Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Metric:
    """How a split is scored.

    `value` takes predictions, images × `top` class indices with the likeliest first, and one true class per image; it
    goes through `evaluate`. `plain` is the same number without that detour, for the many draws of a bootstrap, or None.
    `counts` says that the metric is a count of right answers: an image is right if its class is among the predictions.
    """

    name: str
    top: int
    counts: bool
    value: Callable[[Labels, Labels], float]
    plain: Callable[[Labels, Labels], float] | None


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
        return float(hits(predictions, references).mean())


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


def hits(predictions: Labels, references: Labels) -> NDArray[np.bool_]:
    """Whether each image's class is among its predictions."""
    right: NDArray[np.bool_] = (predictions == references[:, None]).any(axis=1)
    return right


def metric(name: str, *, trust_remote: bool = False) -> Metric:
    """The metric called `name`.

    Args:
        name: one of ours, or any name that `evaluate.load` knows.
        trust_remote: allow `evaluate.load`, which fetches a metric's script and runs it.
    """
    if name in OURS:
        kind, top, counts = OURS[name]
        local = kind(keep_in_memory=True)

        def ours(predictions: Labels, references: Labels) -> float:
            return float(local.compute(predictions=predictions, references=references)[kind.key])

        return Metric(name, top, counts, ours, kind.of)
    if not trust_remote:
        known = ", ".join(OURS)
        raise UsageError(
            f"{name!r} is not one of hfsoup's own metrics ({known}); any other one runs a script that is fetched",
            hint=f"--metric {name} --trust-remote-metric, if you trust it",
        )
    return Metric(name, 1, False, _remote(name), None)


def _remote(name: str) -> Callable[[Labels, Labels], float]:
    try:
        loaded = evaluate.load(name)
    except (FileNotFoundError, ImportError, ValueError, ConnectionError) as error:
        raise UsageError(f"evaluate cannot load the metric {name!r}: {error}") from error

    def value(predictions: Labels, references: Labels) -> float:
        result = loaded.compute(predictions=predictions[:, 0], references=references)
        numbers = [v for v in (result or {}).values() if isinstance(v, (int, float))]
        if len(numbers) != 1:
            raise SoupError(f"expected one number from the metric {name}, found {sorted(result or {})}")
        return float(numbers[0])

    return value
