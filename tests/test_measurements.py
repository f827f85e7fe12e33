"""How a number that a bake measures is added: put it into `Evaluation.numbers`, and declare it for every surface."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from family import Family
from shell import run

import hfsoup
from hfsoup.evaluation.scores import Comparison, Intervals, Score
from hfsoup.provenance.result import Evaluation
from hfsoup.reports import measurements
from hfsoup.reports.html import make_report
from hfsoup.reports.measurements import CARD, SCREEN, Results, declare_number, list_lines, list_sentences
from hfsoup.ui.render import render_result


def test_a_number_is_measured_in_one_place_declared_in_another_and_shown_everywhere(
    vit: Family, data: Path, alone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Screen, --json, soup.json, card, report, notebook and page show it; without the declaration, only the records."""

    def measure(*parts: object) -> Evaluation:
        return Evaluation(*parts, numbers={"margin": 0.12345})  # type: ignore[arg-type]

    monkeypatch.setattr("hfsoup.baking.measure.Evaluation", measure)
    words = ("bake", *vit.words[:2], "--dataset", data, "--overwrite", "--json", "-")
    undeclared = run(*words)
    assert undeclared.json["numbers"]["margin"] == 0.12345
    assert "margin" not in undeclared.err

    declared = (*measurements.MEASUREMENTS, declare_number("margin", "mean margin", "{:.3f}"))
    monkeypatch.setattr(measurements, "MEASUREMENTS", declared)
    done = run(*words)
    assert "mean margin: 0.123\n" in done.err
    assert done.json["numbers"]["margin"] == 0.12345
    soup = hfsoup.bake(*vit.words[:2], dataset=str(data), output="shown")
    assert json.loads(Path("shown/soup.json").read_text())["numbers"]["margin"] == 0.12345
    assert "Mean margin: 0.123.\n" in Path("shown/README.md").read_text()
    assert "<p>Mean margin: 0.123.</p>" in make_report("shown")
    assert "mean margin: 0.123" in repr(soup)
    assert "mean margin: 0.123<br>" in soup._repr_html_()
    assert "<dt>mean margin</dt><dd>0.123</dd>" in render_result(soup, public=False)


def test_where_nothing_is_measured_the_records_have_no_key_for_it(vit: Family, alone: Path) -> None:
    """soup.json and --json of a bake without a dataset are as they were before there was such a key."""
    done = run("bake", *vit.words[:2], "--output", "soup", "--json", "-")
    assert "numbers" not in done.json
    assert "numbers" not in json.loads(Path("soup/soup.json").read_text())


def results(metric: str, comparison: Comparison) -> Results:
    """What a bake of one ingredient measured, its ensemble included."""
    return Results(
        clean=str, kind="soup", metric=metric, members=1, best="best", alone=False, soups=(), selection=None, rule="",
        trained_split="", comparison=comparison, ensemble=comparison, shifts=(), attempts=(), adapter=None, training="",
        images=None, numbers={},
    )  # fmt: skip


def test_sentences_claim_no_more_than_was_measured() -> None:
    """No interval is spoken of where there is none, no p where there is none, and no points of what is no share."""
    scores, bounds = (Score(0.5, 10), Score(0.25, 10)), Intervals((0.4, 0.6), (0.2, 0.3), (0.1, 0.4))
    told = " ".join(list_sentences(results("f1_macro", Comparison(*scores, bounds, None)), CARD))
    assert "The intervals are from a paired bootstrap. Verdict: better." in told
    assert "the 1 ingredient (the mean" in told
    assert "it scores 25.00 % (20.00 to 30.00). This soup minus the ensemble: +25.00 points (+10.00 to +40.00)," in told

    found = results("org/metric", Comparison(*scores, None, None))
    told = " ".join(list_sentences(found, CARD))
    assert "interval" not in told.replace("have no intervals", "")
    assert "it scores 0.2500. This soup minus the ensemble: +0.2500, not distinguishable." in told
    shown = {name: text for name, _, text in list_lines(found, SCREEN)}
    assert shown["verdict"] == "the soup is not distinguishable from its best ingredient (+0.2500, without an interval)"
