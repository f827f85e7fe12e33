"""Mixes become scores: the average flows into one model, which sees every image of a split."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hfsoup.average import Averager
from hfsoup.calibrate import calibrate
from hfsoup.candidate import Candidate, Statistics
from hfsoup.errors import SoupError
from hfsoup.images import Split
from hfsoup.journal import Journal, mix_key
from hfsoup.metrics import Labels, Metric, hits
from hfsoup.stats import bootstrap, mcnemar, wilson
from hfsoup.types import Comparison, Mix, Score
from hfsoup.world import World

Advance = Callable[[int], None]
AVERAGE, RECALIBRATE = "average", "recalibrate"


class Scorer:
    """The selection and test scores of mixes of one family.

    Args:
        averager: forms the weights.
        metric: what a score is.
        world: the processes that share the images.
        journal: what an earlier bake paid for, and where new results are kept; None to measure all again.
        batch_size: images per forward pass, the same for every mix and any number of processes.
        bn: `average`, `recalibrate`, or `auto`, which scores both and keeps the better.
        calibration: the images for `recalibrate` and `auto`; None where the family has no batch norms.
        advance: told of images as they are scored.
    """

    def __init__(
        self,
        averager: Averager,
        metric: Metric,
        world: World,
        journal: Journal | None,
        *,
        batch_size: int = 64,
        bn: str = "average",
        calibration: Split | None = None,
        advance: Advance = lambda _: None,
    ) -> None:
        self._candidate = Candidate(averager, world.device)
        self._averager, self._metric, self._world, self._journal = averager, metric, world, journal
        self._batch, self._bn, self._calibration, self._advance = batch_size, bn, calibration, advance
        self._found: dict[str, dict[str, Any]] = {}
        self.images_forwarded = 0

    def over(self, averager: Averager) -> Scorer:
        """The same for mixes of another family, as they are averaged."""
        return Scorer(
            averager, self._metric, self._world, self._journal,
            batch_size=self._batch, bn=AVERAGE, calibration=None, advance=self._advance,
        )  # fmt: skip

    def score(self, mix: Mix, split: Split) -> Score:
        """The metric of `mix` on `split`, as it would be shipped: with the batch-norm statistics that score best."""
        return max(self.scores(mix, split).values(), key=lambda score: score.key)

    def scores(self, mix: Mix, split: Split) -> dict[str, Score]:
        """The metric of `mix` on `split` by batch-norm mode, `average` first.

        One ingredient alone is left as it is: nothing was averaged that would need new statistics.
        """
        modes = (AVERAGE, RECALIBRATE) if self._bn == "auto" else (self._bn,)
        if self._calibration is None or len(mix.members) == 1:
            modes = (AVERAGE,)
        return {mode: self._score(self.predict(mix, split, mode), split, mode) for mode in modes}

    def compare(self, soup: Mix, bn: str, best: Mix, split: Split) -> Comparison:
        """Score both on the test split, the soup with statistics of mode `bn`; how sure the difference is."""
        first = self.predict(soup, split, bn)
        second = first if soup == best else self.predict(best, split, AVERAGE)
        scores = self._score(first, split, bn), self._score(second, split, AVERAGE)
        return compare(self._metric, first, second, split.labels, *scores)

    def predict(self, mix: Mix, split: Split, bn: str) -> Labels:
        """Images × `metric.top` class indices, the likeliest first, from the journal if they are there."""
        depends = {"images": self._images(split), "top": self._metric.top, "batch": self._batch}
        if bn == RECALIBRATE:
            depends["calibration"] = self._images(self._calibration)
        found = self._kept(mix, lambda: {"predictions": self._forwarded(mix, split, bn)}, **depends)
        predictions: Labels = found["predictions"].astype(np.int64)
        return predictions

    def statistics(self, mix: Mix) -> Statistics:
        """The batch-norm statistics of `mix` on the calibration images."""
        split = self._calibration
        if split is None:
            raise SoupError("there are no calibration images")

        def estimate() -> Statistics:
            model = self._candidate.load(mix)
            return calibrate(model, self._candidate.norms, split, self._world, self._candidate.dtype)

        return self._kept(mix, estimate, statistics=self._images(split))

    def _kept(self, mix: Mix, act: Callable[[], dict[str, Any]], **depends: Any) -> dict[str, Any]:
        """What `act` finds for `mix`: once in this bake, and from the journal or kept in it if there is one."""
        journal, averager = self._journal, self._averager
        place = {"merge": averager.merge.name, "dtype": averager.dtype, "device": self._world.device.type}
        key = mix_key(averager.family, mix, **place, **depends)
        if key not in self._found:
            kept = self._world.on_main(lambda: journal.get(key)) if journal else None
            self._found[key] = act() if kept is None else kept
            if journal and kept is None:
                self._world.on_main(lambda: journal.put(key, self._found[key]))
        return self._found[key]

    @staticmethod
    def _images(split: Split | None) -> list[str]:
        return [split.fingerprint, split.pixels.name] if split else []

    def _forwarded(self, mix: Mix, split: Split, bn: str) -> Labels:
        """Predictions from a pass over the images."""
        statistics = self.statistics(mix) if bn == RECALIBRATE else None
        model = self._candidate.load(mix)
        if statistics:
            self._candidate.settle(statistics)
        pixels = np.load(split.pixels, mmap_mode="r")
        batches = range(0, len(split), self._batch)
        mine = []
        for n in range(self._world.index, len(batches), self._world.count):
            mine.append((n, self._forward(model, pixels[batches[n] : batches[n] + self._batch])))
            self._advance(len(mine[-1][1]) * self._world.count)
        rows = sorted(self._world.gather(mine), key=lambda row: row[0])
        found: Labels = np.concatenate([block for _, block in rows])
        if len(found) != len(split):
            raise SoupError(f"expected predictions for {len(split)} images, found {len(found)}", where=split.name)
        self.images_forwarded += len(split)
        return found.astype(np.int32)

    def _forward(self, model: Any, block: NDArray[np.float32]) -> Labels:
        """Predictions of one batch; a short one is filled up, so that every batch has the same shape."""
        full = np.concatenate([block, np.repeat(block[-1:], self._batch - len(block), axis=0)])
        with torch.inference_mode():
            images = torch.from_numpy(full).to(self._candidate.dtype).to(self._world.device)
            logits = model(pixel_values=images).logits[: len(block)].float()
            if not torch.isfinite(logits).all():
                raise SoupError("this mix gives logits that are NaN or infinite", hint="--dtype float32")
            top = min(self._metric.top, logits.shape[1])
            return logits.topk(top, dim=1).indices.cpu().numpy()  # type: ignore[no-any-return]

    def _score(self, predictions: Labels, split: Split, bn: str) -> Score:
        value = self._world.on_main(lambda: self._metric.value(predictions, split.labels))
        if not np.isfinite(value):
            raise SoupError(f"the metric {self._metric.name} gave {value}", where=split.name)
        if not self._metric.counts:
            return Score(value, len(split), bn=bn)
        right = hits(predictions, split.labels)
        return Score(value, len(split), int(right.sum()), right.astype(np.uint8).tobytes(), bn)


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
