"""Ingredients from patterns, each checked by file listing and config before any weight is downloaded."""

from __future__ import annotations

import posixpath
import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from threading import Lock

from hfsoup.checkpoints.inspection import read_classifier_config
from hfsoup.checkpoints.lora.config import CONFIG, AdapterConfig, find_adapter_weights, is_adapter, read_adapter_config
from hfsoup.checkpoints.timm_config import read_model_config
from hfsoup.checkpoints.types import Source
from hfsoup.hub.download import fetch_file, is_cached
from hfsoup.hub.notices import listening
from hfsoup.hub.offline import store_listing
from hfsoup.ingredients.cards import BASE_HINT
from hfsoup.ingredients.headers import peek_file
from hfsoup.ingredients.local_folders import LAST, has_config, list_checkpoints, natural_key
from hfsoup.ingredients.pull import CHECKPOINT, find_weight_names, missing_file_error
from hfsoup.ingredients.repository_kinds import identify_kind
from hfsoup.ingredients.resolve import Refused, list_file_names, match_patterns, pin_source
from hfsoup.ingredients.training_states import find_training_state, list_nested_names
from hfsoup.utils.errors import AccessError, HubError, SoupError, UsageError
from hfsoup.utils.text import join_names, one_line, quoted
from hfsoup.utils.threads import map_in_threads

REPO = re.compile(r"[\w.\-]+(/[\w.\-]+)?")
SKIP = "skip-ingredient"
FEW = 2
"""The most hints in an error about several matches."""
IMPORT_LOCK = Lock()
"""Held while a config is read, which may import a library: two threads that import one at once can break it."""


def find_ingredients(
    patterns: Sequence[str],
    *,
    target: str | None = None,
    exclude: Sequence[str] = (),
    fine_tunes_of: str | None = None,
    include_soups: bool = False,
    on_mismatch: str = "error",
    weights_file: str | None = None,
    state_dict_key: str | None = None,
    keep: bool = True,
    notify: Callable[[str], None] = lambda _: None,
) -> tuple[Source, ...]:
    """The ingredients that `patterns` match, pinned, adapters with their bases; all are accepted by files and config.

    Args:
        patterns: as for `match_patterns`, like `target`, `exclude`, `fine_tunes_of` and `include_soups`.
        on_mismatch: `skip-ingredient` leaves out what cannot be an ingredient.
        weights_file: the weight file of every ingredient, in place of the usual one.
        state_dict_key: the key of the tensors in it.
        keep: keep the configs in the cache.
        notify: receives notes about what is left out.

    Raises:
        UsageError: a pattern matches nothing.
        SoupError: some matches cannot be ingredients; the error lists them with the reasons.
        HubError: the Hub refuses or cannot be reached.
    """
    found = match_patterns(
        patterns,
        target=target,
        exclude=exclude,
        fine_tunes_of=fine_tunes_of,
        include_soups=include_soups,
        notify=notify,
    )
    with listening(notify):
        chosen = [replace(s, weights_file=weights_file, state_dict_key=state_dict_key) for s in found.sources]
        inspected = map_in_threads(partial(_inspect_source, keep=keep), chosen)
    refused = [*found.refused, *(one for one in inspected if isinstance(one, Refused))]
    sources = tuple(one for one in inspected if isinstance(one, Source))
    if refused and on_mismatch != SKIP:
        raise _refusal_error(refused, len(sources))
    for one in refused:
        notify(f"{one.id} cannot be an ingredient and is left out: {_format_reason(one)}")
    if not sources:
        raise _refusal_error(refused, 0)
    return sources


def find_base(name: str, *, keep: bool = True, notify: Callable[[str], None] = lambda _: None) -> Source:
    """The one model that the name of a base matches, with or without a head, pinned.

    Raises:
        UsageError: there is none, or there are several.
        HubError: the Hub refuses or cannot be reached.
    """
    sources = match_patterns((name,), include_soups=True, notify=notify).sources
    if len(sources) > 1:
        raise UsageError(f"expected one base, found {len(sources)}", where=one_line(name), hint=BASE_HINT)
    source = sources[0]
    return replace(source, base=_find_adapter_base(source, keep)) if is_adapter(list_file_names(source)) else source


def require_base_of_owner(base: Source, named_by: Sequence[Source], hint: str) -> None:
    """Refuse a private base that repositories of other owners name: a soup would hold, and a push show, its weights.

    Raises:
        UsageError: one of the repositories has another owner.
    """
    owner = base.repo.partition("/")[0]
    other = next((s for s in named_by if s.folder is None and s.repo.partition("/")[0] != owner), None)
    if base.private and other:
        what = f"{one_line(other)} names the private repository {base.repo} as its base; only you can allow that"
        raise UsageError(what, where=str(other), hint=hint)


def require_several(sources: Sequence[Source], with_base: bool) -> None:
    """Refuse a bake of one ingredient, unless the recipe also mixes in the base.

    Raises:
        UsageError: there is one.
    """
    if len(sources) < 2 and not with_base:
        raise too_few_error(sources[0], "bake")


def too_few_error(one: Source, command: str) -> UsageError:
    """The error for a single ingredient, with the checkpoints around it and the command for them."""
    checkpoints = _list_checkpoints(one)
    place = posixpath.join(one.repo, one.subfolder).rstrip("/") if one.folder is None else one.id.rstrip("/")
    what, where, hint = "expected two ingredients or more, found one", str(one), f"hfsoup {command} A B, or a glob"
    if checkpoints:
        what = f"{what}: the folder's own model"
        where = f"{one}, which also holds {join_names(checkpoints, 6)}"
        last = checkpoints == [LAST]
        hint = f"hfsoup {command} " + (f"{place} {place}/{LAST}" if last else f'"{place}/checkpoint-*"')
    elif CHECKPOINT.fullmatch(posixpath.basename(place)) and posixpath.basename(place) != LAST:
        hint = f'hfsoup {command} "{posixpath.dirname(place)}/checkpoint-*"'
    elif beside := _list_checkpoints_beside(one):
        where = f"{one}, with {join_names(beside, 6)} beside it"
        hint = f'hfsoup {command} "{posixpath.dirname(place)}/*"'
    elif one.base:
        hint = "two adapters or more; peft merges a single one: merge_and_unload().save_pretrained(FOLDER)"
    return UsageError(what, where=where, hint=hint)


def _list_checkpoints(source: Source) -> list[str]:
    """The names of the Trainer checkpoints in the folder of a source."""
    if source.folder:
        return list_checkpoints(source.folder)
    folders = {posixpath.dirname(file.name) for file in source.files if file.name.endswith((".safetensors", ".bin"))}
    found = (f for f in folders if f and posixpath.dirname(f) == source.subfolder)
    return sorted((name for name in map(posixpath.basename, found) if CHECKPOINT.fullmatch(name)), key=natural_key)


def _list_checkpoints_beside(source: Source) -> list[str]:
    """The names of the models beside a local folder that is called a checkpoint, such as `best-checkpoint`."""
    if source.folder is None or "checkpoint" not in source.folder.name.casefold():
        return []
    beside = (path for path in source.folder.parent.iterdir() if path != source.folder and has_config(path))
    return sorted((path.name for path in beside), key=natural_key)


def _inspect_source(source: Source, keep: bool) -> Source | Refused:
    """The source, an adapter with its base; or why it cannot be an ingredient. Failures of the Hub are raised."""
    try:
        names = list_file_names(source)
        if is_adapter(names):
            find_adapter_weights(names, where=str(source))
            if source.weights_file or source.state_dict_key:
                what = "--weights-file and --state-dict-key do not apply to adapters, and this is one"
                raise SoupError(what, where=str(source), hint="leave them out, or --exclude the adapter")
            return replace(source, base=_find_adapter_base(source, keep))
        _require_files(source, names)
        with _open_file(source, "config.json", keep) as path, IMPORT_LOCK:
            read_classifier_config(path, where=f"{source}, config.json")
    except SoupError as error:
        if isinstance(error, HubError) and not isinstance(error, AccessError):
            raise
        return Refused(str(source), error)
    return source


def _require_files(source: Source, names: Sequence[str]) -> None:
    """Refuse files without a config or weights; the error says what they are instead."""
    if "config.json" not in names:
        if state := find_training_state(list_nested_names(source)):
            raise SoupError(f"expected config.json, found {state.text}", where=str(source), hint=state.hint)
        kind = identify_kind(names)
        raise missing_file_error("config.json", names, source, kind[1] if kind else "is this a transformers model?")
    find_weight_names(names, source)


@contextmanager
def _open_file(source: Source, name: str, keep: bool) -> Iterator[Path]:
    """The path of a small file of a source: local, in the cache, or temporary."""
    if source.folder:
        yield source.folder / name
        return
    file = next(file for file in source.files if file.name == source.path_of(name))
    if keep:
        store_listing(source.repo, source.revision or "", source.files, kind="model")
    if keep or is_cached(source.repo, file, source.revision):
        yield fetch_file(source.repo, file, source.revision or "", kind="model")
        return
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / name
        path.write_bytes(peek_file(source, file.name))
        yield path


def _find_adapter_base(adapter: Source, keep: bool) -> Source:
    """The pinned base of an adapter: the repository in its config; a folder only if the adapter is in one."""
    with _open_file(adapter, CONFIG, keep) as path:
        config = read_adapter_config(path, where=f"{adapter}, {CONFIG}")
    folder = Path(config.base).expanduser() if adapter.folder else None
    if folder is None or not folder.is_dir():
        if not REPO.fullmatch(config.base):
            what = f"expected the base to be a repository on the Hub, found {quoted(config.base)}"
            hint = f"download the adapter and set base_model_name_or_path in its {CONFIG}"
            raise SoupError(what, where=str(adapter), hint=hint)
        folder = None
    try:
        base = pin_source(config.base, None if folder else config.revision, folder)
    except AccessError as error:
        hint = f"{error.hint}; or set another base_model_name_or_path in {CONFIG}"
        what = f"its base is not accessible: {error.what}"
        raise AccessError(what, where=f"{adapter}, base {error.where}", hint=hint) from error
    require_base_of_owner(base, (adapter,), "hf download the adapter, and use that folder, if you mean it")
    names, where = list_file_names(base), f"{adapter}, base {base}"
    if is_adapter(names):
        raise SoupError("not supported: an adapter whose base is an adapter", where=where)
    try:
        _require_files(base, names)
        with _open_file(base, "config.json", keep) as path, IMPORT_LOCK:
            _require_classifiable(path, config, where)
    except AccessError as error:
        raise AccessError(f"its base is not accessible: {error.what}", where=where, hint=error.hint) from error
    except SoupError as error:
        if isinstance(error, HubError):
            raise
        raise type(error)(error.what, where=where, hint=error.hint) from error
    return base


def _require_classifiable(path: Path, adapter: AdapterConfig, where: str) -> None:
    """Refuse a base whose architecture has no image classifier."""
    from hfsoup.checkpoints.architecture import build_config, find_model_class

    config = {key: value for key, value in read_model_config(path, where=where).items() if key != "architectures"}
    if adapter.architecture:
        config["architectures"] = [adapter.architecture]
    find_model_class(build_config(config))


def _format_reason(refused: Refused) -> str:
    """The reason in one line, with the place if that is not the match itself."""
    error = refused.error
    return error.what.splitlines()[0] + ("" if error.where == refused.id else f" (in {error.where})")


def _refusal_error(refused: Sequence[Refused], others: int) -> SoupError:
    """One error for all matches that cannot be ingredients; the error of a single one is raised as it is.

    That they may be left out is said where more than one other is left, as a single one makes no soup.
    """
    ways = "--exclude GLOB, or --on-mismatch skip-ingredient, leaves them out"
    if len(refused) == 1:
        error = refused[0].error
        if others < 2:
            return error
        return type(error)(error.what, where=error.where, hint="; ".join(filter(None, (error.hint, ways))))
    rows = "\n  ".join(f"{one.id}: {_format_reason(one)}" for one in refused)
    what = f"{len(refused)} of {len(refused) + others} matches cannot be ingredients:\n  {rows}"
    hints = dict.fromkeys(one.error.hint for one in refused)
    few = "; or ".join(hints) if len(hints) <= FEW and all(hints) else None
    same = few if len(hints) == 1 else None
    alone = None if same else few or "hfsoup is for image classifiers of transformers"
    return SoupError(what, hint="; ".join(filter(None, (same, ways if others > 1 else alone))))
