"""The script that simulates how often recipes claim a better soup."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from hfsoup.recipes import RECIPES

SCRIPT = Path(__file__).parents[1] / "scripts/power.py"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("power_script", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module


def test_every_recipe_has_its_row(script: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    """A gain that no test can miss is claimed by the mean of all, none is claimed falsely, and numbers repeat."""
    words = ["--families", "3", "--images", "400", "--points", "0", "20"]
    script.main(words)
    table = capsys.readouterr().out
    rows = {cells[0]: cells[1:] for cells in (line.strip("| ").split(" | ") for line in table.splitlines()[2:])}
    assert {name.removesuffix(", extrapolated") for name in rows} == {entry.name for entry in RECIPES}
    assert rows["uniform"] == ["0.0 %", "0.0 %", "100.0 %", "0.0 %"]
    script.main(words)
    assert capsys.readouterr().out == table
