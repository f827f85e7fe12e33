"""`radin` and `search`: recipes that measure as many mixes as they are told to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from family import Family, logits
from hypothesis import given
from hypothesis import strategies as st
from shell import bake, refused, run
from test_recipes import TOTAL, scores_of

import hfsoup
from hfsoup.evaluation.scores import Score
from hfsoup.recipes import RECIPES
from hfsoup.recipes._search import Rules, Search


@given(size=st.integers(1, 6), salt=st.integers(0, 10**6), budget=st.integers(1, 8), cap=st.none() | st.integers(1, 4))
def test_radin_verifies_the_best_guesses(size: int, salt: int, budget: int, cap: int | None) -> None:
    """Sets met by growing and pruning on the guesses, best guess first, then the best real score."""
    real, guess = scores_of(salt), scores_of(salt + 1)

    def scored(table: Any, members: tuple[int, ...]) -> Score:
        count = table(frozenset(members))
        return Score(count / TOTAL, TOTAL, count)

    search = Search(
        [f"m{i}" for i in range(size)],
        lambda mix, _: scored(real, mix.members),
        Rules(max_ingredients=cap),
        ensemble=lambda members: scored(guess, members),
    )
    found = RECIPES.get("radin").function(search, budget=budget)
    ranked = sorted(range(size), key=lambda i: (-real(frozenset([i])), i))
    met, current = [frozenset(ranked)], ranked[:1]
    while len(current) < size:
        options = [[*current, i] for i in ranked if i not in current]
        met += [frozenset(option) for option in options]
        current = max(options, key=lambda option: guess(frozenset(option)))
    current = ranked
    while len(current) > 1:
        options = [[j for j in current if j != i] for i in reversed(current)]
        met += [frozenset(option) for option in options]
        current = max(options, key=lambda option: guess(frozenset(option)))
    sets = [members for members in dict.fromkeys(met) if 1 < len(members) <= (cap or size)]
    tried = [*sorted(sets, key=lambda members: -guess(members))[:budget], frozenset(ranked[:1])]
    assert [frozenset(a.mix.members) for a in search.attempts] == tried
    assert frozenset(found.members) == max(tried, key=real)


def test_radin_guesses_with_the_mean_of_the_logits(vit: Family, data: Path, images: Any, alone: Path) -> None:
    """Each guess is the accuracy of transformers' own logits, and nothing is forwarded for it."""
    words = ("--recipe", "radin", "--dataset", data, "--budget", 3)
    found = bake(*vit.words, *words)
    split = images["validation"]
    each = [logits(folder, split["image"][:]).double() for folder in vit.folders]
    labels = torch.tensor(split["label"][:])
    guesses = [a for a in found["attempts"] if a["name"].startswith("ensemble ")]
    assert len(guesses) == 3
    for attempt in guesses:
        used = [found for found, weight in zip(each, attempt["weights"], strict=True) if weight]
        right = (torch.stack(used).mean(0).argmax(1) == labels).double().mean()
        assert attempt["name"] == f"ensemble {right:.4f}"
    assert found["images_forwarded"] <= 60 * (4 + 3) + 72 * 2
    assert bake(*vit.words, *words, "--output", "again")["images_forwarded"] == 0


def test_radin_takes_any_metric(vit: Family, data: Path, alone: Path) -> None:
    """A metric that counts nothing ranks guesses and mixes as well."""
    found = bake(*vit.words, "--recipe", "radin", "--dataset", data, "--metric", "f1_macro")
    assert found["soup"]["score"] == max(a["score"] for a in found["attempts"])


def test_search_finds_weights_that_no_plain_mean_has() -> None:
    """Of a smooth score its peak is found, with the seed's own draws; what is measured stays within the budget."""
    states = [{"w": row} for row in torch.eye(3, dtype=torch.float64)]
    peak, asked = torch.tensor([0.6, 0.3, 0.1], dtype=torch.float64), []

    def score(state: dict[str, torch.Tensor]) -> float:
        asked.append(tuple(state["w"].tolist()))
        return -float((state["w"] - peak).norm())

    found = hfsoup.search("search", states, score=score, budget=120, seed=3)
    assert len(asked) == len(set(asked)) <= 3 + 1 + 120
    assert found.score is not None
    assert found.score > -0.02
    assert sum(found.weights) == pytest.approx(1)
    again = hfsoup.search("search", states, score=score, budget=120, seed=3)
    other = hfsoup.search("search", states, score=score, budget=120, seed=4)
    assert again.weights == found.weights != other.weights


def test_search_bakes_and_its_card_warns(resnet: Family, data: Path, alone: Path) -> None:
    """The soup is the best of what was drawn, verifies from its weights, and its selection score is not praised."""
    found = bake(*resnet.words, "--recipe", "search", "--dataset", data, "--budget", 8, "--output", "soup")
    assert len(found["attempts"]) == 10
    assert found["soup"]["score"] == max(a["score"] for a in found["attempts"])
    assert "is the best of 10 mixes there. Rely on the test score." in Path("soup/README.md").read_text()
    assert len(json.loads(Path("soup/soup.json").read_text())["attempts"]) == 10
    assert run("verify", "soup", "--scores").code == 0


def test_a_missing_package_is_named_before_anything_is_pulled(data: Path, alone: Path) -> None:
    """With the line that installs it; and radin without logits says what it needs."""
    with mock.patch("hfsoup.utils.extras.find_spec", return_value=None):
        block = refused("bake", "org/not-there", "--recipe", "search", "--dataset", data, code=2)
    assert "needs the package cmaes" in block
    assert "pip install 'hfsoup[search]'" in block
    with mock.patch("hfsoup.utils.extras.find_spec", return_value=None):
        block = refused("bake", "org/not-there", "--align", "weights", code=2)
        assert "pip install 'hfsoup[demo]'" in refused("demo", code=2)
    assert "needs the package scipy" in block
    assert "pip install 'hfsoup[align]'" in block
    with pytest.raises(hfsoup.SoupError, match="logits"):
        hfsoup.search("radin", [{"w": torch.ones(1)}, {"w": torch.zeros(1)}], score=lambda state: float(state["w"]))
