"""Names, globs, addresses, collections, revisions and folders resolved to sources, each pinned to a commit."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
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
from hfsoup.utils.progress import Notify
from hfsoup.utils.text import quoted
from hfsoup.utils.threads import map_in_threads

if TYPE_CHECKING:
    from huggingface_hub.hf_api import RepoSibling

SOUP_TAGS = {"model-soup", "distilled-soup", "hfsoup"}
MOST_FINE_TUNES = 200
_SHA256, _SHA1 = re.compile(r"[0-9a-f]{64}"), re.compile(r"[0-9a-f]{40}")
_PLAIN = re.compile(r"[\w.\-]+(/[\w.\-]+)*")
_REPO = re.compile(r"[\w.\-]+(/[\w.\-]+)?")
_TAME = re.compile(r"(?!.*(^|/)\.{0,2}(/|$))[^\\\x00-\x1f\x7f]+")


@dataclass(frozen=True)
class Unpinned:
    """A repository, a subfolder of one, or a local folder that a pattern matches, not pinned to a commit yet.

    `listed` is true if a glob, a collection or a search found it, and the user did not name it.
    """

    id: str
    revision: str | None
    folder: Path | None
    listed: bool = False


@dataclass(frozen=True)
class Refused:
    """A match that cannot be an ingredient, with the reason."""

    id: str
    error: SoupError


@dataclass(frozen=True)
class Resolved:
    """The sources that patterns match, and listed repositories that are not accessible."""

    sources: tuple[Source, ...]
    refused: tuple[Refused, ...] = ()


def resolve_patterns(patterns: Iterable[str]) -> tuple[Source, ...]:
    """Pin every model that `patterns` match, as `match_patterns` does, soups included.

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
    """Pin every ingredient that `patterns` match, in the order given; the matches of a glob in natural order.

    Args:
        patterns: `org/name` or `org/glob-*`, each with a subfolder or a glob of subfolders, as in
            `org/run/checkpoint-*`, and with `@REVISION`; addresses of the Hub's pages; `collections/org/slug`, in the
            order of the collection; local folders and globs of them. A local folder without its own model stands for
            the `checkpoint-*` in it.
        target: the push target, which no glob matches.
        exclude: globs of names to leave out; `a/b` matches a whole name or its last two parts.
        fine_tunes_of: a repository on the Hub; globs match only models whose cards name it as their base model, and
            without a glob all such models are taken.
        include_soups: globs match soups too.
        notify: receives notes about what is left out.

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
            candidates, hits = _select(name, base, target, exclude, notify, soups=include_soups)
            unused -= hits
            for candidate, pinned in zip(candidates, map_in_threads(_try_pin, candidates), strict=True):
                if isinstance(pinned, Refused):
                    refused.append(pinned)
                    continue
                source, soup = pinned
                if soup and not include_soups and (candidate.listed or WILD.search(name)):
                    notify(f"{source.id} is a soup itself; left out (--include-soups includes it)")
                    continue
                if source.id != candidate.id:
                    notify(f"{candidate.id} is now called {source.id}")
                key = (str(source.folder or source.id), source.revision)
                if key in sources:
                    notify(f"{source} is named twice; used once")
                sources.setdefault(key, source)
    for glob in (glob for glob in exclude if glob in unused):
        notify(f"--exclude {glob} matches none of the ingredients")
    if names and not sources and not refused:
        raise UsageError("all ingredients are left out", where=", ".join(names), hint="see the notes above")
    return Resolved(tuple(sources.values()), tuple(refused))


def _select(
    name: str, base: str | None, target: str | None, exclude: Sequence[str], notify: Notify, *, soups: bool
) -> tuple[list[Unpinned], set[str]]:
    """What one pattern matches, without excluded names and the push target; and the globs that excluded some."""
    candidates = _expand_pattern(name, base, notify, soups=soups)
    if not candidates:
        raise _no_match_error(name, base)
    chosen, hits = [], set()
    for candidate in candidates:
        if glob := next((glob for glob in exclude if _is_excluded(candidate, glob)), None):
            hits.add(glob)
            notify(f"{_format_match(candidate)} matches --exclude {glob}; left out")
        elif candidate.id == target and not candidate.folder and (WILD.search(name) or candidate.listed):
            notify(f"{candidate.id} is where the soup is pushed; left out")
        else:
            chosen.append(candidate)
    if not chosen and not hits:
        raise _no_match_error(name, base)
    return chosen, hits


def _no_match_error(pattern: str, base: str | None) -> UsageError:
    """The error of a pattern that matches nothing on the Hub."""
    what = f"nothing matches {pattern!r}"
    if base:
        what = f"no model on the Hub names {base} as its base model"
        what += "" if pattern == "*/*" else f" and matches {pattern!r}"
        return UsageError(what, hint=f"hf models list --filter base_model:finetune:{base}")
    owner, _, rest = pattern.partition("/")
    if COLLECTION.fullmatch(pattern):
        return UsageError(what, hint=f"hf collections list --owner {rest.partition('/')[0]}")
    author = owner if rest and _REPO.fullmatch(owner) else "ORG"
    return UsageError(what, hint=f"hf models list --author {author}, or a folder as ./NAME")


def _expand_pattern(pattern: str, base: str | None, notify: Notify, *, soups: bool) -> list[Unpinned]:
    """Everything that one pattern matches."""
    folders = find_local_models(pattern, soups=soups)
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
    """The repository and the subfolder (or "") in a name."""
    words = place.split("/")
    return "/".join(words[:2]), "/".join(words[2:])


def _list_repositories(name: str, base: str | None) -> list[Unpinned]:
    """Repositories on the Hub whose full name matches a glob; only fine-tunes of `base` if it is given."""
    author, _, rest = name.partition("/")
    fixed = bool(rest) and not WILD.search(author)
    if not fixed and not base:
        hint = f"'ORG/{rest or author}', or a folder as './{name}'"
        raise UsageError(f"expected a glob with a fixed owner, as in org/model-*; found {name!r}", hint=hint)
    with expect_answer(author if fixed else str(base)):
        listing = hub_api().list_models(
            author=author if fixed else None, filter=f"base_model:finetune:{base}" if base else None
        )
        found = [Unpinned(m.id, None, None, True) for m in listing if fnmatchcase(m.id, name)]
    if base and len(found) > MOST_FINE_TUNES:
        what = f"expected at most {MOST_FINE_TUNES} fine-tunes of {base}, found {len(found):,}"
        raise UsageError(what, hint=f"narrow them by a glob: 'ORG/*' --fine-tunes-of {base}")
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
        notify(f"{where} also holds {count} {quoted(kind)}; left out")
    return [Unpinned(item.item_id, None, None, True) for item in items if item.item_type == "model"]


def _list_revisions(candidate: Unpinned, pattern: str) -> list[Unpinned]:
    """The branches and tags of a repository that match a glob."""
    with expect_answer(candidate.id, kind="model"):
        refs = hub_api().list_repo_refs(candidate.id)
    names = [ref.name for ref in (*refs.branches, *refs.tags) if fnmatchcase(ref.name, pattern)]
    return [replace(candidate, revision=name) for name in sorted(names, key=natural_key)]


def _list_subfolders(candidate: Unpinned, pattern: str) -> list[Unpinned]:
    """The models in subfolders of a repository that match a glob, all at the listed commit."""
    listed, _ = _pin(candidate)
    folders: dict[str, list[str]] = {}
    for folder, _, name in (file.name.rpartition("/") for file in listed.files):
        folders.setdefault(folder, []).append(name)
    models = (folder for folder, names in folders.items() if folder and is_model(names))
    found = [f for f in models if fnmatchcase(f, pattern) and f.count("/") == pattern.count("/")]
    plain = sorted((f for f in found if _PLAIN.fullmatch(f)), key=natural_key)
    return [replace(candidate, id=f"{listed.id}/{f}", revision=listed.revision) for f in plain]


def _is_excluded(candidate: Unpinned, glob: str) -> bool:
    """Whether a glob matches a candidate's whole name or its last parts."""
    wanted = os.path.expanduser(glob.rstrip("/"))  # noqa: PTH111 - a pattern is no path
    name = f"{candidate.id}@{candidate.revision}" if "@" in wanted else candidate.id
    parts = name.split("/")
    ends = "/".join(parts[-(wanted.count("/") + 1) :])
    whole = [name, ends] if candidate.folder else [name, ends, _split_place(name)[0]]
    return any(fnmatchcase(text, wanted) for text in whole)


def _format_match(candidate: Unpinned) -> str:
    return f"{candidate.id}@{candidate.revision[:7]}" if candidate.revision else candidate.id


def pin_source(name: str, revision: str | None = None, folder: Path | None = None) -> Source:
    """The source of one repository at a revision, or of one folder; an adapter without its base."""
    return _pin(Unpinned(name, revision, folder))[0]


def list_file_names(source: Source) -> list[str]:
    """The names of the files in a source's folder or subfolder."""
    if source.folder:
        return os.listdir(source.folder)  # noqa: PTH208 - names are wanted
    parts = [file.name.rpartition("/") for file in source.files]
    return [name for folder, _, name in parts if folder == source.subfolder]


def _try_pin(candidate: Unpinned) -> tuple[Source, bool] | Refused:
    """The pinned candidate, and whether it is a soup; a listed one may be `Refused`."""
    try:
        return _pin(candidate)
    except AccessError as error:
        if not candidate.listed:
            raise
        return Refused(_format_match(candidate), error)


def _pin(candidate: Unpinned) -> tuple[Source, bool]:
    """The source with its commit and files, or its real path; and whether it is a soup."""
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
        info = hub_api().model_info(repo, revision=candidate.revision, files_metadata=True)
        files = tuple(_make_remote_file(s) for s in info.siblings or () if _TAME.fullmatch(s.rfilename))
        if not _SHA1.fullmatch(info.sha or "") or not _REPO.fullmatch(info.id):
            raise HubError(f"expected a name and a commit, found {info.id!r} and {info.sha!r}", where=where)
    name = f"{info.id}/{below}" if below else info.id
    source = Source(name, info.sha, None, files, private=bool(info.private))
    return source, candidate.listed and not SOUP_TAGS.isdisjoint(info.tags or ())


def _make_remote_file(sibling: RepoSibling) -> RemoteFile:
    """A file of the listing, with the hash that its content must have."""
    sha256, blob = sibling.lfs.sha256 if sibling.lfs else None, sibling.blob_id or ""
    if not (_SHA256.fullmatch(sha256) if sha256 else _SHA1.fullmatch(blob)):
        raise ValueError(f"no hash of {sibling.rfilename!r}")
    return RemoteFile(sibling.rfilename, int(sibling.size or 0), sha256, blob)
