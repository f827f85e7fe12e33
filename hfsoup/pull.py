"""Sources become ingredients on this disk: only the files that a soup needs, each byte hashed."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from hfsoup.errors import HubError, SoupError
from hfsoup.hashing import blob_hash, file_hash
from hfsoup.hub import hub_errors
from hfsoup.pickles import convert
from hfsoup.types import Ingredient, RemoteFile, Source, WeightFile

CONFIGS = ("config.json", "preprocessor_config.json", "processor_config.json", "README.md")
# Looked for in this order; a pattern with an index holds the shards that the index names.
LAYOUTS = (
    ("model.safetensors", None),
    (r"model-\d+-of-\d+\.safetensors", "model.safetensors.index.json"),
    ("pytorch_model.bin", None),
    (r"pytorch_model-\d+-of-\d+\.bin", "pytorch_model.bin.index.json"),
)
Advance = Callable[[int], None]


def pull(sources: Sequence[Source], *, advance: Advance = lambda _: None) -> tuple[Ingredient, ...]:
    """Bring every source onto this disk, through huggingface_hub's cache, eight files at a time.

    Args:
        sources: pinned sources; a local folder is used where it is.
        advance: told of bytes as they are there.

    Raises:
        SoupError: a file is missing, or is not the one that the Hub's listing describes.
        HubError: the Hub refuses or cannot be reached.
    """
    with ThreadPoolExecutor(8) as pool:
        jobs = [(source, file) for source in sources if not source.folder for file in needed(source)]
        paths = list(pool.map(lambda job: _fetch(job[0], job[1], advance), jobs))
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
    shown = ", ".join(known[:8]) or "nothing"
    raise SoupError(f"expected model.safetensors or pytorch_model.bin, found {shown}", where=where)


def _fetch(source: Source, file: RemoteFile, advance: Advance) -> Path:
    """One file of a commit, in the cache, compared with the listing's hash."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.utils.tqdm import disable_progress_bars

    disable_progress_bars()
    where = f"{source}, {file.name}"
    with hub_errors(where):
        path = Path(hf_hub_download(source.id, file.name, revision=source.revision))
    found = file_hash(path) if file.sha256 else blob_hash(path)
    if found != (file.sha256 or file.blob):
        expected = (file.sha256 or file.blob)[:12]
        what = f"the file on this disk is not the one the Hub lists (hash {found[:12]}, expected {expected})"
        raise HubError(what, where=where, hint=f"rm '{path.resolve()}', then the same command")
    advance(file.size)
    return path


def _ingredient(source: Source, folder: Path) -> Ingredient:
    """The ingredient in a folder, with its weight files hashed and any pickle turned into safetensors."""
    present = [path.name for path in folder.iterdir() if path.is_file()]
    names = weight_names(present, where=str(source))
    index = next((name for name in names if name.endswith(".index.json")), None)
    if index:
        names = _shards(folder / index, names, where=f"{source}, {index}")
    listed = {file.name: file.sha256 for file in source.files}
    weights = []
    for name in names:
        path = folder / name
        sha = listed.get(name) or file_hash(path)
        safe = path if path.suffix == ".safetensors" else convert(path, sha, where=f"{source}, {name}")
        weights.append(WeightFile(name, safe, path.stat().st_size, sha))
    return Ingredient(source, folder, tuple(weights))


def _shards(index: Path, present: list[str], *, where: str) -> list[str]:
    """The shards an index names, each a plain file beside it."""
    try:
        shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise SoupError("expected an index with a weight_map, found something else", where=where) from error
    if not shards or not shards <= set(present):
        missing = ", ".join(sorted(map(str, shards - set(present)))) or "any shard"
        raise SoupError(
            f"the index names {missing}, which is not among the files", where=where, hint="download it again"
        )
    return sorted(shards)
