"""Two models on the same images: how sure is the difference?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hfsoup.metrics import Labels, Metric, hits
from hfsoup.scores import ALPHA, Comparison, Intervals, Score
from hfsoup.stats import bootstrap, calibration_error, mcnemar, percentiles, wilson

At = Callable[[float], Intervals]
"""Intervals that miss with a given probability."""


@dataclass(frozen=True)
class Answers:
    """What a model says of a split, and its score.

    `classes` are images × top, the likeliest first, and `confidence` the probability of the first.
    """

    classes: Labels
    confidence: NDArray[np.float32]
    score: Score

    def calibration_error(self, references: Labels) -> float:
        """How far confidence and accuracy of the likeliest class are apart."""
        return calibration_error(confidence=self.confidence, right=self.classes[:, 0] == references)


def compare(metric: Metric, soup: Answers, best: Answers, references: Labels, choices: int = 1) -> Comparison:
    """The comparison of two models on the same images, the first of which is the best of so many `choices`."""
    errors = [answers.calibration_error(references) for answers in (soup, best)]
    at, p_value = _counted(soup, best, references) if metric.counts else (_drawn(metric, soup, best, references), None)
    adjusted = at(ALPHA / choices) if at and choices > 1 else None
    return Comparison(soup.score, best.score, at and at(ALPHA), adjusted, p_value, choices, *errors)


def _counted(soup: Answers, best: Answers, references: Labels) -> tuple[At, float]:
    """Wilson's intervals of counts of right answers, a bootstrap of their difference, and McNemar's p-value."""
    a, b = hits(soup.classes, references), hits(best.classes, references)
    draws = bootstrap(
        value=lambda p, _: float(p.mean()), first=a.astype(np.int64), second=b.astype(np.int64), references=references
    )

    def at(alpha: float) -> Intervals:
        first, second = (wilson(correct=int(right.sum()), total=len(right), alpha=alpha) for right in (a, b))
        return Intervals(first, second, percentiles(draws, alpha)[2])

    return at, mcnemar(only_first=int((a & ~b).sum()), only_second=int((b & ~a).sum()))


def _drawn(metric: Metric, soup: Answers, best: Answers, references: Labels) -> At | None:
    """Bootstrap intervals; None of a metric that is too slow to be drawn a thousand times."""
    if metric.plain is None:
        return None
    draws = bootstrap(value=metric.plain, first=soup.classes, second=best.classes, references=references)
    return lambda alpha: Intervals(*percentiles(draws, alpha))
