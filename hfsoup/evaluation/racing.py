"""Exact racing: evaluation of a mix stops once no answer to the images that are left could change the decision.

Every mix of a search sees the images in one order, the hardest first, in the same batches; so an error that decides
comes early, and a mix that is evaluated on all images scores what it would have scored without a race.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class RacePredictions:
    """What a task predicts, in the order of the split; or, `at_most`, the predictions before evaluation stopped.

    `confidence` is the probability of each image's likeliest class, in the same order; `seen` images decided, `wrong`
    of them were wrong; `cross_entropy` is None where it was not measured on all.
    """

    values: NDArray[Any]
    confidence: NDArray[np.float32]
    seen: int
    wrong: int
    at_most: bool
    cross_entropy: float | None = None

    @classmethod
    def of(
        cls,
        predictions: NDArray[Any],
        confidence: NDArray[np.float32],
        right: NDArray[np.bool_],
        order: NDArray[np.int64],
        batch: int,
        allowed: int | None,
    ) -> RacePredictions:
        """From predictions in `order`, which may end before the last image; cut where `allowed` errors are exceeded."""
        end = find_cut(right, len(order), batch, allowed)
        if end.at_most:
            return cls(predictions[: end.seen], confidence[: end.seen], end.seen, end.wrong, at_most=True)
        placed, sure = np.empty_like(predictions), np.empty_like(confidence)
        placed[order], sure[order] = predictions, confidence
        return cls(placed, sure, end.seen, end.wrong, at_most=False)


@dataclass(frozen=True)
class Cut:
    """Where a race ends: after `seen` images, `wrong` of them wrong, before the last one if `at_most`.

    Not `decided` if more predictions are needed.
    """

    seen: int
    wrong: int
    at_most: bool
    decided: bool


def find_cut(right: NDArray[np.bool_], total: int, batch: int, allowed: int | None) -> Cut:
    """The first end of a batch at which more than `allowed` of `total` answers are wrong, however many more there are.

    So what is reported does not depend on how many images other processes or an earlier bake went on for.
    """
    wrong = np.cumsum(~right)
    whole = len(right) == total
    if allowed is not None:
        ends = np.append(np.arange(batch - 1, len(wrong), batch), len(wrong) - 1)
        over = ends[wrong[ends] > allowed]
        if len(over) and over[0] + 1 < total:
            return Cut(int(over[0]) + 1, int(wrong[over[0]]), at_most=True, decided=True)
    return Cut(len(right), int(wrong[-1]), at_most=False, decided=whole)


def count_batches_to_look(wrong: int, allowed: int | None, step: int, most: int) -> int:
    """How many batches to evaluate before the errors are counted again: fewer as the verdict comes near.

    No verdict can be missed meanwhile, as every image adds at most one error.

    Args:
        wrong: errors so far.
        allowed: errors that a candidate may have; None where all images are evaluated.
        step: images of a batch, over all processes.
        most: the most batches.
    """
    return most if allowed is None else min(most, max(1, (allowed + 1 - wrong) // step))


def order_hardest_first(sureness: Sequence[NDArray[np.float32]]) -> NDArray[np.int64]:
    """Rows by the mean probability that the ingredients give the true class, least first; ties as they come."""
    mean = np.mean([s.astype(np.float64) for s in sureness], axis=0)
    return np.argsort(mean, kind="stable")
