"""The comparison of recipes, run as a user runs it."""

from __future__ import annotations

import importlib.util
import json
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from family import Family, accuracy

import hfsoup

SCRIPT = Path(__file__).parents[1] / "scripts/compare.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """The script as a module, so that nothing is imported twice."""
    spec = importlib.util.spec_from_file_location("compare_script", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_the_table_has_every_recipe_and_mode_that_differs(
    script: ModuleType,
    vit: Family,
    resnet: Family,
    data: Path,
    images: Any,
    alone: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """With a base the mean is extrapolated too, batch norms are kept too; accuracies are the models' own."""
    entry = {"name": "Res|Net", "ingredients": resnet.glob, "dataset": str(data)}
    Path("families.yaml").write_text(json.dumps([entry]))
    words = [f"ViT={vit.folders[0].parent}/vit-[1-3]={vit.folders[0]}", "families.yaml"]
    assert script.main([*words, "--dataset", str(data), "--json", "rows.json"]) == 0
    table = capsys.readouterr().out.splitlines()
    rows = json.loads(Path("rows.json").read_text())
    assert len(table) == 2 + len(rows)
    assert table[2].startswith("| ViT | soup | best single |")
    assert any(line.startswith("| Res\\|Net | recalibrate |") for line in table)
    found = [(row["recipe"], row["bn"]) for row in rows]
    searched = ["greedy", "greedy-random", "pruned", "auto"]
    plain = ["best single", "uniform", "uniform, extrapolated", *searched]
    normed = [("best single", "auto"), ("uniform", "auto"), ("uniform", "average"), *((r, "auto") for r in searched)]
    assert found == [*((recipe, None) for recipe in plain), *normed]
    best = max(vit.folders[1:], key=lambda folder: accuracy(folder, images["validation"]))
    measured = [accuracy(best, images[name]) for name in ("validation", "test")]
    assert [rows[0]["selection"], rows[0]["test"]] == pytest.approx(measured)
    drawn = rows[2]
    assert drawn["alpha"] >= rows[1]["alpha"] == 1
    assert drawn["gain"] == pytest.approx(drawn["test"] - rows[0]["test"])
    assert drawn["gain_interval"][0] <= drawn["gain"] <= drawn["gain_interval"][1]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("- {name: a, ingredients: b}", "expected a dataset"),
        ("- {name: a, dataset: b}", "expected a name and a pattern"),
        ("a: b", "expected a list of families"),
        ("- [", "expected a YAML file"),
    ],
)
def test_a_file_of_families_that_is_no_such_file_is_an_error(
    script: ModuleType, alone: Path, capsys: pytest.CaptureFixture[str], text: str, expected: str
) -> None:
    """Said before anything is baked."""
    Path("families.yaml").write_text(text)
    assert script.main(["families.yaml"]) == 1
    assert expected in capsys.readouterr().err


def test_a_greedy_soup_below_its_best_ingredient_is_an_error(
    script: ModuleType, vit: Family, data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What greedy promises is checked, not assumed."""
    bake = hfsoup.bake

    def spoilt(*patterns: str, **options: object) -> hfsoup.Soup:
        soup = bake(*patterns, **options)
        assert soup.selection is not None
        return replace(soup, search=replace(soup.search, selection=replace(soup.selection, correct=0)))

    monkeypatch.setattr(hfsoup, "bake", spoilt)
    assert script.main([f"ViT={vit.glob}", "--dataset", str(data)]) == 1
    assert "below its best ingredient" in capsys.readouterr().err


def test_forecasts_are_compared_with_what_came(script: ModuleType) -> None:
    """A forecast is right by the soup that the selection split prefers, one of too far apart by the mean of all."""

    def family(name: str, forecast: str, *soups: tuple[str, float, str]) -> list[Any]:
        alone = script.Row(name, "soup", "best single", None, 1, 3, 0.6, 0.6, None, forecast=forecast)
        return [alone, *(replace(alone, recipe=r, selection=s, test=0.62, verdict=v) for r, s, v in soups)]

    rows = [
        *family("a", "may win", ("uniform", 0.5, "worse"), ("greedy", 0.7, "better")),
        *family("b", "may win", ("uniform", 0.7, "not distinguishable"), ("greedy", 0.6, "better")),
        *family("c", "little to win", ("uniform", 0.7, "not distinguishable")),
        *family("d", "little to win", ("uniform", 0.7, "better")),
        *family("e", "too far apart", ("uniform", 0.4, "worse"), ("greedy", 0.7, "not distinguishable")),
    ]
    told = script.judge_forecasts(rows)
    ends = [line.rsplit(" | ", 1)[1] for line in told.splitlines()[2:7]]
    assert ends == ["yes |", "no |", "yes |", "no |", "yes |"]
    assert told.endswith("The forecast came true in 3 of 5 families.")
    assert "| a | may win | greedy | +2.00, better | yes |" in told
