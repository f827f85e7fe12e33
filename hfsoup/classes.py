"""The labels of a dataset become the class numbers of a model, or a clear error; never a quiet guess."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import PurePath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hfsoup.errors import SoupError
from hfsoup.names import align, listed, plain, shown, unnamed

Note = Callable[[str], None]
ELSEWHERE = "another split, or rows that are labelled"


def class_numbers(values: Sequence[Any], feature: Any, classes: Sequence[str], *, where: str, note: Note) -> Any:
    """One class of the model per row.

    Args:
        values: the label column: whole numbers or names.
        feature: its type in datasets; a ClassLabel has the names.
        classes: the model's class names in the order of its head.
        where: dataset, split and column, for errors.
        note: told what had to be assumed.

    Returns:
        Numbers of classes in the model's order, int64.

    Raises:
        SoupError: a row has no label, several, or one that is no class of the model's.
        MismatchError: the class names are not the model's.
    """
    _complete(values, where)
    names = getattr(feature, "names", None)
    if names is None and isinstance(values[0], str):
        names = sorted({str(value) for value in values})
        place = {name: n for n, name in enumerate(names)}
        values = [place[value] for value in values]
    if names is None or (unnamed(classes) and len(names) == len(classes)):
        note("the model or the dataset names no classes: the dataset's numbers are taken as the model's")
        order: tuple[int, ...] = tuple(range(len(classes)))
    else:
        order = align(names, classes, where=where, against="the model")
    numbers = _whole(values, len(order), where)
    found: NDArray[np.int64] = np.asarray(order, np.int64)[numbers]
    return found


def check_classes(
    labels: NDArray[np.int64], classes: Sequence[str], *, where: str, note: Note, limited: bool = False
) -> None:
    """See that a split tests something: two classes at least, unless a limit took the others; those it lacks are noted.

    Raises:
        SoupError: every row is of one class.
    """
    present = np.unique(labels)
    if len(present) == 1 and len(classes) > 1 and not limited:
        what = f"every image is of one class, {shown(classes[int(present[0])])}; a score on them says nothing"
        raise SoupError(what, where=where, hint="another split, or shuffle the dataset before it is split")
    absent = [classes[n] for n in range(len(classes)) if n not in set(present.tolist())]
    if absent:
        note(f"{where}: no images of {len(absent)} of the model's {len(classes)} classes: {listed(absent, 6)}")


def check_folders(paths: Sequence[str | None], labels: NDArray[np.int64], classes: Sequence[str], where: str) -> None:
    """See that no image lies in the folder of one class and is labelled as another.

    Raises:
        SoupError: some do; they are counted and the first ones named.
    """
    known = {plain(name): n for n, name in enumerate(classes)}
    # In an archive, what counts is the folder within it.
    parents = [PurePath(path.split("::")[0]).parent.name if path else "" for path in paths]
    folders = [known.get(plain(parent)) for parent in parents]
    wrong = [row for row, folder in enumerate(folders) if folder is not None and folder != labels[row]]
    if wrong:
        first = wrong[0]
        example = f"row {first} lies in the folder {shown(parents[first])}"
        what = f"{len(wrong)} labels are not the folder's: {example} and is labelled {shown(classes[labels[first]])}"
        hint = "take the labels out of the metadata file, or the images out of the class folders"
        raise SoupError(what, where=where, hint=hint)


def rows_text(rows: Sequence[int], most: int = 8) -> str:
    """`row 3`, or `rows 3, 5, 8 …`."""
    return f"row{'s' if len(rows) > 1 else ''} {', '.join(map(str, rows[:most]))}{' …' if len(rows) > most else ''}"


def _complete(values: Sequence[Any], where: str) -> None:
    """Refuse labels that are missing, or of several kinds, or not one a row."""
    missing = [row for row, value in enumerate(values) if value is None]
    if missing:
        text = f"{len(missing)} rows without a label: {rows_text(missing)}"
        raise SoupError(text, where=where, hint=ELSEWHERE)
    kinds = Counter(type(value).__name__ for value in values)
    if not kinds.keys() <= {"int"} and not kinds.keys() <= {"str"}:
        several = any(isinstance(value, (list, dict)) for value in values)
        what = "hfsoup scores one class an image" if several else "expected whole numbers or names as labels"
        hint = "--label-column NAME, or a dataset with one class an image" if several else "--label-column NAME"
        raise SoupError(f"{what}, found {', '.join(sorted(kinds))}", where=where, hint=hint)


def _whole(values: Sequence[int], count: int, where: str) -> NDArray[np.int64]:
    outside = [row for row, value in enumerate(values) if not 0 <= value < count]
    if outside:
        none = all(values[row] == -1 for row in outside)
        meaning = "; -1 stands for no label" if none else ""
        found = f"found {values[outside[0]]} in {len(outside)} of {len(values)} rows ({rows_text(outside)}){meaning}"
        raise SoupError(f"labels outside 0 to {count - 1}: {found}", where=where, hint=ELSEWHERE)
    return np.asarray(values, np.int64)
