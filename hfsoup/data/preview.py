"""What a dataset holds and whether the models can be scored on it, read before any of its data is downloaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from hfsoup.data.class_names import match_dataset_classes
from hfsoup.data.columns import Columns
from hfsoup.data.dataset_split import DatasetSplit
from hfsoup.data.labels import FileLabels, match_labels
from hfsoup.data.loading import METADATA, open_dataset
from hfsoup.data.request import Request
from hfsoup.data.shards import IMAGE_SUFFIXES
from hfsoup.data.source import DatasetSource
from hfsoup.data.splits import choose_calibration_split, choose_splits
from hfsoup.hub.download import is_cached
from hfsoup.utils.errors import MismatchError, UsageError
from hfsoup.utils.progress import Notify
from hfsoup.utils.text import one_line

COUNTABLE = ("parquet", "imagefolder")
"""Kinds of datasets whose rows can be counted without their data."""


@dataclass(frozen=True)
class SplitSize:
    """A split: its images, None if they cannot be counted, its bytes, and how many of those are on this disk."""

    images: int | None
    size: int
    held: int


@dataclass(frozen=True)
class DatasetPreview:
    """A dataset and its splits: for selection, for test (None if the selection split is halved) and for calibration.

    `parts` has the size of each, None if it is unknown before the data is downloaded. Of the calibration split only the
    files count that hold as many images as are wanted.
    """

    id: str
    revision: str | None
    selection: str
    test: str | None
    calibration: str
    parts: dict[str, SplitSize] | None


def preview_dataset(
    request: Request, classes: Sequence[str] | None = None, *, most: int = 0, note: Notify = lambda _: None
) -> DatasetPreview:
    """Read a dataset's listing, cards and the footers of its parquet files; nothing of it is cached.

    Args:
        request: what is asked of the dataset.
        classes: the model's classes, with which those of the dataset are compared as far as possible; None for none.
        most: how many images batch norms or a training need.
        note: called with what a bake will have to assume.

    Raises:
        UsageError: datasets cannot load it, or there is no such split or column.
        MismatchError: the dataset's classes are not the model's.
        HubError: the Hub refuses or cannot be reached.
    """
    with open_dataset(request, to_cache=False) as source:
        splits = list(source.split_files)
        selection, test = choose_splits(splits, request)
        if _has_readable_columns(source):
            _check_labels(source, selection, request, classes, required=True)
            if test and not _check_labels(source, test, request, classes, required=False):
                note(f"the split {test!r} has no labels, so {selection!r} is halved for selection and test")
                test = None
        calibration = choose_calibration_split(splits, request, selection, test, lambda _: None)
        parts = None
        if source.kind in COUNTABLE and not _has_archives(source):
            parts = {name: _measure_split(source, name, None) for name in (selection, test) if name}
            parts.setdefault(calibration, _measure_split(source, calibration, most))
        return DatasetPreview(request.dataset, source.revision, selection, test, calibration, parts)


def _has_archives(source: DatasetSource) -> bool:
    return any(name.endswith(".zip") for names in source.split_files.values() for name in names)


def _has_readable_columns(source: DatasetSource) -> bool:
    """Whether columns and classes can be read without a download of the files."""
    if source.kind == "imagefolder":
        every = [name for names in source.split_files.values() for name in names]
        return not _has_archives(source) and not any(PurePosixPath(name).name in METADATA for name in every)
    return source.kind == "parquet" or (source.kind == "arrow" and source.revision is None)


def _check_labels(
    source: DatasetSource, name: str, request: Request, classes: Sequence[str] | None, *, required: bool
) -> bool:
    """Whether a split has labels; its columns and classes must be those of the models.

    Raises:
        UsageError: it is empty, lacks a column of images, or of labels although they are `required`.
        MismatchError: its classes are not the model's.
    """
    if source.by_folder:
        return _check_class_folders(source, name, request, classes)
    where, rows = one_line(f"{request.dataset}, split {name}"), source.rows(name)
    if not len(rows):
        raise UsageError("the split is empty", where=where, hint="another --split")
    columns = Columns(source, name, rows, request, classes or ())
    label = columns.find_labels(missing=not required)
    if label is None or classes is None:
        return label is not None
    if not required and columns.lacks_labels():
        return False
    lists, bounds = columns.list_classes(label), [each for each in columns.list_bounds(label) if each]
    if len(bounds) == len(lists) and all(least >= 0 for least, _ in bounds) and len(set(lists)) == 1:
        needed = range(max(largest for _, largest in bounds) + 1)
        try:
            if len(needed) <= len(classes if lists[0] is None else lists[0]):
                match_dataset_classes(lists[0], request.model_classes(classes), needed, where=where)
                return True
        except MismatchError:
            pass
    # The footers do not decide, so the column of labels is read.
    return DatasetSplit(source, name, request, classes, scored=required).is_labelled


def _check_class_folders(source: DatasetSource, name: str, request: Request, classes: Sequence[str] | None) -> bool:
    """As `_check_labels`, for images in folders."""
    folders = {
        split: [PurePosixPath(file).parent.name for file in names if _is_image(file)]
        for split, names in source.split_files.items()
    }
    names = sorted({folder for each in folders.values() for folder in each})
    if len(set(folders[name])) < 2 or request.label_column is not None:
        return len(set(folders[name])) > 1
    if classes is not None:
        labels = FileLabels(name, [names.index(folder) for folder in folders[name]], tuple(names))
        match_labels([labels], request.model_classes(classes), where=one_line(f"{request.dataset}, split {name}"))
    return True


def _is_image(name: str) -> bool:
    return name.lower().endswith(IMAGE_SUFFIXES)


def _measure_split(source: DatasetSource, name: str, most: int | None) -> SplitSize:
    """The size of a split, or of as many of its files as hold `most` images."""
    files, every = source.files, source.split_files[name]
    used = (source.draw_files(name, most) if most else None) or every
    held = [f for f in used if not files.revision or is_cached(files.repo, files.listing[f], files.revision, "dataset")]
    images = source.expected_rows.get(name) if used is every else None
    if images is None and source.by_folder:
        images = sum(map(_is_image, every)) or None
    elif images is None:
        images = len(source.rows(name, used))
    return SplitSize(images, sum(map(files.size, used)), sum(map(files.size, held)))
