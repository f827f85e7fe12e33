"""Sources become ingredients on this disk: only the files that a soup needs, each byte hashed."""

from __future__ import annotations

import os
import re
import shlex
import stat
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from hfsoup.errors import SoupError
from hfsoup.fetching import fetch
from hfsoup.hashing import file_hash, stamp
from hfsoup.hub import AGAIN, side_by_side, told
from hfsoup.names import flat, listed
from hfsoup.pickles import convert
from hfsoup.tensorfile import TensorFile
from hfsoup.types import Ingredient, RemoteFile, Source, WeightFile
from hfsoup.untrusted import read_json

CONFIGS = ("config.json", "preprocessor_config.json", "processor_config.json", "README.md")
# Looked for in this order; a pattern with an index holds the shards that the index names.
LAYOUTS = (
    ("model.safetensors", None),
    (r"model-\d+-of-\d+\.safetensors", "model.safetensors.index.json"),
    ("pytorch_model.bin", None),
    (r"pytorch_model-\d+-of-\d+\.bin", "pytorch_model.bin.index.json"),
)
Advance = Callable[[int], None]
Notify = Callable[[str], None]


def pull(
    sources: Sequence[Source], *, advance: Advance = lambda _: None, notify: Notify | None = None
) -> tuple[Ingredient, ...]:
    """Bring every source onto this disk, through huggingface_hub's cache, eight files at a time.

    Args:
        sources: pinned sources; a local folder is used where it is.
        advance: told of bytes as they are there.
        notify: told of waits for the Hub, and of files that are fetched again.

    Raises:
        SoupError: a file is missing, or is not the one that the Hub's listing describes.
        HubError: the Hub refuses or cannot be reached.
    """
    jobs = [(source, file) for source in sources if not source.folder for file in needed(source)]
    with told(notify):
        paths = side_by_side(lambda job: _fetch(job[0], job[1], advance), jobs)
    homes = {source: path for (source, file), path in zip(jobs, paths, strict=True) if file.name == "config.json"}
    return tuple(_ingredient(source, source.folder or homes[source].parent) for source in sources)


def needed(source: Source) -> list[RemoteFile]:
    """The files of a Hub source that a soup needs; also what a plan counts."""
    files = {file.name: file for file in source.files}
    weights = weight_names(files, where=str(source))
    if "config.json" not in files:
        raise SoupError("expected config.json, found none", where=str(source), hint="is this a transformers model?")
    return [files[name] for name in dict.fromkeys([*CONFIGS, *weights]) if name in files]


def weight_names(names: Iterable[str], *, where: str) -> list[str]:
    """The weight files, and their index, of the first layout that `names` hold: safetensors before pickles."""
    known = sorted(names)
    for pattern, index in LAYOUTS:
        found = [name for name in known if re.fullmatch(pattern, name)]
        if found and (index is None or index in known):
            return [*found, index] if index else found
    found_instead = listed(known, 8) or "nothing"
    raise SoupError(f"expected model.safetensors or pytorch_model.bin, found {found_instead}", where=where)


def _fetch(source: Source, file: RemoteFile, advance: Advance = lambda _: None) -> Path:
    return fetch(source.id, file, source.revision or "", kind="model", advance=advance)


def _ingredient(source: Source, folder: Path) -> Ingredient:
    """The ingredient in a folder, with its weight files hashed and any pickle turned into safetensors."""
    names = weight_names(_present(source, folder), where=str(source))
    index = next((name for name in names if name.endswith(".index.json")), None)
    homes = _shards(folder / index, names, where=f"{source}, {index}") if index else {}
    hashes = {file.name: file.sha256 for file in source.files}
    weights = []
    for name in sorted(set(homes.values())) if index else names:
        path, where = folder / name, f"{source}, {name}"
        if path.suffix == ".safetensors":
            TensorFile(path, where).close()
        before = stamp(path)
        sha = hashes.get(name) or file_hash(path)
        safe = path if path.suffix == ".safetensors" else convert(path, sha, where=where)
        if stamp(path) != before:
            raise SoupError("the file changed while it was read", where=where, hint=AGAIN)
        weights.append(WeightFile(name, safe, path.stat().st_size, sha, before if safe == path else stamp(safe)))
    if index:
        _agree(homes, weights, source)
    return Ingredient(source, folder, tuple(weights))


def _present(source: Source, folder: Path) -> list[str]:
    """The names that count: on the Hub those listed at the commit, in a local folder those of plain files.

    Raises:
        SoupError: a file that would be read is a link, a pipe, or not one that the Hub lists.
    """
    known = [file.name for file in source.files]
    found = sorted(os.listdir(folder))  # noqa: PTH208 - names are wanted
    for name in (name for name in found if name in CONFIGS or _is_weights(name)):
        where = f"{source}, {name}"
        if not source.folder and name not in known:
            hint = f"rm {shlex.quote(str(folder / name))}, then {AGAIN}"
            raise SoupError("this file in the cache is not one that the Hub lists", where=where, hint=hint)
        if source.folder and not stat.S_ISREG((folder / name).lstat().st_mode):
            hint = f"cp -rL {shlex.quote(str(folder))} COPY, then use COPY"
            raise SoupError("expected a file of its own, found a link or something else", where=where, hint=hint)
    return found if source.folder else known


def _is_weights(name: str) -> bool:
    return any(name == index or re.fullmatch(pattern, name) for pattern, index in LAYOUTS)


def _shards(index: Path, present: list[str], *, where: str) -> dict[str, str]:
    """The weight map of an index: tensor to shard, each shard a plain file beside it."""
    homes = read_json(index, where=where).get("weight_map")
    if not isinstance(homes, dict) or not homes or not all(isinstance(home, str) for home in homes.values()):
        raise SoupError("expected an index with a weight_map, found something else", where=where)
    if missing := sorted(set(homes.values()) - {name for name in present if name != index.name}):
        what = f"the index names {listed(missing, 4)}, which is not among the files"
        raise SoupError(what, where=where, hint="download it again")
    return homes


def _agree(homes: dict[str, str], weights: Sequence[WeightFile], source: Source) -> None:
    """Refuse shards that hold other tensors than the index says."""
    for shard in weights:
        where = f"{source}, {shard.name}"
        file = TensorFile(shard.path, where)
        file.close()
        expected = {tensor for tensor, home in homes.items() if home == shard.name}
        if differing := sorted(expected ^ file.tensors.keys()):
            verb = "is not there" if differing[0] in expected else "is not of this file"
            what = f"the index and the file disagree: tensor {flat(differing[0])} {verb}"
            raise SoupError(what, where=where, hint="download it again")


def fetch_configs(source: Source) -> Path:
    """What a Hub source says of itself without its weights, in the folder of its commit in the cache."""
    small = [file for file in needed(source) if file.name in CONFIGS]
    return side_by_side(lambda file: _fetch(source, file), small)[0].parent


def pull_all(source: Source) -> Path:
    """Every file of a Hub source, in the folder of its commit in the cache."""
    paths = side_by_side(lambda file: _fetch(source, file), source.files)
    homes = [path for path, file in zip(paths, source.files, strict=True) if "/" not in file.name]
    if not homes:
        raise SoupError("the repository is empty", where=str(source))
    return homes[0].parent
