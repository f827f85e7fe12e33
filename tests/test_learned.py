"""`learned`: coefficients by gradient descent, for all tensors or for each, and what is shipped of them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections import namedtuple
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from family import Family, disturbed, logits, permuted, put_weights, weights
from peft import PeftModel
from shell import bake, refused, run
from test_adapters import KINDS, adapt, own
from test_extrapolate import blend
from transformers import AutoModelForImageClassification

import hfsoup
from hfsoup.averaging.averager import Averager
from hfsoup.data.splits import halve
from hfsoup.ingredients.compatibility import check_compatibility
from hfsoup.ingredients.pull import pull_ingredients
from hfsoup.ingredients.resolve import resolve_patterns
from hfsoup.networks.learned_coefficients import DifferentiableAverage, round_coefficients
from hfsoup.utils.threads import single_threaded

LEARNED = ("--recipe", "learned", "--bn", "average")
Memory = namedtuple("Memory", ("available",))


def words(family: Family, data: Path, *more: object) -> tuple[object, ...]:
    return (*family.words, "--dataset", data, *LEARNED, *more)


def entropy(folder: Path, images: Any) -> float:
    """The cross-entropy of a model folder on the learning half, its temperature fitted, computed apart from hfsoup."""
    split = images["validation"]
    rows, _ = halve(np.asarray(split["label"][:]))
    found, labels = logits(folder, [split["image"][int(r)] for r in rows]), torch.tensor(split["label"][:])[rows]
    betas = torch.linspace(0.2, 3, 57)
    return min(float(torch.nn.functional.cross_entropy(beta * found, labels)) for beta in betas)


@pytest.mark.parametrize("tensors", [(), ("--per-tensor",)], ids=["global", "per tensor"])
def test_what_was_learned_is_better_than_the_mean_where_it_was_learned(
    tensors: tuple[str, ...], family: Family, data: Path, images: Any, alone: Path
) -> None:
    """Cross-entropy on the learning half, batch-norm statistics pooled as they are shipped, falls below the mean's."""
    bake(*words(family, data, *tensors, "--batch-size", 8, "--output", "soup"))
    bake(*family.words, "--dataset", data, "--recipe", "uniform", "--bn", "average", "--output", "mean")
    assert entropy(Path("soup"), images) < entropy(Path("mean"), images)


@pytest.mark.parametrize("tensors", [(), ("--per-tensor",)], ids=["global", "per tensor"])
def test_what_is_shipped_is_the_weighted_sum_and_verified(
    tensors: tuple[str, ...], resnet: Family, data: Path, alone: Path, tmp_path: Path
) -> None:
    """Every tensor is the sum with the recorded coefficients, classes in order; `verify --scores` bakes the same."""
    turned = permuted(resnet.folders[1], tmp_path / "turned", [3, 1, 0, 5, 4, 2])
    given = [resnet.words[0], turned, *resnet.words[2:]]
    bake(*given, "--dataset", data, *LEARNED, *tensors, "--output", "soup")
    record = json.loads(Path("soup/soup.json").read_text())
    mean = [i["coefficient"] for i in record["ingredients"]]
    assert sum(mean) == pytest.approx(1, abs=1e-12)
    assert bool(record["tensors"]) == bool(tensors)
    states = [weights(folder) for folder in resnet.folders]
    for name, found in weights(Path("soup")).items():
        shares = record["tensors"].get(name, mean)
        if not found.is_floating_point() or name.endswith("running_var"):
            continue
        wanted = sum(c * state[name].double() for c, state in zip(shares, states, strict=True))
        torch.testing.assert_close(found, wanted.float(), rtol=1e-6, atol=1e-7)
    if tensors:
        sizes = {name: states[0][name].numel() for name in record["tensors"]}
        for i, share in enumerate(mean):
            total = sum(sizes[name] * shares[i] for name, shares in record["tensors"].items())
            assert share == pytest.approx(total / sum(sizes.values()))
        assert not any(name.endswith(("running_mean", "running_var")) for name in record["tensors"])
    done = run("verify", "soup", "--scores")
    assert done.code == 0, done.err


@pytest.mark.parametrize("kind", ["vit", "resnet"])
def test_free_weights_reach_past_the_ingredients(
    kind: str, data: Path, images: Any, alone: Path, request: pytest.FixtureRequest
) -> None:
    """Of ingredients on the way to a better model those that are less far weigh less than 0, and the loss falls."""
    good, lost = request.getfixturevalue(kind).folders[1], alone / "lost"
    put_weights(shutil.copytree(good, lost), disturbed(weights(good), 0.7, 9))
    folders = [blend(alone / f"at-{share}-{n}", good, lost, share, 0.01, n) for share in (0.3, 0.6) for n in range(4)]
    told = (*folders, "--dataset", data, *LEARNED, "--batch-size", 4)
    found = bake(*told, "--free", "--output", "soup")
    shares = [row["weight"] for row in found["ingredients"]]
    assert sum(shares) == pytest.approx(1, abs=1e-12)
    assert sum(shares[:4]) < 0
    bake(*told, "--output", "convex")
    assert entropy(Path("soup"), images) < entropy(Path("convex"), images)
    positive = [max(share, 0.0) for share in shares]
    states = [weights(folder) for folder in folders]
    for name, tensor in weights(Path("soup")).items():
        row = positive if name.endswith("running_mean") else shares
        if tensor.is_floating_point() and not name.endswith("running_var"):
            wanted = sum(c * state[name].double() for c, state in zip(row, states, strict=True)) / sum(row)
            torch.testing.assert_close(tensor.double(), wanted, rtol=1e-5, atol=1e-6)
        elif name.endswith("running_var"):
            assert (tensor > 0).all()
    done = run("verify", "soup", "--scores")
    assert done.code == 0, done.err


def test_free_weights_are_learned_for_the_mean(vit: Family, data: Path, alone: Path) -> None:
    """Other merges take shares."""
    assert "--merge mean" in refused("bake", *words(vit, data, "--free", "--merge", "slerp"), code=2)


def test_a_changed_coefficient_of_one_tensor_is_found(vit: Family, data: Path, alone: Path) -> None:
    """In the record, `verify` names the tensor; a row of another length is damage."""
    bake(*words(vit, data, "--per-tensor", "--output", "soup"))
    path = Path("soup/soup.json")
    record = json.loads(path.read_text())
    row = record["tensors"]["classifier.weight"]
    record["tensors"]["classifier.weight"] = [row[1], row[0], *row[2:]]
    path.write_text(json.dumps(record))
    assert "classifier.weight" in refused("verify", "soup", code=1)
    record["tensors"]["classifier.weight"] = row[:-1]
    path.write_text(json.dumps(record))
    assert "damaged" in refused("verify", "soup", code=1)


def test_the_halves_are_told_and_scored_apart(vit: Family, data: Path, images: Any, alone: Path) -> None:
    """Card, record and JSON name the half that taught; every selection score is of the other one."""
    found = bake(*words(vit, data, "--per-tensor", "--output", "soup"))
    assert found["learned"] == {
        "split": "validation[learning half]",
        "images": 30,
        "epochs": 5,
        "tensors": len(json.loads(Path("soup/soup.json").read_text())["tensors"]),
    }
    record = json.loads(Path("soup/soup.json").read_text())
    assert record["dataset"]["selection"]["name"] == "validation[scoring half]"
    assert record["dataset"]["learning"]["images"] + record["dataset"]["selection"]["images"] == 60
    split = images["validation"]
    _, rows = halve(np.asarray(split["label"][:]))
    labels = torch.tensor(split["label"][:])[rows]
    for folder, row in zip([*vit.folders, Path("soup")], [*found["ingredients"], found["soup"]], strict=True):
        right = logits(folder, [split["image"][int(r)] for r in rows]).argmax(1) == labels
        assert row["score"] == pytest.approx(float(right.double().mean()))
    assert [a["kept"] for a in found["attempts"]] == [False, True]
    for row in found["ingredients"]:
        assert row["weights"][0] < row["weight"] < row["weights"][1]
    card = Path("soup/README.md").read_text()
    assert "learned on *validation\\[learning half\\]*" in card
    assert "tensors have weights of their own" in card
    assert run("report", "soup", "-o", "soup.html").code == 0
    assert "learned on validation[learning half]" in Path("soup.html").read_text()


def test_any_number_of_threads_learns_the_same(resnet: Family, data: Path, alone: Path) -> None:
    """Two runs that share no score, with one thread and with two, write the same bytes."""
    hashes = []
    for n in ("1", "2"):
        given = map(str, words(resnet, data, "--no-resume", "--output", n, "--json", "-"))
        environment = {**os.environ, "OMP_NUM_THREADS": n}
        done = subprocess.run(
            [sys.executable, "-m", "hfsoup", "bake", *given],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        hashes.append(json.loads(done.stdout)["soup"]["sha256"])
    assert hashes[0] == hashes[1]


def test_what_was_learned_once_is_not_learned_again(vit: Family, data: Path, alone: Path) -> None:
    """The same command forwards no image the second time, and writes the same."""
    first = bake(*words(vit, data, "--output", "a"))
    second = bake(*words(vit, data, "--output", "b"))
    assert (first["images_forwarded"] > 0, second["images_forwarded"]) == (True, 0)
    assert first["soup"]["sha256"] == second["soup"]["sha256"]


def test_the_average_that_learns_is_the_one_that_ships(resnet: Family, data: Path, images: Any, alone: Path) -> None:
    """Its logits are those of the written soup, with pooled statistics folded into the batch norms."""
    found = bake(*words(resnet, data, "--per-tensor", "--output", "soup"))
    record = json.loads(Path("soup/soup.json").read_text())
    assert found["soup"]["sha256"]
    family = check_compatibility(pull_ingredients(resolve_patterns(tuple(resnet.words))))
    pictures = images["test"]["image"][:12]
    with Averager(family) as averager, single_threaded():
        average = DifferentiableAverage(averager, range(4), torch.device("cpu"), per_tensor=True)
        rows = torch.tensor([record["tensors"][name] for name in average.names], dtype=torch.float64)
        pixels = average._processor(images=pictures, return_tensors="pt")["pixel_values"]
        torch.testing.assert_close(average(rows, pixels), logits(Path("soup"), pictures), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("merge", ["slerp", "karcher"])
def test_another_merge_takes_the_weights_that_the_mean_learned(
    merge: str, vit: Family, data: Path, alone: Path
) -> None:
    """Same coefficients, other bytes, tensor by tensor too; the card says so and the soup is verified."""
    mean = bake(*words(vit, data, "--per-tensor", "--output", "mean"))
    other = bake(*words(vit, data, "--per-tensor", "--merge", merge, "--output", "other"))
    assert [i["weight"] for i in mean["ingredients"]] == [i["weight"] for i in other["ingredients"]]
    assert mean["soup"]["sha256"] != other["soup"]["sha256"]
    assert "learned for the mean" in Path("other/README.md").read_text()
    assert run("verify", "other").code == 0


def test_it_is_refused_early_where_it_cannot_work(
    vit: Family, data: Path, alone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a dataset, without images, in a Trainer, and where the ingredients do not fit into memory together."""
    assert "needs data" in refused("bake", *vit.words, "--recipe", "learned", code=2)
    with pytest.raises(hfsoup.SoupError, match="learns from images"):
        hfsoup.search("learned", [{"w": torch.zeros(2)}], score=lambda _: 1.0)
    with pytest.raises(hfsoup.SoupError, match="learns from images"):
        hfsoup.SoupCallback("learned")
    work = bake(*words(vit, data, "--dry-run"))
    elements = sum(t.numel() for t in weights(vit.folders[0]).values())
    assert work["memory"]["bytes"] >= 4 * elements * len(vit.folders)
    assert (work["work"]["learning"], work["work"]["selection"], work["work"]["epochs"]) == (30, 30, 5)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: Memory(4 * elements * len(vit.folders)))
    block = refused("bake", *words(vit, data, "--batch-size", 1, "--output", "soup"), code=1)
    assert f"for learning: {len(vit.folders)} ingredients at once" in block
    assert not Path("soup").exists()


def test_rounded_coefficients_sum_to_one() -> None:
    """To the last bit of the sum, and what is next to nothing is nothing."""
    row = round_coefficients([1 / 3, 1 / 3 - 1e-8, 1 / 3 - 1e-8, 2e-8])
    assert (sum(row), row[-1]) == (1.0, 0.0)


def test_an_adapter_holds_the_weights_of_each_layer(vit: Family, data: Path, alone: Path) -> None:
    """Of a rank that loses nothing, the soup as an adapter is the whole soup; both are verified."""
    adapters = [adapt(vit.folders[0], Path(f"lora-{n}"), n, **KINDS["linear"][1]) for n in range(2)]
    given = (*adapters, "--dataset", data, *LEARNED, "--per-tensor")
    bake(*given, "--output", "whole")
    bake(*given, "--as-adapter", 8, "--output", "small")
    start, whole = AutoModelForImageClassification.from_pretrained(vit.folders[0]), own(Path("whole"))
    found = PeftModel.from_pretrained(start, "small").merge_and_unload().state_dict()
    assert sum(not torch.equal(found[name], tensor) for name, tensor in own(vit.folders[0]).items()) >= 4
    for name, tensor in whole.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-5, atol=1e-6)
    for folder in ("whole", "small"):
        assert run("verify", folder).code == 0
