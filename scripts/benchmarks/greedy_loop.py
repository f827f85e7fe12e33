"""A greedy soup as people write it today, as a process of its own: `greedy_loop.py HOW DATA OUTPUT MODEL...`.

HOW is `loader`, a DataLoader and `load_state_dict` for each candidate, as in the code of arXiv:2203.05482; or
`evaluator`, `evaluate.evaluator("image-classification")` for each, on every tenth image only. OUTPUT gets the soup, and
`decisions.json` with what was taken in and the seconds that scoring took.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, load_dataset
from torch.utils.data import DataLoader
from transformers import AutoImageProcessor, AutoModelForImageClassification

from hfsoup.utils.threads import count_processors

BATCH = 64
TENTH = 10
State = dict[str, torch.Tensor]


def main() -> None:
    """Search, save, and say what was decided."""
    how, data, output, *models = sys.argv[1:]
    processor: Any = AutoImageProcessor.from_pretrained(models[0])  # type: ignore[no-untyped-call]
    model = AutoModelForImageClassification.from_pretrained(models[0]).eval()
    images: Any = load_dataset("parquet", data_files={n: f"{data}/{n}-*.parquet" for n in ("validation", "test")})
    make = {"loader": by_loader, "evaluator": by_evaluator}[how]
    score, test = (make(model, processor, images[name]) for name in ("validation", "test"))
    begin = time.perf_counter()
    order, members, soup = search(model, models, score)
    seconds = time.perf_counter() - begin
    for state in (load(models[order[0]]), soup):
        model.load_state_dict(state)
        test()
    model.save_pretrained(output)
    facts = {"members": [Path(models[i]).name for i in members], "seconds": seconds}
    Path(output, "decisions.json").write_text(json.dumps(facts), encoding="utf-8")


def search(model: Any, models: list[str], score: Callable[[], int]) -> tuple[list[int], list[int], State]:
    """Models by their score, those that the greedy soup takes in, and their mean."""
    scores = []
    for folder in models:
        model.load_state_dict(load(folder))
        scores.append(score())
    order = sorted(range(len(models)), key=lambda i: (-scores[i], i))
    members, best, soup = [order[0]], scores[order[0]], load(models[order[0]])
    for i in order[1:]:
        found, count = load(models[i]), len(members)
        candidate = {name: (tensor * count + found[name]) / (count + 1) for name, tensor in soup.items()}
        model.load_state_dict(candidate)
        if (reached := score()) >= best:
            members, best, soup = [*members, i], reached, candidate
    return order, members, soup


def load(folder: str) -> State:
    """The weights of a model by its own names, which those of its file are not always."""
    found: State = AutoModelForImageClassification.from_pretrained(folder).state_dict()
    return found


def by_loader(model: Any, processor: Any, images: Dataset) -> Callable[[], int]:
    """The number of right answers, every image decoded and processed each time."""

    def prepare(batch: dict[str, list[Any]]) -> dict[str, Any]:
        return {"pixels": processor(batch["image"], return_tensors="pt")["pixel_values"], "label": batch["label"]}

    loader: Any = DataLoader(images.with_transform(prepare), BATCH, num_workers=count_processors())

    def score() -> int:
        right = 0
        with torch.inference_mode():
            for batch in loader:
                right += int((model(pixel_values=batch["pixels"]).logits.argmax(-1) == batch["label"]).sum())
        return right

    return score


def by_evaluator(model: Any, processor: Any, images: Dataset) -> Callable[[], int]:
    """The same of every tenth image."""
    import evaluate
    import transformers
    from datasets import Features, Value
    from transformers import pipeline

    # evaluate 0.4.6 asks whether a pipeline is this class, which transformers has no more.
    vars(transformers).setdefault("TFPreTrainedModel", type("TFPreTrainedModel", (), {}))

    class Right(evaluate.Metric):  # type: ignore[misc]
        """The share of right answers; the Hub's own would have to be downloaded."""

        def _info(self) -> Any:
            features = Features({"predictions": Value("int32"), "references": Value("int32")})
            return evaluate.MetricInfo(description="", citation="", features=features)

        def _compute(self, predictions: Any, references: Any) -> dict[str, float]:
            return {"accuracy": sum(p == r for p, r in zip(predictions, references, strict=True)) / len(references)}

    some = images.select(range(0, len(images), TENTH))

    def score() -> int:
        pipe = pipeline("image-classification", model=model, image_processor=processor, device="cpu")
        found: Any = evaluate.evaluator("image-classification").compute(
            model_or_pipeline=pipe, data=some, metric=Right(), label_mapping=model.config.label2id
        )
        accuracy: float = found["accuracy"]
        return round(accuracy * len(some))

    return score


if __name__ == "__main__":
    main()
