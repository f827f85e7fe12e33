"""What the rooms promise beyond the order that import-linter holds: pure merges, light imports, no crutches."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
from family import Family
from shell import bake

import hfsoup

ROOT = Path(hfsoup.__file__).parent
HEAVY = {"torch", "transformers", "datasets", "evaluate", "accelerate", "numpy", "safetensors", "sklearn", "PIL"}


@cache
def modules() -> dict[str, ast.Module]:
    """Every module of the package by its dotted name below hfsoup."""
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") or "__init__"
        found[name] = ast.parse(path.read_text())
    return found


def typing_only(tree: ast.Module) -> set[ast.AST]:
    """The nodes below `if TYPE_CHECKING`, which never run."""
    guards = [n for n in ast.walk(tree) if isinstance(n, ast.If) and ast.unparse(n.test).endswith("TYPE_CHECKING")]
    return {node for guard in guards for child in guard.body for node in ast.walk(child)}


@cache
def imports(tree: ast.Module, *, top: bool = False) -> set[str]:
    """The modules that a module imports; with `top`, only those imported when it is."""
    skipped = typing_only(tree)
    inner = {n for f in ast.walk(tree) if isinstance(f, (ast.FunctionDef, ast.AsyncFunctionDef)) for n in ast.walk(f)}
    found = set()
    for node in ast.walk(tree):
        if node in skipped or (top and node in inner):
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


@cache
def own(tree: ast.Module) -> set[str]:
    """The modules of hfsoup that a module imports, by their names below hfsoup."""
    known = set(modules())
    names = {n.removeprefix("hfsoup.") for n in imports(tree) if n.startswith("hfsoup.")} & known
    # `from hfsoup.localhub import routes` is an import of the file, not of what the package's own file holds.
    only = {n.module or "" for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and _files_only(n, known)}
    return names - {name.removeprefix("hfsoup.") for name in only}


def _files_only(node: ast.ImportFrom, known: set[str]) -> bool:
    return all(f"{node.module}.{alias.name}".removeprefix("hfsoup.") in known for alias in node.names)


def test_recipes_never_touch_a_tensor() -> None:
    """A recipe knows the search, the registry and the records, and no numerical library at its top."""
    known = {"averaging.mix", "evaluation.scores", "utils.registry", "utils.errors"}
    for name, tree in modules().items():
        if name.startswith("recipes"):
            assert own(tree) <= known | {n for n in modules() if n.startswith("recipes")}
            assert not {i.split(".")[0] for i in imports(tree, top=True)} & HEAVY, name


def test_merges_are_pure() -> None:
    """A merge knows numpy and the registry."""
    for name, tree in modules().items():
        if name.startswith("merges"):
            assert own(tree) <= {"merges", "utils.registry"}, name
            assert not {i.split(".")[0] for i in imports(tree)} & (HEAVY - {"numpy"}), name


def test_nothing_heavy_is_imported_at_the_top_of_the_command_line() -> None:
    """Neither hfsoup nor hfsoup.cli names a heavy library at import time."""
    for name, tree in modules().items():
        if name in (
            "__init__",
            "cli",
            "cli.app",
            "cli.commands",
            "cli.flags",
            "cli.screen",
            "options.options",
            "recipes._search",
            "checkpoints.types",
            "utils.errors",
            "hub.client",
        ):
            assert not {i.split(".")[0] for i in imports(tree, top=True)} & HEAVY, name


@pytest.mark.parametrize("module", ["hfsoup", "hfsoup.cli", "hfsoup.cli.commands"])
def test_an_import_shows_nothing_and_is_light(module: str) -> None:
    """In a fresh Python the import prints nothing and loads no heavy library."""
    script = f"import sys, json; before = set(sys.modules); import {module}; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    (line,) = done.stdout.splitlines()
    assert not {name.split(".")[0] for name in json.loads(line)} & HEAVY


def test_a_bake_of_local_folders_imports_no_client_of_the_hub(vit: Family, alone: Path) -> None:
    """Once its ingredients were checked, a bake of folders imports neither torch nor what talks to the Hub."""
    bake(*vit.words, "--output", "first")
    script = (
        "import sys; from hfsoup.cli import main; sys.argv[0] = 'hfsoup'\ntry: main()\nfinally: print(*sys.modules)"
    )
    words = ["bake", *vit.words, "--output", "second", "--quiet"]
    done = subprocess.run([sys.executable, "-c", script, *words], capture_output=True, text=True, check=True)
    assert not {"torch", "huggingface_hub.hf_api", "huggingface_hub.file_download"} & set(done.stdout.split())
    assert Path("second/README.md").is_file()


def test_library_code_has_no_crutches() -> None:
    """No assert and nothing left to do."""
    for path in ROOT.rglob("*.py"):
        text = path.read_text()
        assert "TODO" not in text, path
        assert "FIXME" not in text, path
        assert not any(isinstance(node, ast.Assert) for node in ast.walk(ast.parse(text))), path


def test_remote_code_is_never_trusted() -> None:
    """No call in the package passes trust_remote_code=True or weights_only=False."""
    for name, tree in modules().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.keyword) and isinstance(node.value, ast.Constant):
                assert (node.arg, node.value.value) not in {("trust_remote_code", True), ("weights_only", False)}, name
