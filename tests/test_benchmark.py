"""The benchmark, run in its quickest form."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "scripts" / "benchmarks"


def benchmark(*words: object) -> subprocess.CompletedProcess[str]:
    """Run `scripts/benchmark WORDS...` with this Python, on a machine without other tools."""
    return subprocess.run(
        [sys.executable, str(BENCHMARKS), *map(str, words)],
        env={**os.environ, "PATH": str(Path(sys.executable).parent), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_section_prints_a_table_and_writes_its_figures(tmp_path: Path) -> None:
    """Each row is printed and in the JSON, with the medians behind a ratio; a tool that is not there is named."""
    done = benchmark("average", "candidates", "scale", "prepare", "--quick", "--json", tmp_path / "figures.json")
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "figures.json").read_text())["rows"]
    assert {row["section"] for row in rows} == {"average", "candidates", "scale", "prepare"}
    for row in rows:
        assert f"| {row['what']} " in done.stdout
        assert (row["value"] is None) == (row["against"].startswith(("mergekit", "timm"))), row
    assert next(row for row in rows if row["against"] == "bare blockwise loop")["times"][1]["wall"] > 0
    assert "mergekit-pytorch linear            | not installed" in done.stdout


def test_a_local_uniform_bake_imports_no_heavy_library() -> None:
    """What a bake without a dataset needs is numpy, once it is known which tensors its architecture has."""
    done = benchmark("startup", "--quick")
    assert done.returncode == 0, done.stderr
    line = next(line for line in done.stdout.splitlines() if "heavy libraries" in line)
    assert line.split("|")[3].strip() == "none"


@pytest.mark.parametrize("word", ["speed", "avg"])
def test_an_unknown_section_lists_the_known(word: str) -> None:
    """It is refused before anything is measured."""
    done = benchmark(word)
    assert done.returncode == 1
    assert "known: average, candidates, evaluate, race, orders, startup, scale, bake, prepare" in done.stderr
