"""Merge networks with different initialisations: align their hidden units, average them, and fit one network to them.

    python scripts/examples/align_resnet20.py CIFAR100_FOLDER CHECKPOINT.th CHECKPOINT.th ...

The folder is a dataset with the splits train, validation and test. Images of the first two are used without their
labels; the test split only reports. The checkpoints hold the `state_dict` of a ResNet for images of 32 x 32 whose
shortcuts have no weights.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
import torch
from datasets import load_dataset
from torch import nn
from torch.nn.functional import pad, relu

import hfsoup

MEAN, SPREAD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
MATCHED = 2000
"""Images that units are matched on; layers are fitted on all images."""
State = dict[str, torch.Tensor]


class Shortcut(nn.Module):
    """Every second pixel, with zero channels added on both sides."""

    def __init__(self, wider: int) -> None:
        super().__init__()
        self.wider = wider

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.wider, self.wider)) if self.wider else x


class Block(nn.Module):
    def __init__(self, narrow: int, wide: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(narrow, wide, 3, wide // narrow, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(wide)
        self.conv2 = nn.Conv2d(wide, wide, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(wide)
        self.shortcut = Shortcut((wide - narrow) // 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return relu(self.bn2(self.conv2(relu(self.bn1(self.conv1(x))))) + self.shortcut(x))


class ResNet(nn.Module):
    """Three stages of `depth` blocks."""

    def __init__(self, classes: int = 100, depth: int = 3, width: int = 16) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width)
        stages = [(width, width), (width, 2 * width), (2 * width, 4 * width)]
        self.layer1, self.layer2, self.layer3 = (
            nn.Sequential(Block(a, b), *(Block(b, b) for _ in range(depth - 1))) for a, b in stages
        )
        self.linear = nn.Linear(4 * width, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.layer3(self.layer2(self.layer1(relu(self.bn1(self.conv1(x))))))
        logits: torch.Tensor = self.linear(x.mean((2, 3)))
        return logits


def images(rows: Any) -> torch.Tensor:
    """Images x channels x height x width, normalised."""
    column = next(name for name, feature in rows.features.items() if type(feature).__name__ == "Image")
    pixels = torch.from_numpy(np.stack([np.asarray(image.convert("RGB")) for image in rows[column][:]]))
    scaled = (pixels.float() / 255 - torch.tensor(MEAN)) / torch.tensor(SPREAD)
    return scaled.permute(0, 3, 1, 2).contiguous()


def shaped_like(state: State) -> ResNet:
    """A network of the size of a state dict."""
    depth = sum(name.startswith("layer1.") and name.endswith("conv1.weight") for name in state)
    return ResNet(len(state["linear.bias"]), depth, len(state["conv1.weight"])).eval()


@torch.no_grad()
def accuracy(model: ResNet, state: State, pixels: torch.Tensor, labels: torch.Tensor) -> float:
    model.load_state_dict(state)
    guesses = torch.cat([model(batch).argmax(1) for batch in torch.split(pixels, 250)])
    return 100 * float((guesses == labels).double().mean())


@torch.no_grad()
def recalibrated(model: ResNet, state: State, pixels: torch.Tensor) -> State:
    """The state dict with newly estimated batch-norm statistics."""
    model.load_state_dict(state)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None
    model.train()
    for batch in torch.split(pixels, 128):
        model(batch)
    model.eval()
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("dataset")
    parser.add_argument("checkpoints", nargs="+")
    given = parser.parse_args()
    splits = load_dataset(given.dataset)
    seen = torch.cat([images(splits["train"]), images(splits["validation"])])
    seen = seen[torch.randperm(len(seen), generator=torch.Generator().manual_seed(0))]
    test, labels = images(splits["test"]), torch.tensor(splits["test"]["label"][:])
    ingredients = hfsoup.align(given.checkpoints, "padded-resnet", method="weights", unwrap=True)
    model = shaped_like(ingredients[0])

    def report(name: str, state: State) -> None:
        print(f"{name}: {accuracy(model, state, test, labels):.2f}", flush=True)

    for path, state in zip(given.checkpoints, ingredients, strict=True):
        report(path, state)
    plain = hfsoup.search("uniform", given.checkpoints, unwrap=True).state_dict()
    report("average", plain)
    report("average, new batch-norm statistics", recalibrated(model, plain, seen[:2048]))
    by_weights = hfsoup.search("uniform", ingredients).state_dict()
    report("average, aligned by weights, new statistics", recalibrated(model, by_weights, seen[:2048]))
    aligned = hfsoup.align(given.checkpoints, "padded-resnet", model=model, images=seen[:MATCHED], unwrap=True)
    average = hfsoup.search("uniform", aligned).state_dict()
    report("average, aligned by activations, new statistics", recalibrated(model, average, seen[:2048]))
    report("fitted", hfsoup.fit(aligned, "padded-resnet", model=model, images=seen))


if __name__ == "__main__":
    main()
