"""Every recipe against its definition, written a second time without hfsoup, over random tables of scores."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from family import Family
from hypothesis import given
from hypothesis import strategies as st
from shell import bake, refused, run

from hfsoup.averaging.mix import Mix
from hfsoup.evaluation.scores import Score
from hfsoup.recipes import RECIPES
from hfsoup.recipes._search import Rules, Search, is_accepted
from hfsoup.utils.errors import SoupError

Set = frozenset[int]
Scores = Callable[[Set], int]
TOTAL = 12


@dataclass(frozen=True)
class Asked:
    """What all recipes honour, and what some take as arguments."""

    accept: str = ">="
    seed: int = 0
    min_score: float | None = None
    max_ingredients: int | None = None
    passes: int = 1
    keep_best: bool = False

    @property
    def rules(self) -> Rules:
        return Rules(self.accept, 0.0, self.seed, self.min_score, self.max_ingredients)


def scores_of(salt: int) -> Scores:
    """A fixed random count of right answers, of 12, for every set; few values, so ties are common."""
    return lambda members: hashlib.sha256(f"{salt} {sorted(members)}".encode()).digest()[0] % (TOTAL + 1)


def searched(recipe: str, size: int, scores: Scores, rules: Asked) -> tuple[list[int], list[tuple[str, int, bool]]]:
    """What hfsoup finds: the members and the decisions."""

    def score(mix: Mix, _: float | None = None) -> Score:
        count = scores(frozenset(mix.members))
        return Score(count / TOTAL, TOTAL, count)

    search = Search([f"m{i}" for i in range(size)], score, rules.rules)
    found = RECIPES.get(recipe).function(search, **RECIPES.get(recipe).fill_parameters(vars(rules)))
    return sorted(found.members), [(d.action, d.ingredient, d.accepted) for d in search.trace]


def better(new: int, old: int, accept: str) -> bool:
    return new >= old if accept == ">=" else new > old


def reference(recipe: str, size: int, scores: Scores, rules: Asked) -> tuple[list[int], list[tuple[str, int, bool]]]:
    """The recipes of the papers, plainly: sets, loops, no bookkeeping."""
    alone = {i: scores(frozenset([i])) for i in range(size)}
    survivors = [i for i in alone if rules.min_score is None or alone[i] / TOTAL >= rules.min_score]
    ranked = sorted(survivors, key=lambda i: (-alone[i], i))
    cap = rules.max_ingredients or size
    trace: list[tuple[str, int, bool]] = []
    if recipe == "uniform":
        return sorted(ranked[:cap]), trace
    if recipe == "pruned":
        current = ranked[:cap]
        for _ in range(rules.passes):
            changed = False
            for i in list(reversed(current)):
                if len(current) == 1 or (rules.keep_best and i == ranked[0]):
                    continue
                rest = [j for j in current if j != i]
                good = better(scores(frozenset(rest)), scores(frozenset(current)), rules.accept)
                trace.append(("drop", i, good))
                if good:
                    current, changed = rest, True
            if not changed:
                break
        return sorted(current), trace
    rest = ranked[1:]
    if recipe == "greedy-random":
        rest = sorted(rest)
        random.Random(rules.seed).shuffle(rest)
    current = [ranked[0]]
    for _ in range(rules.passes):
        changed = False
        for i in rest:
            if i in current or len(current) >= cap:
                continue
            good = better(scores(frozenset([*current, i])), scores(frozenset(current)), rules.accept)
            trace.append(("add", i, good))
            if good:
                current.append(i)
                changed = True
        if not changed:
            break
    return sorted(current), trace


RULES = st.builds(
    Asked,
    accept=st.sampled_from([">=", ">"]),
    passes=st.integers(1, 3),
    seed=st.integers(0, 5),
    min_score=st.none() | st.sampled_from([0.1, 0.3, 0.5]),
    max_ingredients=st.none() | st.integers(1, 6),
    keep_best=st.booleans(),
)


@pytest.mark.parametrize("recipe", ["uniform", "greedy", "greedy-random", "pruned"])
@given(size=st.integers(1, 7), salt=st.integers(0, 10**6), rules=RULES)
def test_a_recipe_is_its_definition(recipe: str, size: int, salt: int, rules: Asked) -> None:
    """Members and every decision equal those of the plain reference, whatever the scores and rules."""
    scores = scores_of(salt)
    if rules.min_score is not None and all(scores(frozenset([i])) / TOTAL < rules.min_score for i in range(size)):
        with pytest.raises(SoupError, match="floor"):
            searched(recipe, size, scores, rules)
        return
    assert searched(recipe, size, scores, rules) == reference(recipe, size, scores, rules)


@given(size=st.integers(2, 6), salt=st.integers(0, 10**6), accept=st.sampled_from([">=", ">"]))
def test_greedy_never_ends_below_the_best_ingredient(size: int, salt: int, accept: str) -> None:
    """On the selection split the soup is at least as good as the best single model."""
    scores = scores_of(salt)
    members, _ = searched("greedy", size, scores, Asked(accept=accept))
    assert scores(frozenset(members)) >= max(scores(frozenset([i])) for i in range(size))


@given(size=st.integers(2, 6), salt=st.integers(0, 10**6))
def test_pruned_never_ends_below_uniform(size: int, salt: int) -> None:
    """Pruning starts at all ingredients and only goes up or sideways."""
    scores = scores_of(salt)
    members, _ = searched("pruned", size, scores, Asked())
    assert scores(frozenset(members)) >= scores(frozenset(range(size)))


@given(st.binary(min_size=1, max_size=40), st.binary(min_size=1, max_size=40), st.floats(0, 3))
def test_a_margin_counts_the_images_that_differ(first: bytes, second: bytes, margin: float) -> None:
    """A gain must reach z times the root of the number of images on which exactly one is right."""
    size = min(len(first), len(second))
    a, b = ([byte & 1 for byte in text[:size]] for text in (first, second))
    new, old = (Score(sum(h) / size, size, sum(h), bytes(h)) for h in (a, b))
    differing = sum(x != y for x, y in zip(a, b, strict=True))
    gain = sum(a) - sum(b)
    wanted = gain >= 0 and (margin == 0 or gain >= margin * differing**0.5)
    assert is_accepted(candidate=new, incumbent=old, rule=">=", margin=margin) == wanted


def test_counts_are_compared_and_not_rounded_fractions() -> None:
    """A difference of one image in many is a difference."""
    many = 10**17
    one_more = Score((many // 2 + 1) / many, many, many // 2 + 1)
    half = Score((many // 2) / many, many, many // 2)
    assert one_more.value == half.value
    assert is_accepted(candidate=one_more, incumbent=half, rule=">", margin=0)
    assert not is_accepted(candidate=half, incumbent=one_more, rule=">=", margin=0)


def rooted(recipe: str, family: Family) -> tuple[str, ...]:
    """A base for a recipe that needs one."""
    return ("--base", family.words[-1]) if RECIPES.get(recipe).needs_base else ()


@pytest.mark.parametrize("recipe", [entry.name for entry in RECIPES])
def test_every_recipe_bakes(recipe: str, family: Family, data: Path, alone: Path) -> None:
    """Each recipe makes a soup of each family, with data, whose selection score is that of its own trace."""
    found = bake(*family.words, "--recipe", recipe, *rooted(recipe, family), "--dataset", data, "--output", "soup")
    assert found["recipe"] == recipe
    assert sum(i["weight"] for i in found["ingredients"]) == pytest.approx(1)
    accepted = [t["score"] for t in found["trace"] if t["accepted"]]
    attempts = [t["score"] for t in found.get("attempts", [])]
    if RECIPES.get(recipe).epochs:
        # What was learned is not chosen by its score.
        assert found["soup"]["score"] == attempts[-1]
    elif attempts:
        assert found["soup"]["score"] == max(attempts)
    elif accepted:
        assert found["soup"]["score"] == accepted[-1]
    assert len({i["score"] for i in found["ingredients"]}) > 1


def test_greedy_is_the_default_with_data_and_uniform_without(vit: Family, data: Path, alone: Path) -> None:
    """The recipe need not be named."""
    assert bake(*vit.words, "--dataset", data, "--output", "a")["recipe"] == "greedy"
    assert bake(*vit.words, "--output", "b")["recipe"] == "uniform"


def test_greedy_of_real_models_is_what_brute_force_finds(vit: Family, data: Path, alone: Path) -> None:
    """Every subset baked and scored by itself gives a table; the reference over it decides as the bake did."""
    table: dict[Set, int] = {}
    for size in range(1, 5):
        for members in combinations(range(4), size):
            words = [vit.words[i] for i in members]
            target = alone / "-".join(map(str, members))
            if size == 1:
                found = run("eval", *words, "--dataset", data, "--json", "-").json
            else:
                found = bake(*words, "--recipe", "uniform", "--dataset", data, "--output", target)["soup"]
            table[frozenset(members)] = round(found["score"] * 60)
    names = [str(f) for f in vit.folders]
    for recipe in ("greedy", "pruned"):
        found = bake(*vit.words, "--recipe", recipe, "--dataset", data, "--no-resume", "--output", recipe)
        members, trace = reference(recipe, 4, table.__getitem__, Asked())
        assert [n for n, i in enumerate(found["ingredients"]) if i["used"]] == members
        assert [(t["action"], names.index(t["ingredient"]), t["accepted"]) for t in found["trace"]] == trace


def test_the_floor_leaves_out_and_names(vit: Family, data: Path, alone: Path) -> None:
    """--min-score between the worst and the best drops the worst, with a note."""
    scores = [i["score"] for i in bake(*vit.words, "--dataset", data, "--output", "a")["ingredients"]]
    floor = (sorted(scores)[0] + sorted(scores)[1]) / 2
    words = (*vit.words, "--recipe", "uniform", "--dataset", data, "--min-score", floor, "--output", "b")
    done = run("bake", *words, "--json", "-")
    assert [i["used"] for i in done.json["ingredients"]] == [s >= floor for s in scores]
    assert done.err.count("is below --min-score") == 1
    assert "floor" in refused("bake", *words[:-3], "1", "--output", "c", code=1)


def test_the_cap_is_hard(vit: Family, data: Path, alone: Path) -> None:
    """--max-ingredients bounds every recipe."""
    for n, entry in enumerate(RECIPES):
        words: list[Any] = ["--recipe", entry.name, "--dataset", data, "--max-ingredients", 2, "--output", f"s{n}"]
        words += rooted(entry.name, vit)
        assert sum(i["used"] for i in bake(*vit.words, *words)["ingredients"]) <= 2


def test_images_forwarded_stay_within_the_papers_bounds(vit: Family, data: Path, alone: Path) -> None:
    """Greedy forwards at most 2k − 1 mixes over the selection images, pruned k + 1 + passes·k."""
    k, selection, test = 4, 60, 72
    for recipe, bound in (("uniform", k + 1), ("greedy", 2 * k - 1), ("pruned", k + 1 + 2 * k)):
        passes = () if recipe == "uniform" else ("--passes", 2)
        found = bake(*vit.words, "--recipe", recipe, "--dataset", data, *passes, "--no-resume", "--output", recipe)
        extra = k if recipe == "greedy" else 0  # its second pass may offer again what is not in
        assert found["images_forwarded"] <= (bound + extra) * selection + 2 * test


def test_a_recipe_is_found_by_its_file_alone() -> None:
    """The registry lists the modules of the package: what it knows is what has a file."""
    files = {
        p.stem.replace("_", "-") for p in Path(RECIPES.get("greedy").function.__code__.co_filename).parent.glob("*.py")
    }
    assert {entry.name for entry in RECIPES} <= files
    assert all(entry.paper and entry.summary for entry in RECIPES)
