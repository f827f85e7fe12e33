"""Class names compared the way people write them: case and underscores do not matter."""

from __future__ import annotations

from collections.abc import Sequence

from hfsoup.errors import MismatchError


def plain(name: str) -> str:
    """A name without case, underscores and doubled spaces."""
    return " ".join(name.casefold().replace("_", " ").split())


def unnamed(labels: Sequence[str]) -> bool:
    """Whether labels are only transformers' placeholders, LABEL_0 and so on."""
    return list(labels) == [f"LABEL_{i}" for i in range(len(labels))]


def align(wanted: Sequence[str], given: Sequence[str], *, where: str, against: str) -> tuple[int, ...]:
    """For each name in `wanted`, its place in `given`.

    Args:
        wanted: names to be found, each once.
        given: names to look among.
        where: what `wanted` belongs to, for errors.
        against: what `given` belongs to.

    Raises:
        MismatchError: a name is missing, or two names differ only in case or underscores; both lists are shown.
    """
    places = {plain(name): i for i, name in enumerate(given)}
    doubles = len(places) < len(given) or len({plain(name) for name in wanted}) < len(wanted)
    missing = [name for name in wanted if plain(name) not in places]
    if not doubles and not missing:
        return tuple(places[plain(name)] for name in wanted)
    what = "class names are ambiguous" if doubles else f"class names are missing: {_shown(missing)}"
    lists = f"{where}: {_shown(wanted)}\n  {against}: {_shown(given)}"
    raise MismatchError(f"{what}\n  {lists}", where=where, hint="give the classes the same names in both")


def _shown(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:24])) + (f" … {len(names)} in all" if len(names) > 24 else "")
