"""Open a soup of somebody else: its record grants nothing, and is read and compared before any ingredient is pulled."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from hfsoup.baking.disk import DiskNeed, require_disk
from hfsoup.baking.rescore import require_equal
from hfsoup.data.label_mapping import BY_NAME, BY_NUMBER
from hfsoup.data.metrics import METRICS
from hfsoup.data.request import split_revision
from hfsoup.hub.download import is_cached
from hfsoup.ingredients.pull import list_files, pull_repository
from hfsoup.ingredients.resolve import resolve_patterns
from hfsoup.options.options import Options
from hfsoup.provenance.eval_results import compare_eval_results, name_eval_results
from hfsoup.provenance.manifest import FILE_NAME, Manifest, fetch_manifest, read_manifest
from hfsoup.provenance.reproduce import reproduce_config_of, reproducible_options
from hfsoup.utils.errors import SoupError, UsageError
from hfsoup.utils.hashing import hash_file
from hfsoup.utils.progress import Notify
from hfsoup.utils.text import join_names, one_line, quoted

# Files that soup.json does not list: what the Hub adds, soup.json itself, and the signature over the rest.
UNRECORDED = {".gitattributes", FILE_NAME, "model.sig"}
# Files that transformers, PEFT or timm may load instead of those in the record, or besides them.
LOADABLE = re.compile(
    r"[^/]+\.(safetensors|bin|pt|pth|th|ckpt|h5|msgpack|gguf|py)|[^/]*config\.json|[^/]+\.index\.json"
)


@dataclass(frozen=True)
class Allowed:
    """What the user allows a record to ask for.

    `scores` says that the scores are wanted, `remote_metric` that the script of a recorded metric may run, and
    `local_paths` that the record of a repository may name folders of this disk.
    """

    scores: bool = False
    remote_metric: bool = False
    local_paths: bool = False


def open_record(
    place: str, allowed: Allowed, *, signed: bool = False, notify: Notify = lambda _: None
) -> tuple[Path, Manifest, Options]:
    """The folder of a soup, its record, and the options in it; the files are those that the record names.

    Args:
        place: a baked folder, or `ORG/NAME` on the Hub, with `@REVISION`.
        allowed: what the record may ask for.
        signed: pull all files of a repository, also those that a signature may be about and the record is not.
        notify: receives a note about files that the record does not name, and that nothing would load.

    Raises:
        MismatchError: a file was changed, is missing or linked, an unknown one could be loaded with the soup, or the
            record contradicts itself.
        SoupError: there is no record, it is damaged, or the disk is too small for the files.
        UsageError: the record asks for something that is not allowed or not installed.
    """
    from huggingface_hub import constants

    local = Path(place).is_dir()
    source = None if local else resolve_patterns((place,))[0]
    record = fetch_manifest(source, where=place) if source else read_manifest(Path(place), where=place)
    options = _read_options(place, record)
    _require_own_paths(place, record, allowed=local or allowed.local_paths)
    if allowed.scores and not allowed.remote_metric:
        _refuse_remote_metric(place, options)
    require_equal(place, _compare_record(record, options))
    if source:
        # Before the files are pulled, which may be many and large.
        files = list_files(source, source.subfolder)
        require_equal(place, _compare_names(files, record))
        known = {*record.files, *UNRECORDED, name_eval_results(record)}
        wanted = {name: file for name, file in files.items() if signed or name in known}
        missing = sum(f.size for f in wanted.values() if not is_cached(source.repo, f, source.revision))
        require_disk([DiskNeed("the soup", Path(constants.HF_HUB_CACHE), missing)])
        folder, names = pull_repository(source, wanted), list(files)
    else:
        folder, names = Path(place), list(_find_files(Path(place)))
    require_equal(place, _compare_folder(folder, record, links=not local))
    require_equal(place, compare_eval_results(folder, record, where=place))
    if others := [name for name in _list_others(names, record) if not LOADABLE.fullmatch(name)]:
        what = f"not part of the soup and not verified: {join_names(others, 6)}"
        notify(f"{what}; soup.json does not list {'it' if len(others) == 1 else 'them'}")
    return folder, record, replace(options, trust_remote_metric=allowed.remote_metric)


def _read_options(place: str, record: Manifest) -> Options:
    try:
        return record.merge_options()
    except UsageError as error:
        raise UsageError(f"{FILE_NAME}: {error.what}", where=place, hint=error.hint) from error


def _require_own_paths(place: str, record: Manifest, *, allowed: bool) -> None:
    """Refuse paths in the record of a repository unless they are allowed, and those of another machine always."""
    named = record.local_places
    if named and not allowed:
        what = f"the record of this repository names folders of this disk, such as {quoted(named[0])}"
        raise UsageError(what, where=place, hint="--allow-local-paths, if you know that they are yours")
    # Windows sends the user's name and a hash of the password to the machine that such a path names.
    if remote := [name for name in named if name.startswith(("//", "\\\\"))]:
        what = f"its record names {quoted(remote[0])}, a folder of another machine, which is not opened"
        raise SoupError(what, where=place, hint="give it a drive letter, and bake again")


def _refuse_remote_metric(place: str, options: Options) -> None:
    if options.metric is None or options.metric in METRICS:
        return
    what = f"this soup was scored by {quoted(options.metric)}, a script that is fetched from the Hub and run"
    what += ", or a metric of a package that is not installed"
    hint = "--trust-remote-metric, if you trust it, or leave out --scores"
    raise UsageError("\n  ".join([what, *METRICS.broken]), where=place, hint=hint)


def _compare_record(record: Manifest, options: Options) -> Iterator[str]:
    """Where the record contradicts its options, which are what is baked and scored again, and its config."""
    pairs = [("recipe", record.recipe, options.chosen_recipe), ("merge", record.merge, options.merge)]
    if data := record.dataset:
        dataset = split_revision(options.dataset)[0] if options.dataset else None
        pairs += [("dataset", data.id, dataset or ""), ("metric", data.metric, options.metric or data.metric)]
        pairs += [("dataset-config", data.config or "", options.dataset_config or "")]
        if (data.mapping is None) != (options.labels in (None, BY_NAME, BY_NUMBER)):
            yield f"{FILE_NAME}: its mapping of labels does not match its options"
    if aligned := record.alignment:
        pairs += [("align", aligned.method, options.align), ("alignment's seed", str(aligned.seed), str(options.seed))]
    if importance := record.importance:
        pairs += [("importance's seed", str(importance.seed), str(options.seed))]
    for name, found, expected in pairs:
        if found != expected:
            yield f"{FILE_NAME}: its {name} is {quoted(found)}, and {quoted(expected)} in its options"
    if record.config is not None and record.config != _write_config(record):
        yield f"{FILE_NAME}: its config does not match its ingredients and options"


def _write_config(record: Manifest) -> str:
    """The config that bakes what the record says."""
    local = record.dataset is not None and record.dataset.revision is None
    names = [(ingredient.id, ingredient.revision) for ingredient in record.ingredients]
    base = (record.base.id, record.base.revision) if record.base else None
    elsewhere = record.dataset is None and record.score is not None
    coefficients = [ingredient.coefficient for ingredient in record.ingredients]
    options = reproducible_options(Options.of(dict(record.options)), coefficients, elsewhere=elsewhere)
    return reproduce_config_of(names, options, local=local, base=base)


def _compare_names(names: Iterable[str], record: Manifest) -> Iterator[str]:
    """Files that are missing, or unknown and loadable."""
    present = set(names)
    for name in _list_others(present, record):
        if LOADABLE.fullmatch(name):
            yield f"{one_line(name)}: not part of the soup"
    for name in sorted(record.files.keys() - present):
        yield f"{name}: missing"


def _compare_folder(folder: Path, record: Manifest, *, links: bool) -> Iterator[str]:
    """Files that are missing, linked or changed, or unknown and loadable; in the Hub's cache all files are `links`."""
    present = _find_files(folder)
    if not links and present[FILE_NAME].is_symlink():
        yield f"{FILE_NAME}: a symbolic link"
    yield from _compare_names(present, record)
    for name in (name for name in record.files if name in present):
        path, expected = present[name], record.files[name]
        if path.is_symlink() and not links:
            yield f"{name}: a symbolic link"
        elif (found := hash_file(path)) != expected:
            yield f"{name}: sha256 {found[:12]}, expected {expected[:12]}"


def _find_files(folder: Path) -> dict[str, Path]:
    """All files below a folder by name, links too."""
    found = (path for path in folder.rglob("*") if path.is_symlink() or path.is_file())
    return {path.relative_to(folder).as_posix(): path for path in found}


def _list_others(names: Iterable[str], record: Manifest) -> list[str]:
    """The names that the record does not list."""
    return sorted(set(names) - record.files.keys() - UNRECORDED - {name_eval_results(record)})
