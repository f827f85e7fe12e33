"""CONTRIBUTING's six ways to add something, each done as it is written there; four of them also as a package."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from family import Family, weights

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / ".github/CONTRIBUTING.md").read_text()
BLOCK = re.compile(r"^```py\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SECTIONS = {part.split("\n", 1)[0]: part for part in TEXT.split("\n### ")[1:]}


def code(section: str, block: int = 0) -> str:
    """A block of Python of a section."""
    found: list[str] = re.findall(BLOCK, SECTIONS[section])
    return found[block]


def hfsoup(site: Path, *words: object) -> str:
    """What `hfsoup WORDS...` prints where the packages in `site` are installed."""
    paths = os.pathsep.join([str(site), str(ROOT)])
    command = [sys.executable, "-m", "hfsoup", *map(str, words)]
    environment = {**os.environ, "PYTHONPATH": paths, "COLUMNS": "200"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def copy_tree(target: Path) -> Path:
    """A folder with hfsoup as it is here, to change."""
    shutil.copytree(ROOT / "hfsoup", target / "hfsoup", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("model_cards", "scripts"):
        (target / name).symlink_to(ROOT / name)
    return target


@pytest.fixture(scope="module", params=["in hfsoup", "in a package"])
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first four, as files of hfsoup in the folders that are named, or as a package that pip has installed."""
    home = tmp_path_factory.mktemp("site")
    if request.param == "in hfsoup":
        copy_tree(home)
        for text in SECTIONS.values():
            if "entry point `" in text:
                (home / text.split("`")[1]).write_text(re.findall(BLOCK, text)[0])
        return home
    info = home / "extras-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: extras\nVersion: 1.0\n")
    lines = []
    for n, section in enumerate(SECTIONS):
        if groups := re.findall(r"entry point `(hfsoup\.\w+)`", SECTIONS[section].replace("\n", " ")):
            (home / f"extras_{n}.py").write_text(code(section))
            lines += [f"[{groups[0]}]", f"extras_{n} = extras_{n}"]
    assert len(lines) == 8
    (info / "entry_points.txt").write_text("\n".join(lines))
    return home


def test_a_recipe(site: Path, vit: Family, data: Path, alone: Path) -> None:
    """It finds a soup of three with the option that its signature adds, and is in the record."""
    words = (
        "--dataset",
        data,
        "--recipe",
        "best-three",
        "--at-least",
        "0.0",
        "--output",
        "soup",
        "--json",
        "found.json",
    )
    hfsoup(site, "bake", *vit.words, *words)
    assert sum(i["used"] for i in json.loads(Path("found.json").read_text())["ingredients"]) == 3
    assert json.loads(Path("soup/soup.json").read_text())["options"]["at_least"] == 0.0


def test_a_merge(site: Path, vit: Family, alone: Path) -> None:
    """It makes the soup, and the card cites it."""
    hfsoup(site, "bake", *vit.words[:3], "--merge", "middle", "--output", "soup")
    name = "classifier.weight"
    stacked = [weights(folder)[name] for folder in vit.folders[:3]]
    assert all((weights(Path("soup"))[name] == t).any() for t in stacked)
    assert "Yin et al., Byzantine" in Path("soup/README.md").read_text()


def test_a_metric(site: Path, vit: Family, data: Path, alone: Path) -> None:
    """It scores, and less is better."""
    plain = hfsoup(site, "bake", *vit.words[:2], "--dataset", data, "--output", "plain", "--json", "plain.json")
    assert "accuracy" in plain
    hfsoup(
        site,
        "bake",
        *vit.words[:2],
        "--dataset",
        data,
        "--metric",
        "error_rate",
        "--output",
        "soup",
        "--json",
        "x.json",
    )
    right, wrong = (json.loads(Path(name).read_text())["ingredients"] for name in ("plain.json", "x.json"))
    assert [round(1 - i["score"], 9) for i in right] == [round(abs(i["score"]), 9) for i in wrong]


def test_a_permutation_table(site: Path, alone: Path) -> None:
    """Two networks that differ in the order of their hidden units are aligned by it."""
    script = """
import hfsoup, torch
first, second, bias = torch.randn(5, 3), torch.randn(2, 5), torch.randn(5)
a = {"first.weight": first, "first.bias": bias, "second.weight": second}
order = [3, 1, 4, 0, 2]
b = {"first.weight": first[order], "first.bias": bias[order], "second.weight": second[:, order]}
aligned = hfsoup.align([a, b], "two-layers", method="weights")
assert all(aligned[1][name].equal(tensor) for name, tensor in a.items())
"""
    paths = os.pathsep.join([str(site), str(ROOT)])
    subprocess.run([sys.executable, "-c", script], check=True, env={**os.environ, "PYTHONPATH": paths})


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """hfsoup as it is here, to change."""
    return copy_tree(tmp_path)


def test_an_option(copy: Path, vit: Family, alone: Path) -> None:
    """One declaration makes a flag with its choices, a keyword, a key of YAML files and of soup.json."""
    place, declaration = code("An option").split("\n", 1)
    assert place == "# hfsoup/options/options.py, in Options"
    file = copy / "hfsoup/options/options.py"
    head, tail = file.read_text().split("    license: str | None = _option(", 1)
    file.write_text(f"{head}{declaration}    license: str | None = _option({tail}")
    assert "--audience" in hfsoup(copy, "bake", "--help-all")
    hfsoup(copy, "bake", *vit.words[:2], "--audience", "nobody", "--output", "soup", "--save-config", "soup.yaml")
    assert json.loads(Path("soup/soup.json").read_text())["options"]["audience"] == "nobody"
    assert "audience: nobody" in Path("soup.yaml").read_text()


def test_a_shown_number(copy: Path, vit: Family, data: Path, alone: Path) -> None:
    """Measured in one place and declared in another, it is on the screen, in the JSON, the card and soup.json."""
    title = "A number that is shown"
    (place, measured), (home, declared) = (code(title, n).split("\n", 1) for n in (0, 1))
    assert place == "# hfsoup/baking/measure.py, in place of the return without numbers"
    assert home == "# hfsoup/reports/measurements.py, at the end of MEASUREMENTS"
    file = copy / "hfsoup/baking/measure.py"
    plain = re.sub(r", \{.*\}\)\n", ")\n", measured)
    assert file.read_text().count(plain) == 1
    file.write_text(file.read_text().replace(plain, measured))
    file = copy / "hfsoup/reports/measurements.py"
    head, tail = file.read_text().split("MEASUREMENTS: tuple[Measurement, ...] = (", 1)
    body, rest = tail.split("\n)\n", 1)
    file.write_text(f"{head}MEASUREMENTS: tuple[Measurement, ...] = ({body}\n{declared})\n{rest}")
    shown = hfsoup(copy, "bake", *vit.words[:2], "--dataset", data, "--output", "soup", "--json", "found.json")
    assert "test images: 72" in shown
    assert json.loads(Path("found.json").read_text())["numbers"]["test_images"] == 72
    assert json.loads(Path("soup/soup.json").read_text())["numbers"]["test_images"] == 72
    assert "Test images: 72." in Path("soup/README.md").read_text()
