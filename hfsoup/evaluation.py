"""Mixes become scores: the average flows into one model, which sees every image of a split."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hfsoup.average import Averager
from hfsoup.errors import SoupError
from hfsoup.images import Split
from hfsoup.metrics import Labels, Metric, hits
from hfsoup.models import config_of, model_class
from hfsoup.stats import bootstrap, mcnemar, wilson
from hfsoup.types import Comparison, Mix, Score, TensorSpec
from hfsoup.world import World

Advance = Callable[[int], None]
TORCH = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "BOOL": torch.bool,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
}
MESSAGE = "this checkpoint does not fill the model: {kind} {names}"


class Candidate:
    """One model whose weights are overwritten by mix after mix, exactly as they would be written to a file."""

    def __init__(self, averager: Averager, device: torch.device) -> None:
        self._averager, self._device = averager, device
        specs = averager.family.tensors
        self._buffers = {s.name: torch.empty(s.shape, dtype=TORCH[averager.stored_as(s)]) for s in specs}
        self._views = {name: _view(tensor) for name, tensor in self._buffers.items()}
        self._model: Any = None
        self._shared = False
        floats = [t.dtype for t in self._buffers.values() if t.is_floating_point()]
        self.dtype = max(set(floats), key=floats.count)

    def load(self, mix: Mix) -> Any:
        """The model with the weights of `mix`, ready to be called."""
        self._averager.average(mix, self._fill)
        if self._model is None or not self._shared:
            self._model = self._build()
        return self._model

    def _fill(self, spec: TensorSpec, begin: int, block: NDArray[Any]) -> None:
        self._views[spec.name][begin : begin + block.size] = block

    def _build(self) -> Any:
        """A model over the buffers; where transformers uses them as they are, the next mix needs no new model."""
        family = self._averager.family
        config = config_of(family.config)
        model, info = model_class(config).from_pretrained(
            None, config=config, state_dict=dict(self._buffers), dtype=self.dtype, output_loading_info=True
        )
        for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
            if info.get(kind):
                names = ", ".join(sorted(map(str, info[kind]))[:5])
                raise SoupError(
                    MESSAGE.format(kind=kind.replace("_keys", ""), names=names), where=str(family.reference)
                )
        model = model.to(self._device).eval()
        own = {tensor.data_ptr() for tensor in self._buffers.values()}
        self._shared = all(t.data_ptr() in own for t in model.state_dict().values())
        return model


class Scorer:
    """The selection and test scores of mixes of one family.

    Args:
        averager: forms the weights.
        metric: what a score is.
        world: the processes that share the images.
        batch_size: images per forward pass, the same for every mix and any number of processes.
        advance: told of images as they are scored.
    """

    def __init__(
        self,
        averager: Averager,
        metric: Metric,
        world: World,
        *,
        batch_size: int = 64,
        advance: Advance = lambda _: None,
    ) -> None:
        self._candidate = Candidate(averager, world.device)
        self._metric, self._world, self._batch, self._advance = metric, world, batch_size, advance
        self.images_forwarded = 0

    def score(self, mix: Mix, split: Split) -> Score:
        """The metric of `mix` on `split`."""
        return self._score(self.predict(mix, split), split)

    def compare(self, soup: Mix, best: Mix, split: Split) -> Comparison:
        """Score both on the test split, and say how sure the difference is."""
        first = self.predict(soup, split)
        second = first if soup == best else self.predict(best, split)
        return compare(self._metric, first, second, split.labels, self._score(first, split), self._score(second, split))

    def predict(self, mix: Mix, split: Split) -> Labels:
        """Images × `metric.top` class indices, the likeliest first."""
        model = self._candidate.load(mix)
        pixels = np.load(split.pixels, mmap_mode="r")
        batches = range(0, len(split), self._batch)
        mine = []
        for n in range(self._world.index, len(batches), self._world.count):
            mine.append((n, self._forward(model, pixels[batches[n] : batches[n] + self._batch])))
            self._advance(len(mine[-1][1]) * self._world.count)
        rows = sorted(self._world.gather(mine), key=lambda row: row[0])
        found = np.concatenate([block for _, block in rows])
        if len(found) != len(split):
            raise SoupError(f"expected predictions for {len(split)} images, found {len(found)}", where=split.name)
        self.images_forwarded += len(split)
        return found

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

    def _score(self, predictions: Labels, split: Split) -> Score:
        value = self._world.on_main(lambda: self._metric.value(predictions, split.labels))
        if not np.isfinite(value):
            raise SoupError(f"the metric {self._metric.name} gave {value}", where=split.name)
        if not self._metric.counts:
            return Score(value, len(split))
        right = hits(predictions, split.labels)
        return Score(value, len(split), int(right.sum()), right.astype(np.uint8).tobytes())


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


def _view(tensor: torch.Tensor) -> NDArray[Any]:
    """A tensor's memory as one flat numpy array of what a file would store."""
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.uint16).numpy().reshape(-1)
    if tensor.dtype == torch.bool:
        return tensor.view(torch.uint8).numpy().reshape(-1)
    return tensor.numpy().reshape(-1)
