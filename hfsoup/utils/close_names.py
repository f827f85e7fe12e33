"""Names on this disk that are close to one that is not there."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from difflib import get_close_matches
from fnmatch import fnmatchcase
from pathlib import Path

CUTOFF = 0.8


def find_close_names(path: Path) -> list[str]:
    """At most three names in the folder of a missing path that are close to its own, the closest first."""
    return match_names(path.name, list_visible(path.parent))


def list_visible(folder: Path) -> list[str]:
    """The names in a folder that do not begin with a dot; none where there is no such folder."""
    names = os.listdir(folder) if folder.is_dir() else []  # noqa: PTH208 - names are wanted
    return [name for name in names if not name.startswith(".")]


def match_names(name: str, known: Iterable[str]) -> list[str]:
    """At most three of the known names that are close to a name, the closest first."""
    return get_close_matches(name, list(known), 3, CUTOFF)


def list_globs(names: Iterable[str]) -> dict[str, list[str]]:
    """Globs that match two names or more, each with what it matches; numbers or the last word are a star."""
    known = list(names)
    numbered = [re.sub(r"\d+", "*", name) for name in known]
    worded = [match[0] + "*" for name in known if (match := re.match(r".*[-_.]", name))]
    found = {glob: [n for n in known if fnmatchcase(n, glob)] for glob in (*numbered, *worded)}
    return {glob: matched for glob, matched in found.items() if len(matched) > 1}
