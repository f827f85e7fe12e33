"""`auto` against the three recipes that it runs, and the interval that admits the choice."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from statistics import NormalDist

import pytest
from family import Family
from hypothesis import given
from hypothesis import strategies as st
from shell import bake, run
from test_recipes import RULES, TOTAL, Asked, reference, scores_of

from hfsoup.averaging.mix import Mix
from hfsoup.evaluation.scores import Comparison, Intervals, Score
from hfsoup.recipes import RECIPES
from hfsoup.recipes._search import Search
from hfsoup.utils.errors import SoupError

WALKS = ("uniform", "greedy", "pruned")


@given(size=st.integers(1, 7), salt=st.integers(0, 10**6), rules=RULES)
def test_auto_is_the_best_of_the_three_at_the_cost_of_each_mix_once(size: int, salt: int, rules: Asked) -> None:
    """Bounds that one walk may give up at never decide another's, and no mix is measured in full twice."""
    scores, asked = scores_of(salt), []

    def score(mix: Mix, least: float | None = None) -> Score:
        count = scores(frozenset(mix.members))
        if least is not None and count < least:
            return Score((least - 1) / TOTAL, TOTAL, int(least) - 1, at_most=True)
        asked.append(mix)
        return Score(count / TOTAL, TOTAL, count)

    search = Search([f"m{i}" for i in range(size)], score, rules.rules)
    arguments = {"passes": rules.passes, "keep_best": rules.keep_best}
    try:
        found = RECIPES.get("auto").function(search, **arguments)
    except SoupError:
        assert rules.min_score is not None
        return
    ends = [(name, *reference(name, size, scores, rules)) for name in WALKS]
    best = max(ends, key=lambda end: scores(frozenset(end[1])))
    assert sorted(found.members) == best[1]
    assert [(a.name, sorted(a.mix.members), a.score.correct) for a in search.attempts] == [
        (name, members, scores(frozenset(members))) for name, members, _ in ends
    ]
    walked = [(d.walk, d.action, d.ingredient, d.accepted) for d in search.trace]
    assert walked == [(name, *step) for name, _, trace in ends for step in trace]
    assert len(asked) == len(set(asked))
    at_most = RECIPES.get("auto").count_evaluations(size, arguments)
    assert at_most is not None
    assert len(search.scores) <= at_most


def test_the_interval_allows_for_three_finished_soups(vit: Family, data: Path, alone: Path) -> None:
    """`ci95` is Wilson's at 95 %; the one at 1 - 0.05/3 has a name of its own, and stands in the card."""
    found = bake(*vit.words, "--recipe", "auto", "--dataset", data, "--output", "auto")
    alone_scores = {n: bake(*vit.words, "--recipe", n, "--dataset", data, "--output", n)["soup"] for n in WALKS}
    assert {a["name"]: a["score"] for a in found["attempts"]} == {n: s["score"] for n, s in alone_scores.items()}
    assert found["soup"]["sha256"] == alone_scores[max(WALKS, key=lambda n: alone_scores[n]["score"])]["sha256"]
    assert not any("adjusted" in soup for soup in alone_scores.values())
    test, adjusted = found["comparison"], found["comparison"]["adjusted"]
    assert test["ci95"] == found["soup"]["ci95"] == pytest.approx(wilson(found["soup"]["test"], 72, 0.05))
    assert test["best_ci95"] == pytest.approx(wilson(found["best_ingredient"]["test"], 72, 0.05))
    assert adjusted["soup"] == pytest.approx(wilson(found["soup"]["test"], 72, 0.05 / 3))
    assert adjusted["best"] == pytest.approx(wilson(found["best_ingredient"]["test"], 72, 0.05 / 3))
    assert adjusted["level"] == pytest.approx(1 - 0.05 / 3)
    assert found["soup"]["adjusted"] == {"level": adjusted["level"], "interval": adjusted["soup"]}
    wide, narrow = adjusted["difference"], test["difference_ci95"]
    assert wide[0] <= narrow[0] <= narrow[1] <= wide[1]
    assert json.loads(Path("auto/soup.json").read_text())["test"] == test
    text = Path("auto/README.md").read_text()
    assert "98.3 % interval" in text
    assert f"{100 * adjusted['soup'][0]:.2f} to {100 * adjusted['soup'][1]:.2f}" in text
    assert "the best of 3 finished mixes" in text


@pytest.mark.parametrize(
    ("choices", "p", "verdict"), [(1, 0.03, "better"), (3, 0.03, "not distinguishable"), (3, 0.01, "better")]
)
def test_a_difference_counts_at_a_level_that_choices_share(choices: int, p: float, verdict: str) -> None:
    """0.05 among the mixes of which the best is compared, by the p-value, or else by the interval at that level."""
    soup, best, narrow = Score(0.9), Score(0.8), Intervals((0.8, 0.95), (0.7, 0.9), (0.01, 0.2))
    assert Comparison(soup, best, None, None, p, choices).verdict == verdict
    wide = replace(narrow, difference=(-0.01, 0.2)) if p > 0.05 / choices else narrow
    assert Comparison(soup, best, narrow, wide if choices > 1 else None, None, choices).verdict == verdict


def wilson(share: float, n: int, alpha: float) -> list[float]:
    """Wilson's interval of a share of n."""
    z = NormalDist().inv_cdf(1 - alpha / 2)
    centre, half = share + z * z / (2 * n), z * (share * (1 - share) / n + z * z / (4 * n * n)) ** 0.5
    return [(centre - half) / (1 + z * z / n), (centre + half) / (1 + z * z / n)]


def test_the_screen_tells_which_recipe_won(vit: Family, data: Path, alone: Path) -> None:
    """The recipe of the soup, what each scored, and at which level the intervals hold."""
    done = run("bake", *vit.words, "--recipe", "auto", "--dataset", data, "--json", "found.json")
    attempts = json.loads(Path("found.json").read_text())["attempts"]
    kept = " and ".join(a["name"] for a in attempts if a["kept"])
    scores = ", ".join(f"{a['name']} {a['score']:.4f}" for a in attempts)
    assert f"chosen: {kept}, of {scores} on the selection split\n" in done.err
    assert "intervals: 98.3 % each, since the soup is the best of 3 mixes\n" in done.err
