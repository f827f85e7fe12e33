"""Images with several classes each, and families of multi-label classifiers fitted to them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image, List
from family import NAMES, SIDE, Family, copy_model, put_weights, weights
from PIL import Image as Pictures
from transformers import AutoModelForImageClassification, ViTImageProcessorPil

FEATURES = Features({"image": Image(), "labels": List(ClassLabel(names=list(NAMES)))})
HEADS = ("classifier.weight", "classifier.bias", "classifier.1.weight", "classifier.1.bias")


def make_several(seed: int = 3) -> DatasetDict:
    """Images that are the mean of some of six patterns: 300 to fit heads on, 90 that select, 96 that report."""
    random = np.random.default_rng(seed)
    patterns = random.uniform(0, 255, (len(NAMES), 4, 4, 3)).repeat(4, axis=1).repeat(4, axis=2)
    parts = {}
    for name, count in (("train", 300), ("validation", 90), ("test", 96)):
        held = random.random((count, len(NAMES))) < np.linspace(0.2, 0.5, len(NAMES))
        mean = np.stack([patterns[row].mean(axis=0) if row.any() else np.full((SIDE, SIDE, 3), 128.0) for row in held])
        pixels = (mean + random.normal(0, 20, mean.shape)).clip(0, 255).astype(np.uint8)
        labels = [np.flatnonzero(row).tolist() for row in held]
        columns = {"image": [Pictures.fromarray(p) for p in pixels], "labels": labels}
        parts[name] = Dataset.from_dict(columns, features=FEATURES)
    return DatasetDict(parts)


def multi_hot(rows: Any) -> Any:
    """Labels of a split as images × classes of 0 and 1."""
    found = np.zeros((len(rows), len(NAMES)), np.int64)
    for n, held in enumerate(rows["labels"][:]):
        found[n, held] = 1
    return found


def make_multi(family: Family, images: DatasetDict, folder: Path) -> Family:
    """Copies of a family's models whose problem_type is multi-label, each head fitted to the training images."""
    wanted = torch.from_numpy(4.0 * multi_hot(images["train"]) - 2)
    folders = []
    for n, source in enumerate(family.folders):
        target = copy_model(source, folder / source.name, problem_type="multi_label_classification")
        features = torch.cat(
            [_features(target, images["train"]["image"][:]), torch.ones(len(wanted), 1)], dim=1
        ).double()
        ridge = 10 ** (n - 3) * len(wanted) * torch.eye(features.shape[1], dtype=torch.float64)
        solved = torch.linalg.solve(features.T @ features + ridge, features.T @ wanted).float()
        tensors = weights(target)
        weight, bias = (name for name in HEADS if name in tensors)
        put_weights(target, {**tensors, weight: solved[:-1].T, bias: solved[-1]})
        folders.append(target)
    return Family(family.kind, tuple(folders))


@torch.no_grad()
def _features(folder: Path, pictures: Any) -> torch.Tensor:
    """What the head of a model is given of each picture."""
    model = AutoModelForImageClassification.from_pretrained(folder).eval()
    head = next(m for m in model.modules() if isinstance(m, torch.nn.Linear) and m.out_features == len(NAMES))
    seen: list[torch.Tensor] = []
    hook = head.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    model(pixel_values=ViTImageProcessorPil.from_pretrained(folder)(pictures, return_tensors="pt")["pixel_values"])
    hook.remove()
    return seen[0]
