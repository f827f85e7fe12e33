"""Patterns for folders on this machine: the models that they match, and what lies there where they match none."""

from __future__ import annotations

import glob
import os
import re
import shlex
from collections.abc import Iterable
from difflib import get_close_matches
from itertools import chain
from pathlib import Path

from hfsoup.checkpoints.lora.config import CONFIG, FULL, WEIGHTS
from hfsoup.hub.addresses import parse_dataset_address
from hfsoup.ingredients.repository_kinds import SAVE, TRAINING, describe_files, identify_kind
from hfsoup.utils.errors import SoupError, UsageError
from hfsoup.utils.text import join_names, quoted

WILD = re.compile(r"[*?\[]")
CHECKPOINTS, LAST = "checkpoint-*", "last-checkpoint"
CONFIGS = ("config.json", CONFIG)
YAML = (".yaml", ".yml")
MOST = 8
DATA = re.compile(r"(dataset_dict|state)\.json|.*\.(parquet|arrow|tar)|data|train|validation|test")
"""What a folder of data has beside whatever else lies in it."""


def natural_key(text: str) -> list[tuple[int, int, str]]:
    """A sort key under which `model-2` comes before `model-10`."""
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.split(r"(\d+)", text) if part]


def is_model(names: Iterable[str]) -> bool:
    """Whether the files of a folder are those of a checkpoint, or of one that lost its config or weights."""
    return any(n in CONFIGS or n in WEIGHTS or FULL.fullmatch(n) or TRAINING.fullmatch(n) for n in names)


def find_local_models(pattern: str) -> list[Path] | None:
    """The model folders that a pattern matches, in natural order; None where it is meant for the Hub.

    A folder without a model of its own stands for the checkpoints in it.

    Raises:
        UsageError: the pattern can only mean something on this machine, and no model is there.
    """
    text = os.path.expanduser(pattern.rstrip("/") or pattern)  # noqa: PTH111 - a name that nobody has stays as it is
    path = Path(text)
    if text and os.path.lexists(text):
        found = [path] if _has_config(path) else _find_checkpoints(path)
        return sorted(found or _refuse_folder(path), key=_path_key)
    matches = [Path(match) for match in glob.glob(text) if Path(match).is_dir()]  # noqa: PTH207 - also of absolute ones
    models = list(chain.from_iterable([m] if _holds_model(m) else _find_checkpoints(m) for m in matches))
    if models:
        return sorted(models, key=_path_key)
    if _is_only_local(text):
        raise _no_match_error(pattern, text)
    return None


def require_data(dataset: str) -> None:
    """See that a dataset that can only lie on this disk does, and that it is no model's folder.

    Raises:
        SoupError: there is no such folder.
        UsageError: it holds a model.
    """
    path = Path(dataset).expanduser()
    if not os.path.lexists(path):
        if dataset.startswith((".", "/", "~")):
            close = _find_close_names(path)
            hint = f"--dataset {shlex.quote(str(path.parent / close[0]))}" if close else "--dataset ORG/NAME|FOLDER"
            raise SoupError(f"there is no such folder: {dataset!r}", hint=hint)
        if name := parse_dataset_address(dataset):
            raise UsageError("expected ORG/NAME, found an address", where=quoted(dataset), hint=f"--dataset {name}")
        return
    names = _list_names(path)
    weights = [n for n in names if n in WEIGHTS or n.endswith(".safetensors") or FULL.fullmatch(n)]
    if weights and any(name in names for name in CONFIGS) and not any(map(DATA.fullmatch, names)):
        what = f"expected a dataset, found a model: {join_names(sorted(names), MOST)}"
        raise UsageError(what, where=dataset, hint="--dataset ORG/NAME|FOLDER; a model is named without a flag")


def _path_key(path: Path) -> list[tuple[int, int, str]]:
    return natural_key(str(path))


def _list_names(folder: Path) -> list[str]:
    return os.listdir(folder) if folder.is_dir() else []  # noqa: PTH208 - names are wanted


def _has_config(folder: Path) -> bool:
    return any((folder / name).is_file() for name in CONFIGS)


def _holds_model(folder: Path) -> bool:
    """Whether a glob takes a folder: one that holds a run's state beside its checkpoints stands for those."""
    return _has_config(folder) or (is_model(_list_names(folder)) and not _find_checkpoints(folder))


def _find_checkpoints(folder: Path) -> list[Path]:
    """The checkpoints of a run that are numbered; where there are none, the last one, which a Trainer pushes alone."""
    numbered = [found for found in folder.glob(CHECKPOINTS) if found.is_dir() and _holds_model(found)]
    return numbered or [found for found in (folder / LAST,) if found.is_dir() and _holds_model(found)]


def list_checkpoints(folder: Path) -> list[str]:
    """The names of the checkpoints of a Trainer in a folder, in natural order."""
    return sorted((found.name for found in _find_checkpoints(folder)), key=natural_key)


def _is_only_local(text: str) -> bool:
    """Whether no repository is called so: a path, a file's name, or a name that is nearly one of a folder here."""
    start, _, rest = text.partition("/")
    if text.startswith((".", "/", "~", "\\")) or text.endswith(YAML) or re.match(r"[A-Za-z]:[\\/]", text):
        return True
    if "@" in text or not Path(start).is_dir():
        return (
            bool(text)
            and "@" not in text
            and "/" not in text
            and not WILD.search(text)
            and bool(_find_close_names(Path(text)))
        )
    return rest.count("/") > 0 or bool(_find_close_names(Path(text)))


def _find_close_names(path: Path) -> list[str]:
    """The names beside a missing path that are nearly its own, those of soups left out."""
    beside = [
        n for n in _list_names(path.parent) if not n.startswith(".") and not (path.parent / n / "soup.json").is_file()
    ]
    return get_close_matches(WILD.sub("", path.name), sorted(beside, key=natural_key), 3, 0.8)


def _no_match_error(pattern: str, text: str) -> UsageError:
    """The error of a path that matches nothing, with what lies nearest to it."""
    if text.endswith(YAML):
        return UsageError(f"there is no config file {pattern!r}", hint=f"hfsoup init ORG/NAME -o {shlex.quote(text)}")
    path = Path(WILD.split(text)[0] + "_").parent
    folder = next(p for p in (path, *path.parents) if p.is_dir() or p == p.parent)
    names = sorted((n for n in _list_names(folder) if not n.startswith(".")), key=natural_key)
    where = f"{folder}, which holds {join_names(names, MOST)}" if names else ""
    close = _find_close_names(Path(text)) if folder == Path(text).parent else []
    hint = shlex.quote(str(folder / close[0])) if close else f"ls {shlex.quote(str(path))}"
    if not text.startswith((".", "/", "~")):
        hint += f"; on the Hub: hf.co/{text}"
    return UsageError(f"nothing matches {pattern!r}", where=where, hint=hint)


def _refuse_folder(path: Path) -> list[Path]:
    """Say what a path that was named holds instead of a model."""
    if not path.is_dir():
        raise _no_folder_error(path)
    names = sorted(_list_names(path), key=natural_key)
    inner = [n for n in names if (path / n).is_dir() and _holds_model(path / n)]
    kind = identify_kind(names) or identify_kind(file.name for file in path.glob("*/*"))
    where = f"{path}, which holds {describe_files(names)}"
    if inner:
        hint = shlex.quote(f"{path}/*") if len(inner) > 1 else shlex.quote(str(path / inner[0]))
    else:
        hint = kind[1] if kind else SAVE
        hint = f"--dataset {shlex.quote(str(path))}" if hint == "--dataset" else hint
    raise UsageError("expected a model folder, found no config.json", where=where, hint=hint)


def _no_folder_error(path: Path) -> UsageError:
    """The error for a file where a folder belongs."""
    if not path.exists():
        return UsageError("expected a model folder, found a link that leads nowhere", where=str(path))
    if path.suffix in YAML:
        what, hint = "a config file is the only argument beside flags", f"hfsoup bake {shlex.quote(str(path))}"
    elif _has_config(path.parent):
        what, hint = "expected a model folder, found a file in one", shlex.quote(str(path.parent))
    else:
        what, hint = "expected a model folder, found a file", f"{SAVE}; hfsoup check --weights compares plain files"
    return UsageError(what, where=quoted(path), hint=hint)
