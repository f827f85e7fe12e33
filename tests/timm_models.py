"""Small models of timm, saved as timm or as transformers' wrapper for them saves."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from family import NAMES, Family, disturbed, edit_json, fit_head, make_images

SIDE = 32
SETTINGS = {"input_size": (3, SIDE, SIDE), "crop_pct": 0.9, "mean": (0.5, 0.4, 0.5), "std": (0.5, 0.5, 0.4)}
ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "resnet": ("resnet10t", {"channels": [8, 8, 16, 16], "stem_width": 8}),
    "vit": ("vit_tiny_patch16_224", {"img_size": SIDE, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2}),
    "efficientnet": ("test_efficientnet", {}),
}
MEMBERS = 3


def make_timm(kind: str, layout: str, folder: Path) -> Family:
    """Runs that began as one model of timm, saved as timm or as transformers' wrapper saves."""
    import timm
    from timm.data import create_transform, resolve_model_data_config

    name, arguments = ARCHITECTURES[kind]
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=len(NAMES), **arguments).eval()
    model.pretrained_cfg.update(SETTINGS)
    transform, train = create_transform(**resolve_model_data_config(model)), make_images()["train"]
    fit_head(model, torch.stack([transform(image) for image in train["image"]]), torch.tensor(train["label"][:]))
    start = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    folders = []
    for seed in range(MEMBERS):
        model.load_state_dict(disturbed(start, 0.04 + 0.02 * seed, seed))
        folders.append(folder / f"{kind}-{seed}")
        save(model, folders[-1], layout)
    return Family(kind, tuple(folders))


def save(model: Any, folder: Path, layout: str) -> None:
    """A model as timm or transformers leaves it on a disk."""
    from timm.models import save_for_hf
    from transformers import AutoModelForImageClassification

    labels = {"label_names": list(NAMES)}
    save_for_hf(model, folder, model_config=labels, data_config=SETTINGS, safe_serialization=True)
    if layout == "wrapper":
        edit_json(folder / "config.json", model_args=without_classes(folder))
        wrapped = AutoModelForImageClassification.from_pretrained(folder)
        shutil.rmtree(folder)
        wrapped.save_pretrained(folder)


def without_classes(folder: Path) -> dict[str, Any]:
    """The arguments of a model in timm's layout without the number of classes, with which transformers fails."""
    arguments = json.loads((folder / "config.json").read_text())["model_args"]
    return {key: value for key, value in arguments.items() if key != "num_classes"}
