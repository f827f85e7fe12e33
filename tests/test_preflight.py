"""`hfsoup check`: the verdict beforehand, from headers or from weights."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from family import Family, copy_model, edit_json, put_weights, weights
from safetensors.torch import save_file
from shell import bake, refused, run

from hfsoup.localhub import LocalHub


def verdict(*words: object) -> dict[str, object]:
    """The JSON of a check that ended well."""
    done = run("check", *words, "--json", "-")
    assert done.code == 0, done.err
    return done.json


def test_a_family_of_one_start_is_a_soup(vit: Family) -> None:
    """Close weights and no batch norms: average them; the cosines are a symmetric matrix with ones."""
    found = verdict(*vit.words, "--weights")
    assert found["verdict"] == "soup"
    cosine = torch.tensor(found["cosine"])
    assert torch.equal(cosine, cosine.T)
    assert torch.equal(cosine.diagonal(), torch.ones(4))


def test_new_statistics_of_batch_norms_are_advised_and_no_gain_of_them_is_claimed(resnet: Family) -> None:
    """A close family with batch norms: which statistics score higher is for a bake to measure, and check says so."""
    found = verdict(*resnet.words, "--weights")
    assert found["verdict"] == "recalibrate"
    told = str(found["reasons"]) + run("check", *resnet.words).err
    assert "whether new ones score higher was not measured" in told
    assert not re.search("gains|must|need new", told)


def test_different_starts_are_to_be_aligned(vit: Family, alone: Path) -> None:
    """A network with other random weights is told from the weights alone."""
    other = copy_model(vit.folders[0], alone / "other")
    generator = torch.Generator().manual_seed(9)
    put_weights(
        other, {n: torch.randn(t.shape, generator=generator) if t.ndim > 1 else t for n, t in weights(other).items()}
    )
    assert verdict(vit.words[0], other, "--weights")["verdict"] == "align"


def test_a_run_that_left_the_basin_is_named(vit: Family, alone: Path) -> None:
    """Three close ingredients and one far from them: do not, and which one it is."""
    far = copy_model(vit.folders[0], alone / "far")
    generator = torch.Generator().manual_seed(9)
    spread = {
        n: t + 1.2 * t.std() * torch.randn(t.shape, generator=generator) if t.ndim > 1 else t
        for n, t in weights(far).items()
    }
    put_weights(far, spread)
    found = verdict(*vit.words[:3], far, "--weights")
    assert found["verdict"] == "no"
    assert f"the weights of {far} are too far from the others" in str(found["reasons"])


def test_what_cannot_be_averaged_is_a_no_with_its_reasons(vit: Family, resnet: Family) -> None:
    """Another architecture is a verdict here, not an error."""
    found = verdict(vit.words[0], resnet.words[0])
    assert found["verdict"] == "no"
    assert "model type resnet, expected vit" in str(found["reasons"])


def test_headers_come_by_range_and_no_weight_file_is_pulled(on_hub: LocalHub, signed_in: LocalHub) -> None:
    """Without --weights a Hub checkpoint costs its config and some kilobytes."""
    on_hub.forget_requests()
    found = verdict("kit/vit-*")
    assert found["verdict"] == "soup"
    assert not [r for r in on_hub.requests if r.path.endswith(".safetensors") and r.method == "GET" and r.status == 200]
    assert len(found["ingredients"]) == 4


@pytest.mark.parametrize("words", [[], ["--weights"]], ids=["headers", "weights"])
def test_one_ingredient_is_a_no_that_says_what_is_missing(words: list[str], vit: Family, resnet: Family) -> None:
    """A soup needs two: nobody is sent to --weights or told that one may be averaged."""
    for family in (vit, resnet):
        done = run("check", family.words[0], *words)
        assert done.code == 0
        assert "with no other to compare it with: hfsoup check A B, or a glob" in done.err
        assert done.err.splitlines()[-1] == "no soup: expected two ingredients or more, found one"
        assert "--weights" not in done.err
        assert verdict(family.words[0], *words)["verdict"] == "no"


def test_one_of_several_checkpoints_is_told_of_the_others(vit: Family, alone: Path) -> None:
    """A run's folder with a model of its own and checkpoints below: the pattern that takes those is what to type."""
    shutil.copytree(vit.folders[0], "run")
    for n in (1, 2):
        shutil.copytree(vit.folders[n], f"run/checkpoint-{n}")
    assert 'hfsoup check "run/checkpoint-*"' in run("check", "./run").err
    assert verdict("./run/checkpoint-*")["verdict"] == "soup"
    for n, name in enumerate(("best-checkpoint", "last-checkpoint")):
        shutil.copytree(vit.folders[n], f"named/{name}")
    assert 'hfsoup bake "named/*"' in refused("bake", "./named", code=2)


def test_the_verdict_on_headers_says_so(vit: Family) -> None:
    """Of several ingredients the verdict tells that it stands on their headers alone."""
    assert "by configs and headers alone, soup: " in run("check", *vit.words).err


def test_doubles_and_soups_are_named(vit: Family, alone: Path) -> None:
    """The same bytes twice, and a soup among the ingredients, stand in the reasons."""
    shutil.copytree(vit.folders[0], "again")
    bake(*vit.words, "--output", "soup")
    reasons = str(verdict(*vit.words, "./again", "./soup")["reasons"])
    assert "the same weights as" in reasons
    assert "soup is a soup itself" in reasons


def test_plain_weight_files_are_compared(vit: Family, alone: Path) -> None:
    """`.th` files with a state_dict inside, as training scripts write them."""
    for n, folder in enumerate(vit.folders[:2]):
        torch.save({"state_dict": weights(folder)}, alone / f"{n}.th")
    save_file(weights(vit.folders[2]), alone / "2.safetensors")
    found = verdict("0.th", "1.th", "2.safetensors", "--weights")
    assert found["verdict"] == "soup"
    assert "--weights" in refused("check", "0.th", "1.th", code=2)
    assert "--weights" in refused("check", "0.th", "--weights", code=2)


def test_a_bake_names_a_far_ingredient_before_it_scores(vit: Family, data: Path, alone: Path) -> None:
    """The weights are looked at before the first evaluation."""
    far = copy_model(vit.folders[0], alone / "far")
    generator = torch.Generator().manual_seed(9)
    put_weights(
        far,
        {
            n: t + 2 * t.std() * torch.randn(t.shape, generator=generator) if t.ndim > 1 else t
            for n, t in weights(far).items()
        },
    )
    done = run("bake", *vit.words[:3], far, "--dataset", data, "--output", "soup")
    assert done.code == 0, done.err
    assert done.err.index("too far from the others") < done.err.index("Scoring")


@pytest.mark.parametrize("momentum", [0.99, 0.1])
def test_efficientnets_momentum_is_explained(efficientnet: Family, alone: Path, momentum: float) -> None:
    """Running statistics of the last batch are a reason of their own."""
    folder = copy_model(efficientnet.folders[0], alone / "model")
    edit_json(folder / "config.json", batch_norm_momentum=momentum)
    other = copy_model(efficientnet.folders[1], alone / "other")
    edit_json(other / "config.json", batch_norm_momentum=momentum)
    assert ("the last training batch" in json.dumps(verdict(folder, other))) == (momentum > 0.5)


def test_heads_are_compared_apart_from_bodies(vit: Family, alone: Path) -> None:
    """One body under a head drawn anew: the bodies' cosine is one, and the heads are the reason that is given."""
    other = copy_model(vit.folders[0], alone / "other")
    generator = torch.Generator().manual_seed(9)
    head = {
        n: torch.randn(t.shape, generator=generator) if n == "classifier.weight" else t
        for n, t in weights(other).items()
    }
    put_weights(other, head)
    found = verdict(vit.words[0], other, "--weights")
    assert found["cosine"] == [[1.0, 1.0], [1.0, 1.0]]
    assert "the heads differ" in str(found["reasons"])


@pytest.mark.parametrize("part", ["matrix", "bias"])
def test_a_checkpoint_that_is_broken_is_named(resnet: Family, alone: Path, part: str) -> None:
    """NaN in a single weight is a no, with ingredient and tensor, whether or not a cosine shows it."""
    broken = copy_model(resnet.folders[0], alone / "broken")
    tensors = weights(broken)
    name = next(n for n, t in tensors.items() if (n.endswith("bias") if part == "bias" else t.ndim == 4))
    tensors[name].view(-1)[-1] = float("nan")
    put_weights(broken, tensors)
    found = verdict(resnet.folders[1], broken, "--weights")
    assert found["verdict"] == "no"
    assert any("broken" in reason and name in reason for reason in found["reasons"])
