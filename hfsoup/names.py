"""Names compared the way people write them, and shown so that they stay names."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from os.path import normpath
from pathlib import PurePath

from hfsoup.errors import MismatchError

LONGEST = 80


def plain(name: str) -> str:
    """A name without case, underscores and doubled spaces, its accents in one form."""
    return " ".join(unicodedata.normalize("NFC", name).casefold().replace("_", " ").split())


def flat(text: object, longest: int = 200) -> str:
    """Text from outside on one line, without control and direction characters, and no longer than `longest`."""
    start = str(text)[: 4 * longest]
    # Most names are printable as a whole, and a header may hold very many.
    clean = start if start.isprintable() else "".join(c if c.isprintable() else " " for c in start)
    line = " ".join(clean.split())
    return line if len(line) <= longest else line[: longest - 1] + "…"


def shown(name: object) -> str:
    """A name from outside in quotes, with escapes for what cannot be printed, shortened."""
    text = str(name)
    return repr(text if len(text) <= LONGEST else text[: LONGEST - 1] + "…")


def listed(names: Sequence[object], most: int = 24) -> str:
    """Several names, each `shown`, and how many there are where they are too many."""
    return ", ".join(map(shown, names[:most])) + (f" … {len(names)} in all" if len(names) > most else "")


def distinct(names: Sequence[tuple[str, str | None]]) -> list[str]:
    """What to call ingredients, by id and commit: no two alike, and of folders no more of the path than that takes.

    A repository is called by its id, with its commit where it stands there more than once; folders by the same number
    of last parts, so that all are found from one place.
    """
    folders = {name: PurePath(normpath(name)).parts for name, revision in names if revision is None}
    longest = max(map(len, folders.values()), default=1)
    enough = (n for n in range(1, longest + 1) if len({parts[-n:] for parts in folders.values()}) == len(folders))
    depth, ids = next(enough, longest), [name for name, _ in names]
    return [
        ("/".join(folders[name][-depth:]) or name)
        if revision is None
        else f"{name}@{revision[:7]}"
        if ids.count(name) > 1
        else name
        for name, revision in names
    ]


def unnamed(labels: Sequence[str]) -> bool:
    """Whether labels are only transformers' placeholders, LABEL_0 and so on, or each one's own number."""
    return any(list(labels) == [f"{word}{i}" for i in range(len(labels))] for word in ("LABEL_", ""))


def align(wanted: Sequence[str], given: Sequence[str], *, where: str, against: str) -> tuple[int, ...]:
    """For each name in `wanted`, its place in `given`.

    Args:
        wanted: names to be found, each once.
        given: names to look among.
        where: what `wanted` belongs to, for errors.
        against: what `given` belongs to.

    Raises:
        MismatchError: a name is missing, or two names differ only in case, spaces or underscores; both lists are shown.
    """
    places = {plain(name): i for i, name in enumerate(given)}
    doubles = [*_doubles(wanted), *_doubles(given)]
    missing = [name for name in wanted if plain(name) not in places]
    if not doubles and not missing:
        return tuple(places[plain(name)] for name in wanted)
    if doubles:
        what = f"class names are ambiguous, for case, spaces and underscores do not count: {listed(doubles)}"
    else:
        what = f"class names are missing: {listed(missing)}"
    lists = f"{where}: {listed(wanted)}\n  {against}: {listed(given)}"
    raise MismatchError(f"{what}\n  {lists}", where=where, hint="give the classes the same names in both")


def _doubles(names: Sequence[str]) -> list[str]:
    """Names that are another one's double."""
    seen: dict[str, list[str]] = {}
    for name in names:
        seen.setdefault(plain(name), []).append(name)
    return [name for group in seen.values() if len(group) > 1 for name in group]
