"""Checkpoints that several versions of transformers saved, in one bake: data/versions/make.py wrote the old ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from family import NAMES, accuracy, copy_model, edit_json
from PIL import Image
from shell import bake, refused
from transformers import AutoConfig, AutoImageProcessor, AutoModelForImageClassification, pipeline

OLD = Path(__file__).parent / "data/versions"
KINDS = sorted({path.name for path in OLD.glob("4*/*")})
PICTURE = Image.effect_noise((37, 53), 90).convert("RGB")


def saved(kind: str, folder: Path) -> list[Path]:
    """All old checkpoints of a model type, oldest first, and one that the installed version saves."""
    found = sorted(OLD.glob(f"4*/{kind}"))
    torch.manual_seed(0)
    values = json.loads((found[-1] / "config.json").read_text())
    config = AutoConfig.from_pretrained(found[-1], architectures=values["architectures"])
    AutoModelForImageClassification.from_config(config).save_pretrained(folder)
    processor: Any = AutoImageProcessor.from_pretrained(found[0])
    processor.save_pretrained(folder)
    return [*found, folder]


def loaded(folder: Path) -> dict[str, torch.Tensor]:
    """A model's floats as transformers loads them."""
    state = AutoModelForImageClassification.from_pretrained(folder).state_dict()
    return {name: tensor.double() for name, tensor in state.items() if tensor.is_floating_point()}


def mean(states: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """The plain mean, with the variance of everything that the batch norms of all have seen."""
    found = {name: sum(state[name] for state in states) / len(states) for name in states[0]}
    for name in (name for name in found if name.endswith("running_var")):
        centre = name.removesuffix("var") + "mean"
        spread = [(state[centre] - found[centre]) ** 2 for state in states]
        found[name] = found[name] + sum(spread) / len(states)
    return found  # type: ignore[return-value]


@pytest.mark.parametrize("newest_first", [False, True], ids=["oldest first", "newest first"])
@pytest.mark.parametrize("kind", KINDS)
def test_versions_mix(kind: str, newest_first: bool, alone: Path) -> None:
    """Whichever comes first, the soup is the plain mean of what transformers loads, and pipeline() takes it."""
    folders = saved(kind, alone / "new")
    bake(*(folders[::-1] if newest_first else folders), "--output", "soup")
    found, expected = loaded(Path("soup")), mean([loaded(folder) for folder in folders])
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.allclose(found[name], tensor, rtol=1e-6, atol=1e-6), name
    answer: Any = pipeline("image-classification", "soup")(PICTURE)
    assert {one["label"] for one in answer} <= set(NAMES)


@pytest.mark.parametrize("kind", ["vit", "resnet", "clip"])
def test_versions_are_scored_alike(kind: str, data: Path, images: Any, alone: Path) -> None:
    """What stands in a report is what transformers computes of the soup of several versions."""
    folders = saved(kind, alone / "new")
    found = bake(*folders, "--dataset", data, "--recipe", "uniform", "--output", "soup")
    assert found["soup"]["test"] == accuracy(Path("soup"), images["test"])
    assert found["ingredients"][0]["score"] == accuracy(folders[0], images["validation"])


@pytest.mark.parametrize(
    ("kind", "key", "value", "text"),
    [
        ("clip", "hidden_act", "relu", "config vision_config.hidden_act is 'relu', expected 'quick_gelu'"),
        ("siglip", "layer_norm_eps", 0.1, "config vision_config.layer_norm_eps is 0.1, expected 1e-06"),
        ("clip", "num_attention_heads", 4, "config vision_config.num_attention_heads is 4, expected 2"),
    ],
)
def test_a_difference_in_a_nested_config_is_shown(kind: str, key: str, value: Any, text: str, alone: Path) -> None:
    """What changes the function is a difference wherever in the config it stands, shown with both values alone."""
    first, *_, other = sorted(OLD.glob(f"4*/{kind}"))
    copy_model(other, alone / "other")
    vision = json.loads((other / "config.json").read_text())["vision_config"]
    edit_json(alone / "other/config.json", vision_config={**vision, key: value})
    block = refused("bake", first, alone / "other", code=1)
    assert text in block
    assert block.count(" is ") == 1, block
