"""Sizes, times and counts as people say them."""

from __future__ import annotations

UNITS = ("B", "kB", "MB", "GB", "TB")


def size(count: float) -> str:
    """Bytes in decimal units, as the Hub shows them."""
    power = 0
    while count >= 999.5 and power < len(UNITS) - 1:
        count, power = count / 1000, power + 1
    return f"{count:.0f} {UNITS[power]}" if power == 0 or count >= 99.5 else f"{count:.1f} {UNITS[power]}"


def duration(seconds: float) -> str:
    """Seconds as people say them."""
    if seconds < 120:
        return f"{seconds:.3g} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def counted(count: int, what: str, plural: str = "s") -> str:
    """A number of things, with the plural's ending where it is due."""
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}{plural}"


def probability(p: float, level: float) -> str:
    """A p-value in two digits, or in as many as show on which side of the level it is."""
    for digits in range(2, 17):
        text = f"{p:.{digits}g}"
        if (float(text) < level, float(text) > level) == (p < level, p > level):
            break
    return text
