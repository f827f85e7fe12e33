"""A race changes what a search costs and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from family import Family
from hypothesis import given
from hypothesis import strategies as st
from shell import bake

from hfsoup.evaluation.racing import find_cut

ANSWERS = st.lists(st.booleans(), min_size=1, max_size=60)


@given(ANSWERS, st.integers(1, 9), st.data())
def test_a_mix_is_given_up_only_when_nothing_could_save_it(right: list[bool], batch: int, data: st.DataObject) -> None:
    """At the first batch that decides, from as many answers as are there; more answers never move the end."""
    allowed = data.draw(st.integers(0, len(right)))
    answers = np.array(right)
    whole = find_cut(answers, len(right), batch, allowed)
    assert whole.decided
    assert whole.wrong == right[: whole.seen].count(False)
    assert whole.at_most == (whole.seen < len(right))
    if whole.at_most:
        assert whole.wrong > allowed
        assert right[: (whole.seen - 1) // batch * batch].count(False) <= allowed
    else:
        assert right[: (len(right) - 1) // batch * batch].count(False) <= allowed
    for end in range(batch, len(right), batch):
        part = find_cut(answers[:end], len(right), batch, allowed)
        assert part.decided == (whole.at_most and end >= whole.seen)
        assert not part.decided or part == whole


def verdicts(found: dict[str, Any]) -> list[tuple[str, str, bool]]:
    """What a search tried, and whether it went there."""
    return [(step["action"], step["ingredient"], step["accepted"]) for step in found["trace"]]


@pytest.mark.parametrize("recipe", ["greedy", "greedy-random", "pruned", "auto"])
@pytest.mark.parametrize("accept", [">=", ">"])
def test_a_race_decides_as_full_evaluation_does(
    recipe: str, accept: str, resnet: Family, data: Path, alone: Path
) -> None:
    """Same decisions, scores, weights and bytes, batch norms scored both ways; what was stopped is an upper bound."""
    words = [*resnet.words, "--dataset", data, "--recipe", recipe, "--accept", accept, "--batch-size", 4]
    raced = bake(*words, "--no-resume", "--output", "raced")
    whole = bake(*words, "--no-resume", "--no-race", "--output", "whole")
    assert verdicts(raced) == verdicts(whole)
    for key in ("score", "test", "ci95", "sha256"):
        assert raced["soup"][key] == whole["soup"][key], key
    assert [i["weight"] for i in raced["ingredients"]] == [i["weight"] for i in whole["ingredients"]]
    for ours, theirs in zip(raced["trace"], whole["trace"], strict=True):
        assert not theirs["at_most"]
        assert ours["score"] >= theirs["score"] if ours["at_most"] else ours["score"] == theirs["score"]
    # What pruned turns down here are single ingredients, which were scored on all images before.
    assert recipe == "pruned" or any(step["at_most"] for step in raced["trace"])
    assert raced["images_forwarded"] + raced["images_spared"] == whole["images_forwarded"]
    assert raced["images_spared"] > whole["images_spared"] == 0
