"""What the ingredients' own predictions say of a soup before one is made, in `bake` and `check --dataset`."""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from family import Family, copy_model, fit_head, logits, put_weights, weights, write_parquet
from shell import bake, refused, run
from transformers import AutoConfig, AutoImageProcessor, AutoModelForImageClassification

from hfsoup.reports.html import make_report
from hfsoup.reports.measurements import describe_forecast


def test_the_figures_are_those_of_the_ingredients_logits(vit: Family, data: Path, images: Any, alone: Path) -> None:
    """Agreement over pairs and the gain of the mean of the logits, said before the first decision, and recorded."""
    done = run("bake", *vit.words, "--recipe", "greedy", "--dataset", data, "--output", "soup", "--json", "-")
    assert done.code == 0, done.err
    each = [logits(folder, images["validation"]["image"][:]) for folder in vit.folders]
    truth = torch.tensor(images["validation"]["label"][:])
    said = [found.argmax(1) for found in each]
    agreement = np.mean([(a == b).double().mean() for a, b in combinations(said, 2)])
    best = max((one == truth).double().mean() for one in said)
    gain = float((torch.stack(each).mean(0).argmax(1) == truth).double().mean() - best)
    numbers = done.json["numbers"]
    assert numbers["agreement"] == pytest.approx(agreement)
    assert numbers["ensemble_gain"] == pytest.approx(gain)
    assert numbers["ensemble_gain_low"] <= gain <= numbers["ensemble_gain_high"]
    told = describe_forecast(numbers, "accuracy")
    assert f"agree on {100 * agreement:.1f} % of the selection images, and their ensemble gains" in told
    assert done.err.index(told) < done.err.index("  1 add")
    assert json.loads(Path("soup/soup.json").read_text())["numbers"] == numbers
    assert "Before the search: two ingredients agree on" in Path("soup/README.md").read_text()
    assert "Before the search: two ingredients agree on" in make_report("soup", images=False)

    checked = run("check", *vit.words, "--dataset", data, "--json", "-")
    assert checked.json["forecast"] == numbers
    assert told in checked.err


def test_runs_that_agree_have_little_to_win(vit: Family, data: Path, alone: Path) -> None:
    """Two copies agree on everything and gain nothing together; what to do about it is said."""
    copies = [copy_model(vit.folders[0], alone / name) for name in ("a", "b")]
    done = run("check", *copies, "--dataset", data)
    assert "two ingredients agree on 100.0 % of the selection images, and their ensemble gains +0.00 points" in done.err
    assert "a soup has little to win; train runs that differ more: augmentation, learning rate, epochs" in done.err


def disturb_head(folder: Path, target: Path, seed: int, strength: float = 0.6) -> Path:
    """A copy with noise in its head."""
    copy_model(folder, target)
    own, generator = weights(target), torch.Generator().manual_seed(seed)
    head = own["classifier.weight"]
    own["classifier.weight"] = head + strength * head.std() * torch.randn(head.shape, generator=generator)
    put_weights(target, own)
    return target


def swap_units(folder: Path, seed: int) -> None:
    """Put the hidden units of the first layer in another order, which changes the weights and not what they compute."""
    own = weights(folder)
    order = torch.randperm(48, generator=torch.Generator().manual_seed(seed))
    for name, axis in (("intermediate.dense.weight", 0), ("intermediate.dense.bias", 0), ("output.dense.weight", 1)):
        key = next(key for key in own if key.endswith(f"layer.0.{name}"))
        own[key] = own[key].index_select(axis, order)
    put_weights(folder, own)


def test_runs_that_err_on_other_images_may_win(vit: Family, images: Any, alone: Path) -> None:
    """Heads with noise of their own, which their mean loses; not if the weights are too far apart to be averaged."""
    data = write_parquet({"validation": images["train"], "test": images["test"]}, alone / "more")
    spoiled = [disturb_head(vit.folders[1], alone / f"m-{n}", n) for n in range(3)]
    done = run("check", *spoiled, "--dataset", data, "--json", "-")
    assert done.json["forecast"]["ensemble_gain_low"] > 0
    assert done.err.rstrip().endswith(": a soup may win")
    for n, folder in enumerate(spoiled[1:]):
        swap_units(folder, n)
    done = run("check", *spoiled, "--dataset", data, "--json", "-")
    assert done.json["forecast"]["ensemble_gain_low"] > 0
    assert "an average is not likely to win that, because the weights are too far apart" in done.err


def initialise(folder: Path, target: Path, images: Any, seed: int) -> Path:
    """A model with a body of its own initialisation, never trained, and a head fitted to some images."""
    copy_model(folder, target)
    torch.manual_seed(seed)
    model = AutoModelForImageClassification.from_config(AutoConfig.from_pretrained(target), attn_implementation="eager")
    processor = AutoImageProcessor.from_pretrained(target)
    fit_head(
        model, processor(images["image"][:], return_tensors="pt")["pixel_values"], torch.tensor(images["label"][:])
    )
    model.save_pretrained(target)
    return target


def test_runs_of_different_initialisations_are_too_far_apart(vit: Family, images: Any, alone: Path) -> None:
    """They err on different images, so that their ensemble gains, and their mean is worth nothing."""
    data = write_parquet({"validation": images["train"], "test": images["test"]}, alone / "more")
    others = [initialise(vit.folders[1], alone / f"m-{n}", images["test"], n) for n in range(4)]
    done = run("bake", *others, "--recipe", "uniform", "--dataset", data, "--output", "soup", "--json", "-")
    assert done.json["numbers"]["ensemble_gain_low"] > 0
    assert "an average is not likely to win that, because the weights are too far apart" in done.err
    assert done.json["soup"]["score"] < min(i["score"] for i in done.json["ingredients"])


def test_heads_that_differ_do_not_set_weights_apart(vit: Family, data: Path, alone: Path) -> None:
    """Training turns a small first head as far; what to do if the first heads differed is said, with the cosine."""
    bodies = [disturb_head(vit.folders[1], alone / f"m-{n}", n, strength=2) for n in range(3)]
    done = run("check", *bodies, "--weights", "--dataset", data, "--json", "-")
    assert done.json["forecast"]["weights_apart"] == 0
    heads = [weights(folder)["classifier.weight"].double().ravel() for folder in bodies]
    lowest = min(float(torch.cosine_similarity(a, b, dim=0)) for a, b in combinations(heads, 2))
    advice = f"the heads differ (cosine {lowest:.2f} at the lowest) more than the bodies (1.00): if each run began with"
    assert advice in done.err
    assert any(advice in reason for reason in done.json["reasons"])


def test_heads_of_one_base_are_not_said_to_have_begun_apart(vit: Family, data: Path, alone: Path) -> None:
    """A base that has the head is the one checkpoint that the advice asks for."""
    base, *runs = vit.folders[1], *(disturb_head(vit.folders[1], alone / f"m-{n}", n, strength=2) for n in range(2))
    words = (*runs, "--recipe", "uniform", "--dataset", data)
    assert "the heads differ" in run("bake", *words, "--output", "plain").err
    assert "the heads differ" not in run("bake", *words, "--extrapolate", "--base", base, "--output", "drawn").err


def test_the_cosine_of_task_vectors_is_told_where_a_base_is_known(vit: Family, data: Path, alone: Path) -> None:
    """The mean over pairs, over the matrices of the body."""
    base, *tuned = vit.folders[:3]
    found = bake(*tuned, "--recipe", "wise-ft", "--base", base, "--dataset", data, "--output", "soup")["numbers"]
    start, *ends = ({n: t.double() for n, t in weights(folder).items()} for folder in (base, *tuned))
    body = [n for n, t in start.items() if t.ndim > 1 and t.shape[0] > 1 and not n.startswith("classifier")]
    first, second = (torch.cat([(end[n] - start[n]).ravel() for n in body]) for end in ends)
    assert found["task_vector_cosine"] == pytest.approx(float(torch.cosine_similarity(first, second, dim=0)), abs=1e-6)


def test_logits_that_are_too_large_are_not_kept_and_it_is_said(
    vit: Family, data: Path, alone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The agreement needs none."""
    monkeypatch.setattr("hfsoup.evaluation.forecast.MOST_BYTES", 60 * 6 * 4 - 1)
    done = run("check", *vit.words[:2], "--dataset", data, "--json", "-")
    assert set(done.json["forecast"]) == {"agreement", "weights_apart"}
    assert "their ensemble was not measured, because their logits are too large" in done.err


def test_a_check_refuses_options_of_a_dataset_without_one(vit: Family) -> None:
    """As a bake does."""
    assert "expected a dataset with --split" in refused("check", *vit.words, "--split", "test", code=2)
