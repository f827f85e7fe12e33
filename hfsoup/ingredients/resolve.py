"""Names, globs, addresses, collections, revisions and folders become sources, each pinned to a commit."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from hfsoup.checkpoints.types import Source
from hfsoup.hub.addresses import COLLECTION, parse_model_address
from hfsoup.hub.client import expect_answer, hub_api, is_offline
from hfsoup.hub.download import RemoteFile
from hfsoup.hub.notices import listening
from hfsoup.hub.offline import find_cached_commit
from hfsoup.ingredients.local_folders import WILD, find_local_models, is_model, natural_key
from hfsoup.utils.errors import AccessError, HubError, SoupError, UsageError
from hfsoup.utils.text import quoted
from hfsoup.utils.threads import map_in_threads

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import ModelInfo, RepoSibling

SOUP_TAGS = {"model-soup", "distilled-soup"}
MOST_FINE_TUNES = 200
_SHA256, _SHA1 = re.compile(r"[0-9a-f]{64}"), re.compile(r"[0-9a-f]{40}")
_PLAIN = re.compile(r"[\w.\-]+(/[\w.\-]+)*")
_REPO = re.compile(r"[\w.\-]+(/[\w.\-]+)?")
_TAME = re.compile(r"(?!.*(^|/)\.{0,2}(/|$))[^\\\x00-\x1f\x7f]+")
Notify = Callable[[str], None]


@dataclass(frozen=True)
class Unpinned:
    """A repository, one of its subfolders, or a folder that a pattern stands for, not pinned yet.

    `listed` says that the user did not name the repository: a glob, a collection or a search found it.
    """

    id: str
    revision: str | None
    folder: Path | None
    listed: bool = False


@dataclass(frozen=True)
class Refused:
    """A match that cannot be an ingredient, and why."""

    id: str
    error: SoupError


@dataclass(frozen=True)
class Resolved:
    """The sources that patterns stand for, and the repositories among those listed that the Hub does not give."""

    sources: tuple[Source, ...]
    refused: tuple[Refused, ...] = ()


def resolve_patterns(patterns: Iterable[str]) -> tuple[Source, ...]:
    """Pin every model that `patterns` name, as `match` does, soups included.

    Raises:
        UsageError: a pattern matches nothing.
        HubError: the Hub refuses or cannot be reached.
    """
    found = match_patterns(patterns, include_soups=True)
    if found.refused:
        raise found.refused[0].error
    return found.sources


def match_patterns(
    patterns: Iterable[str],
    *,
    target: str | None = None,
    exclude: Sequence[str] = (),
    fine_tunes_of: str | None = None,
    include_soups: bool = False,
    notify: Notify = lambda _: None,
) -> Resolved:
    """Pin every ingredient that `patterns` name, in the order given; a glob's matches come in natural order.

    Args:
        patterns: `org/name`, `org/glob-*`, either with a subfolder or a glob of them, as in `org/run/checkpoint-*`, and
            with `@REVISION`; addresses of the Hub's pages; `collections/org/slug`, whose models come in its order;
            local folders, globs of local folders. A local folder without a model of its own stands for the
            `checkpoint-*` in it.
        target: a repository that a glob must not pick up, the push target.
        exclude: globs of names to leave out, each of a whole name or of as many of its last parts as it has itself.
        fine_tunes_of: a repository on the Hub: globs take only models whose cards say that they were fine-tuned from
            it; without a glob, all such models are named.
        include_soups: let a glob pick up soups too.
        notify: told about everything that is left out.

    Raises:
        UsageError: a pattern matches nothing.
        HubError: the Hub refuses or cannot be reached.
    """
    names = [parse_model_address(pattern) for pattern in patterns]
    base = fine_tunes_of and parse_model_address(fine_tunes_of)
    if base and not any(WILD.search(name) for name in names):
        names.append("*/*")
    sources: dict[tuple[str, str | None], Source] = {}
    refused: list[Refused] = []
    unused = set(exclude)
    with listening(notify):
        for name in names:
            candidates = _expand_pattern(name, base, notify)
            if not candidates:
                raise _no_match_error(name, base)
            hits = [next((glob for glob in exclude if _is_excluded(c, glob)), None) for c in candidates]
            unused -= set(hits)
            for candidate, glob in zip(candidates, hits, strict=True):
                if glob is not None:
                    notify(f"{_format_match(candidate)} matches --exclude {glob}; left out")
            kept = [c for c, glob in zip(candidates, hits, strict=True) if glob is None]
            if WILD.search(name) or candidates[0].listed:
                kept = [c for c in kept if not _is_target(c, target, notify)]
                if not kept and not any(hits):
                    raise _no_match_error(name, base)
            for candidate, pinned in zip(kept, map_in_threads(_try_pin, kept), strict=True):
                if isinstance(pinned, Refused):
                    refused.append(pinned)
                    continue
                source, soup = pinned
                if soup and not include_soups and (candidate.listed or WILD.search(name)):
                    notify(f"{source.id} is a soup itself; left out (--include-soups takes it in)")
                    continue
                if source.id != candidate.id:
                    notify(f"{candidate.id} is now called {source.id}")
                key = (str(source.folder or source.id), source.revision)
                if key in sources:
                    notify(f"{source} is named twice; the second one is dropped")
                sources.setdefault(key, source)
    for glob in (glob for glob in exclude if glob in unused):
        notify(f"--exclude {glob} matches none of the ingredients")
    if names and not sources and not refused:
        raise UsageError("nothing is left of the ingredients", where=", ".join(names), hint="look at the notes above")
    return Resolved(tuple(sources.values()), tuple(refused))


def _is_target(candidate: Unpinned, target: str | None, notify: Notify) -> bool:
    if candidate.folder is not None or candidate.id != target:
        return False
    notify(f"{candidate.id} is where the soup is pushed; left out")
    return True


def _no_match_error(pattern: str, base: str | None) -> UsageError:
    """The error of a pattern that matches nothing on the Hub."""
    what = f"nothing matches {pattern!r}"
    if base:
        what = f"no model on the Hub says that it was fine-tuned from {base}"
        what += "" if pattern == "*/*" else f" and matches {pattern!r}"
        return UsageError(what, hint=f"hf models list --filter base_model:finetune:{base}")
    owner, _, rest = pattern.partition("/")
    if COLLECTION.fullmatch(pattern):
        return UsageError(what, hint=f"hf collections list --owner {rest.partition('/')[0]}")
    author = owner if rest and _REPO.fullmatch(owner) else "ORG"
    return UsageError(what, hint=f"hf models list --author {author}, or a folder as ./NAME")


def _expand_pattern(pattern: str, base: str | None, notify: Notify) -> list[Unpinned]:
    """Everything that one pattern stands for."""
    folders = find_local_models(pattern)
    if folders is not None:
        return [Unpinned(str(folder), None, folder) for folder in folders]
    if COLLECTION.fullmatch(pattern):
        return _list_collection(pattern.partition("/")[2], notify)
    place, _, revision = pattern.partition("@")
    name, below = _split_place(place)
    found = _list_repositories(name, base) if WILD.search(name) else [Unpinned(name, None, None)]
    if WILD.search(revision):
        found = list(chain.from_iterable(_list_revisions(c, revision) for c in found))
    elif revision:
        found = [replace(c, revision=revision) for c in found]
    if not below:
        return found
    if not WILD.search(below):
        return [replace(c, id=f"{c.id}/{below}") for c in found]
    return list(chain.from_iterable(_list_subfolders(c, below) for c in found))


def _split_place(place: str) -> tuple[str, str]:
    """A repository, and a subfolder of it or nothing."""
    words = place.split("/")
    return "/".join(words[:2]), "/".join(words[2:])


def _list_repositories(name: str, base: str | None) -> list[Unpinned]:
    """Repositories on the Hub whose full name matches a glob, of a base's fine-tunes only where one is given."""
    author, _, rest = name.partition("/")
    fixed = bool(rest) and not WILD.search(author)
    if not fixed and not base:
        hint = f"'ORG/{rest or author}', or a folder as './{name}'"
        raise UsageError(f"a glob needs a fixed owner, as in org/model-*; found {name!r}", hint=hint)
    with expect_answer(author if fixed else str(base)):
        listing = hub_api().list_models(
            author=author if fixed else None, filter=f"base_model:finetune:{base}" if base else None
        )
        found = [Unpinned(m.id, None, None, True) for m in listing if fnmatchcase(m.id, name)]
    if base and len(found) > MOST_FINE_TUNES:
        what = f"expected at most {MOST_FINE_TUNES} fine-tunes of {base}, found {len(found):,}"
        raise UsageError(what, hint=f"a glob narrows them: 'ORG/*' --fine-tunes-of {base}")
    return sorted(found, key=lambda c: natural_key(c.id))


def _list_collection(slug: str, notify: Notify) -> list[Unpinned]:
    """The models of a collection, in its order."""
    from huggingface_hub.errors import HfHubHTTPError

    where = f"collections/{slug}"
    with expect_answer(where):
        try:
            items = hub_api().get_collection(slug).items
        except HfHubHTTPError as error:
            if error.response.status_code != 404:
                raise
            what = "there is no such collection, or it is private"
            raise UsageError(what, where=where, hint=f"hf collections list --owner {slug.partition('/')[0]}") from error
    for kind in dict.fromkeys(item.item_type for item in items if item.item_type != "model"):
        count = sum(item.item_type == kind for item in items)
        notify(f"{where} holds {count} {quoted(kind)} beside models; left out")
    return [Unpinned(item.item_id, None, None, True) for item in items if item.item_type == "model"]


def _list_revisions(candidate: Unpinned, pattern: str) -> list[Unpinned]:
    """The branches and tags of a repository that match a glob."""
    with expect_answer(candidate.id, kind="model"):
        refs = hub_api().list_repo_refs(candidate.id)
    names = [ref.name for ref in (*refs.branches, *refs.tags) if fnmatchcase(ref.name, pattern)]
    return [replace(candidate, revision=name) for name in sorted(names, key=natural_key)]


def _list_subfolders(candidate: Unpinned, pattern: str) -> list[Unpinned]:
    """The models in subfolders of a repository that match a glob, all at the commit that was listed."""
    listed, _ = _pin(candidate)
    folders: dict[str, list[str]] = {}
    for folder, _, name in (file.name.rpartition("/") for file in listed.files):
        folders.setdefault(folder, []).append(name)
    models = (folder for folder, names in folders.items() if folder and is_model(names))
    found = [f for f in models if fnmatchcase(f, pattern) and f.count("/") == pattern.count("/")]
    plain = sorted((f for f in found if _PLAIN.fullmatch(f)), key=natural_key)
    return [replace(candidate, id=f"{listed.id}/{f}", revision=listed.revision) for f in plain]


def _is_excluded(candidate: Unpinned, glob: str) -> bool:
    """Whether a glob is of a candidate's whole name, or of its last parts."""
    wanted = os.path.expanduser(glob.rstrip("/"))  # noqa: PTH111 - a pattern is no path
    name = f"{candidate.id}@{candidate.revision}" if "@" in wanted else candidate.id
    parts = name.split("/")
    ends = "/".join(parts[-(wanted.count("/") + 1) :])
    whole = [name, ends] if candidate.folder else [name, ends, _split_place(name)[0]]
    return any(fnmatchcase(text, wanted) for text in whole)


def _format_match(candidate: Unpinned) -> str:
    return f"{candidate.id}@{candidate.revision[:7]}" if candidate.revision else candidate.id


def pin_source(name: str, revision: str | None = None, folder: Path | None = None) -> Source:
    """One repository at a revision, or one folder; an adapter without its base."""
    return _pin(Unpinned(name, revision, folder))[0]


def list_file_names(source: Source) -> list[str]:
    """The names of the files in a source's folder or subfolder."""
    if source.folder:
        return os.listdir(source.folder)  # noqa: PTH208 - names are wanted
    parts = [file.name.rpartition("/") for file in source.files]
    return [name for folder, _, name in parts if folder == source.subfolder]


def _try_pin(candidate: Unpinned) -> tuple[Source, bool] | Refused:
    """The pinned candidate, and whether it is a soup; of one that was listed also the refusal."""
    try:
        return _pin(candidate)
    except AccessError as error:
        if not candidate.listed:
            raise
        return Refused(_format_match(candidate), error)


def _pin(candidate: Unpinned) -> tuple[Source, bool]:
    """A commit and its files on the Hub, the real path of a folder; whether it is a soup."""
    if candidate.folder is not None:
        source = Source(candidate.id, None, candidate.folder.resolve())
        return source, (candidate.folder / "soup.json").is_file()
    where = f"{candidate.id}@{candidate.revision}" if candidate.revision else candidate.id
    repo, below = _split_place(candidate.id)
    if is_offline():
        with expect_answer(where):
            commit, files = find_cached_commit(repo, candidate.revision, kind="model")
        tame = tuple(file for file in files if _TAME.fullmatch(file.name))
        return Source(candidate.id, commit, None, tame), False
    with expect_answer(where, kind=None if candidate.listed else "model"):
        info = _fetch_info(hub_api(), candidate)
        files = tuple(_make_remote_file(s) for s in info.siblings or () if _TAME.fullmatch(s.rfilename))
        if not _SHA1.fullmatch(info.sha or "") or not _REPO.fullmatch(info.id):
            raise HubError(f"expected a name and a commit, found {info.id!r} and {info.sha!r}", where=where)
    source = Source(f"{info.id}/{below}" if below else info.id, info.sha, None, files)
    return source, candidate.listed and not SOUP_TAGS.isdisjoint(info.tags or ())


def _fetch_info(hub: HfApi, candidate: Unpinned) -> ModelInfo:
    return hub.model_info(_split_place(candidate.id)[0], revision=candidate.revision, files_metadata=True)


def _make_remote_file(sibling: RepoSibling) -> RemoteFile:
    """A file of the listing, which must come with a hash to hold it to."""
    sha256, blob = sibling.lfs.sha256 if sibling.lfs else None, sibling.blob_id or ""
    if not (_SHA256.fullmatch(sha256) if sha256 else _SHA1.fullmatch(blob)):
        raise ValueError(f"no hash of {sibling.rfilename!r}")
    return RemoteFile(sibling.rfilename, int(sibling.size or 0), sha256, blob)
