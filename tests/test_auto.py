"""`auto` against the three recipes that it runs, and the intervals of its choice."""

from __future__ import annotations

import json
from pathlib import Path

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


def test_the_intervals_are_those_of_the_recipe_that_won(vit: Family, data: Path, alone: Path) -> None:
    """The choice is made on the selection split alone, so it costs the intervals of the test split nothing."""
    words = (*vit.words, "--dataset", data, "--recipe")
    found = bake(*words, "auto", "--output", "auto")
    each = {name: bake(*words, name, "--output", name) for name in WALKS}
    assert {a["name"]: a["score"] for a in found["attempts"]} == {n: one["soup"]["score"] for n, one in each.items()}
    won = each[max(WALKS, key=lambda name: each[name]["soup"]["score"])]
    assert found["comparison"] == won["comparison"]
    assert {**found["soup"], "path": ""} == {**won["soup"], "path": ""}
    assert json.loads(Path("auto/soup.json").read_text())["test"] == won["comparison"]
    assert "| 95 % interval |" in Path("auto/README.md").read_text()


@pytest.mark.parametrize(("p", "low", "verdict"), [(0.04, -0.01, "better"), (0.06, 0.01, "not distinguishable")])
def test_a_difference_counts_by_p_or_else_by_its_interval(p: float, low: float, verdict: str) -> None:
    """Below 0.05 whatever the bootstrap says; an interval that leaves out 0 counts where there is no p."""
    soup, best, found = Score(0.9), Score(0.8), Intervals((0.8, 0.95), (0.7, 0.9), (low, 0.2))
    assert Comparison(soup, best, found, p).verdict == verdict
    assert Comparison(soup, best, found, None).verdict == ("better" if low > 0 else "not distinguishable")


def test_the_screen_tells_which_recipe_won(vit: Family, data: Path, alone: Path) -> None:
    """The recipe of the soup, and what each scored."""
    done = run("bake", *vit.words, "--recipe", "auto", "--dataset", data, "--json", "found.json")
    attempts = json.loads(Path("found.json").read_text())["attempts"]
    kept = " and ".join(a["name"] for a in attempts if a["kept"])
    scores = ", ".join(f"{a['name']} {100 * a['score']:.2f} %" for a in attempts)
    assert f"chosen: {kept}, of {scores} on the selection split\n" in done.err
