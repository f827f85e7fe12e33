"""How often each class is found, and how two models differ, counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hfsoup.provenance.predictions import list_classes

if TYPE_CHECKING:
    from hfsoup.provenance.predictions import TestPredictions


@dataclass(frozen=True)
class ClassRow:
    """A class: how many test images have it, and of how many of them soup and best ingredient predict it."""

    name: str
    images: int
    soup: int
    best: int


@dataclass(frozen=True)
class Agreement:
    """Images by who is right."""

    both: int
    only_soup: int
    only_best: int
    neither: int


def count_by_class(seen: TestPredictions) -> list[ClassRow]:
    """Every class that the test images have."""
    return list(_rows(seen))


def _rows(seen: TestPredictions) -> Iterator[ClassRow]:
    images, soup, best = ([0] * len(seen.classes) for _ in range(3))
    for true, first, second in zip(seen.labels, seen.soup, seen.best, strict=True):
        for label in list_classes(true):
            images[label] += 1
            soup[label] += label in list_classes(first)
            best[label] += label in list_classes(second)
    for n, name in enumerate(seen.classes):
        if images[n]:
            yield ClassRow(name, images[n], soup[n], best[n])


@dataclass(frozen=True)
class Confusion:
    """Images of class `label` that are predicted as the class `named`: by the soup, and by the best ingredient."""

    label: str
    named: str
    soup: int
    best: int


def find_changed_confusions(seen: TestPredictions, most: int = 10) -> list[Confusion]:
    """The confusions of two classes that changed most from best ingredient to soup; none of a multi-label model."""
    # A record may come from anyone, and mix lists and numbers.
    if not all(isinstance(one, int) for side in (seen.labels, seen.soup, seen.best) for one in side):
        return []
    soup, best = (_count_confusions(seen, side) for side in (seen.soup, seen.best))
    changed = [pair for pair in soup.keys() | best.keys() if soup[pair] != best[pair]]
    changed.sort(key=lambda pair: (-abs(soup[pair] - best[pair]), pair))
    names = seen.classes
    return [Confusion(names[a], names[b], soup[a, b], best[a, b]) for a, b in changed[:most]]


def _count_confusions(seen: TestPredictions, said: Sequence[Any]) -> Counter[tuple[int, int]]:
    pairs = ((*list_classes(true), *list_classes(named)) for true, named in zip(seen.labels, said, strict=True))
    return Counter((true, named) for true, named in pairs if true != named)


def count_agreement(seen: TestPredictions) -> Agreement:
    """How often both, one or none is right."""
    rights = [(s == y, b == y) for y, s, b in zip(seen.labels, seen.soup, seen.best, strict=True)]
    return Agreement(
        rights.count((True, True)),
        rights.count((True, False)),
        rights.count((False, True)),
        rights.count((False, False)),
    )
