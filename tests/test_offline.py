"""HF_HUB_OFFLINE=1, as on a compute node: what is cached bakes, and nothing is asked of the Hub."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from family import Family
from huggingface_hub import HfApi, constants, hf_hub_download
from misbehave import blobs, forget
from shell import bake, refused, run

from hfsoup.localhub import LocalHub

MODELS = ("kit/vit-1", "kit/vit-10")


@pytest.fixture(autouse=True)
def _empty(on_hub: LocalHub) -> Iterator[None]:
    """An empty cache before and after."""
    forget(*MODELS)
    yield
    forget(*MODELS)


@pytest.fixture
def offline(signed_in: LocalHub, alone: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalHub]:
    """The Hub that is not asked once `go_offline` was called."""
    yield signed_in
    assert [seen for seen in signed_in.requests if constants.HF_HUB_OFFLINE] == []


def _go(hub: LocalHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    hub.forget_requests()


def _pinned(hub: LocalHub) -> list[str]:
    return [f"{name}@{HfApi(token=hub.token).model_info(name).sha}" for name in MODELS]


def test_a_bake_of_commits_and_a_dataset_that_are_cached(
    offline: LocalHub, monkeypatch: pytest.MonkeyPatch, alone: Path
) -> None:
    """The same soup, with the same scores, in a new cache of images and scores."""
    words = [*_pinned(offline), "--dataset", f"kit/shapes@{HfApi().dataset_info('kit/shapes').sha}"]
    monkeypatch.setenv("HFSOUP_CACHE", str(alone / "old"))
    first = bake(*words, "--output", "soup")
    _go(offline, monkeypatch)
    monkeypatch.setenv("HFSOUP_CACHE", str(alone / "new"))
    again = bake(*words, "--output", "again")
    assert (again["soup"]["sha256"], again["soup"]["test"]) == (first["soup"]["sha256"], first["soup"]["test"])
    assert offline.requests == []


def test_a_dataset_of_which_only_the_images_are_cached(
    offline: LocalHub, monkeypatch: pytest.MonkeyPatch, alone: Path
) -> None:
    """A bake that needed none of a dataset's files needs none of them offline either; one that does names the file."""
    words = [*_pinned(offline), "--dataset", f"kit/shapes@{HfApi().dataset_info('kit/shapes').sha}"]
    monkeypatch.setenv("HFSOUP_CACHE", str(alone / "old"))
    first = bake(*words, "--output", "first")
    shutil.rmtree(Path(constants.HF_HUB_CACHE, "datasets--kit--shapes"))
    bake(*words, "--output", "second")
    assert not list(Path(constants.HF_HUB_CACHE, "datasets--kit--shapes").rglob("*.parquet"))
    _go(offline, monkeypatch)
    third = bake(*words, "--output", "third")
    assert (third["soup"]["sha256"], third["soup"]["test"]) == (first["soup"]["sha256"], first["soup"]["test"])
    shutil.rmtree(alone / "old" / "images")
    block = refused("bake", *words, "--output", "fourth", code=1)
    assert "offline mode is on" in block
    assert ".parquet" in block
    assert offline.requests == []


def test_branches_that_the_cache_knows(
    offline: LocalHub, monkeypatch: pytest.MonkeyPatch, alone: Path, vit: Family
) -> None:
    """What another program downloaded by a branch's name bakes by it, and by the first seven digits of its commit."""
    for name in MODELS:
        for file in ("config.json", "model.safetensors", "preprocessor_config.json", "README.md"):
            hf_hub_download(name, file, revision="main")
    sha = HfApi().model_info(MODELS[1]).sha or ""
    _go(offline, monkeypatch)
    monkeypatch.setenv("HFSOUP_CACHE", str(alone / "new"))
    found = bake(MODELS[0], f"{MODELS[1]}@{sha[:7]}", "--output", "soup")
    assert found["soup"]["sha256"] == bake(vit.words[0], vit.words[3], "--output", "here")["soup"]["sha256"]
    assert found["ingredients"][1]["revision"] == sha
    assert offline.requests == []


def test_what_is_missing_is_named(offline: LocalHub, monkeypatch: pytest.MonkeyPatch, vit: Family, alone: Path) -> None:
    """A repository, a branch, a file and a dataset that the cache does not hold, each with what to type."""
    # Another bake may have kept the listings of these repositories.
    monkeypatch.setenv("HFSOUP_CACHE", str(alone / "new"))
    sha = HfApi().model_info(MODELS[0]).sha or ""
    hf_hub_download(MODELS[0], "config.json", revision=sha)
    _go(offline, monkeypatch)
    block = refused("bake", "kit/vit-10", vit.words[1], "--output", "soup", code=1)
    assert "is not cached" in block
    assert "in:  kit/vit-10" in block
    block = refused("bake", MODELS[0], vit.words[1], "--output", "soup", code=1)
    assert f"{MODELS[0]}@{sha}, which is cached" in block
    block = refused("bake", f"{MODELS[0]}@{sha}", vit.words[1], "--output", "soup", code=1)
    assert "expected model.safetensors" in block
    assert "found 'config.json' in the cache, and offline mode is on" in block
    block = refused("bake", *vit.words[:2], "--dataset", "kit/never", "--output", "soup", code=1)
    assert "in:  kit/never" in block
    assert "offline mode is on" in refused("bake", "kit/vit-*", "--output", "soup", code=1)
    assert offline.requests == []


def test_a_cache_that_holds_a_repository_in_part(
    offline: LocalHub, monkeypatch: pytest.MonkeyPatch, alone: Path, vit: Family
) -> None:
    """Without the commit's listing a note says what is taken for all of it; with it the missing file is named."""
    monkeypatch.setenv("HFSOUP_CACHE", str(alone / "new"))
    for name in MODELS:
        for file in ("config.json", "model.safetensors", "preprocessor_config.json"):
            hf_hub_download(name, file)
    words = ["bake", *MODELS, "--output", "soup"]
    shas = {name: HfApi().model_info(name).sha or "" for name in MODELS}
    _go(offline, monkeypatch)
    done = run(*words)
    assert done.code == 0, done.err
    for name in MODELS:
        assert f"{name}@{shas[name][:7]} was cached without its listing" in done.err
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    assert run(*words, "--overwrite").code == 0
    blobs(MODELS[0])["README.md"].unlink()
    _go(offline, monkeypatch)
    block = refused(*words, "--overwrite", code=1)
    assert "'README.md'" in block
    assert "was cached without" not in block


def test_damage_is_caught_offline_too(offline: LocalHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cached file that is not what its name says is not used, and no request is made for another."""
    words = _pinned(offline)
    bake(*words, "--output", "soup")
    damaged = blobs(MODELS[0])["model.safetensors"]
    damaged.chmod(0o644)
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"\0")
    _go(offline, monkeypatch)
    assert "is not cached" in refused("bake", *words, "--output", "again", code=1)
    assert offline.requests == []


@pytest.mark.soak
@pytest.mark.parametrize(
    "words",
    [
        ("--recipe", "pruned", "--ensemble", "--shifts"),
        ("--recipe", "learned"),
        ("--recipe", "auto", "--figures"),
        ("--merge", "fisher"),
        ("--merge", "regmean"),
        ("--align", "activations"),
        ("--distill", "1"),
        ("--eval", "again=kit/shapes"),
    ],
    ids=lambda words: " ".join(words),
)
def test_a_kind_of_bake_works_offline(
    words: tuple[str, ...], offline: LocalHub, monkeypatch: pytest.MonkeyPatch, alone: Path
) -> None:
    """The same bytes and scores, `verify --scores` and a report with its images, from a new cache of hfsoup's own."""
    shapes = f"kit/shapes@{HfApi().dataset_info('kit/shapes').sha}"
    words = (*_pinned(offline), "--dataset", shapes, *(word.replace("kit/shapes", shapes) for word in words))
    monkeypatch.setenv("HFSOUP_CACHE", str(alone / "old"))
    first = bake(*words, "--output", "soup")
    _go(offline, monkeypatch)
    monkeypatch.setenv("HFSOUP_CACHE", str(alone / "new"))
    again = bake(*words, "--output", "again")
    assert (again["soup"]["sha256"], again["soup"]["test"]) == (first["soup"]["sha256"], first["soup"]["test"])
    for command in (("verify", "again", "--scores"), ("report", "again")):
        done = run(*command)
        assert done.code == 0, done.err
    assert "could not be read again" not in Path("report.html").read_text()
    assert offline.requests == []
