"""How often each class is found, and how two models differ, counted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hfsoup.provenance.predictions import classes_of

if TYPE_CHECKING:
    from hfsoup.provenance.predictions import Evaluated


@dataclass(frozen=True)
class ClassRow:
    """A class: how many test images have it, and of how many of them soup and best ingredient predict it."""

    name: str
    images: int
    soup: int
    best: int


@dataclass(frozen=True)
class Counts:
    """Images by who is right."""

    both: int
    only_soup: int
    only_best: int
    neither: int


def by_class(seen: Evaluated) -> list[ClassRow]:
    """Every class that the test images have."""
    return list(_rows(seen))


def _rows(seen: Evaluated) -> Iterator[ClassRow]:
    images, soup, best = ([0] * len(seen.classes) for _ in range(3))
    for true, first, second in zip(seen.labels, seen.soup, seen.best, strict=True):
        for label in classes_of(true):
            images[label] += 1
            soup[label] += label in classes_of(first)
            best[label] += label in classes_of(second)
    for n, name in enumerate(seen.classes):
        if images[n]:
            yield ClassRow(name, images[n], soup[n], best[n])


def counts(seen: Evaluated) -> Counts:
    """How often both, one or none is right."""
    rights = [(s == y, b == y) for y, s, b in zip(seen.labels, seen.soup, seen.best, strict=True)]
    return Counts(
        rights.count((True, True)),
        rights.count((True, False)),
        rights.count((False, True)),
        rights.count((False, False)),
    )
