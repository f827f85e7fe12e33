"""The checkpoints of one run: where they are found, what they share, and the recipes latest and weighted."""

from __future__ import annotations

import shutil
from math import exp
from pathlib import Path
from typing import Any

import pytest
import torch
from family import Family, edit_json, weights
from huggingface_hub import HfApi
from shell import bake, only, refused, run
from transformers import pipeline

import hfsoup
from hfsoup.localhub import LocalHub

STEPS = (500, 1000, 1500, 2000)
SHARED = ("preprocessor_config.json", "README.md")


def make_run(family: Family, folder: Path) -> Path:
    """The output folder of a Trainer: checkpoints without an image processor, which stands beside them."""
    folder.mkdir(parents=True)
    for step, model in zip(STEPS, family.folders, strict=True):
        shutil.copytree(model, folder / f"checkpoint-{step}", ignore=shutil.ignore_patterns(*SHARED))
    for name in SHARED:
        shutil.copyfile(family.folders[0] / name, folder / name)
    return folder


def steps(found: dict[str, Any]) -> list[str]:
    return [Path(i["id"]).name for i in found["ingredients"]]


def coefficients(found: dict[str, Any]) -> list[float]:
    return [i["weight"] for i in found["ingredients"]]


@pytest.fixture
def a_run(vit: Family, alone: Path) -> Path:
    """runs/vit-0 in the current folder."""
    make_run(vit, alone / "runs" / "vit-0")
    return Path("runs/vit-0")


ALL = [f"checkpoint-{step}" for step in STEPS]


@pytest.mark.parametrize("pattern", ["runs/vit-0/checkpoint-*", "runs/vit-0", "runs/vit-*"])
def test_a_trainers_folder_stands_for_its_checkpoints(a_run: Path, pattern: str) -> None:
    """Its glob, the folder itself and a glob of such folders give the checkpoints with their steps ascending."""
    assert steps(bake(pattern, "--output", "soup")) == ALL


def test_a_folder_with_a_model_of_its_own_is_that_model(a_run: Path, vit: Family) -> None:
    """Once a final model stands beside the checkpoints, the folder's name means it; alone it makes no soup."""
    for name in ("config.json", "model.safetensors"):
        shutil.copyfile(vit.folders[1] / name, a_run / name)
    assert steps(bake(a_run, vit.words[2], "--output", "soup")) == ["vit-0", "vit-3"]
    block = refused("bake", a_run, "--output", "one", code=2)
    assert "expected two ingredients or more, found one: the folder's own model" in block
    assert "'checkpoint-500', 'checkpoint-1000', 'checkpoint-1500', 'checkpoint-2000'" in block
    assert 'try: hfsoup bake "runs/vit-0/checkpoint-*"\n' in block
    assert not Path("one").exists()
    assert steps(bake(f"{a_run}/checkpoint-*", "--output", "soup2")) == ALL


def test_the_runs_processor_and_card_are_those_of_its_checkpoints(a_run: Path, vit: Family, data: Path) -> None:
    """It scores with them, ships them, and takes their licence."""
    found = bake(f"{a_run}/checkpoint-*", "--dataset", data, "--output", "soup")
    alone = bake(*vit.words, "--dataset", data, "--output", "same")
    assert found["soup"]["sha256"] == alone["soup"]["sha256"]
    assert found["soup"]["test"] == alone["soup"]["test"]
    assert Path("soup/preprocessor_config.json").read_bytes() == (a_run / "preprocessor_config.json").read_bytes()
    assert "license: apache-2.0" in Path("soup/README.md").read_text()
    assert run("verify", "soup", "--scores").code == 0
    assert pipeline("image-classification", "soup") is not None


def test_a_runs_processor_is_compared_like_any_other(a_run: Path, vit: Family) -> None:
    """A checkpoint whose own processor differs from the run's is refused."""
    own = a_run / "checkpoint-1000" / "preprocessor_config.json"
    shutil.copyfile(vit.folders[0] / own.name, own)
    edit_json(own, image_mean=[0.1, 0.1, 0.1])
    assert "image_mean" in refused("bake", f"{a_run}/checkpoint-*", code=1)


def test_what_a_checkpoint_takes_from_its_run_must_be_a_plain_file(a_run: Path) -> None:
    """A link beside the checkpoints is not followed."""
    shared = a_run / "preprocessor_config.json"
    shared.rename("elsewhere.json")
    shared.symlink_to(Path("elsewhere.json").absolute())
    assert "found a link" in refused("bake", f"{a_run}/checkpoint-*", code=1)


def test_the_checkpoint_that_a_trainer_pushes_last_is_one(a_run: Path, vit: Family) -> None:
    """last-checkpoint takes the run's processor, and a folder that holds nothing else stands for it."""
    (a_run / "checkpoint-2000").rename(a_run / "last-checkpoint")
    assert steps(bake(a_run, "--output", "numbered")) == ALL[:-1]
    found = bake(f"{a_run}/checkpoint-500", f"{a_run}/last-checkpoint", "--output", "soup")
    assert found["soup"]["sha256"] == bake(vit.words[0], vit.words[3], "--output", "same")["soup"]["sha256"]
    assert Path("soup/preprocessor_config.json").read_bytes() == (a_run / "preprocessor_config.json").read_bytes()
    for name in ALL[:-1]:
        shutil.rmtree(a_run / name)
    assert steps(bake(a_run, vit.words[0], "--output", "last"))[0] == "last-checkpoint"


def test_the_last_checkpoint_of_a_repository(on_hub: LocalHub, vit: Family, alone: Path) -> None:
    """On the Hub it lies below the final model, without a processor of its own."""
    api = HfApi(token=on_hub.token)
    api.create_repo("kit/training")
    try:
        api.upload_folder(repo_id="kit/training", folder_path=vit.folders[0])
        for name in ("config.json", "model.safetensors"):
            path = f"last-checkpoint/{name}"
            api.upload_file(repo_id="kit/training", path_or_fileobj=vit.folders[1] / name, path_in_repo=path)
        found = bake("kit/training", "kit/training/last-checkpoint", "--output", "soup")
        assert found["soup"]["sha256"] == bake(*vit.words[:2], "--output", "same")["soup"]["sha256"]
        block = refused("bake", "kit/training", code=2)
        assert "hfsoup bake kit/training kit/training/last-checkpoint" in block
    finally:
        api.delete_repo("kit/training")


@pytest.fixture
def pushed_run(on_hub: LocalHub, vit: Family, tmp_path: Path) -> Any:
    """kit/trained with checkpoint-500 and so on as subfolders, as a Trainer that pushes all checkpoints leaves it."""
    api = HfApi(token=on_hub.token)
    api.create_repo("kit/trained")
    commit = api.upload_folder(repo_id="kit/trained", folder_path=make_run(vit, tmp_path / "pushed")).oid
    yield commit
    api.delete_repo("kit/trained")


def test_subfolders_of_a_repository(pushed_run: str, vit: Family, alone: Path) -> None:
    """A glob of subfolders, with or without a revision, is the same checkpoints as in a folder; so is the record."""
    found = bake("kit/trained/checkpoint-*", "--output", "soup")
    assert [i["id"] for i in found["ingredients"]] == [f"kit/trained/checkpoint-{step}" for step in STEPS]
    assert {i["revision"] for i in found["ingredients"]} == {pushed_run}
    assert found["soup"]["sha256"] == bake(*vit.words, "--output", "same")["soup"]["sha256"]
    card = Path("soup/README.md").read_text()
    assert f"/kit/trained/tree/{pushed_run}/checkpoint-500)" in card
    assert "base_model:\n- kit/trained\n" in card
    assert "license: apache-2.0" in card
    assert run("verify", "soup").code == 0
    words = only(f"kit/trained/checkpoint-1000@{pushed_run}", f"kit/trained/checkpoint-500@{pushed_run}")
    one = bake(*words, "--output", "one")["ingredients"][1]
    assert (one["id"], one["revision"]) == ("kit/trained/checkpoint-1000", pushed_run)
    assert Path("one/preprocessor_config.json").is_file()
    done = run("check", "kit/trained/checkpoint-*", "--json", "-")
    assert done.code == 0, done.err
    assert done.json["verdict"] == "soup"


def test_a_glob_of_subfolders_below_a_glob(pushed_run: str, alone: Path) -> None:
    """Repositories and subfolders may be globs at once, and one without such subfolders has none to give."""
    assert steps(bake("kit/train*/checkpoint-1*00@main", "--output", "soup")) == ["checkpoint-1000", "checkpoint-1500"]
    assert "nothing matches" in refused("bake", "kit/trained/epoch-*", code=2)


def test_a_local_path_is_not_asked_of_the_hub(signed_in: LocalHub, a_run: Path) -> None:
    """Below a folder that is here, a path that matches nothing is an error without a request."""
    assert "nothing matches" in refused("bake", "runs/vit-1/checkpoint-*", code=2)
    assert signed_in.requests == []


def test_latest_is_the_mean_of_the_last(a_run: Path, vit: Family) -> None:
    """--last takes the last in the order given, and no data is needed."""
    found = bake(f"{a_run}/checkpoint-*", "--recipe", "latest", "--last", 2, "--output", "soup")
    assert coefficients(found) == [0, 0, 0.5, 0.5]
    soup = weights(Path("soup"))
    ends = [weights(folder) for folder in vit.folders[2:]]
    for name, tensor in soup.items():
        assert tensor.equal(((ends[0][name].double() + ends[1][name].double()) / 2).float()), name


def test_a_decay_weighs_by_age() -> None:
    """Each checkpoint has the given share of the next newer one's weight; without decay latest is uniform."""
    states = [{"w": torch.tensor([float(n)])} for n in range(4)]
    found = hfsoup.search("latest", states, last=3, decay=0.5)
    assert found.weights == pytest.approx((0, 1 / 7, 2 / 7, 4 / 7))
    assert hfsoup.search("latest", states).weights == (0.25,) * 4
    assert hfsoup.search("latest", states, max_ingredients=2).weights == (0, 0, 0.5, 0.5)


def test_latest_is_scored_where_there_is_data(a_run: Path, data: Path) -> None:
    """With a dataset it is measured like every other soup."""
    words = ("--recipe", "latest", "--last", 3, "--decay", 0.9)
    found = bake(f"{a_run}/checkpoint-*", *words, "--dataset", data, "--output", "s")
    assert found["soup"]["test"] is not None
    assert found["trace"] == []


def test_weights_are_given(a_run: Path) -> None:
    """They count in the order of the ingredients and in any scale; a soup of them bakes again."""
    words = (f"{a_run}/checkpoint-*", "--recipe", "weighted", "--weights")
    assert coefficients(bake(*words, "5,3,0,2", "--output", "soup")) == [0.5, 0.3, 0, 0.2]
    assert run("verify", "soup").code == 0
    assert "3 weights for 4 ingredients" in refused("bake", *words, "1,1,1", code=2)
    assert "expected weights" in refused("bake", *words, "1;1", code=2)
    assert "needs scores" in refused("bake", *words[:-1], code=2)


def test_a_temperature_weighs_by_score() -> None:
    """wᵢ ∝ exp((mᵢ − max m)/T) of the ingredients' own scores."""
    scores, states = (0.5, 0.9, 0.8), [{"w": row} for row in torch.eye(3)]
    found = hfsoup.search("weighted", states, score=lambda s: float(s["w"] @ torch.tensor(scores)), temperature=0.1)
    shares = [exp((m - 0.9) / 0.1) for m in scores]
    assert found.weights == pytest.approx([share / sum(shares) for share in shares])
    assert found.state_dict()["w"].tolist() == pytest.approx(found.weights)
