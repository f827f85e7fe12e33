"""Formats names, sizes, durations, counts and probabilities for people."""

from __future__ import annotations

from collections.abc import Sequence
from os.path import normpath
from pathlib import PurePath

UNITS = ("B", "kB", "MB", "GB", "TB")
LONGEST = 80


def one_line(text: object, longest: int = 200) -> str:
    """Untrusted text on one line of at most `longest` characters, without control and direction characters."""
    start = str(text)[: 4 * longest]
    # Most names are printable, and a header may hold very many.
    clean = start if start.isprintable() else "".join(c if c.isprintable() else " " for c in start)
    line = " ".join(clean.split())
    return line if len(line) <= longest else line[: longest - 1] + "…"


def quoted(name: object) -> str:
    """An untrusted name in quotes, shortened, with escapes for characters that cannot be printed."""
    text = str(name)
    return repr(text if len(text) <= LONGEST else text[: LONGEST - 1] + "…")


def join_names(names: Sequence[object], most: int = 24) -> str:
    """Names in quotes, separated by commas; beyond `most` only their number."""
    return ", ".join(map(quoted, names[:most])) + (f" … {len(names)} in all" if len(names) > most else "")


def abbreviate_names(names: Sequence[str], most: int = 3) -> str:
    """The first names as they are, and an ellipsis where there are more."""
    return ", ".join([*names[:most], *(["…"] if len(names) > most else [])])


def shorten_name(name: str, revision: str | None) -> str:
    """What to call a repository or a folder: its id where it has a commit, else the last part of its path."""
    return name if revision else PurePath(name).name


def shorten_names(names: Sequence[tuple[str, str | None]]) -> list[str]:
    """Short, distinct names of ingredients, given by id and commit (None for folders).

    A repository is shown by its id, with its commit if the id occurs twice; folders by the last parts of their paths,
    the same number of parts for all.
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
    """Bytes in decimal units, as on the Hub."""
    power = 0
    while count >= 999.5 and power < len(UNITS) - 1:
        count, power = count / 1000, power + 1
    return f"{count:.0f} {UNITS[power]}" if power == 0 or count >= 99.5 else f"{count:.1f} {UNITS[power]}"


def format_duration(seconds: float) -> str:
    """Seconds as seconds, minutes or hours."""
    if seconds < 120:
        return f"{seconds:.3g} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def format_count(count: int, what: str, plural: str = "s") -> str:
    """A number with its noun in singular or plural."""
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}{plural}"


def format_probability(p: float, level: float) -> str:
    """A p-value in two digits, or in as many as show on which side of `level` it is."""
    for digits in range(2, 17):
        text = f"{p:.{digits}g}"
        if (float(text) < level, float(text) > level) == (p < level, p > level):
            break
    return text
