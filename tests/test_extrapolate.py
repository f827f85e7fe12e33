"""`--extrapolate`: soups that are drawn past the mean, away from the model that their ingredients started from."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from family import Family, accuracy, disturbed, edit_json, put_weights, weights
from huggingface_hub import HfApi
from shell import bake, refused, run
from test_adapters import adapt, exact_mean, own
from test_merges import other_classes

import hfsoup
from hfsoup.averaging.mix import Mix
from hfsoup.evaluation.scores import Score
from hfsoup.localhub import LocalHub
from hfsoup.recipes import RECIPES
from hfsoup.recipes._line import extrapolate
from hfsoup.recipes._search import Rules, Search

PAST = "past the mean"


def blend(target: Path, near: Path, far: Path, share: float, strength: float = 0.0, seed: int = 0) -> Path:
    """A model on the line from `far` (0) to `near` (1), with some noise of its own."""
    shutil.copytree(near, target)
    a, b = weights(near), weights(far)
    mixed = {k: share * t + (1 - share) * b[k] if t.is_floating_point() else t for k, t in a.items()}
    put_weights(target, disturbed(mixed, strength, seed) if strength else mixed)
    return target


def make_short_of(family: Family, folder: Path) -> tuple[list[Path], Path]:
    """Three ingredients that went half the way from a base that is lost to a model that is good, and the base."""
    good = family.folders[1]
    lost = shutil.copytree(good, folder / "lost")
    put_weights(lost, disturbed(weights(good), 0.7, 9))
    return [blend(folder / f"half-{n}", good, lost, 0.5, 0.02, n) for n in range(3)], lost


def extrapolated(base: Path, mean: Path, alpha: float) -> dict[str, torch.Tensor]:
    """θ0 + α(θ − θ0) in float64."""
    start, end = weights(base), weights(mean)
    return {k: start[k].double() + alpha * (t.double() - start[k].double()) for k, t in end.items()}


@pytest.fixture
def short(vit: Family, alone: Path) -> tuple[list[Path], Path]:
    return make_short_of(vit, alone)


@pytest.mark.parametrize("recipe", ["uniform", "greedy", "auto"])
def test_a_soup_goes_past_the_mean_where_that_scores_best(
    recipe: str, short: tuple[list[Path], Path], data: Path, images: Any, alone: Path
) -> None:
    """Its weights are θ0 + α(θ − θ0) with the best α of those that were scored; every record of it says so."""
    halves, lost = short
    told = (*halves, "--recipe", recipe, "--dataset", data)
    before = bake(*told, "--no-extrapolate", "--output", "before")
    further = (*told, "--base", lost, *(() if recipe == "auto" else ("--extrapolate",)))
    found = bake(*further, "--output", "soup")
    steps = [step for step in found["trace"] if step["action"] == "extrapolate"]
    alpha = found["base"]["alpha"]
    assert [step["alpha"] for step in steps] == [1.2, 1.4, 1.6, 1.8, 2.0]
    assert alpha > 1
    assert alpha == [step["alpha"] for step in steps if step["accepted"]][-1]
    assert found["base"]["weight"] == pytest.approx(1 - alpha)
    assert {(step["ingredient"], step["walk"]) for step in steps} == {(str(lost), PAST)}
    assert found["soup"]["score"] == max(step["score"] for step in steps) > before["soup"]["score"]
    assert found["soup"]["score"] == pytest.approx(accuracy(Path("soup"), images["validation"]))
    assert found["attempts"][-1]["name"] == PAST
    assert found["attempts"][-1]["kept"]
    assert found["attempts"][-1]["base"] == found["base"]["weight"]
    wanted = extrapolated(lost, Path("before"), alpha)
    for name, tensor in weights(Path("soup")).items():
        torch.testing.assert_close(tensor.double(), wanted[name], rtol=1e-5, atol=1e-6)
    card = Path("soup/README.md").read_text()
    assert f"past their merge, away from the base (α = {alpha:g})" in card.replace("\n", " ")
    assert f"extrapolate to α = {alpha:g} |" in card
    record = json.loads(Path("soup/soup.json").read_text())
    assert record["base"]["coefficient"] == found["base"]["weight"]
    assert record["trace"][-1]["alpha"] == 2.0
    done = run("verify", "soup", "--scores")
    assert done.code == 0, done.err
    assert bake(*further, "--output", "again")["images_forwarded"] == 0


def test_the_mean_is_shipped_where_going_on_only_hurts(vit: Family, data: Path, alone: Path) -> None:
    """No soup scores less on the selection split than the one that the recipe found: it then is that one."""
    good, lost = vit.folders[1], alone / "lost"
    shutil.copytree(good, lost)
    put_weights(lost, disturbed(weights(good), 0.7, 9))
    passed = [blend(alone / f"passed-{n}", good, lost, 1.4, 0.02, n) for n in range(2)]
    told = (*passed, "--recipe", "uniform", "--dataset", data)
    found = bake(*told, "--extrapolate", "--base", lost, "--output", "soup")
    assert found["soup"]["sha256"] == bake(*told, "--output", "plain")["soup"]["sha256"]
    assert found["base"]["weight"] == 0
    assert not any(step["accepted"] for step in found["trace"])
    assert [(one["name"], one["kept"]) for one in found["attempts"]] == [("uniform", True)]
    assert "extrapolated past" not in Path("soup/README.md").read_text()
    assert str(lost.name) not in Path("soup/README.md").read_text().split("---")[1]


def scored(shape: dict[float, tuple[int, float | None]], rules: Rules | None = None) -> Mix:
    """What is chosen of mixes at some α with these counts and cross-entropies, of 100 images."""

    def score(mix: Mix, _: float | None = None) -> Score:
        count, loss = shape[mix.alpha]
        return Score(count / 100, 100, count, cross_entropy=loss)

    search = Search(["a", "b"], score, rules or Rules())
    return extrapolate(search, "uniform", lambda s: s.mix((0, 1)))


EQUAL = {1: (50, 1.0), 1.2: (50, 0.9), 1.4: (50, 0.8), 1.6: (50, 0.85), 1.8: (49, 0.1), 2.0: (48, 0.1)}


def test_ties_are_settled_by_cross_entropy() -> None:
    """Of equal counts the lowest loss wins; a higher count wins whatever its loss; without losses the nearest stays."""
    assert scored(EQUAL).alpha == 1.4
    assert scored({**EQUAL, 2.0: (51, 9.0)}).alpha == 2.0
    assert scored({alpha: (count, None) for alpha, (count, _) in EQUAL.items()}).alpha == 1


def test_wise_ft_settles_ties_by_cross_entropy_too() -> None:
    """The line towards the base is the same line."""

    def score(mix: Mix, _: float | None = None) -> Score:
        return Score(0.5, 100, 50, cross_entropy=abs(mix.alpha - 0.6))

    search = Search(["a"], score, Rules())
    assert RECIPES.get("wise-ft").function(search).alpha == 0.6
    assert [step.alpha for step in search.trace if step.accepted] == [0.9, 0.8, 0.7, 0.6]


def test_auto_takes_the_base_that_cards_name(
    on_hub: LocalHub, signed_in: LocalHub, short: tuple[list[Path], Path], data: Path, alone: Path
) -> None:
    """It is pulled, pinned and recorded; --no-extrapolate leaves it where it is."""
    halves, lost = short
    api = HfApi(token=on_hub.token)
    api.create_repo("kit/lost")
    api.upload_folder(repo_id="kit/lost", folder_path=lost)
    for half in halves:
        (half / "README.md").write_text("---\nbase_model: kit/lost\n---\n")
    told = (*halves, "--recipe", "auto", "--dataset", data)
    found = bake(*told, "--output", "soup")
    assert found["base"]["id"] == "kit/lost"
    assert found["base"]["revision"] == api.model_info("kit/lost").sha
    assert found["base"]["alpha"] > 1
    assert run("verify", "soup").code == 0
    assert "base" not in bake(*told, "--no-extrapolate", "--output", "plain")
    config = json.loads(Path("soup/soup.json").read_text())["config"]
    assert f"base: kit/lost@{found['base']['revision']}\n" in config


def test_the_base_is_found_by_the_name_in_configs(
    on_hub: LocalHub,
    signed_in: LocalHub,
    short: tuple[list[Path], Path],
    data: Path,
    alone: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where cards say nothing, the repository that a config was loaded from is the base, offline from the cache."""
    halves, lost = short
    api = HfApi(token=on_hub.token)
    api.create_repo("kit/found")
    api.upload_folder(repo_id="kit/found", folder_path=lost)
    for half in halves:
        edit_json(half / "config.json", _name_or_path="kit/found")
    told = (*halves, "--recipe", "auto", "--dataset", data)
    found = bake(*told, "--output", "soup")
    assert found["base"]["id"] == "kit/found"
    for half in halves:
        edit_json(half / "config.json", _name_or_path="/etc")
    done = run("bake", *told, "--output", "none", "--json", "-")
    assert "base" not in done.json
    assert "nothing is extrapolated" in done.err
    assert "--base" in done.err


def test_auto_goes_on_without_a_base_that_does_not_fit(
    on_hub: LocalHub, signed_in: LocalHub, vit: Family, data: Path, alone: Path
) -> None:
    """One that is not there, or not what they started from, is a note; asked for by name it is an error."""
    copies = [shutil.copytree(folder, alone / f"copy-{n}") for n, folder in enumerate(vit.folders[:2])]
    for copy in copies:
        (copy / "README.md").write_text("---\nbase_model: kit/nowhere\n---\n")
    told = (*copies, "--recipe", "auto", "--dataset", data)
    done = run("bake", *told, "--output", "soup", "--json", "-")
    assert done.code == 0, done.err
    assert "nothing is extrapolated" in done.err
    assert "kit/nowhere" in done.err
    assert "base" not in done.json
    plain = bake(*told, "--no-extrapolate", "--output", "plain")
    assert done.json["soup"]["sha256"] == plain["soup"]["sha256"]
    assert "kit/nowhere" in refused("bake", *told, "--extrapolate", "--output", "x", code=1)


def test_a_head_that_the_base_lacks_stays_the_mean(short: tuple[list[Path], Path], data: Path, alone: Path) -> None:
    """A base for other classes draws the body on alone, and a note and the card say what was averaged."""
    halves, lost = short
    other = other_classes(lost, alone / "other")
    told = (*halves, "--recipe", "uniform", "--dataset", data, "--extrapolate")
    done = run("bake", *told, "--base", other, "--output", "soup", "--json", "-")
    assert done.code == 0, done.err
    assert "has no 'classifier.bias', 'classifier.weight'" in done.err
    assert "classifier.weight" in Path("soup/README.md").read_text()
    bake(*halves, "--output", "mean")
    soup, mean = weights(Path("soup")), weights(Path("mean"))
    assert done.json["base"]["alpha"] > 1
    wanted = extrapolated(lost, Path("mean"), done.json["base"]["alpha"])
    for name, tensor in soup.items():
        expected = mean[name].double() if name.startswith("classifier") else wanted[name]
        torch.testing.assert_close(tensor.double(), expected, rtol=1e-5, atol=1e-6)
    assert run("verify", "soup").code == 0


@pytest.mark.parametrize("bn", ["average", "auto"])
def test_statistics_of_batch_norms_are_not_extrapolated(bn: str, resnet: Family, data: Path, alone: Path) -> None:
    """Averaged ones stay those of the ingredients, however far the weights are drawn; `--bn auto` scores both."""
    halves, lost = make_short_of(resnet, alone)
    told = (*halves, "--recipe", "uniform", "--dataset", data, "--bn", bn)
    found = bake(*told, "--extrapolate", "--base", lost, "--output", "soup")
    assert found["base"]["alpha"] > 1
    assert run("verify", "soup", "--scores").code == 0
    bake(*halves, "--output", "mean")
    soup, mean = weights(Path("soup")), weights(Path("mean"))
    record = json.loads(Path("soup/soup.json").read_text())["batch_norm"]
    if bn == "average" or not record["statistics"]:
        assert all(soup[name].equal(mean[name]) for name in soup if "running_" in name)
    assert not any(soup[name].equal(mean[name]) for name in soup if name.endswith("convolution.weight"))
    if bn == "auto":
        assert set(record["modes"]) == {"average", "recalibrate"}


def test_what_extrapolation_needs_is_asked_for(vit: Family, data: Path, alone: Path) -> None:
    """Scores, a base, and ingredients in their own basis; all is refused before anything is read."""
    base = ("--base", vit.folders[3])
    assert "--dataset" in refused("bake", *vit.words, "--extrapolate", *base, code=2)
    assert "--base" in refused("bake", *vit.words, "--extrapolate", "--dataset", data, code=2)
    aligned = ("--extrapolate", "--dataset", data, "--align", "weights")
    assert "--align does not align it" in refused("bake", *vit.words, *aligned, code=2)
    assert "--extrapolate" in refused("bake", *vit.words, "--dataset", data, *base, code=2)
    assert "--extrapolate" in refused(
        "bake", *vit.words, "--dataset", data, "--recipe", "auto", "--no-extrapolate", *base, code=2
    )


def test_a_dry_run_counts_the_steps(vit: Family, data: Path, alone: Path) -> None:
    """Five candidates more at most, and it says that the soup is drawn on."""
    told = (*vit.words, "--dataset", data, "--recipe", "uniform", "--dry-run")
    plain = bake(*told)
    base = shutil.copytree(vit.folders[3], alone / "base")
    done = run("bake", *told, "--extrapolate", "--base", base, "--json", "-")
    assert done.json["work"]["evaluations"] == plain["work"]["evaluations"] + 5
    assert (plain["extrapolate"], done.json["extrapolate"]) == (False, True)
    assert "extrapolated if a base is found" in done.err
    assert [base["id"] for base in done.json["bases"]] == [str(base)]


def test_an_older_record_is_still_verified(short: tuple[list[Path], Path], data: Path, alone: Path) -> None:
    """One that was written before there was any of this, by a bake of auto."""
    bake(*short[0], "--recipe", "auto", "--no-extrapolate", "--dataset", data, "--output", "soup")
    path = Path("soup/soup.json")
    record = json.loads(path.read_text())
    del record["options"]["extrapolate"]
    record["config"] = record["config"].replace("extrapolate: false\n", "")
    for step in record["trace"]:
        del step["alpha"]
    for attempt in record["attempts"]:
        del attempt["base"]
    path.write_text(json.dumps(record))
    done = run("verify", "soup", "--scores")
    assert done.code == 0, done.err


def test_a_changed_alpha_is_found(short: tuple[list[Path], Path], data: Path, alone: Path) -> None:
    """The base's share is what is baked again."""
    told = ("--recipe", "uniform", "--extrapolate", "--base", short[1], "--dataset", data)
    bake(*short[0], *told, "--output", "soup")
    path = Path("soup/soup.json")
    record = json.loads(path.read_text())
    record["base"]["coefficient"] += 0.01
    path.write_text(json.dumps(record))
    assert "differ from those baked again" in refused("verify", "soup", code=1)


def test_adapters_bring_their_own_base(vit: Family, data: Path, alone: Path) -> None:
    """The model that all are on is the base, without a card; an adapter of the soup has α times the mean ΔW."""
    base = vit.folders[0]
    adapters = [adapt(base, Path(f"lora-{n}"), n, strength=0.02, target_modules=["q_proj"]) for n in range(2)]
    found = bake(*adapters, "--recipe", "uniform", "--extrapolate", "--dataset", data, "--output", "whole")
    assert found["base"]["id"] == str(base)
    alpha = found["base"].get("alpha", 1)
    told = (*adapters, "--recipe", "uniform", "--extrapolate", "--dataset", data, "--as-adapter", 32)
    bake(*told, "--output", "thin")
    assert run("verify", "thin").code == 0
    name = "vit.layers.0.attention.q_proj.weight"
    start, delta = exact_mean(base, adapters, name)
    torch.testing.assert_close(own(Path("whole"))[name].double(), start + alpha * delta, rtol=1e-5, atol=1e-6)
    layer = f"base_model.model.{name.removesuffix('.weight')}"
    thin = hfsoup_factors(Path("thin"), layer)
    torch.testing.assert_close(thin, alpha * delta, rtol=1e-4, atol=1e-6)
    other = refused("bake", *told, "--base", vit.folders[1], "--output", "x", code=1)
    assert "the base that the adapters are on" in other


def hfsoup_factors(folder: Path, layer: str) -> torch.Tensor:
    """B·A of a layer of an adapter whose scaling is 1."""
    from safetensors.torch import load_file

    found = load_file(folder / "adapter_model.safetensors")
    return found[f"{layer}.lora_B.weight"].double() @ found[f"{layer}.lora_A.weight"].double()


def test_any_state_dict_is_drawn_on() -> None:
    """From Python, with a score of one's own: on request, and by auto where a base is given."""
    base = {"w": torch.zeros(3)}
    halves = [{"w": torch.tensor([0.7, 0.7, 0.7]) + 0.01 * n} for n in range(2)]

    def score(state: dict[str, torch.Tensor]) -> float:
        return -float((state["w"] - 1).norm())

    for recipe, told in (("uniform", {"extrapolate": True}), ("auto", {})):
        found = hfsoup.search(recipe, halves, score=score, base=base, **told)
        assert found.base == pytest.approx(-0.4)
        mean = sum(weight * half["w"] for weight, half in zip(found.weights, halves, strict=True))
        torch.testing.assert_close(found.state_dict()["w"], 1.4 * mean)
    assert hfsoup.search("auto", halves, score=score, base=base, extrapolate=False).base == 0
    with pytest.raises(hfsoup.SoupError, match="base=STATE_DICT"):
        hfsoup.search("uniform", halves, score=score, extrapolate=True)
