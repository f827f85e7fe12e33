"""No network but the Hub that HF_ENDPOINT names."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from family import Family
from huggingface_hub import HfApi
from misbehave import Ended, process
from safetensors.torch import load_file

from hfsoup.localhub import LocalHub


@pytest.fixture(scope="module")
def whole(on_hub: LocalHub, vit: Family, tmp_path_factory: pytest.TempPathFactory) -> Ended:
    """A greedy bake of two ingredients, one of them a pickle, with a dataset of the Hub, and its push."""
    folder, api = tmp_path_factory.mktemp("network"), HfApi(token=on_hub.token)
    old = shutil.copytree(vit.folders[1], folder / "old")
    torch.save(load_file(old / "model.safetensors"), old / "pytorch_model.bin")
    (old / "model.safetensors").unlink()
    api.create_repo("kit/pickled", exist_ok=True)
    api.upload_folder(repo_id="kit/pickled", folder_path=old)
    on_hub.forget_requests()
    words = ("kit/vit-1", "kit/pickled", "--dataset", "kit/shapes", "--metric", "f1_macro", "--push", "kit/network")
    done = process(on_hub, folder, "bake", *words, "--output", "soup", "--json", "-")
    for repo in ("kit/pickled", "kit/network"):
        api.delete_repo(repo, missing_ok=True)
    return done


def test_nothing_but_the_hub_is_connected_to(whole: Ended) -> None:
    """A whole bake, a pickle and a push included, looks up and connects to no other host, in any of its processes."""
    assert whole.code == 0, whole.err
    assert whole.foreign == []
    assert json.loads(whole.out)["pushed"]["repo"] == "kit/network"


def test_telemetry_is_off(whole: Ended, on_hub: LocalHub) -> None:
    """Neither telemetry nor a count of downloads nor a conversion is asked for."""
    asked = [seen.path for seen in on_hub.requests]
    assert asked
    assert [path for path in asked if "telemetry" in path or "agent-harness" in path or "/discussions" in path] == []


def test_no_bars_but_its_own(whole: Ended) -> None:
    """What huggingface_hub and hf-xet would draw of downloads and uploads is not on the screen."""
    assert "Pushed to kit/network" in whole.err
    assert [line for line in whole.err.splitlines() if "%|" in line or "Files (" in line] == []


def test_the_guard_works(on_hub: LocalHub, tmp_path: Path) -> None:
    """The process of these tests cannot reach another host, and says so if it tries."""
    start = ("-c", "from urllib.request import urlopen; urlopen('http://192.0.2.1')")
    done = process(on_hub, tmp_path, start=start)
    assert done.code == 1
    assert "no network in this test" in done.err
    assert done.foreign == ["192.0.2.1:80"]
