"""The process of whoever imports hfsoup is left as it was: HTTP client, logging, environment, threads, random state."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from family import Family
from huggingface_hub import HfApi
from misbehave import process

from hfsoup.localhub import LocalHub

# What the command line sets for itself, which other tests of this process may have run.
SWITCHES = ("HF_DATASETS_DISABLE_PROGRESS_BARS", "TRANSFORMERS_VERBOSITY", "DATASETS_VERBOSITY", "HF_HUB_VERBOSITY")
PROGRAM = Path(__file__).with_name("bystander.py")
SHORT = ("greedy", "push", "fail")
LONG = ("uniform", "learned", "search", "auto", "fisher", "regmean", "align", "fit", "distill", "report")


@pytest.fixture(autouse=True)
def _loud(monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment in which libraries say what they say by default."""
    for name in SWITCHES:
        monkeypatch.delenv(name, raising=False)


MODELS = ("kit/vit-1", "kit/vit-2")


def changes(hub: LocalHub, folder: Path, *kinds: str, models: tuple[str, ...] = MODELS) -> dict[str, list[str]]:
    """What each kind of bake changes in a process of its own."""
    words = (PROGRAM, *models, "kit/shapes", *kinds)
    done = process(hub, folder, *words, start=(), wait=600)
    assert done.code == 0, done.err[-3000:]
    HfApi(token=hub.token).delete_repo("kit/bystander", missing_ok=True)
    found: dict[str, list[str]] = json.loads(done.out.strip().splitlines()[-1])
    return found


def test_a_process_is_left_as_it_was(on_hub: LocalHub, tmp_path: Path) -> None:
    """By a bake with scores, one that pulls and pushes, and one that fails."""
    assert changes(on_hub, tmp_path, *SHORT) == {kind: [] for kind in SHORT}


@pytest.mark.soak
@pytest.mark.parametrize("kind", LONG)
def test_a_process_is_left_as_it_was_by_every_kind_of_bake(
    kind: str, on_hub: LocalHub, resnet: Family, tmp_path: Path
) -> None:
    """So it is by recipes that learn, merges that look at images, and whatever fits or trains a network."""
    models = (resnet.words[0], resnet.words[1]) if kind == "fit" else MODELS
    assert changes(on_hub, tmp_path, kind, models=models) == {kind: []}
