"""The demo's images and starts: scikit-learn's handwritten digits, and small models pre-trained on a related task.

Source of the images: `sklearn.datasets.load_digits`, the test part of UCI's Optical Recognition of Handwritten Digits,
1,797 greyscale images of 8x8 pixels.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from datasets import Dataset, DatasetDict
    from transformers import PreTrainedModel

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

TRAIN, VALIDATION = 400, 650
"""Images of the first two splits; the other 747 are the test split. Few train images leave a soup room to win."""

SIZE = {"vit": 16, "resnet": 32, "efficientnet": 32}
"""Height and width, in pixels, that each family's processor brings the digits to. Its keys are the families."""

STEPS = {"vit": 500, "resnet": 250, "efficientnet": 300}
"""Pre-training steps, of 64 images each."""

CONFIGS: dict[str, dict[str, Any]] = {
    "vit": {
        "image_size": SIZE["vit"],
        "patch_size": 4,
        "hidden_size": 64,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "intermediate_size": 128,
        # The usual spread of 0.02 is too small for a model this narrow to start learning quickly.
        "initializer_range": 0.1,
    },
    "resnet": {"embedding_size": 16, "hidden_sizes": [16, 32, 64], "depths": [1, 1, 1], "layer_type": "basic"},
    "efficientnet": {
        "image_size": SIZE["efficientnet"],
        "width_coefficient": 0.25,
        "depth_coefficient": 1.0,
        "hidden_dim": 320,  # must be 1280 times the width coefficient
        "kernel_sizes": [3, 3, 5],
        "in_channels": [32, 32, 64],
        "out_channels": [32, 64, 128],
        "strides": [1, 2, 2],
        "num_block_repeats": [1, 2, 2],
        "expand_ratios": [1, 4, 4],
        # PyTorch's sense: the default of 0.99 would keep the statistics of about the last batch alone.
        "batch_norm_momentum": 0.1,
        "dropout_rate": 0.0,
        "drop_connect_rate": 0.0,
    },
}
"""The small models, by family."""

Settings = dict[str, float | int | bool | str]

BATCH = {"vit": 8, "resnet": 32, "efficientnet": 32}
"""Images per step of a fine-tuning, for `hfsoup sweep --batch-size`."""

DECAYED: Settings = {"lr_scheduler_type": "linear", "num_train_epochs": 10}
CONSTANT: Settings = {"lr_scheduler_type": "constant_with_warmup", "num_train_epochs": 4}
SCHEDULE = {"vit": CONSTANT, "resnet": DECAYED, "efficientnet": DECAYED}
"""Short runs that keep their rate end all around the bottom of one basin; long ones that decay end close to it."""

RATES = {
    "vit": (1.5e-3, 1.2e-3, 1.8e-3, 1.5e-3, 1.2e-3, 1.8e-3),
    "resnet": (1.5e-3, 1e-3, 2e-3, 1.5e-3, 2e-3, 2.5e-3),
    "efficientnet": (1.5e-3, 1e-3, 2e-3, 1.5e-3, 2e-3, 2.5e-3),
}
DECAYS, SMOOTHINGS = (0.01, 0.1, 0.01, 0.001, 0.1, 0.05), (0.0, 0.1, 0.05, 0.0, 0.1, 0.0)


def make_grid(family: str, schedule: Settings | None = None) -> list[Settings]:
    """Return the runs of a family, for `hfsoup sweep --grid` once written as JSON; `schedule` if not its own."""
    return [
        {
            "learning_rate": rate,
            "weight_decay": decay,
            "label_smoothing_factor": smoothing,
            # A shift by one of eight pixels cuts the strokes at the rim: augmented runs score lower on validation.
            "augment": False,
            "seed": seed,
            **(schedule or SCHEDULE[family]),
        }
        for seed, (rate, decay, smoothing) in enumerate(zip(RATES[family], DECAYS, SMOOTHINGS, strict=True))
    ]


def make_digits(seed: int = 0) -> DatasetDict:
    """Return the digits as `train` (400), `validation` (650) and `test` (747), stratified by class.

    Columns: `image`, an RGB PNG of 8x8 pixels, and `label`, a ClassLabel from "zero" to "nine". The same seed always
    gives the same splits.
    """
    from datasets import DatasetDict
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    bunch = load_digits()
    greys, labels = (bunch.images * (255 / 16)).round().astype("uint8"), bunch.target
    train, rest = train_test_split(range(len(labels)), train_size=TRAIN, stratify=labels, random_state=seed)
    validation, test = train_test_split(rest, train_size=VALIDATION, stratify=labels[rest], random_state=seed)
    parts = {"train": train, "validation": validation, "test": test}
    return DatasetDict({name: _make_dataset(greys[part], labels[part]) for name, part in parts.items()})


def write_sweep_inputs(family: str, folder: str | Path) -> None:
    """Write what a sweep of `family` needs: `data`, the digits as parquet files, `start`, and two grids.

    `grid.json` is the demo's, `decayed.json` the same runs with learning rates that decay over ten epochs.
    """
    data, start = Path(folder, "data"), Path(folder, "start")
    data.mkdir(parents=True, exist_ok=True)
    for name, rows in make_digits().items():
        rows.to_parquet(data / f"{name}-00000-of-00001.parquet")
    pretrain(family, start)
    for name, schedule in (("grid", SCHEDULE[family]), ("decayed", DECAYED)):
        Path(folder, f"{name}.json").write_text(json.dumps(make_grid(family, schedule), indent=1), encoding="utf-8")


def _make_dataset(greys: Any, labels: Any) -> Dataset:
    """Return the images (n, 8, 8), 0 to 255, and their labels (n,) as a dataset."""
    from datasets import ClassLabel, Dataset, Features, Image
    from PIL import Image as Pictures

    columns = {"image": [Pictures.fromarray(grey).convert("RGB") for grey in greys], "label": labels.tolist()}
    return Dataset.from_dict(columns, features=Features({"image": Image(), "label": ClassLabel(names=list(NAMES))}))


def pretrain(family: str, folder: Path, seed: int = 0) -> None:
    """Train a small model of `family` ("vit", "resnet" or "efficientnet") from scratch and save it with its processor.

    Its task is made from the train images alone: to name both the digit and whether light and dark are swapped, of
    randomly turned, stretched and moved pictures. So its head, of twenty outputs, fits no run and is drawn anew.
    """
    import torch
    from transformers import ViTImageProcessorPil

    train = make_digits()["train"]
    side = SIZE[family]
    processor = ViTImageProcessorPil(size={"height": side, "width": side}, image_mean=[0.5] * 3, image_std=[0.5] * 3)
    pixels = processor(train["image"][:], return_tensors="pt")["pixel_values"]
    labels = torch.tensor(train["label"][:])
    torch.manual_seed(seed)
    model = _make_model(family)
    threads = torch.get_num_threads()
    # Models this small gain nothing from more threads, which slow each other down on a busy machine.
    torch.set_num_threads(1)
    try:
        _train(model, pixels, labels, STEPS[family])
    finally:
        torch.set_num_threads(threads)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


def _make_model(family: str) -> PreTrainedModel:
    """Return a new model; EfficientNet's batch-norm weights, drawn close to zero by transformers, are set to one."""
    import torch
    from transformers import AutoConfig

    from hfsoup.checkpoints.auto_class import IMAGE_CLASSIFICATION

    shown = (*NAMES, *(f"{name}-swapped" for name in NAMES))
    labels = {"id2label": dict(enumerate(shown)), "label2id": {name: number for number, name in enumerate(shown)}}
    config = AutoConfig.for_model(family, **CONFIGS[family], **labels)
    model: PreTrainedModel = IMAGE_CLASSIFICATION.load().from_config(config)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.ones_(module.weight)
    return model


def _train(model: PreTrainedModel, pixels: torch.Tensor, labels: torch.Tensor, steps: int) -> None:
    """Train in place on pixels (n, 3, height, width) in [-1, 1] and labels (n,) of the digits."""
    import torch

    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    model.train()
    for _ in range(steps):
        chosen, swapped = torch.randint(len(pixels), (64,)), torch.randint(2, (64,))
        pictures = _distort(pixels[chosen]) * (1 - 2 * swapped).view(-1, 1, 1, 1)
        loss = model(pixel_values=pictures, labels=labels[chosen] + len(NAMES) * swapped).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()


def _distort(pixels: torch.Tensor) -> torch.Tensor:
    """Turn, scale, shear and move each of the pictures (n, 3, height, width) at random; what comes in is dark (-1)."""
    import torch
    from torch.nn.functional import affine_grid, grid_sample

    count = len(pixels)
    angle, shear = torch.empty(count).uniform_(-0.3, 0.3), torch.empty(count).uniform_(-0.15, 0.15)
    scale, offset = torch.empty(count).uniform_(0.85, 1.2), torch.empty(count, 2, 1).uniform_(-0.15, 0.15)
    cos, sin = angle.cos() * scale, angle.sin() * scale
    turn = torch.stack([cos, shear * cos - sin, sin, cos + shear * sin], dim=1).view(count, 2, 2)
    grid = affine_grid(torch.cat([turn, offset], dim=2), list(pixels.shape), align_corners=False)
    return grid_sample(pixels + 1, grid, align_corners=False) - 1
