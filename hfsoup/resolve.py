"""Names, globs, revisions and folders become sources, each pinned to a commit."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from hfsoup.adapterfiles import CONFIG, is_adapter, read_config
from hfsoup.errors import HubError, SoupError, UsageError
from hfsoup.fetching import fetch
from hfsoup.hub import answers, api, side_by_side, told
from hfsoup.names import shown
from hfsoup.types import RemoteFile, Source

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import ModelInfo, RepoSibling

SOUP_TAG = "model-soup"
_WILD = re.compile(r"[*?\[]")
_SHA256, _SHA1 = re.compile(r"[0-9a-f]{64}"), re.compile(r"[0-9a-f]{40}")
_REPO = re.compile(r"[\w.\-]+(/[\w.\-]+)?")
_TAME = re.compile(r"(?!.*(^|/)\.{0,2}(/|$))[^\\\x00-\x1f\x7f]+")


@dataclass(frozen=True)
class Candidate:
    """A repository or folder that a pattern stands for, not pinned yet."""

    id: str
    revision: str | None
    folder: Path | None
    soup: bool = False


def resolve(
    patterns: Iterable[str],
    *,
    exclude: str | None = None,
    include_soups: bool = False,
    notify: Callable[[str], None] = lambda _: None,
) -> tuple[Source, ...]:
    """Pin every ingredient that `patterns` name, in the order given; a glob's matches come in natural order.

    Args:
        patterns: `org/name`, `org/glob-*`, either with `@REVISION`, local folders, globs of local folders.
        exclude: a repository that a glob must not pick up, the push target.
        include_soups: let a glob pick up soups too.
        notify: told about everything that is left out.

    Raises:
        UsageError: a pattern matches nothing.
        HubError: the Hub refuses or cannot be reached.
    """
    sources: dict[tuple[str, str | None], Source] = {}
    with told(notify):
        for pattern in patterns:
            kept = [c for c in _expand(pattern) if not _left_out(c, pattern, exclude, include_soups, notify)]
            if not kept:
                hint = "hf models list --author ORG, or a folder as ./NAME"
                raise UsageError(f"nothing matches {pattern!r}", hint=hint)
            for candidate, source in zip(kept, side_by_side(partial(_pin, asked=pattern), kept), strict=True):
                if source.id != candidate.id:
                    notify(f"{candidate.id} is now called {source.id}")
                key = (str(source.folder or source.id), source.revision)
                if key in sources:
                    notify(f"{source} is named twice; the second one is dropped")
                sources.setdefault(key, source)
    return tuple(sources.values())


def natural(text: str) -> list[tuple[int, int, str]]:
    """A sort key under which `model-2` comes before `model-10`."""
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", text) if part]


def _expand(pattern: str) -> list[Candidate]:
    """Everything that one pattern stands for."""
    folders = _folders(pattern)
    if folders is not None:
        return folders
    name, _, revision = pattern.partition("@")
    ids = _matching(name) if _WILD.search(name) else [Candidate(name, None, None)]
    if not revision:
        return ids
    if not _WILD.search(revision):
        return [Candidate(c.id, revision, None, c.soup) for c in ids]
    return list(chain.from_iterable(_revisions(c, revision) for c in ids))


def _folders(pattern: str) -> list[Candidate] | None:
    """Local model folders that match, or None where the pattern is meant for the Hub."""
    text = str(Path(pattern).expanduser()) if pattern.startswith("~") else pattern
    local = text.startswith((".", "/")) or text.count("/") > 1
    matches = [Path(text)] if Path(text).is_dir() else [Path(m) for m in glob.glob(text)]  # noqa: PTH207
    models = [m for m in matches if (m / "config.json").is_file() or (m / CONFIG).is_file()]
    if not models and not local:
        return None
    if not models and len(matches) == 1 and matches[0].is_dir():
        raise UsageError("expected a model folder, found no config.json", where=str(matches[0]))
    return [Candidate(str(m), None, m, _is_soup(m)) for m in sorted(models, key=lambda m: natural(str(m)))]


def _is_soup(folder: Path) -> bool:
    return (folder / "soup.json").is_file()


def _matching(name: str) -> list[Candidate]:
    """Repositories on the Hub whose full name matches a glob."""
    author, _, rest = name.partition("/")
    if not rest or _WILD.search(author):
        raise UsageError(f"a glob needs a fixed owner, as in org/model-*; found {name!r}")
    with answers(author):
        models = list(api().list_models(author=author))
    found = [Candidate(m.id, None, None, SOUP_TAG in (m.tags or ())) for m in models if fnmatchcase(m.id, name)]
    return sorted(found, key=lambda c: natural(c.id))


def _revisions(candidate: Candidate, pattern: str) -> list[Candidate]:
    """The branches and tags of a repository that match a glob."""
    with answers(candidate.id):
        refs = api().list_repo_refs(candidate.id)
    names = [ref.name for ref in (*refs.branches, *refs.tags) if fnmatchcase(ref.name, pattern)]
    return [Candidate(candidate.id, name, None, candidate.soup) for name in sorted(names, key=natural)]


def _left_out(
    candidate: Candidate, pattern: str, exclude: str | None, include_soups: bool, notify: Callable[[str], None]
) -> bool:
    """Whether a glob's match is left out: a soup, or the push target."""
    if not _WILD.search(pattern):
        return False
    if candidate.id == exclude and candidate.folder is None:
        notify(f"{candidate.id} is where the soup is pushed; left out")
        return True
    if candidate.soup and not include_soups:
        notify(f"{candidate.id} is a soup itself; left out (--include-soups takes it in)")
        return True
    return False


def _pin(candidate: Candidate, asked: str) -> Source:
    """Fix a candidate, and the base of an adapter."""
    source = _pinned(candidate, asked)
    return replace(source, base=_base(source)) if is_adapter(_names(source)) else source


def _base(adapter: Source) -> Source:
    """What an adapter is put on: a repository at the revision that it names; a folder only if it is one itself."""
    name, revision = _base_name(adapter)
    folder = Path(name).expanduser() if adapter.folder else None
    if folder is None or not folder.is_dir():
        if not _REPO.fullmatch(name):
            what = f"expected the base to be a repository on the Hub, found {shown(name)}"
            hint = f"download the adapter and name its base in base_model_name_or_path of {CONFIG}"
            raise SoupError(what, where=str(adapter), hint=hint)
        folder = None
    base = pin(name, None if folder else revision, folder)
    if is_adapter(_names(base)):
        raise SoupError("not supported: an adapter whose base is an adapter", where=f"{adapter}, base {base}")
    return base


def _base_name(adapter: Source) -> tuple[str, str | None]:
    """The base and its revision as an adapter's config names them."""
    where = f"{adapter}, {CONFIG}"
    if adapter.folder:
        path = adapter.folder / CONFIG
    else:
        file = next(file for file in adapter.files if file.name == CONFIG)
        path = fetch(adapter.id, file, adapter.revision or "", kind="model")
    config = read_config(path, where=where)
    return config.base, config.revision


def pin(name: str, revision: str | None = None, folder: Path | None = None) -> Source:
    """One repository at a revision, or one folder; an adapter without its base."""
    return _pinned(Candidate(name, revision, folder), name)


def _names(source: Source) -> list[str]:
    """The names of a source's files."""
    return os.listdir(source.folder) if source.folder else [file.name for file in source.files]  # noqa: PTH208


def _pinned(candidate: Candidate, asked: str) -> Source:
    """A commit and its files on the Hub, the real path of a folder."""
    if candidate.folder is not None:
        return Source(candidate.id, asked, None, candidate.folder.resolve())
    where = f"{candidate.id}@{candidate.revision}" if candidate.revision else candidate.id
    with answers(where):
        info = _info(api(), candidate)
        files = tuple(_remote(s) for s in info.siblings or () if _TAME.fullmatch(s.rfilename))
        if not _SHA1.fullmatch(info.sha or "") or not _REPO.fullmatch(info.id):
            raise HubError(f"expected a name and a commit, found {info.id!r} and {info.sha!r}", where=where)
    return Source(info.id, asked, info.sha, None, files)


def _info(hub: HfApi, candidate: Candidate) -> ModelInfo:
    return hub.model_info(candidate.id, revision=candidate.revision, files_metadata=True)


def _remote(sibling: RepoSibling) -> RemoteFile:
    """A file of the listing, which must come with a hash to hold it to."""
    sha256, blob = sibling.lfs.sha256 if sibling.lfs else None, sibling.blob_id or ""
    if not (_SHA256.fullmatch(sha256) if sha256 else _SHA1.fullmatch(blob)):
        raise ValueError(f"no hash of {sibling.rfilename!r}")
    return RemoteFile(sibling.rfilename, int(sibling.size or 0), sha256, blob)
