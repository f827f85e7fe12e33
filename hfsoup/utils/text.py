"""Names compared the way people write them, and shown so that they stay names."""

from __future__ import annotations

from collections.abc import Sequence
from os.path import normpath
from pathlib import PurePath

UNITS = ("B", "kB", "MB", "GB", "TB")


LONGEST = 80


def one_line(text: object, longest: int = 200) -> str:
    """Text from outside on one line, without control and direction characters, and no longer than `longest`."""
    start = str(text)[: 4 * longest]
    # Most names are printable as a whole, and a header may hold very many.
    clean = start if start.isprintable() else "".join(c if c.isprintable() else " " for c in start)
    line = " ".join(clean.split())
    return line if len(line) <= longest else line[: longest - 1] + "…"


def quoted(name: object) -> str:
    """A name from outside in quotes, with escapes for what cannot be printed, shortened."""
    text = str(name)
    return repr(text if len(text) <= LONGEST else text[: LONGEST - 1] + "…")


def join_names(names: Sequence[object], most: int = 24) -> str:
    """Several names, each `shown`, and how many there are where they are too many."""
    return ", ".join(map(quoted, names[:most])) + (f" … {len(names)} in all" if len(names) > most else "")


def shorten_names(names: Sequence[tuple[str, str | None]]) -> list[str]:
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


def format_size(count: float) -> str:
    """Bytes in decimal units, as the Hub shows them."""
    power = 0
    while count >= 999.5 and power < len(UNITS) - 1:
        count, power = count / 1000, power + 1
    return f"{count:.0f} {UNITS[power]}" if power == 0 or count >= 99.5 else f"{count:.1f} {UNITS[power]}"


def format_duration(seconds: float) -> str:
    """Seconds as people say them."""
    if seconds < 120:
        return f"{seconds:.3g} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def format_count(count: int, what: str, plural: str = "s") -> str:
    """A number of things, with the plural's ending where it is due."""
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}{plural}"


def format_probability(p: float, level: float) -> str:
    """A p-value in two digits, or in as many as show on which side of the level it is."""
    for digits in range(2, 17):
        text = f"{p:.{digits}g}"
        if (float(text) < level, float(text) > level) == (p < level, p > level):
            break
    return text
