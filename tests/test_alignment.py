"""Ingredients from different starts: units are matched, and what is aligned computes what it did."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from family import CONFIGS, Family, accuracy, cast, copy_model, logits, put_weights, weights
from family import permuted as reordered
from shell import bake, refused, run
from transformers import AutoConfig, AutoModelForImageClassification

import hfsoup
from hfsoup.networks.alignment.groups import Group, Member, permute_group
from hfsoup.networks.alignment.tables import TABLES, find_groups

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts" / "examples"))
from align_resnet20 import ResNet

BOTTLENECK = {"embedding_size": 8, "hidden_sizes": [16, 32], "depths": [2, 2], "layer_type": "bottleneck"}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    **{kind: (kind, config) for kind, config in CONFIGS.items()},
    "resnet, basic": ("resnet", {**BOTTLENECK, "layer_type": "basic"}),
    "resnet, bottleneck": ("resnet", BOTTLENECK),
    "efficientnet, deeper": ("efficientnet", {**CONFIGS["efficientnet"], "num_block_repeats": [2, 2]}),
    "padded-resnet": ("padded-resnet", {}),
}


def disturbed(model: Any) -> Any:
    """In float64, with every tensor away from where it starts."""
    model = model.double().eval()
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point():
            tensor.add_(
                (0.2 * torch.randn_like(tensor)).abs() if "running_var" in name else 0.2 * torch.randn_like(tensor)
            )
    return model


def shuffled(
    state: dict[str, torch.Tensor], kind: str, config: dict[str, Any], seed: int = 0
) -> dict[str, torch.Tensor]:
    """The same function with all of its units in random order."""
    random = np.random.default_rng(seed)
    for group in find_groups(kind, {name: tuple(t.shape) for name, t in state.items()}, config):
        order = random.permutation(group.size)
        state = permute_group(state, group, np.roll(order, 1) if (order == np.arange(group.size)).all() else order)
    return state


@pytest.mark.parametrize("name", MODELS)
def test_a_random_permutation_of_every_group_leaves_the_logits_as_they_are(name: str) -> None:
    """The groups of an architecture are complete: up to rounding in float64 nothing changes, though weights do."""
    kind, given = MODELS[name]
    torch.manual_seed(0)
    known = AutoConfig.for_model(kind, **given) if given else None
    model = disturbed(AutoModelForImageClassification.from_config(known) if known else ResNet(6, 2, 4))
    config = known.to_dict() if known else {}
    images = torch.randn(4, 3, 16, 16, dtype=torch.float64)
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    with torch.no_grad():
        expected = getattr(out := model(images), "logits", out)
        after = shuffled(before, kind, config)
        model.load_state_dict(after)
        found = getattr(out := model(images), "logits", out)
    assert expected.std() > 1e-3
    assert torch.allclose(found, expected, rtol=0, atol=1e-9)
    heads = {key for key, t in before.items() if t.ndim > 1 and torch.equal(t, after[key])}
    assert heads == set()


@pytest.fixture
def strangers(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, Path]:
    """A model, and the same one with its units in another order."""
    family: Family = request.getfixturevalue(request.param)
    first, second = tmp_path / "first", tmp_path / "second"
    copy_model(family.folders[0], first)
    copy_model(family.folders[0], second)
    config = AutoConfig.from_pretrained(first).to_dict()
    put_weights(second, shuffled(weights(second), family.kind, config))
    return first, second


@pytest.mark.parametrize("strangers", CONFIGS, indirect=True)
@pytest.mark.parametrize("method", ["weights", "activations"])
def test_a_bake_finds_what_was_shuffled(
    strangers: tuple[Path, Path], method: str, data: Path, images: Any, alone: Path
) -> None:
    """The soup of a model and its shuffled copy is that model; without alignment it is not. It can be verified."""
    words = [*strangers, "--recipe", "uniform", "--dataset", data, "--bn", "average"]
    bake(*words, "--output", "soup", "--align", method)
    bake(*words, "--output", "plain")
    shown = images["test"]["image"][:]
    expected = logits(strangers[0], shown)
    assert torch.allclose(logits(Path("soup"), shown), expected, atol=1e-3)
    assert not torch.allclose(logits(Path("plain"), shown), expected, atol=1e-3)
    record = json.loads(Path("soup/soup.json").read_text())["alignment"]
    assert (record["method"], len(record["copies"]), record["fitted"]) == (method, 1, None)
    assert "in the order of those of first" in Path("soup/README.md").read_text()
    assert run("verify", "soup", "--scores").code == 0


@pytest.mark.parametrize("strangers", ["resnet"], indirect=True)
def test_a_fit_is_labelled_as_new_weights_and_can_be_verified(
    strangers: tuple[Path, Path], data: Path, images: Any, alone: Path
) -> None:
    """Fitted to two that compute the same, a network does so too; card and record call it no average."""
    found = bake(*strangers, "--dataset", data, "--align", "activations", "--fit", "--output", "soup")
    assert found["recipe"] == "uniform"
    assert found["soup"]["test"] == pytest.approx(accuracy(Path("soup"), images["test"]))
    assert found["soup"]["test"] > 0.7 * found["best_ingredient"]["test"]
    apart = (weights(Path("soup"))["classifier.1.weight"] - weights(strangers[0])["classifier.1.weight"]).abs().max()
    assert apart > 1e-3
    card = Path("soup/README.md").read_text()
    assert "not an average of weights" in card
    assert "layer by layer, by ridge regression on 60 images of *validation*, without their labels" in card
    assert json.loads(Path("soup/soup.json").read_text())["alignment"]["fitted"]
    assert run("verify", "soup", "--scores").code == 0


@pytest.mark.parametrize("strangers", ["vit"], indirect=True)
def test_an_alignment_that_gives_something_else_again_is_named(strangers: tuple[Path, Path], alone: Path) -> None:
    """Verify makes the copies anew instead of believing those in the cache, and compares them with the record."""
    bake(*strangers, "--align", "weights", "--output", "soup")
    path = Path("soup/soup.json")
    record = json.loads(path.read_text())
    record["alignment"]["copies"] = ["0" * 64]
    path.write_text(json.dumps(record))
    assert "second: aligned again, it differs from what was baked" in refused("verify", "soup", code=1)


@pytest.mark.parametrize("strangers", ["vit"], indirect=True)
def test_another_table_makes_other_copies(
    strangers: tuple[Path, Path], alone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Copies in the cache are those of the groups that the table had; where it has others, they are made anew."""
    table = TABLES.get("vit")
    found = [bake(*strangers, "--align", "weights", "--output", "soup")["soup"]["sha256"]]
    part = replace(table, function=lambda shapes, config: table.function(shapes, config)[:1])
    monkeypatch.setitem(TABLES._entries, "vit", part)
    found.append(bake(*strangers, "--align", "weights", "--output", "other")["soup"]["sha256"])
    assert found[0] != found[1]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--align", "activations"], "activations are compared on images"),
        (["--align", "sideways"], "align must be one of none, weights, activations, found 'sideways'"),
        (["--fit"], "--fit needs --align and a dataset"),
        (["--align", "weights", "--fit", "--dataset", "x", "--recipe", "greedy"], "--fit uses all ingredients"),
    ],
)
def test_what_cannot_be_meant_is_refused_at_once(words: list[str], said: str, alone: Path) -> None:
    """Before anything is read, with the option that would do."""
    block = refused("bake", "./nowhere", *words, code=2)
    assert said in block


def test_an_architecture_without_a_table(vit: Family, data: Path, alone: Path) -> None:
    """The error names the known ones and says how to add another; a fit of vit is refused too."""
    with pytest.raises(
        hfsoup.SoupError, match="groups of 'swin' are not known; known: efficientnet, padded-resnet, resnet, vit"
    ) as error:
        hfsoup.align([{"a": torch.ones(2, 2)}] * 2, "swin", method="weights")
    assert "under @permutations(MODEL_TYPE)" in str(error.value.hint)
    said = refused("bake", *vit.words, "--dataset", data, "--align", "weights", "--fit", "--output", "soup", code=1)
    assert "fitting layer by layer is not known for vit; known for padded-resnet, resnet" in said


def test_any_torch_model_is_aligned_and_given_back_as_it_was() -> None:
    """Groups of one's own do for a perceptron: its shuffled copy comes back, and the model keeps weights and mode."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2)).train()
    first = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    group = Group("hidden", 8, (Member("0.weight"), Member("0.bias"), Member("2.weight", 1)))
    other = permute_group(first, group, np.random.default_rng(1).permutation(8))
    same = hfsoup.align([first, other], [group], model=model, images=torch.randn(64, 3))[1]
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert not torch.equal(first["0.weight"], other["0.weight"])
    assert model.training
    assert all(torch.equal(first[name], tensor) for name, tensor in model.state_dict().items())
    with pytest.raises(hfsoup.SoupError, match="expected 9 positions along axis 0"):
        hfsoup.align([first, other], [Group("hidden", 9, group.members)], method="weights")


def test_classes_in_another_order_and_float_types_are_kept(
    vit: Family, images: Any, tmp_path: Path, alone: Path
) -> None:
    """A shuffled copy with its classes reversed, in bfloat16, is brought to the first one's order."""
    first = vit.folders[0]
    other = reordered(cast(first, tmp_path / "narrow", torch.bfloat16), tmp_path / "other", [5, 4, 3, 2, 1, 0])
    put_weights(other, shuffled(weights(other), "vit", AutoConfig.from_pretrained(first).to_dict()))
    bake(first, other, "--align", "weights", "--output", "soup")
    shown = images["test"]["image"][:]
    assert torch.allclose(logits(Path("soup"), shown), logits(first, shown), atol=0.1)
    assert json.loads(Path("soup/soup.json").read_text())["ingredients"][1]["order"] == [5, 4, 3, 2, 1, 0]


def test_numbers_that_are_none_are_named(vit: Family, tmp_path: Path, alone: Path) -> None:
    """NaN cannot be matched."""
    broken = copy_model(vit.folders[0], tmp_path / "broken")
    put_weights(broken, {name: tensor * float("nan") for name, tensor in weights(broken).items()})
    said = refused("bake", vit.folders[0], broken, "--align", "weights", "--output", "soup", code=1)
    assert "expected finite weights and activations, found NaN or infinity" in said
