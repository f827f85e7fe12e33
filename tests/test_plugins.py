"""Recipes and merges of other packages: README's own example, and packages that do not work."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tomllib
from family import Family, weights

ROOT = Path(__file__).parents[1]
BLOCKS = dict(re.findall(r"^```(toml|py)\n(.*?)^```$", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL))


def install(site: Path, name: str, module: str, groups: dict[str, dict[str, str]]) -> None:
    """What pip leaves of a package of one module."""
    info = site / f"{name.replace('-', '_')}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    lines = [f"[{group}]\n" + "\n".join(f"{k} = {v}" for k, v in points.items()) for group, points in groups.items()]
    (info / "entry_points.txt").write_text("\n".join(lines))
    (site / f"{name.replace('-', '_')}.py").write_text(module)


def hfsoup(site: Path, *words: object) -> subprocess.CompletedProcess[str]:
    """Type `hfsoup WORDS...` where the packages in `site` are installed."""
    paths = os.pathsep.join([str(site), str(ROOT), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "hfsoup", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": paths}, check=False)


@pytest.fixture
def example(tmp_path: Path) -> Path:
    """README's package, installed."""
    project = tomllib.loads(BLOCKS["toml"])["project"]
    install(tmp_path / "site", project["name"], BLOCKS["py"], project["entry-points"])
    return tmp_path / "site"


def test_the_example_is_short() -> None:
    """Both files together are under 40 lines."""
    assert len((BLOCKS["toml"] + BLOCKS["py"]).splitlines()) < 40


def test_the_example_is_listed_with_where_it_comes_from(example: Path) -> None:
    """A line for the merge and one for the recipe, each with package and version; hfsoup's own are hfsoup's."""
    done = hfsoup(example, "recipes")
    assert done.returncode == 0, done.stderr
    lines = {line.split()[0]: line for line in done.stdout.splitlines() if len(line.split()) > 2}
    assert "soup-extras 1.0" in lines["median"]
    assert "soup-extras 1.0" in lines["best-two"]
    assert " hfsoup " in lines["greedy"]


def test_the_example_bakes_and_is_verified(example: Path, vit: Family, data: Path, alone: Path) -> None:
    """Both work together, the soup is the median, the record names the package, and verify bakes it again."""
    done = hfsoup(example, "bake", *vit.words[:3], "--merge", "median", "--output", "soup")
    assert done.returncode == 0, done.stderr
    stacked = {name: [weights(f)[name].numpy() for f in vit.folders[:3]] for name in weights(Path("soup"))}
    assert all(np.array_equal(t.numpy(), np.median(stacked[n], axis=0)) for n, t in weights(Path("soup")).items())
    assert json.loads(Path("soup/soup.json").read_text())["versions"]["soup-extras"] == "1.0"
    assert hfsoup(example, "verify", "soup").returncode == 0
    words = ("--recipe", "best-two", "--merge", "median", "--dataset", data, "--output", "two", "--json", "-")
    done = hfsoup(example, "bake", *vit.words, *words)
    assert done.returncode == 0, done.stderr
    found = sorted(json.loads(done.stdout)["ingredients"], key=lambda i: i["score"])
    assert [i["used"] for i in found] == [False, False, True, True]


def test_without_its_package_a_soup_cannot_be_verified(example: Path, vit: Family, alone: Path) -> None:
    """The error names the merge and lists those that there are."""
    assert hfsoup(example, "bake", *vit.words[:2], "--merge", "median", "--output", "soup").returncode == 0
    done = hfsoup(alone, "verify", "soup")
    assert done.returncode == 2
    assert "no merge called 'median'; known: " in done.stderr


BROKEN = {
    "raises": "class Odd(Exception): pass\nraise Odd('on\\nits own terms')",
    "leaves": "import sys\nsys.exit(3)",
    "misspelt": "from hfsoup.merges import mergee",
    "syntax": "def (",
    "takes-over": (
        "from hfsoup.merges import merge\n"
        "@merge('mean', paper='', summary='')\ndef mean(tensors, weights, context):\n    return 0 * next(iter(tensors))"
    ),
}


def test_plug_ins_that_do_not_work_break_nothing(example: Path, vit: Family, alone: Path) -> None:
    """Each is named in a note of one line, others work, and no bake is another one for it."""
    for name, module in BROKEN.items():
        install(example, name, module, {"hfsoup.merges": {"x": name.replace("-", "_")}})
    install(example, "gone", "", {"hfsoup.recipes": {"x": "no_such_module"}})
    done = hfsoup(example, "recipes")
    assert done.returncode == 0, done.stderr
    notes = [line for line in done.stderr.splitlines() if line.startswith("note ")]
    assert len(notes) == len(done.stderr.splitlines()) == len(BROKEN) + 1
    assert all(any(f"plug-in {name} 1.0 does not work" in note for note in notes) for name in (*BROKEN, "gone"))
    assert "there already, from hfsoup" in done.stderr
    assert "median" in done.stdout
    for merge in ("mean", "median"):
        done = hfsoup(example, "bake", *vit.words[:3], "--merge", merge, "--output", merge)
        assert done.returncode == 0, done.stderr
    assert hfsoup(alone, "verify", "mean").returncode == 0
