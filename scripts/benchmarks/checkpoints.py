"""Checkpoints to measure with, made on the spot: real layouts, weights drawn at random."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hfsoup.checkpoints.safetensors_io import TensorFile, write_header
from hfsoup.ingredients.compatibility import check_compatibility
from hfsoup.ingredients.family import Family
from hfsoup.ingredients.pull import pull_ingredients
from hfsoup.ingredients.resolve import resolve_patterns

CLASSES = 10
PROCESSOR = {
    "image_processor_type": "ViTImageProcessor",
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": [0.5] * 3,
    "image_std": [0.5] * 3,
    "resample": 2,
    "rescale_factor": 1 / 255,
}
CHUNK = 1 << 22
DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Vit:
    """The size of a vision transformer."""

    hidden: int
    layers: int
    side: int = 224
    patch: int = 16

    @property
    def config(self) -> dict[str, Any]:
        """Its config.json, but for the dtype."""
        return {
            "architectures": ["ViTForImageClassification"],
            "model_type": "vit",
            "hidden_size": self.hidden,
            "intermediate_size": 4 * self.hidden,
            "num_hidden_layers": self.layers,
            "num_attention_heads": max(self.hidden // 64, 1),
            "image_size": self.side,
            "patch_size": self.patch,
            "id2label": {str(i): f"class-{i}" for i in range(CLASSES)},
            "label2id": {f"class-{i}": i for i in range(CLASSES)},
        }

    @property
    def shapes(self) -> Shapes:
        """Its tensors, as transformers names them."""
        h, tokens = self.hidden, (self.side // self.patch) ** 2 + 1
        found: Shapes = {"classifier.bias": (CLASSES,), "classifier.weight": (CLASSES, h)}
        found["vit.embeddings.cls_token"] = (1, 1, h)
        found["vit.embeddings.position_embeddings"] = (1, tokens, h)
        found["vit.embeddings.patch_embeddings.projection.bias"] = (h,)
        found["vit.embeddings.patch_embeddings.projection.weight"] = (h, 3, self.patch, self.patch)
        linear = {f"attention.{name}_proj": (h, h) for name in "kqvo"}
        linear |= {"mlp.fc1": (4 * h, h), "mlp.fc2": (h, 4 * h)}
        for n in range(self.layers):
            layer = f"vit.layers.{n}."
            for name, shape in linear.items():
                found |= {f"{layer}{name}.bias": shape[:1], f"{layer}{name}.weight": shape}
            for name in ("layernorm_after", "layernorm_before"):
                found |= {f"{layer}{name}.bias": (h,), f"{layer}{name}.weight": (h,)}
        return found | {"vit.layernorm.bias": (h,), "vit.layernorm.weight": (h,)}


VIT_B, VIT_TI, MANY = Vit(768, 12), Vit(192, 12), Vit(8, 100, 32, 16)
"""ViT-B/16 and ViT-Ti/16 in their usual sizes, and one of 1,608 tiny tensors."""
LARGE = Vit(2048, 25)
"""About 5 GB of float32."""


def family(folder: Path, size: Vit, count: int, shards: int = 1) -> list[Path]:
    """Folders of `count` checkpoints that look like fine-tuned ones: the same start, a little noise each."""
    folders = []
    for n in range(count):
        target = folder / f"m{n}"
        _describe(target, size.config, "F32", size.side)
        specs = list(size.shapes.items())
        step = -(-len(specs) // shards)
        names = [f"model-{k + 1:05}-of-{shards:05}.safetensors" for k in range(shards)]
        homes: dict[str, str] = {}
        for k, name in enumerate(names if shards > 1 else ["model.safetensors"]):
            part = dict(specs[k * step : (k + 1) * step])
            _draw(target / name, part, start=np.random.default_rng(k), own=np.random.default_rng([n + 1, k]))
            homes |= dict.fromkeys(part, name)
        if shards > 1:
            total = sum(4 * int(np.prod(shape)) for shape in size.shapes.values())
            index = {"metadata": {"total_size": total}, "weight_map": homes}
            (target / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
        folders.append(target)
    return folders


def cast(folders: list[Path], target: Path, dtype: str, size: Vit) -> list[Path]:
    """The same checkpoints in half precision, F16 or BF16; the latter cut off, which is near enough here."""
    found = []
    for folder in folders:
        place = target / folder.name
        _describe(place, size.config, dtype, size.side)
        source = TensorFile(folder / "model.safetensors")
        specs = list(source.tensors.values())
        starts = write_header(place / "model.safetensors", [(s.name, dtype, s.shape) for s in specs])
        with (place / "model.safetensors").open("r+b") as file:
            for spec in specs:
                block = source.read(spec, 0, int(np.prod(spec.shape)))
                half = block.astype(np.float16) if dtype == "F16" else block.view(np.uint16)[1::2].copy()
                file.seek(starts[spec.name])
                file.write(half.data)
        source.close()
        found.append(place)
    return found


def linked(folders: list[Path], target: Path, count: int) -> list[Path]:
    """`count` checkpoints by other names, hard links to `folders` in turn."""
    found = []
    for n in range(count):
        place = target / f"m{n}"
        place.mkdir(parents=True)
        for path in folders[n % len(folders)].iterdir():
            os.link(path, place / path.name)
        found.append(place)
    return found


def checked(folders: list[Path]) -> Family:
    """A family that may be averaged, as a bake finds it."""
    ingredients = pull_ingredients(resolve_patterns(tuple(map(str, folders))))
    for ingredient in ingredients:
        for file in ingredient.weights:
            # Hashing goes on in threads, and would be in the way of what is timed.
            _ = file.sha256
    return check_compatibility(ingredients)


def small(kind: str, folder: Path, count: int, config: dict[str, Any], side: int) -> list[Path]:
    """Folders of small models of any architecture, as transformers makes and saves them, with noise of their own."""
    import torch
    from transformers import AutoConfig, AutoModelForImageClassification

    torch.manual_seed(0)
    made = AutoConfig.for_model(kind, **config, id2label={i: f"class-{i}" for i in range(CLASSES)})
    model = AutoModelForImageClassification.from_config(made)  # type: ignore[no-untyped-call]
    return [perturbed(model, folder / f"{kind}-{n}", 0.01, n, side) for n in range(count)]


def perturbed(model: Any, folder: Path, strength: float, seed: int, side: int) -> Path:
    """Save a model with noise on its weights, in proportion to the spread of each tensor."""
    import torch

    generator, start = torch.Generator().manual_seed(seed), model.state_dict()
    found = {}
    for name, tensor in start.items():
        found[name] = tensor.clone()
        if tensor.is_floating_point() and tensor.numel() > 1 and "running" not in name:
            found[name] += strength * tensor.std() * torch.randn(tensor.shape, generator=generator)
    model.save_pretrained(folder, state_dict=found)
    _processor(folder, side)
    return folder


def remove(*folders: Path) -> None:
    """Make room."""
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


def _describe(folder: Path, config: dict[str, Any], dtype: str, side: int) -> None:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config | {"dtype": DTYPES[dtype]}), encoding="utf-8")
    _processor(folder, side)


def _processor(folder: Path, side: int) -> None:
    values = PROCESSOR | {"size": {"height": side, "width": side}}
    (folder / "preprocessor_config.json").write_text(json.dumps(values), encoding="utf-8")


def _draw(path: Path, shapes: Shapes, *, start: np.random.Generator, own: np.random.Generator) -> None:
    """A safetensors file of float32 numbers, spread as trained weights are; the same few millions over and over."""
    starts = write_header(path, [(name, "F32", shape) for name, shape in shapes.items()])
    left = sum(int(np.prod(shape)) for shape in shapes.values())
    block: NDArray[np.float32] = start.standard_normal(min(left, CHUNK), np.float32)
    block += 0.1 * own.standard_normal(len(block), np.float32)
    block *= 0.02
    with path.open("r+b") as file:
        file.seek(min(starts.values()))
        while left:
            count = min(left, CHUNK)
            file.write(block[:count].data)
            left -= count
