"""Names, globs, revisions and folders become sources, each pinned to a commit."""

from __future__ import annotations

import glob
import os
import posixpath
import re
import shlex
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

SOUP_TAGS = {"model-soup", "distilled-soup"}
_WILD = re.compile(r"[*?\[]")
_SHA256, _SHA1 = re.compile(r"[0-9a-f]{64}"), re.compile(r"[0-9a-f]{40}")
_PLAIN = re.compile(r"[\w.\-]+(/[\w.\-]+)*")
_REPO = re.compile(r"[\w.\-]+(/[\w.\-]+)?")
_CHECKPOINTS = "checkpoint-*"
MODELS = ("config.json", CONFIG)
_TAME = re.compile(r"(?!.*(^|/)\.{0,2}(/|$))[^\\\x00-\x1f\x7f]+")


@dataclass(frozen=True)
class Candidate:
    """A repository, one of its subfolders, or a folder that a pattern stands for, not pinned yet."""

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
        patterns: `org/name`, `org/glob-*`, either with a subfolder or a glob of them, as in `org/run/checkpoint-*`, and
            with `@REVISION`; local folders, globs of local folders. A local folder without a model of its own stands
            for the `checkpoint-*` in it.
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
                if pattern.startswith(("/", ".", "~")):
                    hint = f"ls {shlex.quote(str(Path(_WILD.split(pattern)[0] + '_').parent))}"
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
    place, _, revision = pattern.partition("@")
    name, below = _parts(place)
    found = _matching(name) if _WILD.search(name) else [Candidate(name, None, None)]
    if _WILD.search(revision):
        found = list(chain.from_iterable(_revisions(c, revision) for c in found))
    elif revision:
        found = [replace(c, revision=revision) for c in found]
    if not below:
        return found
    if not _WILD.search(below):
        return [replace(c, id=f"{c.id}/{below}") for c in found]
    return list(chain.from_iterable(_subfolders(c, below) for c in found))


def _parts(place: str) -> tuple[str, str]:
    """A repository, and a subfolder of it or nothing."""
    words = place.split("/")
    return "/".join(words[:2]), "/".join(words[2:])


def _folders(pattern: str) -> list[Candidate] | None:
    """Local model folders that match, or None where the pattern is meant for the Hub."""
    text = os.path.expanduser(pattern.rstrip("/") or pattern)  # noqa: PTH111 - a name that nobody has stays as it is
    below = text.count("/") > 1 and "@" not in text and Path(text.split("/")[0]).exists()
    # Hardly anything on the Hub has a name without its owner's.
    local = text.startswith((".", "/")) or below or (text != "" and "/" not in text and Path(text).is_dir())
    matches = [Path(text)] if Path(text).is_dir() else [Path(m) for m in glob.glob(text)]  # noqa: PTH207
    models = list(chain.from_iterable(_models(match) for match in matches))
    if not models and not local:
        return None
    if not models and len(matches) == 1 and matches[0].is_dir():
        raise UsageError("expected a model folder, found no config.json", where=str(matches[0]))
    return [Candidate(str(m), None, m, _is_soup(m)) for m in sorted(models, key=lambda m: natural(str(m)))]


def _models(folder: Path) -> list[Path]:
    """The folder itself if it holds a model, else the checkpoints of the run that it is the output folder of."""
    return [folder] if _holds_model(folder) else [found for found in folder.glob(_CHECKPOINTS) if _holds_model(found)]


def _holds_model(folder: Path) -> bool:
    return any((folder / name).is_file() for name in MODELS)


def _is_soup(folder: Path) -> bool:
    return (folder / "soup.json").is_file()


def _matching(name: str) -> list[Candidate]:
    """Repositories on the Hub whose full name matches a glob."""
    author, _, rest = name.partition("/")
    if not rest or _WILD.search(author):
        raise UsageError(f"a glob needs a fixed owner, as in org/model-*; found {name!r}")
    with answers(author):
        models = list(api().list_models(author=author))
    found = [
        Candidate(m.id, None, None, not SOUP_TAGS.isdisjoint(m.tags or ())) for m in models if fnmatchcase(m.id, name)
    ]
    return sorted(found, key=lambda c: natural(c.id))


def _revisions(candidate: Candidate, pattern: str) -> list[Candidate]:
    """The branches and tags of a repository that match a glob."""
    with answers(candidate.id):
        refs = api().list_repo_refs(candidate.id)
    names = [ref.name for ref in (*refs.branches, *refs.tags) if fnmatchcase(ref.name, pattern)]
    return [Candidate(candidate.id, name, None, candidate.soup) for name in sorted(names, key=natural)]


def _subfolders(candidate: Candidate, pattern: str) -> list[Candidate]:
    """The models in subfolders of a repository that match a glob, all at the commit that was listed."""
    listed = _pinned(candidate, candidate.id)
    parts = [file.name.rpartition("/") for file in listed.files]
    folders = dict.fromkeys(folder for folder, _, name in parts if folder and name in MODELS)
    found = [f for f in folders if fnmatchcase(f, pattern) and f.count("/") == pattern.count("/")]
    plain = sorted((f for f in found if _PLAIN.fullmatch(f)), key=natural)
    return [Candidate(f"{listed.id}/{f}", listed.revision, None, candidate.soup) for f in plain]


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
        file = next(file for file in adapter.files if file.name == posixpath.join(adapter.subfolder, CONFIG))
        path = fetch(adapter.repo, file, adapter.revision or "", kind="model")
    config = read_config(path, where=where)
    return config.base, config.revision


def pin(name: str, revision: str | None = None, folder: Path | None = None) -> Source:
    """One repository at a revision, or one folder; an adapter without its base."""
    return _pinned(Candidate(name, revision, folder), name)


def _names(source: Source) -> list[str]:
    """The names of the files beside a source's config."""
    if source.folder:
        return os.listdir(source.folder)  # noqa: PTH208 - names are wanted
    parts = [file.name.rpartition("/") for file in source.files]
    return [name for folder, _, name in parts if folder == source.subfolder]


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
    below = _parts(candidate.id)[1]
    return Source(f"{info.id}/{below}" if below else info.id, asked, info.sha, None, files)


def _info(hub: HfApi, candidate: Candidate) -> ModelInfo:
    return hub.model_info(_parts(candidate.id)[0], revision=candidate.revision, files_metadata=True)


def _remote(sibling: RepoSibling) -> RemoteFile:
    """A file of the listing, which must come with a hash to hold it to."""
    sha256, blob = sibling.lfs.sha256 if sibling.lfs else None, sibling.blob_id or ""
    if not (_SHA256.fullmatch(sha256) if sha256 else _SHA1.fullmatch(blob)):
        raise ValueError(f"no hash of {sibling.rfilename!r}")
    return RemoteFile(sibling.rfilename, int(sibling.size or 0), sha256, blob)
