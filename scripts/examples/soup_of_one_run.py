"""Make a soup of the checkpoints of one training run with a callback for transformers' Trainer.

The images are random and the model is tiny, so this runs in seconds; the last lines are the same for any Trainer.

    python scripts/examples/soup_of_one_run.py runs/vit-0
"""

from __future__ import annotations

import sys

import numpy as np
import torch
from transformers import (
    EvalPrediction,
    Trainer,
    TrainingArguments,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessorPil,
    pipeline,
    set_seed,
)

import hfsoup

NAMES = ["dark", "light", "striped"]


def images(count: int, seed: int) -> list[dict[str, torch.Tensor]]:
    """Noise that is dark, light or striped, ready for a Trainer."""
    random, found = torch.Generator().manual_seed(seed), []
    for n in range(count):
        pixels = 1.5 * torch.randn(3, 16, 16, generator=random)
        if NAMES[n % 3] == "striped":
            pixels[:, ::2] += 0.5
        else:
            pixels += 0.3 if NAMES[n % 3] == "light" else -0.3
        found.append({"pixel_values": pixels, "labels": torch.tensor(n % 3)})
    return found


def accuracy(prediction: EvalPrediction) -> dict[str, float]:
    """What the Trainer reports as eval_accuracy."""
    right: float = np.mean(np.argmax(prediction.predictions, axis=1) == prediction.label_ids).item()
    return {"accuracy": right}


set_seed(0)
config = ViTConfig(
    hidden_size=16,
    intermediate_size=32,
    num_hidden_layers=2,
    num_attention_heads=2,
    image_size=16,
    patch_size=4,
    id2label=dict(enumerate(NAMES)),
    label2id={name: n for n, name in enumerate(NAMES)},
)
arguments = TrainingArguments(
    sys.argv[1],
    num_train_epochs=4,
    learning_rate=3e-3,
    save_strategy="epoch",
    metric_for_best_model="accuracy",
    report_to="none",
    disable_tqdm=True,
    use_cpu=True,
)
trainer = Trainer(
    ViTForImageClassification(config),
    arguments,
    train_dataset=images(96, seed=1),
    eval_dataset=images(60, seed=2),
    compute_metrics=accuracy,
    processing_class=ViTImageProcessorPil(size={"height": 16, "width": 16}),
)

# Greedy scores averages of the checkpoints on the Trainer's own evaluation set, by its own metric. The mean of the last
# five needs neither: Trainer(…, callbacks=[hfsoup.SoupCallback()]).
souping = hfsoup.SoupCallback("greedy", trainer=trainer)
trainer.add_callback(souping)

trainer.train()
print(souping.soup)

# The soup is a model folder like any other. With push="org/vit-soup" it would also be on the Hub.
classify = pipeline("image-classification", f"{sys.argv[1]}/soup")
print(f"{sys.argv[1]}/soup has a head for {classify.model.config.num_labels} classes")
