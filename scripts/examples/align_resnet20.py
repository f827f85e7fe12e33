"""Networks that were trained from different starts, made one: their units are put in one order, then the layers fitted.

    python scripts/examples/align_resnet20.py CIFAR100_FOLDER CHECKPOINT.th CHECKPOINT.th ...

The folder is a dataset with train, validation and test; labels are used to score alone. The network is the residual
network with shortcuts without weights for images of 32 x 32.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.functional import pad, relu


class Shortcut(nn.Module):
    """Every second pixel, and zero channels on both sides."""

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
