"""Two models on the same images: how sure is the difference?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hfsoup.metrics import Labels, Metric, hits
from hfsoup.scores import ALPHA, Comparison, Score
from hfsoup.stats import bootstrap, calibration_error, mcnemar, wilson


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
    alpha, scores = ALPHA / choices, (soup.score, best.score)
    errors = [answers.calibration_error(references) for answers in (soup, best)]
    if metric.counts and soup.score.correct is not None and best.score.correct is not None:
        a, b = hits(soup.classes, references), hits(best.classes, references)
        p_value = mcnemar(only_first=int((a & ~b).sum()), only_second=int((b & ~a).sum()))
        *_, difference = bootstrap(
            value=lambda p, _: float(p.mean()),
            first=a.astype(np.int64),
            second=b.astype(np.int64),
            references=references,
            alpha=alpha,
        )
        interval, best_interval = (wilson(correct=s.correct or 0, total=s.total, alpha=alpha) for s in scores)
        return Comparison(*scores, interval, best_interval, difference, p_value, choices, *errors)
    if metric.plain is None:
        return Comparison(*scores, None, None, None, None, choices, *errors)
    intervals = bootstrap(
        value=metric.plain, first=soup.classes, second=best.classes, references=references, alpha=alpha
    )
    return Comparison(*scores, *intervals, None, choices, *errors)
