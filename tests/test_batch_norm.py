"""Batch-norm statistics: averaged, re-estimated, or whichever scores better."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import load_dataset
from family import Family, accuracy, copy_model, put_weights, weights
from shell import bake, only, refused, run
from transformers import AutoImageProcessor, AutoModelForImageClassification

from hfsoup.averaging.averager import Averager
from hfsoup.averaging.mix import Mix
from hfsoup.averaging.writer import write_weights
from hfsoup.data.splits import limit_rows
from hfsoup.ingredients.compatibility import check_compatibility
from hfsoup.ingredients.pull import pull_ingredients
from hfsoup.ingredients.resolve import resolve_patterns
from hfsoup.reports.html import make_report
from hfsoup.utils.errors import SoupError


def test_new_statistics_are_those_of_the_training_images(
    normed: Family, with_train: Path, images: object, alone: Path
) -> None:
    """Mean and variance of every batch norm equal PyTorch's own cumulative ones over one batch of the same images."""
    bake(*normed.words, "--recipe", "uniform", "--dataset", with_train, "--bn", "recalibrate", "--output", "soup")
    model = AutoModelForImageClassification.from_pretrained("soup")
    train = images["train"]  # type: ignore[index]
    rows = limit_rows(np.asarray(train["label"][:]), 2048)[:128]
    pixels = AutoImageProcessor.from_pretrained("soup")(train.select(rows)["image"][:], return_tensors="pt")[
        "pixel_values"
    ]
    norms = [m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    shipped = [(m.running_mean.clone(), m.running_var.clone()) for m in norms]
    for module in norms:
        module.reset_running_stats()
        module.momentum = None
        module.train()
    with torch.no_grad():
        model(pixel_values=pixels)
    for module, (mean, var) in zip(norms, shipped, strict=True):
        torch.testing.assert_close(mean, module.running_mean, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(var, module.running_var, rtol=1e-4, atol=1e-6)


def test_images_that_report_estimate_no_statistics(resnet: Family, data: Path, images: Any, alone: Path) -> None:
    """Neither the test split itself, which is refused before a weight is read, nor one that holds its images."""
    words = ("bake", *resnet.words[:2], "--bn", "recalibrate", "--dataset")
    said = refused(*words, data, "--calibration-split", "test", code=2)
    assert "the split 'test' cannot be both for calibration and for test" in said
    assert "--calibration-split validation" in said
    for split, source in (("train", "test"), ("validation", "validation"), ("test", "test")):
        images[source].to_parquet(f"doubled/{split}-00000-of-00001.parquet")
    said = refused(*words, "doubled", code=1)
    assert "72 of 72 test images are also calibration images" in said
    done = run(*words, "doubled", "--allow-duplicates", "--output", "soup")
    assert "72 of 72 test images are also calibration images" in Path("soup/README.md").read_text(), done.err


def test_only_the_statistics_differ_between_the_modes(normed: Family, with_train: Path, alone: Path) -> None:
    """Weights and counters are the same whatever the mode."""
    for mode in ("average", "recalibrate"):
        bake(*normed.words, "--recipe", "uniform", "--dataset", with_train, "--bn", mode, "--output", mode)
    old, new = weights(Path("average")), weights(Path("recalibrate"))
    differing = {name.rsplit(".", 1)[1] for name in old if not torch.equal(old[name], new[name])}
    assert differing == {"running_mean", "running_var"}


def test_auto_keeps_what_scores_better_and_says_what_each_scored(normed: Family, with_train: Path, alone: Path) -> None:
    """The soup's selection score is the larger of the two, and the card and soup.json show both."""
    words = [*normed.words, "--recipe", "uniform", "--dataset", with_train]
    scores = {
        mode: bake(*words, "--bn", mode, "--output", mode)["soup"]["score"] for mode in ("average", "recalibrate")
    }
    assert bake(*words, "--output", "auto")["soup"]["score"] == max(scores.values())
    recorded = json.loads(Path("auto", "soup.json").read_text())["batch_norm"]["modes"]
    assert {mode: score["value"] for mode, score in recorded.items()} == scores
    card = Path("auto", "README.md").read_text()
    assert all(f"{100 * score:.2f} %" in card for score in scores.values())


@pytest.mark.parametrize("mode", ["average", "recalibrate", "auto"])
def test_greedy_is_never_below_the_best_ingredient_where_it_selects(
    normed: Family, with_train: Path, alone: Path, mode: str
) -> None:
    """The search starts at the best ingredient's own score, with the statistics that it has or with new ones."""
    found = bake(*normed.words, "--recipe", "greedy", "--dataset", with_train, "--bn", mode, "--output", "soup")
    assert found["soup"]["score"] >= found["best_ingredient"]["score"]


def spoil_statistics(family: Family, home: Path) -> list[Path]:
    """Copies of two ingredients whose running means are far off: they gain by new statistics alone."""
    folders = [copy_model(folder, home / f"off-{n}") for n, folder in enumerate(family.folders[:2])]
    for folder in folders:
        own = weights(folder)
        means = [name for name in own if name.endswith("running_mean")]
        put_weights(folder, {**own, **{name: own[name] + 3 * own[name].abs().mean() for name in means}})
    return folders


@pytest.mark.parametrize("mode", ["recalibrate", "auto"])
def test_a_gain_of_new_statistics_is_not_told_as_one_of_averaging(
    normed: Family, with_train: Path, alone: Path, mode: str
) -> None:
    """Where a soup is recalibrated, so are its ingredients, which count with what scores higher, and it is said."""
    folders = spoil_statistics(normed, alone)
    words = ("--recipe", "uniform", "--dataset", with_train)
    as_they_are = [run("eval", folder, "--dataset", with_train, "--json", "-").json["score"] for folder in folders]
    done = run("bake", *folders, *words, "--bn", mode, "--output", "soup", "--json", "-")
    assert done.code == 0, done.err
    found = done.json
    assert [i["score"] > own for i, own in zip(found["ingredients"], as_they_are, strict=True)] == [True, True]
    assert [i["bn"] for i in found["ingredients"]] == ["recalibrate", "recalibrate"]
    best = max(range(2), key=lambda n: found["ingredients"][n]["score"])
    recalibrated = ["bake", *folders, "--recipe", "weighted", "--weights", f"{1 - best},{best}", *words[2:]]
    control = run(*recalibrated, "--bn", mode, "--output", "control", "--json", "-").json
    assert found["best_ingredient"]["test"] == control["soup"]["test"]
    assert found["comparison"]["best_bn"] == "recalibrate"
    assert f"off-{best} (recalibrated)\n" in done.err
    assert "its best ingredient (recalibrated)" in done.err
    card = Path("soup/README.md").read_text()
    assert f"| best ingredient, off-{best} (recalibrated) |" in card
    assert "so\nthat the difference is one of averaging" in card
    assert " (recalibrated)</td>" in make_report("soup", images=False)
    assert run("verify", "soup", "--scores").code == 0


def test_an_ingredient_may_win_by_new_statistics(resnet: Family, with_train: Path, alone: Path) -> None:
    """One that gains by them is a candidate: it is shipped with them, and not called unchanged, nor a soup."""
    folder, other = spoil_statistics(resnet, alone)
    put_weights(other, {n: -t if n.startswith("classifier") else t for n, t in weights(other).items()})
    done = run("bake", folder, other, "--recipe", "greedy", "--dataset", with_train, "--output", "soup", "--json", "-")
    assert [i["used"] for i in done.json["ingredients"]] == [True, False]
    own, shipped = weights(folder), weights(Path("soup"))
    assert {n.rsplit(".", 1)[1] for n in own if not torch.equal(own[n], shipped[n])} == {"running_mean", "running_var"}
    card = Path("soup/README.md").read_text()
    assert "this model is off-0, with new batch-norm statistics." in card
    assert "unchanged" not in card
    assert "- model-soup" not in card
    assert "kept the best ingredient alone (recalibrated): no soup that was scored was better" in done.err
    assert accuracy(Path("soup"), load_dataset(str(with_train), split="test")) == done.json["soup"]["test"]
    assert run("verify", "soup", "--scores").code == 0


def test_a_recalibrated_soup_is_verified_and_measured_again(resnet: Family, with_train: Path, alone: Path) -> None:
    """Its statistics are part of the record; with --scores they are estimated anew."""
    words = [*resnet.words, "--recipe", "uniform", "--dataset", with_train, "--bn", "recalibrate"]
    bake(*words, "--output", "soup")
    assert run("verify", "soup", "--scores").code == 0


def test_without_a_training_split_the_selection_images_serve_and_it_is_said(
    resnet: Family, data: Path, alone: Path
) -> None:
    """A note on the screen and in the card."""
    done = run("bake", *resnet.words, "--dataset", data, "--bn", "recalibrate", "--output", "soup")
    assert "batch norms, alignments and merges use the selection images" in done.err
    assert "batch norms, alignments and merges use the selection images" in Path("soup", "README.md").read_text()


def test_new_statistics_need_images(resnet: Family) -> None:
    """--bn recalibrate without a dataset is wrong usage."""
    assert "--dataset" in refused("bake", *resnet.words, "--bn", "recalibrate", code=2)


def test_variances_are_pooled_over_the_batches(
    resnet: Family, with_train: Path, images: object, alone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What reaches the first batch norm, over all batches together, has the shipped mean and unbiased variance."""
    monkeypatch.setattr("hfsoup.evaluation.batch_norm.BATCH", 40)
    words = ["--recipe", "uniform", "--dataset", with_train, "--bn", "recalibrate", "--output", "soup"]
    bake(*resnet.words, *words)
    model = AutoModelForImageClassification.from_pretrained("soup")
    first = next(m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d))
    seen: list[torch.Tensor] = []
    first.register_forward_pre_hook(lambda _, given: seen.append(given[0].double()))
    pixels = AutoImageProcessor.from_pretrained("soup")(images["train"]["image"][:], return_tensors="pt")  # type: ignore[index]
    with torch.no_grad():
        model(pixel_values=pixels["pixel_values"])
    var, mean = torch.var_mean(seen[0], dim=(0, 2, 3))
    torch.testing.assert_close(first.running_mean.double(), mean, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(first.running_var.double(), var, rtol=1e-5, atol=1e-7)


def test_new_statistics_that_gain_nothing_leave_an_ingredient_as_it_is(
    normed: Family, with_train: Path, alone: Path
) -> None:
    """Its own stay unless others score higher, whatever the mode asked for; with average nothing is estimated."""
    for mode in ("average", "recalibrate", "auto"):
        found = bake(*only(*normed.words[:2]), "--dataset", with_train, "--bn", mode, "--output", mode)
        own, shipped = weights(normed.folders[0]), weights(Path(mode))
        same = all(torch.equal(own[name], shipped[name]) for name in own)
        assert same == ("bn" not in next(i for i in found["ingredients"] if i["used"]))
        assert same or mode != "average"


def test_statistics_that_do_not_fit_are_refused(resnet: Family, tmp_path: Path) -> None:
    """A pooled variance may be beyond float16 where that of each batch was not; no infinity gets into a file."""
    family = check_compatibility(pull_ingredients(resolve_patterns(tuple(map(str, resnet.folders[:2])))))
    spec = next(spec for spec in family.tensors if spec.name.endswith("running_var"))
    statistics = {spec.name: np.full(spec.shape, 7e4, np.float32)}
    with Averager(family, dtype="F16") as averager, pytest.raises(SoupError, match="out of the range of F16") as found:
        write_weights(averager, Mix.of((0, 1), 2), tmp_path, statistics)
    assert found.value.hint == "--dtype float32"
    assert spec.name in found.value.where
