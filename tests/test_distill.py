"""A network that is trained to match what its ingredients say on average, and is never called an average."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset, Image
from family import Family, accuracy, weights
from shell import bake, refused, run
from test_resume import contents

import hfsoup

LAUNCH = [str(Path(sys.executable).with_name("accelerate")), "launch", "--num_processes", "2", "-m", "hfsoup"]


def split_files(images: dict[str, Any], folder: Path) -> None:
    """A dataset of every split."""
    for name, rows in images.items():
        rows.to_parquet(folder / f"{name}-00000-of-00001.parquet")


@pytest.mark.parametrize("family", ["resnet", "vit"], indirect=True)
def test_what_is_shipped_was_trained_scored_and_can_be_trained_again(
    family: Family, data: Path, images: Any, alone: Path
) -> None:
    """Card, record and JSON say so; the score is that of the files, which verify trains again to the same bytes."""
    words = [*family.words, "--dataset", data, "--distill", 2]
    planned = bake(*words, "--dry-run")["work"]
    assert (planned["unlabelled"], planned["training"]) == (60, 2 * 60 * 5)
    found = bake(*words, "--output", "soup")
    assert found["recipe"] == "uniform"
    assert found["soup"]["test"] == pytest.approx(accuracy(Path("soup"), images["test"]))
    said = "trained to match the mean logits of 4 ingredients on 60 images without labels for 2 epochs"
    card, record = Path("soup/README.md").read_text(), json.loads(Path("soup/soup.json").read_text())
    assert found["distilled"]["said"].startswith(said)
    assert f"{said}; these weights are not an average" in card
    assert "# Model soup" not in card
    assert "distilled-soup" in card
    assert record["distillation"]["members"] == [0, 1, 2, 3]
    assert f"{said}; these weights" in run("report", "soup", "-o", "page.html").err + Path("page.html").read_text()
    bake(*family.words, "--recipe", "uniform", "--output", "plain")
    shipped, plain = weights(Path("soup")), weights(Path("plain"))
    assert all(not torch.equal(shipped[n], plain[n]) for n in shipped if n.endswith("weight"))
    assert run("verify", "soup", "--scores").code == 0
    record["distillation"]["weights"] = "0" * 64
    Path("soup/soup.json").write_text(json.dumps(record))
    assert "trained again, differs from the one that was baked" in refused("verify", "soup", code=1)


@pytest.mark.parametrize(
    "words", [("--merge", "fisher"), ("--merge", "regmean"), ("--recipe", "learned", "--per-tensor")], ids=" ".join
)
def test_training_begins_with_any_mix(words: tuple[str, ...], vit: Family, data: Path, alone: Path) -> None:
    """Of a merge that looks at images, or with own weights for each tensor; verify begins with the same."""
    bake(*vit.words, "--dataset", data, "--distill", 1, *words, "--output", "soup")
    assert run("verify", "soup", "--scores").code == 0


def test_more_images_train_where_more_are_asked_for(
    resnet: Family, data: Path, alone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A training has a most of its own, and --limit says otherwise in both directions."""
    monkeypatch.setattr("hfsoup.baking.distill.MOST", 40)
    words = (*resnet.words, "--dataset", data, "--distill", 1, "--dry-run")
    for given, seen in (((), 40), (("--limit", 50), 50), (("--limit", 30), 30)):
        assert bake(*words, *given)["work"]["unlabelled"] == seen


def test_two_processes_train_the_network_of_one(resnet: Family, data: Path, alone: Path) -> None:
    """The main process trains alone, so every byte is the same, whatever the cache holds and accelerate is told."""
    words = [*resnet.words, "--dataset", str(data), "--distill", "1"]
    bake(*words, "--output", "one")
    elsewhere = {**os.environ, "HFSOUP_CACHE": str(alone / "cache")}
    elsewhere["ACCELERATE_GRADIENT_ACCUMULATION_STEPS"] = "2"
    command = [*LAUNCH[:4], "--mixed_precision", "bf16", *LAUNCH[4:], "bake", *words, "--output", "two", "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=elsewhere)
    assert done.returncode == 0, done.stderr
    assert contents(Path("one")) == contents(Path("two"))


def test_training_begins_with_what_scores_higher(resnet: Family, vit: Family, data: Path, alone: Path) -> None:
    """The best ingredient or the mix, by their scores on the selection split, which the JSON tells."""
    for family in (resnet, vit):
        mixed = bake(*family.words, "--dataset", data, "--recipe", "uniform")
        best, soup = mixed["best_ingredient"]["score"], mixed["soup"]["score"]
        made = bake(*family.words, "--dataset", data, "--distill", 1)["distilled"]
        assert made["start_score"] == max(best, soup)
        assert sum(weight > 0 for weight in made["start"]) == (4 if soup >= best else 1)


def test_one_ingredient_is_not_distilled(vit: Family, data: Path, alone: Path) -> None:
    """Where the recipe keeps one, it is shipped as it is, and a note says why."""
    done = run(
        "bake", *vit.words, "--dataset", data, "--recipe", "latest", "--last", 1, "--distill", 1, "--output", "s"
    )
    assert "nothing to distill" in done.err
    assert json.loads(Path("s/soup.json").read_text())["distillation"] is None
    assert run("verify", "s", "--scores").code == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--distill", "0"], "distill must be at least 1"),
        (["--distill", "2"], "--distill trains on images"),
        (["--distill", "2", "--dataset", "x", "--as-adapter", "4"], "no adapter"),
        (
            ["--distill", "2", "--dataset", "x", "--on-mismatch", "backbone-only"],
            "needs ingredients of the same classes",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused_at_once(words: list[str], said: str, alone: Path) -> None:
    """Before anything is read."""
    assert said in refused("bake", "./nowhere", *words, code=2)


def test_images_that_report_never_train(vit: Family, data: Path, images: Any, alone: Path) -> None:
    """Neither the split itself, nor one that holds its images."""
    said = refused("bake", *vit.words, "--dataset", data, "--distill", 1, "--calibration-split", "test", code=2)
    assert "the split 'test' cannot be both for calibration and for test" in said
    for split, source in (("train", "test"), ("validation", "validation"), ("test", "test")):
        images[source].to_parquet(f"doubled/{split}-00000-of-00001.parquet")
    said = refused("bake", *vit.words, "--dataset", "doubled", "--distill", 1, code=1)
    assert "72 of 72 test images are also training images" in said


def test_a_split_without_labels_trains(resnet: Family, images: Any, alone: Path) -> None:
    """The labels of what trains and settles are not needed: they may be -1, the Hub's word for none."""
    bare = images["train"].remove_columns("label").add_column("label", [-1] * len(images["train"]))
    bare = bare.cast_column("label", images["train"].features["label"])
    split_files({**images, "train": bare}, alone / "bare")
    found = bake(*resnet.words[:2], "--dataset", "./bare", "--distill", 1, "--limit", 60, "--output", "soup")
    assert found["distilled"]["images"] == 60
    assert run("verify", "soup").code == 0


def test_images_that_cannot_train_are_counted(vit: Family, images: Any, alone: Path) -> None:
    """Those that --skip-bad-images leaves out are told on the screen and in the card."""
    rows = images["train"].cast_column("image", Image(decode=False)).to_list()
    rows[7]["image"] = {"bytes": b"no picture", "path": None}
    bad = Dataset.from_list(rows, features=images["train"].features)
    split_files({**images, "train": bad}, alone / "bad")
    words = (*vit.words[:2], "--dataset", "./bad", "--distill", 1, "--skip-bad-images", "--output", "soup")
    done = run("bake", *words)
    said = "1 of 240 images cannot be decoded or used and are left out of the split 'train'"
    assert said in done.err
    assert said in Path("soup/README.md").read_text().replace("\\", "")


def test_any_torch_model_learns_what_several_say() -> None:
    """What comes out is nearer to the mean logits than its start, and the same each time; the model stays as it is."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, 2), torch.nn.BatchNorm2d(8), torch.nn.Flatten(), torch.nn.Linear(72, 5)
    )
    start = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    states = [
        {n: t + 0.3 * torch.randn(t.shape).abs() if t.is_floating_point() else t for n, t in start.items()}
        for _ in range(3)
    ]
    images = torch.randn(300, 3, 8, 8)
    ran = [hfsoup.distill(states, model=model, images=images, epochs=200, start=start) for _ in range(2)]
    assert all(torch.equal(tensor, ran[1][name]) for name, tensor in ran[0].items())
    assert all(torch.equal(tensor, start[name]) for name, tensor in model.state_dict().items())
    assert model.training

    @torch.no_grad()
    def said(state: dict[str, torch.Tensor]) -> torch.Tensor:
        model.eval().load_state_dict(state)
        return model(images).softmax(1)

    mean = sum(said(state).log() for state in states) / 3
    first, last = ((said(state) - mean.softmax(1)).abs().mean() for state in (start, ran[0]))
    assert last < 0.5 * first


class Wrapped(torch.nn.Linear):
    """Gives its logits in a dict, as some models do."""

    def forward(self, images: torch.Tensor) -> Any:
        """Logits by name."""
        return {"logits": super().forward(images)}


def test_the_rate_grows_with_the_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """A short training of a network with batch norms stays near its start, a long one may leave it, but not too far."""
    rates: list[float] = []

    def asked(_: Any, rate: float, **__: Any) -> None:
        rates.append(rate)
        raise InterruptedError

    monkeypatch.setattr(torch.optim, "SGD", asked)
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for epochs in (1, 1000, 11000):
        with pytest.raises(InterruptedError):
            hfsoup.distill([state, state], model=model, images=torch.randn(2, 2), epochs=epochs)
    assert rates == pytest.approx([0.005, 0.01, 0.1])


def test_the_screen_calls_it_no_soup(vit: Family, data: Path, alone: Path) -> None:
    """What stands in the results is the distilled model."""
    said = run("bake", *vit.words[:2], "--dataset", data, "--distill", 1).err
    assert "distilled model: test accuracy " in said
    assert re.search("^verdict: the distilled model is (better|worse|not distinguishable)", said, re.MULTILINE)


def test_a_model_that_cannot_learn_is_an_error() -> None:
    """What the model gives, and whether anything of it trains, is told before any ingredient is asked."""
    linear, wrapped, frozen = torch.nn.Linear(4, 3), Wrapped(4, 3), torch.nn.Linear(4, 3).requires_grad_(False)
    told = {
        "a tensor of 1 axes": torch.nn.Sequential(linear, torch.nn.Flatten(0)),
        "dict": wrapped,
        "trainable": frozen,
    }
    for text, model in told.items():
        state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        with pytest.raises(hfsoup.SoupError, match=text):
            hfsoup.distill([state, state], model=model, images=torch.randn(8, 4), epochs=1)
    state = linear.state_dict()
    with pytest.raises(hfsoup.SoupError, match="bfloat16"):
        hfsoup.distill([state, state], model=linear, images=torch.randn(8, 4).bfloat16(), epochs=1)
    with torch.no_grad():
        assert hfsoup.distill([state, state], model=linear, images=torch.randn(8, 4), epochs=1).keys() == state.keys()


def test_batch_norms_are_made_ready_without_a_change_of_the_network() -> None:
    """In evaluation mode it computes what it did; in training mode nearly the same, from whatever statistics it had."""
    from hfsoup.networks.distillation.batch_norm import recenter_batch_norms

    torch.manual_seed(0)
    norms = [torch.nn.BatchNorm2d(8), torch.nn.BatchNorm2d(4)]
    for norm in norms:
        torch.nn.init.uniform_(norm.weight)
        norm.running_var.fill_(3.0)
        norm.running_mean.fill_(-0.5)
    layers = [
        torch.nn.Conv2d(3, 8, 3),
        norms[0],
        torch.nn.ReLU(),
        torch.nn.Conv2d(8, 4, 3),
        norms[1],
        torch.nn.Flatten(),
    ]
    model, images = torch.nn.Sequential(*layers).eval(), torch.randn(256, 3, 8, 8)
    with torch.no_grad():
        before, away = model(images), model.train()(images)
        norms[0].running_var.fill_(3.0)
        model.eval()
        before = model(images)
        recenter_batch_norms(model, model, images.split(64))
        assert torch.allclose(model(images), before, atol=1e-4)
        assert torch.allclose(model.train()(images), before, atol=1e-3)
        assert not torch.allclose(away, before, atol=0.1)
