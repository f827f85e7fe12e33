"""The types of `hfsoup.bake`'s options, which editors and type checkers see."""

from __future__ import annotations

import inspect
import re
import runpy
from pathlib import Path

import hfsoup
from hfsoup.options.bake_options import BakeOptions
from hfsoup.options.options import list_parameters

ROOT = Path(__file__).parents[1]


def test_the_types_are_those_of_the_options() -> None:
    """The file is what the script writes, every keyword has a description, as `help(hfsoup.bake)` has."""
    script = runpy.run_path(str(ROOT / "scripts" / "option_types.py"))
    assert script["TARGET"].read_text("utf-8") == script["make_source"](), "run: python scripts/option_types.py"
    source = inspect.getsource(BakeOptions)
    described = re.findall(r'\n    (\w+): .+\n    """', source)
    assert described == list(BakeOptions.__annotations__)
    options = set(inspect.signature(hfsoup.bake).parameters) - {"ingredients", "progress"}
    assert options | set(list_parameters()) == set(BakeOptions.__annotations__)
    assert all(f"\n    {name} (" in str(inspect.getdoc(hfsoup.bake)) for name in options)
