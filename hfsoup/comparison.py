"""Two models on the same images: how sure is the difference?"""

from __future__ import annotations

import numpy as np

from hfsoup.metrics import Labels, Metric, hits
from hfsoup.stats import bootstrap, mcnemar, wilson
from hfsoup.types import Comparison, Score


def compare(metric: Metric, first: Labels, second: Labels, references: Labels, soup: Score, best: Score) -> Comparison:
    """The comparison of two models from their predictions on the same images."""
    if metric.counts and soup.correct is not None and best.correct is not None:
        a, b = hits(first, references), hits(second, references)
        p_value = mcnemar(only_first=int((a & ~b).sum()), only_second=int((b & ~a).sum()))
        *_, difference = bootstrap(
            value=lambda p, _: float(p.mean()),
            first=a.astype(np.int64),
            second=b.astype(np.int64),
            references=references,
        )
        interval, best_interval = (wilson(correct=s.correct or 0, total=s.total) for s in (soup, best))
        return Comparison(soup, best, interval, best_interval, difference, p_value)
    if metric.plain is None:
        return Comparison(soup, best, None, None, None, None)
    return Comparison(
        soup, best, *bootstrap(value=metric.plain, first=first, second=second, references=references), None
    )
