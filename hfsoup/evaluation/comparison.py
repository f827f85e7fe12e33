"""Two models on the same images: intervals of their scores, and whether they differ."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hfsoup.data.tasks.task import Labels, Metric, Predictions, calibration_error
from hfsoup.evaluation.intervals import draw_bootstrap, mcnemar_test, percentile_intervals, wilson_interval
from hfsoup.evaluation.scores import Comparison, Intervals, Score


@dataclass(frozen=True)
class ScoredPredictions:
    """The predictions of a model for a split, as its task gives them, and its score.

    `confidence` is the probability of each image's likeliest class.
    """

    predictions: Predictions
    confidence: NDArray[np.float32]
    score: Score


def compare(metric: Metric, soup: ScoredPredictions, best: ScoredPredictions, references: Labels) -> Comparison:
    """The comparison of two models on the same images."""
    task = metric.task
    sides = [task.confidences(one.predictions, one.confidence, references) for one in (soup, best)]
    errors = [calibration_error(*side) for side in sides]
    measure = _compare_counts if metric.counts else _compare_draws
    intervals, p_value = measure(metric, soup, best, references)
    return Comparison(soup.score, best.score, intervals, p_value, *errors)


def _compare_counts(
    metric: Metric, soup: ScoredPredictions, best: ScoredPredictions, references: Labels
) -> tuple[Intervals | None, float | None]:
    """Wilson's intervals of counts of right answers, a bootstrap of their difference, and McNemar's p-value."""
    a, b = (metric.task.mark_correct(one.predictions, references) for one in (soup, best))
    draws = draw_bootstrap(lambda rows: float(a[rows].mean()), lambda rows: float(b[rows].mean()), len(references))
    first, second = (wilson_interval(correct=int(right.sum()), total=len(right)) for right in (a, b))
    intervals = Intervals(first, second, percentile_intervals(draws)[2])
    return intervals, mcnemar_test(only_first=int((a & ~b).sum()), only_second=int((b & ~a).sum()))


def _compare_draws(
    metric: Metric, soup: ScoredPredictions, best: ScoredPredictions, references: Labels
) -> tuple[Intervals | None, float | None]:
    """Bootstrap intervals; none of a metric that is too slow to be drawn a thousand times, or undefined for a draw."""
    if metric.on_rows is None:
        return None, None
    first, second = (metric.on_rows(one.predictions, references) for one in (soup, best))
    draws = draw_bootstrap(first, second, len(references))
    if not np.isfinite(draws).all():
        return None, None
    return Intervals(*percentile_intervals(draws)), None
