"""Tiny real models and images: families of fine-tuned classifiers whose accuracies differ, made in a second."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image
from PIL import Image as Pictures
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForImageClassification, ViTImageProcessorPil

NAMES = ("apple", "green pear", "quince", "plum", "sour_cherry", "fig")
SIDE = 16
MEMBERS = ("1", "2", "3", "10")
STRENGTHS = (0.14, 0.12, 0.2, 0.16)
CONFIGS: dict[str, dict[str, Any]] = {
    "vit": {
        "image_size": SIDE,
        "patch_size": 4,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 48,
        "initializer_range": 0.2,
    },
    "resnet": {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"},
    "efficientnet": {
        "image_size": SIDE,
        "width_coefficient": 0.125,
        "depth_coefficient": 1.0,
        "hidden_dim": 160,
        "kernel_sizes": [3, 3],
        "in_channels": [32, 64],
        "out_channels": [64, 128],
        "strides": [1, 2],
        "num_block_repeats": [1, 1],
        "expand_ratios": [1, 4],
        "depthwise_padding": [],
        "batch_norm_momentum": 0.1,
    },
}


@dataclass(frozen=True)
class Family:
    """Folders of models that may be averaged."""

    kind: str
    folders: tuple[Path, ...]

    @property
    def words(self) -> list[str]:
        """The folders as a command line names them."""
        return [str(folder) for folder in self.folders]

    @property
    def glob(self) -> str:
        """A pattern for all of them."""
        return str(self.folders[0].parent / f"{self.kind}-*")


def make_images(seed: int = 0) -> DatasetDict:
    """Six classes of noisy patterns: 240 images to fit heads on, 60 that select, 72 that report."""
    random = np.random.default_rng(seed)
    patterns = random.uniform(0, 255, (len(NAMES), 4, 4, 3)).repeat(4, axis=1).repeat(4, axis=2)
    features = Features({"image": Image(), "label": ClassLabel(names=list(NAMES))})
    parts = {}
    for name, count in (("train", 240), ("validation", 60), ("test", 72)):
        labels = np.arange(count) % len(NAMES)
        noise = random.normal(0, 25, (count, SIDE, SIDE, 3)).astype(np.float64)
        pixels = (0.5 * patterns[labels] + 64 + noise).clip(0, 255).astype(np.uint8)
        columns = {"image": [Pictures.fromarray(p) for p in pixels], "label": labels.tolist()}
        parts[name] = Dataset.from_dict(columns, features=features)
    return DatasetDict(parts)


def write_parquet(images: Any, folder: Path) -> Path:
    """The selection and test splits as parquet files under their splits' names."""
    folder.mkdir(parents=True)
    for name in ("validation", "test"):
        images[name].to_parquet(folder / f"{name}-00000-of-00001.parquet")
    return folder


def make_models(kind: str, folder: Path) -> Family:
    """A base with a random body and a head fitted to the training images, and copies disturbed more and less."""
    torch.manual_seed(0)
    base, processor = _base(kind), ViTImageProcessorPil(size={"height": SIDE, "width": SIDE})
    train = make_images()["train"]
    fit_head(base, processor(train["image"][:], return_tensors="pt")["pixel_values"], torch.tensor(train["label"][:]))
    start = {name: tensor.clone() for name, tensor in base.state_dict().items()}
    folders = []
    for seed, (member, strength) in enumerate(zip(MEMBERS, STRENGTHS, strict=True)):
        base.load_state_dict(disturbed(start, strength, seed))
        folders.append(folder / f"{kind}-{member}")
        base.save_pretrained(folders[-1])
        processor.save_pretrained(folders[-1])
        (folders[-1] / "README.md").write_text("---\nlicense: apache-2.0\n---\nA fine-tuned model.\n")
    return Family(kind, tuple(folders))


def _base(kind: str) -> Any:
    labels = {"id2label": dict(enumerate(NAMES)), "label2id": {name: i for i, name in enumerate(NAMES)}}
    model = AutoModelForImageClassification.from_config(AutoConfig.for_model(kind, **CONFIGS[kind], **labels))
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.ones_(module.weight)
        elif isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight)
    return model


@torch.no_grad()
def fit_head(model: Any, pixels: torch.Tensor, labels: torch.Tensor) -> None:
    """Settle the batch norms, then solve the head by ridge regression on the body's features."""
    model.train()
    for _ in range(30):
        model(pixels)
    model.eval()
    head = next(m for m in model.modules() if isinstance(m, torch.nn.Linear) and m.out_features == len(NAMES))
    seen: list[torch.Tensor] = []
    hook = head.register_forward_pre_hook(lambda _, given: seen.append(given[0].double()))
    model(pixels)
    hook.remove()
    features = torch.cat([seen[0], torch.ones(len(labels), 1, dtype=torch.float64)], dim=1)
    wanted = torch.nn.functional.one_hot(labels, len(NAMES)).double() - 1 / len(NAMES)
    ridge = 1e-3 * features.square().mean() * len(labels) * torch.eye(features.shape[1], dtype=torch.float64)
    solved = torch.linalg.solve(features.T @ features + ridge, features.T @ wanted)
    head.weight.copy_(4 * solved[:-1].T)
    head.bias.copy_(4 * solved[-1])


def disturbed(start: dict[str, torch.Tensor], strength: float, seed: int) -> dict[str, torch.Tensor]:
    """Weights with noise in proportion to their spread; batch-norm statistics moved, counters counted on."""
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for name, tensor in start.items():
        if not tensor.is_floating_point():
            found[name] = tensor + 7 * seed
            continue
        noise = torch.randn(tensor.shape, generator=generator)
        if name.endswith("running_var"):
            found[name] = tensor * (0.3 * strength * noise).exp()
        else:
            spread = tensor.std() if tensor.numel() > 1 else tensor.abs()
            found[name] = tensor + strength * spread * noise
    return found


def copy_model(folder: Path, target: Path, **config: Any) -> Path:
    """A copy of a model folder, with some of its config changed."""
    shutil.copytree(folder, target)
    if config:
        edit_json(target / "config.json", **config)
    return target


def edit_json(path: Path, **changes: Any) -> None:
    """Change keys of a JSON file; None takes a key out."""
    found = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({key: value for key, value in found.items() if value is not None}))


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """All tensors of a model folder."""
    found: dict[str, torch.Tensor] = {}
    for path in sorted(folder.glob("*.safetensors")):
        found.update(load_file(path))
    return found


def put_weights(folder: Path, tensors: dict[str, torch.Tensor]) -> None:
    """Replace the tensors of a model folder."""
    save_file({k: v.contiguous() for k, v in tensors.items()}, folder / "model.safetensors", {"format": "pt"})


def cast(folder: Path, target: Path, dtype: torch.dtype) -> Path:
    """A copy whose floats are of another type."""
    copy_model(folder, target, dtype=str(dtype).removeprefix("torch."))
    put_weights(target, {k: v.to(dtype) if v.is_floating_point() else v for k, v in weights(folder).items()})
    return target


def permuted(folder: Path, target: Path, order: list[int]) -> Path:
    """The same function with its classes in another order: row r of the new head is row order[r] of the old one."""
    names = [NAMES[i] for i in order]
    labels = {"id2label": dict(enumerate(names)), "label2id": {name: i for i, name in enumerate(names)}}
    copy_model(folder, target, **labels)
    heads = ("classifier.weight", "classifier.bias", "classifier.1.weight", "classifier.1.bias")
    put_weights(target, {k: v[order] if k in heads else v for k, v in weights(folder).items()})
    return target


def logits(folder: Path, images: Any) -> torch.Tensor:
    """What transformers computes with a model folder, its own processor included."""
    processor = ViTImageProcessorPil.from_pretrained(folder)
    model = AutoModelForImageClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        found: torch.Tensor = model(pixel_values=processor(images, return_tensors="pt")["pixel_values"]).logits
    return found


def accuracy(folder: Path, split: Any) -> float:
    """The share of a split that a model folder gets right, computed apart from hfsoup."""
    guesses = logits(folder, split["image"][:]).argmax(1)
    return float((guesses == torch.tensor(split["label"][:])).double().mean())
