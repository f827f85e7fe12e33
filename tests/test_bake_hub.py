"""From a glob on a Hub to a pipeline on the pushed soup."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from family import Family, accuracy, logits
from huggingface_hub import HfApi, ModelCard, snapshot_download
from shell import bake
from transformers import pipeline

from hfsoup.localhub import LocalHub

SHA = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class Baked:
    """A bake by glob: its JSON, the folder it wrote and the requests that it took."""

    json: dict[str, Any]
    folder: Path
    requests: list[Any]


@pytest.fixture(scope="module")
def baked(on_hub: LocalHub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Baked]:
    """A greedy bake by glob from an empty cache, with data from the Hub, pushed to kit/glob-soup."""
    folder = tmp_path_factory.mktemp("glob") / "soup"
    shutil.rmtree(os.environ["HF_HOME"], ignore_errors=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_TOKEN", on_hub.token)
        on_hub.forget_requests()
        found = bake("kit/vit-*", "--dataset", "kit/shapes", "--push", "kit/glob-soup", "--output", folder)
    yield Baked(found, folder, on_hub.requests)
    HfApi(token=on_hub.token).delete_repo("kit/glob-soup")


def test_the_json_keeps_its_contract(baked: Baked) -> None:
    """Every key of the documented object is there, with values of its kind."""
    assert list(baked.json) == [
        *("hfsoup", "recipe", "merge", "metric", "ingredients", "trace", "soup", "best_ingredient"),
        "comparison",
        *("images_forwarded", "images_spared", "seconds", "pushed", "numbers"),
    ]
    assert (baked.json["recipe"], baked.json["merge"], baked.json["metric"]) == ("greedy", "mean", "accuracy")
    for ingredient in baked.json["ingredients"]:
        assert list(ingredient) == ["id", "revision", "score", "weight", "used"]
        assert SHA.fullmatch(ingredient["revision"])
        assert 0 <= ingredient["score"] <= 1
        assert ingredient["used"] == (ingredient["weight"] > 0)
    assert sum(i["weight"] for i in baked.json["ingredients"]) == pytest.approx(1)
    for n, decision in enumerate(baked.json["trace"], start=1):
        assert list(decision) == ["step", "action", "ingredient", "score", "at_most", "accepted", "images"]
        assert (decision["step"], decision["action"], decision["images"]) == (n, "add", 60)
    assert list(baked.json["soup"]) == ["score", "test", "ci95", "ece", "path", "sha256"]
    low, high = baked.json["soup"]["ci95"]
    assert 0 <= low <= baked.json["soup"]["test"] <= high <= 1
    assert baked.json["soup"]["path"] == str(baked.folder)
    assert list(baked.json["best_ingredient"]) == ["id", "score", "test", "ece"]
    assert baked.json["images_forwarded"] == 60 * (4 + 3) + 72 * 2
    assert {"pull", "evaluate", "average", "push"} <= set(baked.json["seconds"])
    assert list(baked.json["pushed"]) == ["repo", "commit", "url"]


def test_pipeline_of_the_pushed_soup_gives_the_soups_own_logits(baked: Baked, images: Any) -> None:
    """What comes back from the Hub computes what the written folder computes, bit for bit."""
    pictures = images["test"]["image"][:8]
    classify = pipeline("image-classification", "kit/glob-soup")
    pulled = Path(snapshot_download("kit/glob-soup"))
    assert logits(pulled, pictures).equal(logits(baked.folder, pictures))
    probabilities = logits(baked.folder, pictures).softmax(1)
    for guesses, row in zip(classify(pictures, top_k=6), probabilities, strict=True):
        names = classify.model.config.id2label
        for guess in guesses:
            index = next(i for i, name in names.items() if name == guess["label"])
            assert guess["score"] == pytest.approx(float(row[index]), abs=1e-6)


def test_scores_are_those_of_an_independent_count(baked: Baked, vit: Family, images: Any) -> None:
    """Ingredient scores and the soup's test score equal what transformers and a loop count."""
    for ingredient, folder in zip(baked.json["ingredients"], vit.folders, strict=True):
        assert ingredient["score"] == pytest.approx(accuracy(folder, images["validation"]))
    assert baked.json["soup"]["test"] == pytest.approx(accuracy(baked.folder, images["test"]))
    assert len({i["score"] for i in baked.json["ingredients"]}) > 1


def test_everything_is_pinned_to_a_commit_before_it_is_downloaded(baked: Baked) -> None:
    """No file of a model or of the dataset is asked for by the name of a branch."""
    downloads = [r.path for r in baked.requests if r.method == "GET" and "/resolve/" in r.path]
    assert downloads
    assert [path for path in downloads if not SHA.search(path.split("/resolve/")[1])] == []


def test_a_push_is_one_commit(baked: Baked, hub: LocalHub) -> None:
    """The repository has the commit that made it and the soup's, which the JSON names."""
    commits = HfApi().list_repo_commits("kit/glob-soup")
    assert commits[0].commit_id == baked.json["pushed"]["commit"]
    assert baked.json["pushed"]["url"] == f"{hub.url}/kit/glob-soup"
    created = [r for r in baked.requests if r.method == "POST" and "/kit/glob-soup/commit/" in r.path]
    assert len(created) == 1


def test_the_pushed_card_is_read_by_the_hub(baked: Baked) -> None:
    """The Hub's own listing shows the tags, the task and the base models of the card."""
    info = HfApi().model_info("kit/glob-soup")
    used = {i["id"] for i in baked.json["ingredients"] if i["used"]}
    assert {"model-soup", "merge"} <= set(info.tags or ())
    assert info.pipeline_tag == "image-classification"
    assert set(ModelCard.load("kit/glob-soup").data.base_model) == used


def test_only_the_files_a_soup_needs_are_pulled(baked: Baked) -> None:
    """Of an ingredient, weights, config, processor and card are asked for and nothing else."""
    names = {r.path.rsplit("/", 1)[1] for r in baked.requests if "/kit/vit-" in r.path and "/resolve/" in r.path}
    assert names == {"config.json", "model.safetensors", "preprocessor_config.json", "README.md"}


def test_natural_order(baked: Baked) -> None:
    """vit-2 comes before vit-10."""
    assert [i["id"] for i in baked.json["ingredients"]] == ["kit/vit-1", "kit/vit-2", "kit/vit-3", "kit/vit-10"]


def test_a_hub_bake_writes_the_bytes_of_a_local_bake(baked: Baked, vit: Family, data: Path, alone: Path) -> None:
    """The same ingredients give the same weights, scores and decisions from folders."""
    local = bake(*vit.words, "--dataset", data, "--output", "local")
    assert local["soup"]["sha256"] == baked.json["soup"]["sha256"]
    assert [i["score"] for i in local["ingredients"]] == [i["score"] for i in baked.json["ingredients"]]
    assert [(t["score"], t["accepted"]) for t in local["trace"]] == [
        (t["score"], t["accepted"]) for t in baked.json["trace"]
    ]
