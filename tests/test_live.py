"""What `hfsoup.bake` shows while it runs: in a notebook, and in a program."""

from __future__ import annotations

import io
import logging
import shutil
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest import mock

import pytest
from family import Family
from shell import bake

import hfsoup


@pytest.fixture
def cell(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """A notebook's kernel, and all that its cell was given to show."""
    shown: list[dict[str, Any]] = []
    package, display = ModuleType("IPython"), ModuleType("IPython.display")
    package.get_ipython = lambda: SimpleNamespace(kernel=object())  # type: ignore[attr-defined]
    display.display = lambda content, **how: shown.append({**content, **how})  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", package)
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    return shown


class Terminal(io.StringIO):
    """Standard error as a terminal."""

    def isatty(self) -> bool:
        return True


def test_a_notebook_follows_a_bake(cell: list[dict[str, Any]], vit: Family, data: Path, alone: Path) -> None:
    """One output is replaced as stages, decisions and notes come; what they hold is escaped."""
    for n in range(2):
        shutil.copytree(vit.folders[n], alone / "<b>" / f"vit-{n}")
    bake("<b>/vit-*", "--output", "<b>/vit-soup")
    soup = hfsoup.bake("<b>/vit-*", dataset=str(data), recipe="greedy")
    assert soup.test is not None
    assert len(cell) > 5
    assert [shown.get("update", False) for shown in cell] == [False] + [True] * (len(cell) - 1)
    assert len({shown["display_id"] for shown in cell}) == 1
    assert all(shown["raw"] for shown in cell)
    last = cell[-1]["text/plain"].splitlines()
    assert "note: <b>/vit-soup is a soup itself; left out (--include-soups includes it)" in last
    assert any(line.startswith("Checked: one vit") for line in last)
    assert any(" added " in line and "<b>/vit-" not in line and "vit-" in line for line in last)
    assert "<b>" not in cell[-1]["text/html"]


def test_a_program_hears_notes_by_the_logger(
    vit: Family, data: Path, alone: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Notes are warnings of the logger `hfsoup`; stages and decisions are there for who asks for its information."""
    for n in range(2):
        shutil.copytree(vit.folders[n], alone / f"vit-{n}")
    bake("./vit-*", "--output", "vit-soup")
    with caplog.at_level(logging.INFO, "hfsoup"):
        hfsoup.bake("./vit-*", dataset=str(data), recipe="greedy")
    said = [(r.levelname, r.getMessage()) for r in caplog.records if r.name == "hfsoup"]
    assert ("WARNING", "vit-soup is a soup itself; left out (--include-soups includes it)") in said
    assert ("INFO", "Resolved 2 ingredients") in said
    assert any(level == "INFO" and " added " in text for level, text in said)


def test_a_notebook_shows_bars_without_widgets(cell: list[dict[str, Any]], vit: Family, data: Path) -> None:
    """A running stage has a bar of HTML, and no script or widget is needed to show it."""
    hfsoup.bake(*vit.words[:2], dataset=str(data), recipe="greedy")
    running = [shown["text/html"] for shown in cell if "<progress" in shown["text/html"]]
    assert any("Scoring" in html for html in running)
    assert "<progress" not in cell[-1]["text/html"]
    assert not any("<script" in shown["text/html"] for shown in cell)
    assert {key for shown in cell for key in shown} == {"text/plain", "text/html", "raw", "display_id", "update"}


def test_a_program_prints_nothing(
    vit: Family, data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nobody looks at a terminal a bake prints nothing: no forecast, and no bar of transformers."""
    monkeypatch.setattr("transformers.utils.logging._tqdm_active", True)
    with mock.patch.object(logging.getLogger("hfsoup"), "propagate", False):
        hfsoup.bake(*vit.words[:2], dataset=str(data), recipe="greedy")
    assert capsys.readouterr() == ("", "")


def test_progress_is_lines_where_it_is_asked_for(vit: Family, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`progress=True` prints stages and steps to standard error, as the command line does."""
    hfsoup.bake(*vit.words[:2], dataset=str(data), recipe="greedy", progress=True)
    out, err = capsys.readouterr()
    assert out == ""
    assert "✓ Resolved 2 ingredients" in err
    assert " added " in err


def test_a_terminal_shows_bars(vit: Family, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a terminal a bake shows stages and bars, on its own, and nothing with `progress=False`."""
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setattr(sys, "stderr", Terminal())
    hfsoup.bake(*vit.words[:2], dataset=str(data), recipe="greedy", progress=False)
    assert sys.stderr.getvalue() == ""
    hfsoup.bake(*vit.words[:2], dataset=str(data), recipe="greedy", resume=False)
    assert "✓\x1b[0m Resolved 2 ingredients" in sys.stderr.getvalue()
    assert "━" in sys.stderr.getvalue()


def test_other_processes_show_nothing(
    vit: Family, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Of several processes only the first shows progress."""
    monkeypatch.setenv("RANK", "1")
    hfsoup.bake(*vit.words[:2], progress=True)
    assert capfd.readouterr() == ("", "")
