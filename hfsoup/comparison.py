"""Two models on the same images: how sure is the difference?"""

from __future__ import annotations

import numpy as np

from hfsoup.metrics import Labels, Metric, hits
from hfsoup.stats import bootstrap, mcnemar, wilson
from hfsoup.types import ALPHA, Comparison, Score


def compare(
    metric: Metric, first: Labels, second: Labels, references: Labels, soup: Score, best: Score, choices: int = 1
) -> Comparison:
    """The comparison of two models from their predictions on the same images, the first the best of `choices`."""
    alpha = ALPHA / choices
    if metric.counts and soup.correct is not None and best.correct is not None:
        a, b = hits(first, references), hits(second, references)
        p_value = mcnemar(only_first=int((a & ~b).sum()), only_second=int((b & ~a).sum()))
        *_, difference = bootstrap(
            value=lambda p, _: float(p.mean()),
            first=a.astype(np.int64),
            second=b.astype(np.int64),
            references=references,
            alpha=alpha,
        )
        interval, best_interval = (wilson(correct=s.correct or 0, total=s.total, alpha=alpha) for s in (soup, best))
        return Comparison(soup, best, interval, best_interval, difference, p_value, choices)
    if metric.plain is None:
        return Comparison(soup, best, None, None, None, None, choices)
    intervals = bootstrap(value=metric.plain, first=first, second=second, references=references, alpha=alpha)
    return Comparison(soup, best, *intervals, None, choices)
