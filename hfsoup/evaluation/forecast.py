"""What the ingredients' own predictions say of a soup before one is made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np

from hfsoup.averaging.mix import Mix
from hfsoup.data.dataset_split import Split
from hfsoup.data.tasks.task import Predicted
from hfsoup.evaluation.measurements import Forecast
from hfsoup.evaluation.scorer import AVERAGE, Scorer

MOST_BYTES = 16 << 20
"""The most that one ingredient's logits for a split may take, for the mean of all to be formed."""


def forecast_soup(scorer: Scorer, members: Sequence[int], split: Split) -> Forecast | None:
    """Compare the predictions of some ingredients, each with its own batch-norm statistics; None of a single one.

    Args:
        scorer: has scored them on `split`, and kept their logits where these are at most `MOST_BYTES`.
        members: the ingredients.
        split: the images that they are ranked on.
    """
    if len(members) < 2:
        return None
    family, size = scorer.family, len(scorer.family)
    alone = [scorer.predict(Mix.of((i,), size), AVERAGE, split) for i in members]
    agreement = measure_agreement([scorer.predict_classes(Mix.of((i,), size), AVERAGE, split) for i in members])
    known = Forecast(agreement, cosine=family.task_cosine, weights_apart=family.weights_apart)
    if count_logit_bytes(split, len(family.labels)) > MOST_BYTES:
        return known
    best = max(alone, key=lambda one: one.score.key)
    compared = scorer.compare_predictions(scorer.predict_ensemble(members, split), best, split)
    interval = compared.ci95.difference if compared.ci95 else None
    return replace(known, gain=compared.difference, interval=interval)


def count_logit_bytes(split: Split, classes: int) -> int:
    """The size of one ingredient's logits for all images of a split, in float32."""
    return len(split) * classes * np.dtype(np.float32).itemsize


def measure_agreement(predicted: Sequence[Sequence[Predicted]]) -> float:
    """The share of images for which two models predict the same, in the mean over all pairs."""
    numbers: dict[Predicted, int] = {}
    codes = [np.array([numbers.setdefault(one, len(numbers)) for one in each]) for each in predicted]
    return float(np.mean([(a == b).mean() for a, b in combinations(codes, 2)]))
