"""Mixes become scores: the average flows into one model, which sees the images of a split until the outcome is sure."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import islice
from math import fsum
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hfsoup.averaging.averager import Averager
from hfsoup.averaging.mix import Mix
from hfsoup.data.dataset_split import Split
from hfsoup.data.tasks.task import Calibration, Metric, Predicted, measure_calibration
from hfsoup.evaluation.batch_norm import estimate_statistics
from hfsoup.evaluation.batches import Batches, Results, fetch
from hfsoup.evaluation.candidate import Candidate, Statistics
from hfsoup.evaluation.comparison import ScoredPredictions, compare
from hfsoup.evaluation.journal import Journal, hash_mix
from hfsoup.evaluation.precision import describe_device
from hfsoup.evaluation.racing import RacePredictions, count_batches_to_look, find_cut, order_hardest_first
from hfsoup.evaluation.scores import Comparison, Precision, Score
from hfsoup.ingredients.family import Family
from hfsoup.utils.distributed import World
from hfsoup.utils.errors import SoupError
from hfsoup.utils.progress import Advance

PLAIN = Precision()
AVERAGE, RECALIBRATE = "average", "recalibrate"
SMALLEST = float(np.finfo(np.float32).tiny)
"""The probability that 0, which is one too small for float32, counts as."""


class Scorer:
    """The selection and test scores of mixes of one family.

    Args:
        averager: computes the weights.
        metric: what a score is.
        world: the processes that share the images.
        journal: the cache of scores; None to measure everything again.
        batch_size: images per forward pass, the same for every mix and any number of processes; None for what fits.
        bn: `average`, `recalibrate`, or `auto`, which scores both and takes the better; so does a single ingredient
            where averages are recalibrated, so that what new statistics gain is not taken for a gain of averaging.
        calibration: the images for `recalibrate` and `auto`; None where the family has no batch norms.
        race: whether to stop evaluating a mix that can no longer reach the score that is needed.
        precision: what is computed in; float32 unless given, also where weights are stored in fewer bits.
        selection: the split whose images only select, which `precision` may score in another way than the others.
        keep: splits on which the logits of single ingredients are stored as these are scored, for `predict_ensemble`.
        advance: called with the number of images as they are scored.
    """

    def __init__(
        self,
        averager: Averager,
        metric: Metric,
        world: World,
        journal: Journal | None,
        *,
        batch_size: int | None = None,
        bn: str = "average",
        calibration: Split | None = None,
        race: bool = True,
        precision: Precision = PLAIN,
        selection: Split | None = None,
        keep: Collection[Split] = (),
        advance: Advance = lambda _: None,
    ) -> None:
        self._candidate = Candidate(averager, world.device, widen=precision.widens)
        self._averager, self._metric, self._world, self._journal = averager, metric, world, journal
        self._asked, self._bn, self._calibration, self._advance = batch_size, bn, calibration, advance
        self._precision, self._selection = precision, selection
        self._batches = Batches(self._candidate, world, batch_size, metric, precision, selection)
        self._race = race and metric.counts
        self._keep = {split.fingerprint for split in keep}
        self._found: dict[str, Results] = {}
        self._logits: dict[tuple[str, int], NDArray[np.float32]] = {}
        self._orders: dict[str, NDArray[np.int64]] = {}
        self._due: dict[str, int] = {}
        self.images_forwarded = 0

    @property
    def images_spared(self) -> int:
        """Images that were not evaluated because the decision was certain without them."""
        return sum(self._due.values()) - self.images_forwarded

    @property
    def precision(self) -> Precision:
        """What scores are computed in."""
        return self._precision

    @property
    def family(self) -> Family:
        """The family whose mixes are scored."""
        return self._averager.family

    def with_averager(self, averager: Averager) -> Scorer:
        """A scorer of the mixes of another family; new batch-norm statistics only where they are asked for by name."""
        return Scorer(
            averager, self._metric, self._world, self._journal,
            batch_size=self._asked, bn=AVERAGE, calibration=self._calibration, race=False, precision=self._precision,
            selection=self._selection, advance=self._advance,
        )  # fmt: skip

    def score(self, mix: Mix, split: Split, least: float | None = None) -> Score:
        """The metric of `mix` on `split`, as it would be shipped: with the batch-norm statistics that score best.

        Args:
            mix: the coefficients.
            split: the images.
            least: the fewest right answers that are of use; evaluation stops once a mix can no longer reach them.
        """
        found: list[Score] = []
        for mode in self._modes(mix):
            floor = least
            if floor is not None:
                # A mode counts only if it is better than the ones before it.
                floor = max([floor, *(score.key + 1 for score in found if not score.at_most)])
            found.append(self._score(self._predictions(mix, split, mode, floor), split, mode))
        best = max(found, key=lambda score: (score.key, not score.at_most))
        return replace(best, images=sum(score.images for score in found))

    def scores(self, mix: Mix, split: Split) -> dict[str, Score]:
        """The metric of `mix` on `split` by batch-norm mode, `average` first, each on all images."""
        return {mode: self._score(self._predictions(mix, split, mode, None), split, mode) for mode in self._modes(mix)}

    def compare(self, soup: Mix, bn: str, best: Mix, best_bn: str, split: Split) -> Comparison:
        """Score both on the test split, with statistics of modes `bn` and `best_bn`, and compare them."""
        first, same = self.predict(soup, bn, split), (soup, bn) == (best, best_bn)
        return self.compare_predictions(first, first if same else self.predict(best, best_bn, split), split)

    def compare_predictions(self, first: ScoredPredictions, second: ScoredPredictions, split: Split) -> Comparison:
        """The comparison of two models on `split`."""
        return compare(self._metric, first, second, split.labels)

    def predict(self, mix: Mix, bn: str, split: Split) -> ScoredPredictions:
        """The predictions of a mix for every image of `split`."""
        found = self._predictions(mix, split, bn, None)
        return ScoredPredictions(found.values, found.confidence, self._score(found, split, bn))

    def predict_ensemble(self, members: Sequence[int], split: Split) -> ScoredPredictions:
        """The predictions of the mean of the logits of `members`, each with its own batch-norm statistics."""
        total = np.zeros_like(self._single(members[0], split), np.float64)
        for i in members:
            total += self._single(i, split)
        mean, task = torch.from_numpy(total / len(members)), self._metric.task
        said = {name: found.numpy() for name, found in task.outputs(mean, split.labels, self._metric.top).items()}
        predictions, confidence = _widen_indices(said["predictions"]), said["confidence"].astype(np.float32)
        wrong = int((~task.mark_correct(predictions, split.labels)).sum())
        found = RacePredictions(predictions, confidence, len(split), wrong, at_most=False)
        return ScoredPredictions(found.values, found.confidence, self._score(found, split, AVERAGE))

    def _single(self, i: int, split: Split) -> NDArray[np.float32]:
        """The logits of one ingredient, images × classes, found once."""
        self._keep.add(split.fingerprint)
        if (split.fingerprint, i) not in self._logits:
            mix = Mix.of((i,), len(self._averager.family))
            self._logits[split.fingerprint, i] = self._results(mix, split, AVERAGE, None)["logits"]
        return self._logits[split.fingerprint, i]

    def score_whole(self, mix: Mix, bn: str, split: Split) -> Score:
        """The metric of `mix` on all of `split` with statistics of mode `bn`, for numbers that choose nothing."""
        return self._score(self._predictions(mix, split, bn, None), split, bn)

    def predict_classes(self, mix: Mix, bn: str, split: Split) -> tuple[Predicted, ...]:
        """The predicted classes of each image of `split`, as indices."""
        return self._metric.task.list_predicted(self._predictions(mix, split, bn, None).values)

    def calibration(self, mix: Mix, bn: str, split: Split) -> Calibration:
        """How often a mix is right on `split` at which confidence."""
        found = self._predictions(mix, split, bn, None)
        return measure_calibration(*self._metric.task.confidences(found.values, found.confidence, split.labels))

    def estimate_statistics(self, mix: Mix) -> Statistics:
        """The batch-norm statistics of `mix` on the calibration images."""
        split = self._calibration
        if split is None:
            raise SoupError("there are no calibration images")

        def estimate() -> Statistics:
            model = self._candidate.load(mix)
            return estimate_statistics(model, self._candidate.norms, split, self._world, precision)

        precision = self._precision.test
        key = self._key(mix, statistics=self._images(split), precision=precision)
        return self._reuse_results(key, lambda known: known or estimate())

    def _modes(self, mix: Mix) -> tuple[str, ...]:
        """The batch-norm modes of a mix; an ingredient's own statistics are those of `average`."""
        if self._calibration is None or self._bn == AVERAGE:
            return (AVERAGE,)
        return (AVERAGE, RECALIBRATE) if self._bn == "auto" or mix.alone else (self._bn,)

    def _predictions(self, mix: Mix, split: Split, bn: str, least: float | None) -> RacePredictions:
        """The predictions of `mix` on `split`, or on enough images to show that it cannot reach `least`."""
        order, allowed = self._order(mix, split), self._allowed(split, least)
        found = self._results(mix, split, bn, allowed)
        predictions = _widen_indices(found["predictions"])
        right = self._right(predictions, split, order)
        race = RacePredictions.of(predictions, found["confidence"], right, order, self._size(split), allowed)
        return race if race.at_most else replace(race, cross_entropy=_mean_cross_entropy(found))

    def _right(self, predictions: NDArray[Any], split: Split, order: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which of the first predictions in `order` are right."""
        return self._metric.task.mark_correct(predictions, split.labels[order[: len(predictions)]])

    def _allowed(self, split: Split, least: float | None) -> int | None:
        return len(split) - int(least) if self._race and least is not None else None

    def _results(self, mix: Mix, split: Split, bn: str, allowed: int | None) -> Results:
        """The stored results of a pass over `split`, in the order of the pass."""
        order = self._order(mix, split)
        logits = mix.alone and bn == AVERAGE and split.fingerprint in self._keep
        wanted = {"confidence", "logits"} if logits else {"confidence"}

        key = self._predictions_key(mix, split, bn, order)

        def go_on(known: Results | None) -> Results:
            if known is not None and not wanted <= known.keys():
                known = None
            if known is not None:
                right = self._right(known["predictions"], split, order)
                if find_cut(right, len(split), self._size(split), allowed).decided:
                    return known
            self._due.setdefault(key, len(split) - (len(known["predictions"]) if known else 0))
            return self._forward(mix, split, bn, order, allowed, known, logits=logits)

        return self._reuse_results(key, go_on)

    def _order(self, mix: Mix, split: Split) -> NDArray[np.int64]:
        """The order in which `mix` sees the images: the hardest first once every ingredient was scored alone."""
        if mix.alone or not self._metric.counts:
            return np.arange(len(split))
        if split.fingerprint not in self._orders:
            size = len(self._averager.family)
            plain = np.arange(len(split))
            keys = [self._predictions_key(Mix.of((i,), size), split, AVERAGE, plain) for i in range(size)]
            alone = [self._found[key]["true_class_probability"] for key in keys if key in self._found]
            self._orders[split.fingerprint] = order_hardest_first(alone) if len(alone) == size else plain
        return self._orders[split.fingerprint]

    def _size(self, split: Split) -> int:
        """Images of a forward pass: a split with fewer than fill one is not padded."""
        return min(self._batches.find_size(split.pixels), len(split))

    def _predictions_key(self, mix: Mix, split: Split, bn: str, order: NDArray[np.int64]) -> str:
        depends = {"images": self._images(split), "top": self._metric.top, "batch": self._size(split)}
        depends["precision"] = self._batches.choose_precision(split)
        if bn == RECALIBRATE:
            depends["calibration"] = self._images(self._calibration)
        return self._key(mix, order=hashlib.sha256(order.tobytes()).hexdigest(), **depends)

    def _key(self, mix: Mix, **depends: Any) -> str:
        facts = {"made": self._averager.list_mix_facts(mix), "device": describe_device(self._world.device)}
        return hash_mix(self._averager.family, mix, **facts, **depends)

    def _reuse_results(self, key: str, go_on: Callable[[Results | None], Results]) -> Results:
        """What `go_on` makes of the results that this bake or the journal has; new results are stored in both."""
        journal, known = self._journal, self._found.get(key)
        if known is None and journal:
            known = self._world.on_main(lambda: journal.get(key))
        found = go_on(known)
        if journal and found is not known:
            self._world.on_main(lambda: journal.put(key, found))
        self._found[key] = found
        return found

    @staticmethod
    def _images(split: Split | None) -> list[str]:
        return [split.fingerprint, split.pixels.name] if split else []

    def _forward(
        self,
        mix: Mix,
        split: Split,
        bn: str,
        order: NDArray[np.int64],
        allowed: int | None,
        known: Results | None,
        *,
        logits: bool,
    ) -> Results:
        """Predictions in `order`, from where those `known` end, until more than `allowed` are wrong."""
        statistics = self.estimate_statistics(mix) if bn == RECALIBRATE else None
        model = self._candidate.load(mix)
        if statistics:
            self._candidate.set_statistics(statistics)
        world, begun, size = self._world, len(known["predictions"]) if known else 0, self._size(split)
        batches = [order[at : at + size] for at in range(begun, len(split), size)]
        own = batches[world.index :: world.count]
        mine: list[tuple[int, Results]] = []
        lap, laps = 0, -(-len(batches) // world.count)
        wrong = self._count_wrong(known, order, split) if known else 0
        with closing(self._batches.run(model, split, own, size, logits=logits)) as outputs:
            while lap < laps and (allowed is None or wrong <= allowed):
                few = count_batches_to_look(wrong, allowed, size * world.count, self._batches.group)
                group = fetch(list(islice(outputs, few)))
                mine += [((lap + n) * world.count + world.index, found) for n, found in enumerate(group)]
                if allowed is not None:
                    wrong += world.sum(
                        sum(self._count_wrong(*one, split) for one in zip(group, own[lap:], strict=False))
                    )
                self._advance(sum(map(len, batches[lap * world.count : (lap + few) * world.count])))
                lap += few
        found = [batch for _, batch in sorted(world.gather(mine), key=lambda row: row[0])]
        self.images_forwarded += sum(len(batch["predictions"]) for batch in found)
        found = [known, *found] if known else found
        results = {name: np.concatenate([batch[name] for batch in found]) for name in found[-1]}
        seen = len(results["predictions"])
        if allowed is None and seen != len(split):
            raise SoupError(f"expected predictions for {len(split)} images, found {seen}", where=split.name)
        return results

    def _count_wrong(self, found: Results, rows: NDArray[np.int64], split: Split) -> int:
        return int((~self._right(found["predictions"], split, rows)).sum())

    def _score(self, predictions: RacePredictions, split: Split, bn: str) -> Score:
        """The metric over a whole split; where evaluation stopped early, the most that the mix could have reached."""
        if predictions.at_most:
            correct = len(split) - predictions.wrong
            value = correct / len(split)
            return Score(value, len(split), correct, bn=bn, images=predictions.seen, at_most=True)
        value = self._world.on_main(lambda: self._metric.value(predictions.values, split.labels))
        if not np.isfinite(value):
            raise SoupError(f"the metric {self._metric.name} gave {value}", where=split.name)
        if not self._metric.counts:
            return Score(value, len(split), bn=bn, images=len(split), cross_entropy=predictions.cross_entropy)
        right = self._metric.task.mark_correct(predictions.values, split.labels)
        hits = right.astype(np.uint8).tobytes()
        loss = predictions.cross_entropy
        return Score(value, len(split), int(right.sum()), hits, bn, len(split), cross_entropy=loss)


def _widen_indices(predictions: NDArray[Any]) -> NDArray[Any]:
    """Predictions, with class indices as int64 where they are stored as int32."""
    return predictions.astype(np.int64) if predictions.dtype.kind == "i" else predictions


def _mean_cross_entropy(found: Results) -> float | None:
    """The mean negative log-probability of the true class, to six digits; None of a task without one.

    Digits after these depend on the machine, and would break ties by chance.
    """
    if "true_class_probability" not in found:
        return None
    sure = np.maximum(found["true_class_probability"].astype(np.float64), SMALLEST)
    return float(f"{-fsum(np.log(sure)) / len(sure):.6g}")
