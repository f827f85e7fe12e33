"""Checkpoints of timm in both layouts, timm's own and that of transformers' wrapper: ingredients like any other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from family import NAMES, SIDE, Family, _disturbed, _fit, copy_model, edit_json, make_images, weights
from PIL.Image import Image
from safetensors import safe_open
from shell import bake, refused, run
from transformers import pipeline

import hfsoup

pytestmark = pytest.mark.timm

ARCHITECTURES = {
    "resnet": ("resnet10t", {"channels": [8, 8, 16, 16], "stem_width": 8}),
    "vit": ("test_vit", {"img_size": SIDE, "patch_size": 4}),
    "efficientnet": ("test_efficientnet", {}),
}
LAYOUTS = ("timm", "transformers")


def make_timm(kind: str, layout: str, folder: Path, members: int = 3) -> Family:
    """Runs that began as one model of timm, in a layout."""
    from timm.models import save_for_hf
    from transformers import TimmWrapperConfig, TimmWrapperForImageClassification, TimmWrapperImageProcessor

    name, arguments = ARCHITECTURES[kind]
    torch.manual_seed(0)
    settings = {"input_size": [3, SIDE, SIDE], "crop_pct": 1.0, "mean": [0.5] * 3, "std": [0.5] * 3}
    labels = {"id2label": dict(enumerate(NAMES)), "label2id": {name: i for i, name in enumerate(NAMES)}}
    config = TimmWrapperConfig(architecture=name, model_args=arguments, pretrained_cfg=settings, **labels)
    model = TimmWrapperForImageClassification(config).eval()
    train, processor = make_images()["train"], TimmWrapperImageProcessor(settings, name)
    _fit(model, processor(train["image"][:])["pixel_values"], torch.tensor(train["label"][:]))
    start = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    folders = []
    for seed in range(members):
        model.load_state_dict(_disturbed(start, 0.1 + 0.04 * seed, seed))
        folders.append(folder / f"{kind}-{seed}")
        if layout == "timm":
            wanted = {
                "model_config": {"label_names": list(NAMES)},
                "data_config": {**settings, "input_size": (3, SIDE, SIDE)},
            }
            save_for_hf(model.timm_model, folders[-1], **wanted, safe_serialization=True)
        else:
            model.save_pretrained(folders[-1])
    return Family(kind, tuple(folders))


@pytest.fixture(scope="session")
def native(tmp_path_factory: pytest.TempPathFactory) -> Family:
    """ResNets as timm saves them."""
    return make_timm("resnet", "timm", tmp_path_factory.mktemp("native"))


def test_x(native: Family, data: Path, alone: Path) -> None:
    print((native.folders[0] / "config.json").read_text())
    found = bake(*native.words, "--recipe", "greedy", "--dataset", data, "--output", "soup")
    print(found)
    print((alone / "soup" / "README.md").read_text())
    print((alone / "soup" / "config.json").read_text())
    assert 0
