"""What an installation holds, and how the program starts."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from family import Family
from shell import bake, run

import hfsoup

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel that is built from this checkout."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return zipfile.ZipFile(next(folder.glob("*.whl")))


def test_the_wheel_holds_what_it_needs(wheel: zipfile.ZipFile) -> None:
    """Card and page templates, type marker, licence and every module are in it."""
    names = set(wheel.namelist())
    assert {
        "hfsoup/model_cards/soup.md",
        "hfsoup/model_cards/report.html",
        "hfsoup/model_cards/report.js",
        "hfsoup/py.typed",
    } <= names
    assert {path.relative_to(ROOT).as_posix() for path in (ROOT / "hfsoup").rglob("*.py")} <= names
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_the_wheel_holds_nothing_else(wheel: zipfile.ZipFile) -> None:
    """No tests, no caches, no data."""
    top = {name.split("/")[0] for name in wheel.namelist()}
    assert top == {"hfsoup", f"hfsoup-{hfsoup.__version__}.dist-info"}
    assert not [n for n in wheel.namelist() if "test" in n.split("/")[1:2] or "__pycache__" in n or n.endswith(".pyc")]


def test_the_wheel_works_without_the_checkout(wheel: zipfile.ZipFile, vit: Family, tmp_path: Path) -> None:
    """Unpacked elsewhere, it bakes a soup with its card: the template is found inside the package."""
    wheel.extractall(tmp_path / "site")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    command = [sys.executable, "-m", "hfsoup", "bake", *vit.words, "--output", "soup"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Model soup of 4 vit image classifiers" in (tmp_path / "soup/README.md").read_text()


def test_the_wheels_metadata(wheel: zipfile.ZipFile) -> None:
    """Version and entry point are those of the package."""
    info = f"hfsoup-{hfsoup.__version__}.dist-info"
    assert f"\nVersion: {hfsoup.__version__}\n" in wheel.read(f"{info}/METADATA").decode()
    assert "hfsoup = hfsoup.cli:main" in wheel.read(f"{info}/entry_points.txt").decode()


def module(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "hfsoup", *words],
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_help_of_the_module() -> None:
    """`python -m hfsoup --help` lists the commands."""
    done = module("--help")
    assert done.returncode == 0
    assert all(re.search(rf"\b{name}\b", done.stdout) for name in ("bake", "eval", "push", "recipes", "hub", "demo"))


def test_an_error_of_the_module(tmp_path: Path) -> None:
    """A real process ends with the block, the exit code and nothing else."""
    done = module("bake", "./absent-*", "--quiet")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: nothing matches './absent-*'")


def test_json_of_a_process_is_one_object(vit: Family, data: Path, alone: Path) -> None:
    """With `--json -` no library below talks on standard output."""
    import json

    done = module("bake", *vit.words, "--dataset", str(data), "--output", "soup", "--json", "-")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    here = bake(*vit.words, "--dataset", data, "--output", "here")
    assert found["soup"]["sha256"] == here["soup"]["sha256"]
    assert found["soup"]["test"] == here["soup"]["test"]
    assert "Warning" not in done.stderr


def test_the_version_is_told() -> None:
    """`hfsoup --version` is the package's name and version and nothing else."""
    done = run("--version")
    assert (done.code, done.out) == (0, f"hfsoup {hfsoup.__version__}\n")


def test_a_notebook_completes_what_there_is() -> None:
    """`dir(hfsoup)` is what the package offers, and every name of it is there."""
    assert dir(hfsoup) == sorted(hfsoup.__all__)
    assert all(hasattr(hfsoup, name) for name in dir(hfsoup))


def test_python_takes_folders_as_paths_and_no_list(vit: Family, alone: Path) -> None:
    """`bake` takes a Path for a name; a list is an error that says how to pass it."""
    assert len(hfsoup.bake(*vit.folders[:2], output="soup").composition.used) == 2
    with pytest.raises(hfsoup.SoupError, match="as separate arguments, found a list"):
        hfsoup.bake(list(vit.folders))  # type: ignore[arg-type]


def test_a_bill_of_materials_holds_what_is_installed(tmp_path: Path) -> None:
    """Every pinned package with its version, references that lead somewhere, and the same bytes again."""
    texts = []
    for name in ("first", "second"):
        subprocess.run([sys.executable, ROOT / "scripts/sbom.py", tmp_path / name], check=True)
        texts.append((tmp_path / name).read_bytes())
    assert texts[0] == texts[1]
    bill = json.loads(texts[0])
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    found = {part["bom-ref"] for part in (bill["metadata"]["component"], *bill["components"])}
    assert f"pkg:pypi/hfsoup@{hfsoup.__version__}" in found
    for line in (ROOT / "scripts/constraints.txt").read_text().splitlines():
        name, _, version = line.partition(" ;")[0].partition("==")
        name = re.sub(r"[-_.]+", "-", name).lower()
        # A build such as 2.13.0+cpu is of the pinned version.
        versions = {ref.partition("@")[2].partition("+")[0] for ref in found if ref.startswith(f"pkg:pypi/{name}@")}
        assert versions <= {version.partition("+")[0]}, name
    assert {"pkg:pypi/numpy", "pkg:pypi/torch", "pkg:pypi/huggingface-hub"} <= {ref.rpartition("@")[0] for ref in found}
    assert {entry["ref"] for entry in bill["dependencies"]} == found
    assert {ref for entry in bill["dependencies"] for ref in entry["dependsOn"]} <= found


def test_every_pinned_package_has_its_hashes() -> None:
    """The files that are installed with --require-hashes name the versions of constraints.txt, all but torch."""
    pinned = {line.partition(" ;")[0] for line in (ROOT / "scripts/constraints.txt").read_text().splitlines()}
    hashed: dict[str, int] = {}
    for file in ("requirements.txt", "requirements-timm.txt"):
        for entry in (ROOT / "scripts" / file).read_text().replace("\\\n", " ").splitlines():
            hashed[re.split(r"[ ;]", entry, maxsplit=1)[0]] = entry.count("--hash=sha256:")
    assert {re.sub(r"[-_.]+", "-", p.partition("==")[0]).lower() + p[p.index("==") :] for p in pinned} == {
        *hashed,
        next(p for p in pinned if p.startswith("torch==")),
    }
    assert all(hashed.values())


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"limit": "300"}, "expected limit to be int or None, found '300'"),
        ({"dtype": 16}, "expected dtype to be str or None, found 16"),
        ({"eval": "a=b"}, "expected eval to be list or None, found 'a=b'"),
        ({"private": 1}, "expected private to be bool, found 1"),
        ({"distill": True}, "expected distill to be int or None, found True"),
        ({"eval": [1]}, "expected eval to be list or None, found [1]"),
    ],
    ids=lambda value: value if isinstance(value, str) else next(iter(value)),
)
def test_python_refuses_options_of_another_type(given: dict[str, Any], text: str, vit: Family) -> None:
    """What no command line could give is an error that names the option."""
    with pytest.raises(hfsoup.SoupError) as caught:
        hfsoup.bake(*vit.folders, **given)
    assert caught.value.what == text


def test_python_takes_weights_as_numbers(vit: Family) -> None:
    """A list or an array of weights is the command line's text; an int and NumPy's numbers stand for Python's own."""
    kinds: tuple[Any, ...] = ([1, 3], "1,3", np.array([1, 3], np.float32))
    more: dict[str, Any] = {"decay": 1, "seed": np.int64(3), "temperature": np.float32(0.5)}
    soups = [hfsoup.bake(*vit.folders[:2], recipe="weighted", weights=given, **more) for given in kinds]
    assert {soup.mix.coefficients for soup in soups} == {(0.25, 0.75)}
    assert {type(soups[0].options.seed), type(soups[0].options.temperature)} == {int, float}
