"""The file of `--labels`, which maps a dataset's classes to the model's: JSON, YAML or CSV."""

from __future__ import annotations

import csv
import io
import json
import shlex
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml

from hfsoup.utils.errors import UsageError
from hfsoup.utils.safe_yaml import require_plain_yaml
from hfsoup.utils.text import quoted

BY_NAME, BY_NUMBER = "by-name", "by-number"
LIMIT = 8 << 20
MAX_VALUES = 500_000
SUFFIXES = (".json", ".yaml", ".yml", ".csv")
EXAMPLE = 'lines such as "tabby: 281" or "tabby: tabby, tabby cat" in YAML'


def read_mapping(file: str) -> dict[str, str | int]:
    """The names or numbers of the model's classes, by those of the dataset.

    A CSV has two columns, the dataset's and the model's; the first line is a class like any other.

    Args:
        file: a path that ends in .json, .yaml, .yml or .csv.

    Raises:
        UsageError: there is no such file, or it holds something else.
    """
    path = Path(file).expanduser()
    if path.suffix.lower() not in SUFFIXES:
        what = f"expected by-name, by-number or a file ending in {', '.join(SUFFIXES)}, found {quoted(file)}"
        close = get_close_matches(file, (BY_NAME, BY_NUMBER), 1) or [BY_NUMBER]
        raise UsageError(what, hint=f"--labels {close[0]}")
    try:
        if path.stat().st_size > LIMIT:
            raise UsageError(f"expected at most {LIMIT:,} bytes", where=file)
        found = _parse(path.suffix.lower(), path.read_text("utf-8-sig"))
    except OSError as error:
        raise UsageError(
            f"the file of --labels cannot be read: {error.strerror}", where=file, hint=_suggest_file(path)
        ) from error
    except (ValueError, yaml.YAMLError, csv.Error, RecursionError) as error:
        raise UsageError("the file of --labels cannot be parsed", where=file, hint=EXAMPLE) from error
    odd = [key for key, value in found.items() if not isinstance(value, (str, int)) or isinstance(value, bool)]
    if odd or not found:
        text = f"found something else for {quoted(odd[0])}" if odd else "found none"
        raise UsageError(f"expected a class name or number for each class, {text}", where=file, hint=EXAMPLE)
    return {str(key): value for key, value in found.items()}


def _suggest_file(path: Path) -> str:
    """What to type if a file is missing: a file beside it of nearly the same name, or `ls`."""
    beside = sorted(p.name for p in path.parent.glob("*") if p.suffix.lower() in SUFFIXES)
    close = get_close_matches(path.name, beside, 1, 0.7)
    return f"--labels {shlex.quote(str(path.parent / close[0]))}" if close else f"ls {shlex.quote(str(path.parent))}"


def _parse(suffix: str, text: str) -> dict[Any, Any]:
    if suffix == ".csv":
        # A row of more or fewer than two is a ValueError.
        return {name.strip(): value.strip() for name, value in filter(None, csv.reader(io.StringIO(text)))}
    # Scalars stay text, as YAML would read a class called "no" as false.
    if suffix == ".json":
        found = json.loads(text)
    else:
        require_plain_yaml(text, MAX_VALUES)
        found = yaml.load(text, Loader=yaml.BaseLoader)  # noqa: S506 - is safe
    if not isinstance(found, dict):
        raise ValueError("expected a mapping")
    return found
