"""Metrics as `evaluate.Metric`s of our own, so that nothing is fetched and no remote code runs."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import datasets
import evaluate
import numpy as np
from numpy.typing import NDArray

from hfsoup.errors import SoupError, UsageError
from hfsoup.fetching import fetch
from hfsoup.hub import answers, api
from hfsoup.names import flat, shown
from hfsoup.types import RemoteFile

Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Metric:
    """How a split is scored.

    `value` takes predictions, images × `top` class indices with the likeliest first, and one true class per image; it
    goes through `evaluate`. `plain` is the same number without that detour, for the many draws of a bootstrap, or None.
    `counts` says that the metric is a count of right answers: an image is right if its class is among the predictions.
    `source` is the Space and the commit that a metric of the Hub came from.
    """

    name: str
    top: int
    counts: bool
    value: Callable[[Labels, Labels], float]
    plain: Callable[[Labels, Labels], float] | None
    source: str | None = None


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


def checked(predictions: Any, references: Any) -> tuple[Labels, Labels]:
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


def metric(name: str, *, trust_remote: bool = False) -> Metric:
    """The metric called `name`.

    Args:
        name: one of ours; or that of a Space on the Hub with a script of evaluate's, ORG/NAME or only NAME for
            evaluate's own. A script on this disk is never run.
        trust_remote: allow the latter, whose script is fetched and run.
    """
    if name in OURS:
        kind, top, counts = OURS[name]
        local = kind(keep_in_memory=True)

        def ours(predictions: Labels, references: Labels) -> float:
            guesses, truth = checked(predictions, references)
            return float(local.compute(predictions=guesses, references=truth)[kind.key])

        return Metric(name, top, counts, ours, kind.of)
    known = ", ".join(OURS)
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]{0,95}(/[A-Za-z0-9][\w.-]{0,95})?", name) or name.endswith(".py"):
        raise UsageError(f"expected the name of a metric, found {shown(name)}; hfsoup's own are {known}")
    if not trust_remote:
        if near := [ours for ours in OURS if ours.startswith(name)] or get_close_matches(name, OURS, 1, 0.6):
            raise UsageError(f"there is no metric {name!r}; hfsoup's own are {known}", hint=f"--metric {near[0]}")
        raise UsageError(
            f"{name!r} is not one of hfsoup's own metrics ({known}); any other one runs a script that is fetched",
            hint=f"--metric {name} --trust-remote-metric, if you trust it",
        )
    return _remote(name)


def _remote(name: str) -> Metric:
    """A metric of the Hub, from one commit whose every file is compared with its listing."""
    space = name if "/" in name else f"evaluate-metric/{name}"
    with answers(space):
        info = api().space_info(space, files_metadata=True)
    files = [
        RemoteFile(s.rfilename, s.size or 0, s.lfs.sha256 if s.lfs else None, s.blob_id or "")
        for s in info.siblings or ()
    ]
    script = f"{space.split('/')[1]}.py"
    if info.sha is None or script not in {file.name for file in files}:
        raise UsageError(f"expected a Space with {script}, found none", where=space)
    paths = {file.name: fetch(space, file, info.sha, kind="space") for file in files if file.name.endswith(".py")}
    return Metric(name, 1, False, _compute(name, paths[script]), None, f"{space}@{info.sha}")


def _compute(name: str, script: Path) -> Callable[[Labels, Labels], float]:
    try:
        loaded = evaluate.load(str(script), keep_in_memory=True)
    except (OSError, ImportError, ValueError, TypeError, AttributeError, SyntaxError) as error:
        raise UsageError(f"evaluate cannot load the metric {name!r}: {flat(error, 300)}") from error

    def value(predictions: Labels, references: Labels) -> float:
        guesses, truth = checked(predictions, references)
        result = loaded.compute(predictions=guesses[:, 0], references=truth)
        numbers = [v for v in (result or {}).values() if isinstance(v, (int, float)) and not isinstance(v, bool)]
        if len(numbers) != 1:
            raise SoupError(f"expected one number from the metric {name}, found {flat(sorted(result or {}))}")
        return float(numbers[0])

    return value
