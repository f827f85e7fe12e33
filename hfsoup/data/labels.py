"""The labels of a split, file by file, as class numbers of a model, and checks of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hfsoup.data.class_names import ModelClasses, match_dataset_classes, normalize_name
from hfsoup.utils.errors import MismatchError, SoupError
from hfsoup.utils.progress import Notify
from hfsoup.utils.text import join_names, quoted

UNLABELLED = -1
"""The label of a row without one."""
ELSEWHERE = "another split, or rows that are labelled"


@dataclass(frozen=True)
class FileLabels:
    """The labels of one file: one value a row, and its class names, None if it has none."""

    file: str
    values: Sequence[Any]
    names: tuple[str, ...] | None


@dataclass(frozen=True)
class MatchedLabels:
    """Labels in the order of the model's classes, the rule that they were matched by, and the classes of each file."""

    labels: NDArray[np.int64]
    rule: str
    lists: tuple[ClassList, ...]


@dataclass(frozen=True)
class ClassList:
    """The class names of a file, None if it has none.

    `numbered` says whether they were matched with the model's by number alone, and `alike` whether each has the number
    that the model's class of the same name has.
    """

    file: str
    names: tuple[str, ...] | None
    numbered: bool
    alike: bool


def match_labels(labels: Sequence[FileLabels], model: ModelClasses, *, where: str) -> MatchedLabels:
    """One class of the model per row.

    Args:
        labels: those of each file of a split.
        model: the model's classes.
        where: dataset, split and column, for errors.

    Raises:
        SoupError: a row has no label, several, or one that is no class of the model's.
        MismatchError: the class names are not the model's.
    """
    every = [value for one in labels for value in one.values]
    _require_complete(every, where)
    if every and isinstance(every[0], str):
        names = tuple(sorted({str(value) for value in every}))
        place = {name: n for n, name in enumerate(names)}
        labels = [FileLabels(one.file, [place[value] for value in one.values], names) for one in labels]
    rules: dict[str, None] = {}
    found, lists = [], []
    for one in labels:
        count = len(model.names) if one.names is None else len(one.names)
        values = _require_in_range(one.values, count, f"{where}, {one.file}" if len(labels) > 1 else where)
        match = match_dataset_classes(one.names, model, np.unique(values).tolist(), where=where)
        rules.setdefault(match.rule)
        alike = one.names is not None and all(n == place for n, place in match.places.items())
        lists.append(ClassList(one.file, one.names, match.numbered, alike))
        order = np.full(count, UNLABELLED, np.int64)
        order[list(match.places)] = list(match.places.values())
        found.append(order[values])
    return MatchedLabels(np.concatenate(found), "; ".join(rules), tuple(lists))


def require_same_numbering(lists: Sequence[ClassList], where: str) -> None:
    """Refuse files that number their classes differently if labels were matched by number alone.

    Raises:
        MismatchError: two files do not; both are named.
    """
    first = next((one for one in lists if one.numbered), None)
    for other in lists if first else ():
        if first and other.names != first.names and (other.numbered or not other.alike):
            one, two = ("no names" if each.names is None else join_names(each.names, 12) for each in (first, other))
            what = f"{quoted(first.file)} and {quoted(other.file)} number their classes differently:\n  {one}\n  {two}"
            raise MismatchError(what, where=where, hint="--labels FILE with names, or files with one list of classes")


def check_classes(
    labels: NDArray[np.int64], classes: Sequence[str], *, where: str, note: Notify, limited: bool = False
) -> None:
    """Refuse a split of one class, unless a limit took the others, and note the classes that it lacks.

    Raises:
        SoupError: every row is of one class.
    """
    present = np.unique(labels) if labels.ndim == 1 else np.flatnonzero(labels.any(axis=0))
    if (len(classes) > 1 or labels.ndim > 1) and (labels == labels[0]).all() and not limited:
        names = join_names([classes[int(n)] for n in present], 6)
        what = f"every image is of {'one class, ' if len(present) == 1 else ''}{names or 'no class'}"
        what += "; a score on them says nothing"
        raise SoupError(what, where=where, hint="another split, or shuffle the dataset before it is split")
    absent = [classes[n] for n in range(len(classes)) if n not in set(present.tolist())]
    if absent:
        note(f"{where}: no images of {len(absent)} of the model's {len(classes)} classes: {join_names(absent, 6)}")


def check_folders(folders: Sequence[str], labels: NDArray[np.int64], classes: Sequence[str], where: str) -> None:
    """Refuse images that lie in the folder of one class and are labelled as another.

    Raises:
        SoupError: some do; they are counted and the first ones named.
    """
    known = {normalize_name(name): n for n, name in enumerate(classes)}
    places = [known.get(normalize_name(folder)) for folder in folders]
    wrong = [row for row, place in enumerate(places) if place is not None and place != labels[row]]
    if wrong:
        first = wrong[0]
        example = f"row {first} lies in the folder {quoted(folders[first])}"
        what = f"{len(wrong)} labels are not the folder's: {example} and is labelled {quoted(classes[labels[first]])}"
        hint = "take the labels out of the metadata file, or the images out of the class folders"
        raise SoupError(what, where=where, hint=hint)


def format_rows(rows: Sequence[int], most: int = 8) -> str:
    """`row 3`, or `rows 3, 5, 8 …`."""
    return f"row{'s' if len(rows) > 1 else ''} {', '.join(map(str, rows[:most]))}{' …' if len(rows) > most else ''}"


def _require_complete(values: Sequence[Any], where: str) -> None:
    """Refuse labels that are missing, of several types, or more than one a row."""
    missing = [row for row, value in enumerate(values) if value is None]
    if missing:
        text = f"{len(missing)} rows without a label: {format_rows(missing)}"
        raise SoupError(text, where=where, hint=ELSEWHERE)
    kinds = Counter(type(value).__name__ for value in values)
    if not kinds.keys() <= {"int"} and not kinds.keys() <= {"str"}:
        several = any(isinstance(value, (list, dict)) for value in values)
        single = "a model whose problem_type is not multi_label_classification is scored on one class an image"
        what = single if several else "expected whole numbers or names as labels"
        hint = "--label-column NAME, or a dataset with one class an image" if several else "--label-column NAME"
        raise SoupError(f"{what}, found {', '.join(sorted(kinds))}", where=where, hint=hint)


def _require_in_range(values: Sequence[int], count: int, where: str) -> NDArray[np.int64]:
    """Labels as an array, each from 0 to `count` − 1."""
    outside = [row for row, value in enumerate(values) if not 0 <= value < count]
    if outside:
        none = all(values[row] == UNLABELLED for row in outside)
        meaning = "; -1 stands for no label" if none else ""
        found = f"found {values[outside[0]]} in {len(outside)} of {len(values)} rows ({format_rows(outside)}){meaning}"
        raise SoupError(f"labels outside 0 to {count - 1}: {found}", where=where, hint=ELSEWHERE)
    return np.asarray(values, np.int64)
