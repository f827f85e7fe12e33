"""Which columns of a dataset hold the images and the labels, and what a column of labels calls its classes."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any

from hfsoup.data.class_names import normalize_name
from hfsoup.data.labels import UNLABELLED, FileLabels
from hfsoup.data.request import Request
from hfsoup.data.rows import Rows
from hfsoup.data.source import DatasetSource
from hfsoup.data.tasks import SINGLE_LABEL
from hfsoup.utils.errors import MismatchError, SoupError, UsageError
from hfsoup.utils.text import join_names, one_line, quoted

FOLDERS = ""
"""Stands for the column of labels that the folders are in which images lie."""
ONE_HOT = "*"
"""Stands for a column of yes and no for each class."""
WEBDATASET = "cls"
"""What the layout of that name calls its labels."""
LABEL_NAMES = ("label", "labels", "class", "classes", "cls", "category", "target")
"""What a column of labels is called where datasets does not say which one it is."""


class Columns:
    """The columns of a split: which one holds the images, which one the labels, and what its files call the classes.

    Args:
        source: the dataset.
        split: the split's name.
        rows: its rows.
        request: what is asked of the dataset.
        classes: the model's class names.

    Raises:
        UsageError: there is no column of images, or more than one.
    """

    def __init__(self, source: DatasetSource, split: str, rows: Rows, request: Request, classes: Sequence[str]) -> None:
        self._rows, self._request, self._classes = rows, request, classes
        self._task = request.task or SINGLE_LABEL
        self._files, self._metadata = rows.names(), rows.metadata()
        self._where = one_line(f"{request.dataset}, split {split}")
        self._declared = source.declared_features(split)
        self._features = [self._merge_features(each.features) for each in self._metadata]
        self._by_folder = source.by_folder
        self.image = self._find_images()

    def _find_images(self) -> str:
        """The column of images: the one asked for, the one of the feature Image, or the only one that may hold some."""
        from datasets import Image

        features = self._features[0]
        asked = self._request.image_column
        images = [name for name, feature in features.items() if isinstance(feature, Image)]
        able = images or [name for name, feature in features.items() if _may_hold_images(feature)]
        flag = "--image-column"
        name = self._require_column(asked, able, flag) if asked else self._require_one(able, "Image", flag)
        for file, columns in zip(self._files, self._features, strict=True):
            feature = columns.get(name)
            if not isinstance(feature, Image) and not _may_hold_images(feature):
                found = "no such column" if feature is None else type(feature).__name__
                where = f"{self._where}, column {one_line(name)}"
                hint = f"{flag} {shlex.quote(one_line(able[0]))}" if able and able[0] != name else ""
                raise UsageError(f"expected images, found {found}{self._in_file(file)}", where=where, hint=hint)
        return name

    def find_mode(self) -> str | None:
        """The Pillow mode that the files declare for the images.

        Raises:
            UsageError: they declare several.
        """
        found: dict[str | None, str] = {
            getattr(features[self.image], "mode", None): file
            for file, features in zip(self._files, self._features, strict=True)
        }
        if len(found) > 1:
            what = " and ".join(f"{mode or 'none'} in {quoted(file)}" for mode, file in found.items())
            where = f"{self._where}, column {one_line(self.image)}"
            raise UsageError(f"expected one mode of all images, found {what}", where=where, hint="files alike")
        return next(iter(found))

    def find_labels(self, *, missing: bool = False) -> str | None:
        """The column of labels: the one asked for, the only one of the task's features, `ONE_HOT` or `FOLDERS`.

        Args:
            missing: return None instead of an error if there is none.

        Raises:
            UsageError: there is none, or several, or only some of the files have it.
        """
        features, task = self._features[0], self._task
        asked = self._request.label_column
        classes = task.label_columns(features)
        if asked is None and len(classes) != 1 and task.one_hot and self._find_one_hot():
            return ONE_HOT
        usual = [name for name in features if name.casefold() in LABEL_NAMES]
        if asked is None and not classes and not usual and self._by_folder:
            return FOLDERS
        if missing and ((asked and asked not in features) or (not asked and not classes and not usual)):
            return None
        able = classes or [name for name in features if name == WEBDATASET]
        if asked is not None:
            name = self._require_column(asked, usual, "--label-column")
        else:
            name = self._require_one(
                able, "ClassLabel", "--label-column", [*usual, *(n for n in features if n != self.image)]
            )
        for file, columns in zip(self._files, self._features, strict=True):
            if name not in columns:
                what = f"there is no column {one_line(name)!r}{self._in_file(file)}"
                raise UsageError(what, where=self._where, hint="files with the same columns")
        return name

    def list_classes(self, label: str) -> list[tuple[str, ...] | None]:
        """The class names of each file in the order of their numbers; None for a file that has none.

        Raises:
            MismatchError: the card of the dataset has other names than a file.
        """
        found: list[tuple[str, ...] | None] = []
        declared = self._task.class_names(self._declared.features.get(label))
        for file, each in zip(self._files, self._metadata, strict=True):
            names = self._task.class_names(each.features.get(label))
            if names and declared and list(names) != list(declared):
                what = f"{quoted(self._declared.name)} and {quoted(file)} number their classes differently"
                lists = f"{join_names(declared, 12)}\n  {join_names(names, 12)}"
                hint = "the names that the file has, in both"
                raise MismatchError(f"{what}:\n  {lists}", where=self._where, hint=hint)
            either = names or declared
            found.append(tuple(either) if either else None)
        return found if label != FOLDERS else [None]

    def list_bounds(self, label: str) -> list[tuple[int, int] | None]:
        """The least and the largest label of each file, None if its footer does not have them."""
        return [each.bounds.get(label) for each in self._metadata]

    def lacks_labels(self) -> bool:
        """Whether there is no column of labels, or the footers of its files say that every label is -1."""
        label = self.find_labels(missing=True)
        return label is None or all(each == (UNLABELLED, UNLABELLED) for each in self.list_bounds(label))

    def read_labels(self, label: str) -> list[FileLabels]:
        """The labels of each file as it has them, with its class names."""
        if label == FOLDERS:
            values: Sequence[Sequence[Any]] = [self._rows.read_folders(self.image)]
        elif label == ONE_HOT:
            names = self._find_one_hot()
            files = zip(*map(self._rows.read_column, names), strict=True)
            values = [_list_true_columns(names, columns, self._where) for columns in files]
        else:
            values = self._rows.read_column(label)
        return [FileLabels(*each) for each in zip(self._files, values, self.list_classes(label), strict=True)]

    def _find_one_hot(self) -> list[str]:
        """The columns that are named like the model's classes, where every class and every file has one."""
        found = {normalize_name(name): name for name in self._features[0]}
        names = [found.get(normalize_name(name)) for name in self._classes]
        every = all(name in features for name in names for features in self._features)
        return [name for name in names if name is not None] if every else []

    def _merge_features(self, own: dict[str, Any]) -> dict[str, Any]:
        """A file's features, with what a card knows better: which columns hold images, and which classes."""
        from datasets import ClassLabel, Image

        better = {
            name: feature
            for name, feature in self._declared.features.items()
            if name in own
            and isinstance(feature, (ClassLabel, Image))
            and not isinstance(own[name], (ClassLabel, Image))
        }
        return {**own, **better}

    def _require_column(self, name: str, able: Sequence[str], flag: str) -> str:
        if name not in self._features[0]:
            near = [*able, *self._features[0]][:1]
            what = f"there is no column {name!r}; found {self._describe_columns()}"
            raise UsageError(what, where=self._where, hint=f"{flag} {shlex.quote(one_line(near[0]))}" if near else "")
        return name

    def _require_one(self, able: Sequence[str], kind: str, flag: str, likely: Sequence[str] = ()) -> str:
        if len(able) != 1:
            near = [*able, *likely][:1]
            what = f"expected one column of {kind}, found {len(able)} in {self._describe_columns()}"
            hint = f"{flag} {shlex.quote(one_line(near[0]))}" if near else f"a dataset with a column of {kind}"
            raise UsageError(what, where=self._where, hint=hint)
        return able[0]

    def _describe_columns(self) -> str:
        features = self._features[0].items()
        return one_line(", ".join(f"{name} ({type(feature).__name__})" for name, feature in features), 400)

    def _in_file(self, file: str) -> str:
        return f" in {quoted(file)}" if len(self._files) > 1 else ""


def _list_true_columns(names: Sequence[str], columns: Sequence[Sequence[Any]], where: str) -> list[list[str]]:
    """For each row the names of the columns that say yes."""
    for name, values in zip(names, columns, strict=True):
        if odd := [(row, value) for row, value in enumerate(values) if value not in (0, 1)]:
            what = f"expected true or false, or 1 or 0, found {quoted(odd[0][1])} in row {odd[0][0]}"
            raise SoupError(what, where=f"{where}, column {one_line(name)}", hint="--label-column NAME")
    return [[name for name, value in zip(names, row, strict=True) if value] for row in zip(*columns, strict=True)]


def _may_hold_images(feature: Any) -> bool:
    """Whether a column that is declared as something else may hold encoded images: bytes, or a struct of them."""
    kind = feature.get("bytes") if isinstance(feature, dict) else feature
    return getattr(kind, "dtype", None) in ("binary", "large_binary", "binary_view")
