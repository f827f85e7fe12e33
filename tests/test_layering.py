"""The package's own rules: who may import whom, what an import costs, where code lives."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

import hfsoup

ROOT = Path(hfsoup.__file__).parent
STAGES = {"resolve", "pull", "check", "average", "calibrate", "evaluation", "write", "lock", "journal", "card", "push"}
"""One verb each; they are put in order by baking, soup and cli, and know nothing of each other."""

HELPERS = {
    "evaluation": {"average", "calibrate", "journal"},
    "push": {"lock"},
    "write": {"average"},
}
"""What a stage may use of another: the records that flow in, never its verb."""

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


def test_stages_do_not_import_each_other() -> None:
    """Data flows through records; a stage calls no other stage, but for the few tools that are named here."""
    wrong = {
        (name, other)
        for name, tree in modules().items()
        if name in STAGES
        for other in own(tree) & STAGES - {name} - HELPERS.get(name, set())
    }
    assert wrong == set()


def test_nothing_imports_the_local_hub() -> None:
    """Only the command line and the demo start a Hub."""
    users = {name for name, tree in modules().items() if any(o.split(".")[0] == "localhub" for o in own(tree))}
    assert {u for u in users if u.split(".")[0] not in ("localhub", "cli", "demo")} == set()


def test_the_local_hub_knows_nothing_of_soups() -> None:
    """Of the rest of the package the Hub uses the errors alone."""
    used = {o for name, tree in modules().items() if name.startswith("localhub") for o in own(tree)}
    assert {o for o in used if not o.startswith("localhub")} <= {"errors"}


def test_recipes_never_touch_a_tensor() -> None:
    """A recipe knows the search, the registry and the records, and no numerical library; evolution is CMA-ES's door."""
    for name, tree in modules().items():
        if name.startswith("recipes"):
            assert own(tree) <= {"recipes", "registry", "scores", "searching", "types", "errors", "evolution"} | {
                n for n in modules() if n.startswith("recipes.")
            }
            assert not {i.split(".")[0] for i in imports(tree)} & HEAVY, name


def test_merges_are_pure() -> None:
    """A merge knows numpy and the registry."""
    for name, tree in modules().items():
        if name.startswith("merges"):
            assert own(tree) <= {"merges", "registry"}, name
            assert not {i.split(".")[0] for i in imports(tree)} & (HEAVY - {"numpy"}), name


def test_records_and_errors_stand_on_the_standard_library() -> None:
    """types, scores and errors import nothing that has to be installed."""
    for name in ("types", "scores", "errors"):
        foreign = {i.split(".")[0] for i in imports(modules()[name])} - set(sys.stdlib_module_names)
        assert foreign <= {"hfsoup"}, name
        assert own(modules()[name]) <= {"types", "scores", "errors"}


def test_no_cycles() -> None:
    """Modules can be put in an order in which each imports only earlier ones, counting imports inside functions."""
    graph = {name: own(tree) - {name} for name, tree in modules().items() if name not in ("__init__", "__main__")}
    while ready := [name for name, others in graph.items() if not others & graph.keys()]:
        for name in ready:
            del graph[name]
    # A package and its files know each other by design: the registry imports its entries by name, cli its commands.
    assert {name for name in graph if name.split(".")[0] != "cli"} == set(), graph


def test_nothing_heavy_is_imported_at_the_top_of_the_command_line() -> None:
    """Neither hfsoup nor hfsoup.cli names a heavy library at import time."""
    for name, tree in modules().items():
        if name in (
            "__init__",
            "cli",
            "cli.commands",
            "cli.flags",
            "cli.screen",
            "options",
            "searching",
            "types",
            "errors",
            "hub",
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
