"""`--dry-run` and what a bake refuses before its first download."""

from __future__ import annotations

import os
import shutil
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest
from family import Family, copy_model
from huggingface_hub import constants
from shell import bake, refused, run

from hfsoup.localhub import LocalHub
from hfsoup.recipes import RECIPES

Usage = namedtuple("Usage", ("total", "used", "free"))


def home() -> Path:
    """The folder that holds the tests' caches."""
    return Path(os.environ["HF_HOME"]).parent


def dry(*words: object) -> dict[str, Any]:
    return bake(*words, "--dry-run")


def everything() -> set[Path]:
    """All that lies in the caches; locks and their folders hold nothing."""
    return {path for path in home().rglob("*") if path.is_file() and path.suffix not in (".lock", ".pid")}


def test_it_pulls_writes_and_pushes_nothing(on_hub: LocalHub, signed_in: LocalHub, alone: Path) -> None:
    """From an empty cache it tells sizes, images and target, asks the Hub for metadata alone, and leaves no file."""
    shutil.rmtree(home() / "hf", ignore_errors=True)
    before = everything()
    on_hub.forget_requests()
    found = dry("kit/vit-*", "--dataset", "kit/shapes", "--push", "kit/planned", "--limit", "50")
    assert everything() == before
    assert list(alone.iterdir()) == []
    assert {r.method for r in on_hub.requests} <= {"GET", "HEAD", "POST"}
    assert not [r for r in on_hub.requests if r.path.endswith(".safetensors") and r.method == "GET" and r.status == 200]
    assert [r.path for r in on_hub.requests if "planned" in r.path and r.method == "POST"] == []
    assert all(i["cached"] == 0 < i["size"] for i in found["ingredients"])
    assert found["to_pull"] == sum(i["size"] for i in found["ingredients"]) + found["dataset"]["size"]
    assert (found["work"]["selection"], found["work"]["test"]) == (50, 50)
    assert found["push"] == {
        "repo": "kit/planned",
        "exists": False,
        "private": False,
        "create_pr": False,
        "revision": None,
    }


def test_what_is_here_is_not_pulled_again(
    on_hub: LocalHub, signed_in: LocalHub, alone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a bake everything is cached, and the time is told from the pace of that bake."""
    monkeypatch.setenv("HFSOUP_CACHE", str(alone / "cache"))
    first = dry("kit/vit-*", "--dataset", "kit/shapes")
    assert first["work"]["seconds"] is None
    assert "not scored on this machine" in first["work"]["unknown"]
    baked = bake("kit/vit-*", "--dataset", "kit/shapes")
    found = dry("kit/vit-*", "--dataset", "kit/shapes")
    assert found["to_pull"] == 0
    assert found["work"]["seconds"] > 0
    assert found["work"]["images"] >= baked["images_forwarded"]


def test_images_that_are_prepared_are_not_pulled_for(
    on_hub: LocalHub, signed_in: LocalHub, alone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the dataset's files, what a dry run says is pulled of them is what the bake then pulls of them."""
    words = ("kit/vit-1", "kit/vit-2", "--dataset", "kit/shapes")
    files = Path(constants.HF_HUB_CACHE, "datasets--kit--shapes")

    def pulled() -> int:
        found = {path.resolve() for path in files.glob("snapshots/*/**/*.parquet")}
        return sum(path.stat().st_size for path in found)

    monkeypatch.setenv("HFSOUP_CACHE", str(alone / "cache"))
    shutil.rmtree(files, ignore_errors=True)
    told = dry(*words)["dataset"]
    bake(*words)
    assert (told["size"], told["cached"]) == (pulled(), 0)
    for more in ([], ["--limit", "20"]):
        shutil.rmtree(files)
        told = dry(*words, *more)["dataset"]
        bake(*words, *more)
        assert told["size"] - told["cached"] == pulled() == (told["size"] if more else 0)


@pytest.mark.parametrize(
    ("recipe", "passes"),
    [
        (entry, passes)
        for entry in RECIPES
        for passes in ((1, 3) if "passes" in [p.name for p in entry.parameters] else (1,))
    ],
    ids=lambda value: getattr(value, "name", str(value)),
)
def test_no_recipe_scores_more_than_it_says(recipe: Any, passes: int, resnet: Family, data: Path, alone: Path) -> None:
    """The bound on images holds, two batch-norm modes included."""
    base = ["--base", resnet.words[0]] if recipe.needs_base else []
    words = [*resnet.words, "--dataset", data, "--recipe", recipe.name, "--passes", passes, "--no-resume", *base]
    work = dry(*words)["work"]
    assert work["images"] >= bake(*words)["images_forwarded"]
    assert work["calibration"] == 60


def test_halves_and_unknown_counts(vit: Family, images: Any, alone: Path) -> None:
    """One split is halved as a bake halves it; a dataset that does not tell its size leaves the time unknown."""
    images["validation"].to_parquet("one.parquet")
    work = dry(*vit.words, "--dataset", "one.parquet")["work"]
    assert (work["selection"], work["test"]) == (30, 30)
    images.save_to_disk("saved")
    work = dry(*vit.words, "--dataset", "./saved")["work"]
    assert (work["images"], work["seconds"]) == (None, None)
    assert "not in the dataset's metadata" in work["unknown"]


def test_the_screen_says_it_plainly(vit: Family, data: Path, alone: Path) -> None:
    """What would be used, the bound, the unknown time, and that nothing was done."""
    done = run("bake", *vit.words, "--dataset", data, "--dry-run")
    assert done.code == 0
    for text in (
        "at most 7 candidates",
        "60 for selection, 72 for test",
        "not known: this architecture",
        "nothing was pulled",
    ):
        assert text in done.err
    assert "hfsoup check; the dataset's images and labels" in done.err
    assert "labels" not in run("bake", *vit.words, "--dry-run").err
    assert done.out == ""


@pytest.mark.parametrize("kind", ["vit", "resnet"])
def test_the_time_is_known_once_a_check_has_scored(
    kind: str, request: pytest.FixtureRequest, data: Path, alone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What `check` measured is the pace of the plan; statistics of batch norms count as images on top."""
    monkeypatch.setenv("HFSOUP_CACHE", str(alone / "empty"))
    words = (*request.getfixturevalue(kind).words, "--dataset", data)
    plan = ("bake", *words, "--dry-run", "--json", "-")
    assert run(*plan).json["work"]["seconds"] is None
    assert run("check", *words).code == 0
    assert 0 < run(*plan).json["work"]["seconds"] < 60
    monkeypatch.setattr("hfsoup.baking.workload.read_pace", lambda _, how: 10.0 if "average" in how else None)
    work = run(*plan).json["work"]
    assert work["seconds"] == (work["images"] + work["evaluations"] * (work["calibration"] or 0)) / 10


def test_a_disk_that_is_too_small_is_refused_before_the_first_download(
    on_hub: LocalHub, signed_in: LocalHub, alone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bake and a dry run name the folder and both sizes, and no weight file was asked for."""
    shutil.rmtree(home() / "hf", ignore_errors=True)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**9, 10**9, 1000))
    for more in ([], ["--dry-run"]):
        on_hub.forget_requests()
        block = refused("bake", "kit/vit-*", "--output", "soup", *more, code=1)
        assert "the disk is too small" in block
        assert "found 1.0 kB" in block
        assert not [r for r in on_hub.requests if r.path.endswith(".safetensors") and r.status == 200]
    assert list(alone.iterdir()) == []


def test_it_refuses_what_a_bake_refuses_at_once(
    on_hub: LocalHub, signed_in: LocalHub, vit: Family, alone: Path
) -> None:
    """A target that the token may not write to, an output that is taken, and a recipe without data."""
    assert "may not push to else" in refused("bake", "kit/vit-*", "--push", "else/soup", "--dry-run", code=1)
    copy_model(vit.folders[0], alone / "taken")
    assert "exists already" in refused("bake", *vit.words, "--output", "taken", "--dry-run", code=1)
    assert "needs data" in refused("bake", *vit.words, "--recipe", "greedy", "--dry-run", code=2)


def test_a_base_is_counted(on_hub: LocalHub, signed_in: LocalHub, alone: Path) -> None:
    """What the ingredients started from is pulled too, once, and stands apart from them."""
    plain = dry("kit/vit-1", "kit/vit-2", "--merge", "mean")
    found = dry("kit/vit-1", "kit/vit-2", "--merge", "ties", "--base", "kit/vit-3")
    assert found["ingredients"] == plain["ingredients"]
    assert [base["id"] for base in found["bases"]] == ["kit/vit-3"]
    assert found["to_pull"] - plain["to_pull"] == found["bases"][0]["size"] - found["bases"][0]["cached"]
    assert dry("kit/vit-1", "kit/vit-2", "--merge", "ties", "--base", "kit/vit-1")["bases"] == []
