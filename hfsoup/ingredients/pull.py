"""Download sources as ingredients: only the files that a soup needs, every weight file hashed."""

from __future__ import annotations

import os
import posixpath
import re
import shlex
import stat
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from threading import Lock
from typing import Protocol

from hfsoup.checkpoints.lora.config import CONFIG, find_adapter_weights
from hfsoup.checkpoints.lora.config import WEIGHTS as ADAPTERS
from hfsoup.checkpoints.pickles import convert_pickle
from hfsoup.checkpoints.safetensors_io import read_tensor_specs
from hfsoup.checkpoints.types import PROCESSORS, Ingredient, Source, WeightFile
from hfsoup.hub.cards import CARD
from hfsoup.hub.client import ONCE, SAME_COMMAND, is_offline
from hfsoup.hub.download import FetchedFile, RemoteFile, fetch_hashed_file, is_cached
from hfsoup.hub.notices import listening
from hfsoup.ingredients.repository_kinds import describe_files, identify_kind
from hfsoup.ingredients.training_states import find_training_state, list_nested_names
from hfsoup.utils.errors import SoupError
from hfsoup.utils.hashing import hash_blake3, stamp_file
from hfsoup.utils.progress import Advance, Notify
from hfsoup.utils.safe_json import read_json
from hfsoup.utils.text import join_names, one_line
from hfsoup.utils.threads import count_processors, map_in_threads

CONFIGS = ("config.json", *PROCESSORS, CARD)
CHECKPOINT = re.compile(r"checkpoint-\d+|last-checkpoint")
"""Names of a Trainer's checkpoints in the folder of a run, and of the one that it pushes during training."""
# The path of a blob that the repositories of a cache share, by its hash.
BLOB = re.compile(r"([0-9a-f]{2})/\1[0-9a-f]{62}")
# Patterns of weight files, in order of preference; those of shards with their index.
LAYOUTS = (
    ("model.safetensors", None),
    (r"model-\d+-of-\d+\.safetensors", "model.safetensors.index.json"),
    ("pytorch_model.bin", None),
    (r"pytorch_model-\d+-of-\d+\.bin", "pytorch_model.bin.index.json"),
)
PICKLES = (".bin", ".pt", ".pth", ".th", ".ckpt")
WEIGHTS = (".safetensors", *PICKLES)
STATES = re.compile(r"(optimizer|scheduler|scaler|rng_state|training_args|adapter_model).*")
Layouts = Sequence[tuple[str, str | None]]


class Follower(Protocol):
    """Processes sources while others are still being downloaded."""

    def receive(self, source: Source) -> None:
        """Take a source whose files have all been downloaded; called in any order and from several threads."""

    def await_imports(self) -> None:
        """Return once it has finished importing libraries; called before the first file is read."""


def pull_ingredients(
    sources: Sequence[Source],
    *,
    advance: Advance = lambda _: None,
    notify: Notify | None = None,
    follower: Follower | None = None,
) -> tuple[Ingredient, ...]:
    """Download every source through huggingface_hub's cache, several files at a time.

    Args:
        sources: pinned sources; a local folder is used where it is.
        advance: called with the number of bytes as they arrive.
        notify: receives notes about waits for the Hub and repeated downloads.
        follower: receives every Hub source once all of its files are downloaded.

    Raises:
        SoupError: a file is missing, or differs from the Hub's listing.
        HubError: the Hub refuses or cannot be reached.
    """
    every = include_bases(sources)
    jobs = [(source, file) for source in every if not source.folder for file in list_needed_files(source)]
    left, lock = Counter(source for source, _ in jobs), Lock()

    def one(job: tuple[Source, RemoteFile]) -> FetchedFile:
        found = _fetch(*job, advance)
        with lock:
            left[job[0]] -= 1
            whole = not left[job[0]]
        if whole and follower:
            follower.receive(job[0])
        return found

    with listening(notify):
        fetched = map_in_threads(one, jobs)
    if follower:
        follower.await_imports()
    configs = {source: source.path_of(CONFIG if source.base else "config.json") for source in every}
    homes = {s: found.path.parent for (s, file), found in zip(jobs, fetched, strict=True) if file.name == configs[s]}
    folders = {source: source.folder or homes[source] for source in every}
    hashes = _Hashes({found.path: found.blake3 for found in fetched if found.blake3})
    try:
        loaded = {source: _load_ingredient(source, folders[source], hashes) for source in every if not source.base}
        return tuple(
            _merge_adapter(source, folders[source], loaded[source.base], hashes) if source.base else loaded[source]
            for source in sources
        )
    finally:
        # Hashing continues in the background; `WeightFile.blake3` waits for it.
        hashes.pool.shutdown(wait=False)


@dataclass(frozen=True)
class _Hashes:
    """The BLAKE3 of files by their paths, `known` from their download or computed in threads."""

    known: dict[Path, str]
    pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(count_processors()))

    def find(self, path: Path, before: tuple[int, ...], where: str) -> str | Future[str]:
        """The BLAKE3 of a file, which must not change after its stamp was taken."""
        return self.known.get(path) or self.pool.submit(_hash_unchanged, path, before, where)


def include_bases(sources: Sequence[Source]) -> tuple[Source, ...]:
    """Sources and the bases of the adapters among them, each once."""
    return tuple(dict.fromkeys([*sources, *(source.base for source in sources if source.base)]))


def list_needed_files(source: Source) -> list[RemoteFile]:
    """The files of a Hub source that a soup needs.

    Raises:
        SoupError: it has no config or no weights.
    """
    files = list_files(source, source.subfolder)
    if source.base:
        names = (CONFIG, *CONFIGS, find_adapter_weights(files, where=str(source)))
        return [files[name] for name in names if name in files]
    weights = find_weight_names(files, source)
    if "config.json" not in files:
        raise SoupError("expected config.json, found none", where=str(source), hint="is this a transformers model?")
    own = [files[name] for name in dict.fromkeys([*CONFIGS, *weights]) if name in files]
    parent, _, last = source.subfolder.rpartition("/")
    if not CHECKPOINT.fullmatch(last):
        return own
    shared = list_files(source, parent)
    lacking = [names for names in (PROCESSORS, (CARD,)) if not files.keys() & set(names)]
    return [*own, *(shared[name] for names in lacking for name in names if name in shared)]


def list_files(source: Source, folder: str) -> dict[str, RemoteFile]:
    """The files of a Hub source in a folder of its repository, by their paths from that folder."""
    prefix = f"{folder}/" if folder else ""
    return {file.name[len(prefix) :]: file for file in source.files if file.name.startswith(prefix)}


def find_weight_names(names: Iterable[str], source: Source) -> list[str]:
    """The weight files, with their index, of the first layout among `names`: safetensors before pickles.

    Raises:
        SoupError: there are none; the hint is about the files that are there instead.
    """
    known = sorted(names)
    if found := _match_layout(known, _list_layouts(source)):
        return found
    expected = source.weights_file or "model.safetensors or pytorch_model.bin"
    if state := find_training_state(list_nested_names(source)):
        raise SoupError(f"expected {expected}, found {state.text}", where=str(source), hint=state.hint)
    others = [name for name in known if "/" not in name and name.endswith(WEIGHTS) and not STATES.fullmatch(name)]
    kind = identify_kind(known)
    hint = kind[1] if kind else ""
    if "config.json" in known and others:
        hint = _suggest_weights_file(source.weights_file, others, _match_layout(known, LAYOUTS))
    raise missing_file_error(expected, known, source, hint)


def _match_layout(known: Sequence[str], layouts: Layouts) -> list[str]:
    """The weight files, with their index, of the first layout among sorted names; empty without one."""
    for pattern, index in layouts:
        found = [name for name in known if re.fullmatch(pattern, name)]
        if found and (index is None or index in known):
            return [*found, index] if index else found
    return []


def _suggest_weights_file(asked: str | None, others: Sequence[str], usual: Sequence[str]) -> str:
    """The flag that reads weights that are there, in place of those asked for or the usual ones."""
    if asked is None:
        return f"--weights-file {others[0]}"
    close = get_close_matches(asked, [name for name in others if name not in usual], 1, 0.8)
    if len(usual) > 1 and not close:
        return "leave out --weights-file"
    return f"--weights-file {(close or usual or others)[0]}" + (", or leave it out" if usual else "")


def missing_file_error(expected: str, names: Iterable[str], source: Source, hint: str) -> SoupError:
    """The error for a source without a required file; in offline mode only the cache may lack it."""
    place = ""
    if is_offline() and not source.folder:
        place, hint = " in the cache, and offline mode is on", ONCE
    return SoupError(f"expected {expected}, found {describe_files(names)}{place}", where=str(source), hint=hint)


def _list_layouts(source: Source) -> Layouts:
    """The layouts of weight files that a source may have."""
    if source.weights_file is None:
        return LAYOUTS
    stem, _, suffix = map(re.escape, source.weights_file.rpartition("."))
    whole = re.escape(source.weights_file)
    return (whole, None), (rf"{stem}-\d+-of-\d+\.{suffix}", f"{source.weights_file}.index.json")


def _fetch(source: Source, file: RemoteFile, advance: Advance = lambda _: None) -> FetchedFile:
    return fetch_hashed_file(source.repo, file, source.revision or "", kind="model", advance=advance)


def _merge_adapter(source: Source, folder: Path, base: Ingredient, hashes: _Hashes) -> Ingredient:
    """The adapter in a folder, merged into its base."""
    from hfsoup.checkpoints.lora.merge import merge_adapter

    name = find_adapter_weights(_list_present(source, folder, source.subfolder), where=str(source))
    return merge_adapter(source, folder, _load_weights(source, folder, name, hashes), base)


def _load_ingredient(source: Source, folder: Path, hashes: _Hashes) -> Ingredient:
    """The ingredient in a folder, pickles converted to safetensors."""
    names = find_weight_names(_list_present(source, folder, source.subfolder), source)
    index = next((name for name in names if name.endswith(".index.json")), None)
    homes = _read_index(folder / index, names, where=f"{source}, {index}") if index else {}
    used = sorted(set(homes.values())) if index else names
    weights = [_load_weights(source, folder, name, hashes) for name in used]
    if index:
        _require_index(homes, weights, source)
    return place_ingredient(source, folder, tuple(weights))


def _load_weights(source: Source, folder: Path, name: str, hashes: _Hashes) -> WeightFile:
    """A weight file, converted to safetensors if it is a pickle."""
    path, where = folder / name, f"{source}, {name}"
    if path.suffix == ".safetensors":
        read_tensor_specs(path, where=where)
    before, listed_file = stamp_file(path), list_files(source, source.subfolder).get(name)
    listed = listed_file.sha256 if listed_file else None
    file = WeightFile(name, path, path.stat().st_size, hashes.find(path, before, where), before, listed)
    if path.suffix == ".safetensors":
        return file
    safe = convert_pickle(path, file.blake3, where=where, key=source.state_dict_key)
    _require_unchanged(path, before, where)
    return replace(file, path=safe, stamp=stamp_file(safe), origin=path)


def _hash_unchanged(path: Path, before: tuple[int, ...], where: str) -> str:
    """The BLAKE3 of a file, which must not have changed since its stamp was taken."""
    found = hash_blake3(path)
    _require_unchanged(path, before, where)
    return found


def _require_unchanged(path: Path, before: tuple[int, ...], where: str) -> None:
    if stamp_file(path) != before:
        raise SoupError("the file changed while it was read", where=where, hint=SAME_COMMAND)


def place_ingredient(source: Source, folder: Path, weights: tuple[WeightFile, ...]) -> Ingredient:
    """The ingredient in a folder; a Trainer's checkpoint takes missing files from the folder of its run."""
    whole = source.folder is None and not source.subfolder
    if whole or not CHECKPOINT.fullmatch(folder.name):
        return Ingredient(source, folder, weights)
    found = Ingredient(source, folder, weights, folder.parent)
    if folder.parent in (found.processor_folder, found.card.parent):
        _list_present(source, folder.parent, posixpath.dirname(source.subfolder))
    return found


def _list_present(source: Source, folder: Path, below: str) -> list[str]:
    """The names of the files that may be read: those that the Hub lists, or in a local folder all.

    Raises:
        SoupError: a file is a link out of its folder, a pipe, or in the cache but not listed by the Hub.
    """
    known = list(list_files(source, below)) if not source.folder else []
    found = sorted(os.listdir(folder))  # noqa: PTH208 - names are wanted
    for name in (name for name in found if name in (*CONFIGS, CONFIG, *ADAPTERS) or _is_weights(name, source)):
        where = f"{source}, {name}"
        if not source.folder and name not in known:
            hint = f"rm {shlex.quote(str(folder / name))}, then {SAME_COMMAND}"
            raise SoupError("this file is in the cache, but the Hub does not list it", where=where, hint=hint)
        if source.folder and not stat.S_ISREG((folder / name).lstat().st_mode) and not _is_cache_link(folder / name):
            hint = f"cp -rL {shlex.quote(str(folder))} COPY, then use COPY"
            raise SoupError("expected a regular file, found a link or something else", where=where, hint=hint)
    return found if source.folder else known


def _is_cache_link(link: Path) -> bool:
    """Whether a file is a link in huggingface_hub's cache from a snapshot to a blob of it."""
    snapshots = next((place for place in link.parents if place.name == "snapshots"), None)
    target = link.resolve()
    if snapshots is None or not snapshots.parent.name.startswith("models--") or not target.is_file():
        return False
    repo, cache = snapshots.parent.resolve(), snapshots.parent.parent.resolve()
    if target.parent.parent == cache / "blobs":
        return BLOB.fullmatch(f"{target.parent.name}/{target.name}") is not None
    return target.parent == repo / "blobs"


def _is_weights(name: str, source: Source) -> bool:
    return any(name == index or re.fullmatch(pattern, name) for pattern, index in _list_layouts(source))


def _read_index(index: Path, present: list[str], *, where: str) -> dict[str, str]:
    """The weight map of an index: the shard of each tensor, all of them in the same folder."""
    homes = read_json(index, where=where).get("weight_map")
    if not isinstance(homes, dict) or not homes or not all(isinstance(home, str) for home in homes.values()):
        raise SoupError("expected an index with a weight_map, found something else", where=where)
    if missing := sorted(set(homes.values()) - {name for name in present if name != index.name}):
        what = f"the index names {join_names(missing, 4)}, not among the files"
        raise SoupError(what, where=where, hint="download it again")
    return homes


def _require_index(homes: dict[str, str], weights: Sequence[WeightFile], source: Source) -> None:
    """Refuse shards that do not hold exactly the tensors that the index gives them."""
    for shard in weights:
        where = f"{source}, {shard.name}"
        expected = {tensor for tensor, home in homes.items() if home == shard.name}
        if differing := sorted(expected ^ read_tensor_specs(shard.path, where=where).keys()):
            place = "only in the index" if differing[0] in expected else "only in the file"
            what = f"the index and the file disagree: tensor {one_line(differing[0])} is {place}"
            raise SoupError(what, where=where, hint="download it again")


def fetch_configs(source: Source) -> Path:
    """Download all but the weights of a Hub source; returns its folder in the cache."""
    small = [file for file in list_needed_files(source) if posixpath.basename(file.name) in (*CONFIGS, CONFIG)]
    return map_in_threads(lambda file: _fetch(source, file), small)[0].path.parent


def pull_repository(source: Source, files: Mapping[str, RemoteFile]) -> Path:
    """Download files of a Hub source, by their names; returns its folder in the cache."""
    fetched = map_in_threads(lambda file: _fetch(source, file), list(files.values()))
    homes = [found.path for found, name in zip(fetched, files, strict=True) if "/" not in name]
    if not homes:
        raise SoupError("expected files, found none", where=str(source))
    return homes[0].parent


def count_missing_bytes(sources: Sequence[Source]) -> int:
    """Bytes of sources and their bases that are still to be downloaded."""
    return sum(whole - there for whole, there in map(count_bytes, include_bases(sources)))


def count_bytes(source: Source) -> tuple[int, int]:
    """Bytes of the files that a soup needs of a source, and how many of them are already here."""
    if source.folder:
        total = sum(path.stat().st_size for path in source.folder.iterdir() if path.suffix in WEIGHTS)
        return total, total
    files = list_needed_files(source)
    return sum(f.size for f in files), sum(f.size for f in files if is_cached(source.repo, f, source.revision))
