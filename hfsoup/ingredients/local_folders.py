"""Patterns of local folders: the models that they match, or an error with what is there instead."""

from __future__ import annotations

import glob
import os
import re
import shlex
from collections.abc import Iterable
from fnmatch import fnmatchcase
from itertools import chain
from pathlib import Path

from hfsoup.checkpoints.lora.config import CONFIG, FULL, WEIGHTS
from hfsoup.hub.addresses import parse_dataset_address
from hfsoup.ingredients.repository_kinds import SAVE, TRAINING, describe_files, identify_kind
from hfsoup.ingredients.training_states import find_training_state, list_nested_paths
from hfsoup.utils.close_names import find_close_names, list_globs, list_visible, match_names
from hfsoup.utils.errors import SoupError, UsageError, require_utf8
from hfsoup.utils.text import join_names, quoted

WILD = re.compile(r"[*?\[]")
CHECKPOINTS, LAST = "checkpoint-*", "last-checkpoint"
CONFIGS = ("config.json", CONFIG)
YAML = (".yaml", ".yml")
MOST = 8
DATA = re.compile(r"(dataset_dict|state)\.json|.*\.(parquet|arrow|tar)|data|train|validation|test")
"""Names that a folder of data has, whatever else is in it."""


def natural_key(text: object) -> list[tuple[int, int, str]]:
    """A sort key under which `model-2` comes before `model-10`."""
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.split(r"(\d+)", str(text)) if part]


def is_model(names: Iterable[str]) -> bool:
    """Whether the files of a folder are a checkpoint, even one without its config or weights."""
    return any(n in CONFIGS or n in WEIGHTS or FULL.fullmatch(n) or TRAINING.fullmatch(n) for n in names)


def find_local_models(pattern: str, *, soups: bool = False) -> list[Path] | None:
    """The model folders that a pattern matches, in natural order; None for a pattern of the Hub.

    A folder without its own model stands for the checkpoints in it. An error suggests soups only with `soups`.

    Raises:
        UsageError: the pattern can only be a local one, and matches no model, or one whose path is not UTF-8.
    """
    found = _find_models(pattern, soups)
    for path in found or ():
        require_utf8(path)
    return found


def _find_models(pattern: str, soups: bool) -> list[Path] | None:
    text = os.path.expanduser(pattern.rstrip("/") or pattern)  # noqa: PTH111 - a name that nobody has stays as it is
    path = Path(text)
    if text and os.path.lexists(text):
        found = [path] if has_config(path) else _find_checkpoints(path)
        return sorted(found or _refuse_folder(path), key=natural_key)
    matches = [Path(match) for match in glob.glob(text) if Path(match).is_dir()]  # noqa: PTH207 - also of absolute ones
    models = list(chain.from_iterable([m] if _holds_model(m) else _find_checkpoints(m) for m in matches))
    if models:
        return sorted(models, key=natural_key)
    close = _find_close_models(text, soups=soups)
    if close or _is_only_local(text):
        raise _no_match_error(pattern, text, close)
    return None


def require_data(dataset: str) -> None:
    """Require that a dataset that can only be local exists, and is not a model.

    Raises:
        SoupError: there is no such folder.
        UsageError: it holds a model.
    """
    path = Path(dataset).expanduser()
    require_utf8(path)
    if not os.path.lexists(path):
        if dataset.startswith((".", "/", "~")):
            close = find_close_names(path)
            hint = f"--dataset {shlex.quote(str(path.parent / close[0]))}" if close else "--dataset ORG/NAME|FOLDER"
            raise SoupError(f"there is no such folder: {dataset!r}", hint=hint)
        if name := parse_dataset_address(dataset):
            raise UsageError("expected ORG/NAME, found an address", where=quoted(dataset), hint=f"--dataset {name}")
        return
    names = _list_names(path)
    weights = [n for n in names if n in WEIGHTS or n.endswith(".safetensors") or FULL.fullmatch(n)]
    if weights and any(name in names for name in CONFIGS) and not any(map(DATA.fullmatch, names)):
        what = f"expected a dataset, found a model: {join_names(sorted(names), MOST)}"
        raise UsageError(what, where=dataset, hint="--dataset ORG/NAME|FOLDER; models are arguments without a flag")


def _list_names(folder: Path) -> list[str]:
    return os.listdir(folder) if folder.is_dir() else []  # noqa: PTH208 - names are wanted


def has_config(folder: Path) -> bool:
    """Whether a folder has the config of a model or an adapter."""
    return any((folder / name).is_file() for name in CONFIGS)


def _holds_model(folder: Path) -> bool:
    """Whether a folder is a model for a glob; a run's folder with training state stands for its checkpoints."""
    return has_config(folder) or (is_model(_list_names(folder)) and not _find_checkpoints(folder))


def _find_checkpoints(folder: Path) -> list[Path]:
    """The numbered checkpoints of a run; without any, `last-checkpoint`, which a Trainer pushes."""
    numbered = [found for found in folder.glob(CHECKPOINTS) if found.is_dir() and _holds_model(found)]
    return numbered or [found for found in (folder / LAST,) if found.is_dir() and _holds_model(found)]


def list_checkpoints(folder: Path) -> list[str]:
    """The names of the Trainer checkpoints in a folder, in natural order."""
    return sorted((found.name for found in _find_checkpoints(folder)), key=natural_key)


def _is_only_local(text: str) -> bool:
    """Whether a pattern cannot be a repository: a path, a YAML file, or one word, where a repository is ORG/NAME."""
    start, _, rest = text.partition("/")
    if text.startswith((".", "/", "~", "\\")) or text.endswith(YAML) or re.match(r"[A-Za-z]:[\\/]", text):
        return True
    if "@" in text:
        return False
    return "/" in rest if Path(start).is_dir() else bool(text) and "/" not in text and not WILD.search(text)


def _find_close_models(text: str, *, soups: bool) -> list[str]:
    """Folders, or for a glob the nearest globs of folders, beside a missing path whose names are close to its own."""
    path = Path(text)
    if "@" in text or (not path.name) or (WILD.search(text) and "/" not in text):
        return []
    folders = _list_model_folders(path.parent, soups=soups)
    known = list_globs(folders) if WILD.search(path.name) else folders
    return [str(path.parent / name) for name in match_names(path.name, known)]


def _list_model_folders(folder: Path, *, soups: bool) -> list[str]:
    """The names of the folders in a folder that hold a model or a run, in natural order; of soups only with `soups`."""
    names = [n for n in list_visible(folder) if soups or not (folder / n / "soup.json").is_file()]
    return sorted((n for n in names if (folder / n).is_dir() and _holds_models(folder / n)), key=natural_key)


def _holds_models(folder: Path) -> bool:
    """Whether a folder is a model, a run of checkpoints, or holds folders that are."""
    inner = (folder / name for name in list_visible(folder))
    return _is_ingredient(folder) or any(_is_ingredient(path) for path in inner if path.is_dir())


def _is_ingredient(folder: Path) -> bool:
    """Whether a folder is a model or a run with checkpoints."""
    return _holds_model(folder) or bool(_find_checkpoints(folder))


def _no_match_error(pattern: str, text: str, close: list[str]) -> UsageError:
    """The error of a path that matches nothing, with the closest names."""
    if text.endswith(YAML):
        return UsageError(f"there is no config file {pattern!r}", hint=f"hfsoup init ORG/NAME -o {shlex.quote(text)}")
    path = Path(WILD.split(text)[0] + "_").parent
    folder = next(p for p in (path, *path.parents) if p.is_dir() or p == p.parent)
    names = sorted((n for n in list_visible(folder) if (folder / n).is_dir()), key=natural_key)
    where = f"{folder}, which holds {join_names(names, MOST)}" if names and not (close and WILD.search(text)) else ""
    hint = shlex.quote(close[0]) if close else f"ls {shlex.quote(str(path))}"
    if "/" not in text:
        what = f"nothing matches {pattern!r}: there is no such folder here, and a model on the Hub is ORG/NAME"
        return UsageError(what, where=where, hint=hint)
    if not text.startswith((".", "/", "~")) and not WILD.search(text):
        hint += f"; on the Hub: hf.co/{text}"
    return UsageError(f"nothing matches {pattern!r}", where=where, hint=hint)


def _refuse_folder(path: Path) -> list[Path]:
    """Raise the error for a path without a model, with what it holds instead."""
    if not path.is_dir():
        raise _no_folder_error(path)
    names = sorted(_list_names(path), key=natural_key)
    inner = _suggest_inner(path)
    if not inner and (state := find_training_state(list_nested_paths(path))):
        raise UsageError(f"expected a model folder, found {state.text}", where=str(path), hint=state.hint)
    kind = identify_kind(names) or identify_kind(file.name for file in path.glob("*/*"))
    where = f"{path}, which holds {describe_files(names)}"
    if inner:
        hint = inner
    else:
        hint = kind[1] if kind else SAVE
        hint = f"--dataset {shlex.quote(str(path))}" if hint == "--dataset" else hint
    raise UsageError("expected a model folder, found no config.json", where=where, hint=hint)


def _suggest_inner(path: Path) -> str:
    """What to type for the models in a folder, or else in a folder in it; empty where there is none."""
    for folder in (path, *(path / name for name in sorted(list_visible(path), key=natural_key))):
        below = ((n, folder / n) for n in _list_model_folders(folder, soups=False))
        names = [n for n, place in below if has_config(place) or _find_checkpoints(place)]
        if not names:
            continue
        every = list_visible(folder)
        globs = [*(["*"] if len(names) > 1 else []), *list_globs(names)]
        exact = (glob for glob in globs if sorted(n for n in every if fnmatchcase(n, glob)) == sorted(names))
        glob = next(exact, None)
        return " ".join(shlex.quote(str(folder / name)) for name in ([glob] if glob else names[:MOST]))
    return ""


def _no_folder_error(path: Path) -> UsageError:
    """The error for a file in place of a folder."""
    if not path.exists():
        return UsageError("expected a model folder, found a broken link", where=str(path))
    if path.suffix in YAML:
        what, hint = "expected a config file to be the only argument", f"hfsoup bake {shlex.quote(str(path))}"
    elif has_config(path.parent):
        what, hint = "expected a model folder, found a file in one", shlex.quote(str(path.parent))
    else:
        what, hint = "expected a model folder, found a file", f"{SAVE}; hfsoup check --weights compares plain files"
    return UsageError(what, where=quoted(path), hint=hint)
