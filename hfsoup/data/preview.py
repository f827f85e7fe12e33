"""What a dataset holds and whether the models can be scored on it, read before any of its data is downloaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from pathlib import PurePosixPath

from hfsoup.data.class_names import ModelClasses, match_dataset_classes
from hfsoup.data.columns import Columns
from hfsoup.data.dataset_split import DatasetSplit
from hfsoup.data.files import SMALL, TooLargeError
from hfsoup.data.heads import METADATA
from hfsoup.data.labels import ClassList, FileLabels, match_labels, require_same_numbering
from hfsoup.data.loading import open_dataset
from hfsoup.data.request import Request
from hfsoup.data.rows import Rows
from hfsoup.data.shards import IMAGE_SUFFIXES
from hfsoup.data.source import DatasetSource, call_datasets
from hfsoup.data.splits import choose_calibration_split, choose_splits
from hfsoup.data.tasks import SINGLE_LABEL
from hfsoup.hub.download import is_cached
from hfsoup.utils.errors import MismatchError, UsageError
from hfsoup.utils.progress import Notify
from hfsoup.utils.text import one_line

COUNTABLE = ("parquet", "imagefolder")
"""Kinds of datasets whose rows can be counted without their data."""
TEXTS_LIMIT = 64 << 20
"""Bytes of the text files on the Hub that are read beforehand; of further ones nothing is read."""


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
    files count that hold as many images as are wanted. `others` are the test splits of other datasets.
    """

    id: str
    revision: str | None
    selection: str
    test: str | None
    calibration: str
    parts: dict[str, SplitSize] | None
    others: tuple[SplitSize, ...] = ()


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
        lists = _check_labels(source, selection, request, classes, required=True)
        tested = test and _check_labels(source, test, request, classes, required=False)
        if test and tested is None:
            note(f"the split {test!r} has no labels, so {selection!r} is halved for selection and test")
            test = None
        require_same_numbering([*(lists or ()), *(tested or ())], where=request.dataset)
        calibration = choose_calibration_split(splits, request, selection, test, lambda _: None)
        parts = None
        if is_countable(source):
            parts = {name: measure_split(source, name) for name in (selection, test) if name}
            parts.setdefault(calibration, measure_split(source, calibration, most))
        return DatasetPreview(request.dataset, source.revision, selection, test, calibration, parts)


def is_countable(source: DatasetSource) -> bool:
    """Whether rows and bytes of its splits are known without their data."""
    return source.kind in COUNTABLE and not _has_archives(source)


def _has_archives(source: DatasetSource) -> bool:
    return any(name.endswith(".zip") for names in source.split_files.values() for name in names)


def _check_labels(
    source: DatasetSource, name: str, request: Request, classes: Sequence[str] | None, *, required: bool
) -> Sequence[ClassList] | None:
    """The class lists of a split's files, as far as they are known; None if it has no labels.

    Raises:
        UsageError: it is empty, lacks a column of images, or of labels although they are `required`.
        MismatchError: its classes are not the model's.
    """
    if source.by_folder and not _has_metadata(source) and not _has_archives(source):
        return _check_class_folders(source, name, request, classes, required)
    try:
        return _read_labels(source, name, request, classes, required)
    except TooLargeError:
        return ()


def _read_labels(
    source: DatasetSource, name: str, request: Request, classes: Sequence[str] | None, required: bool
) -> Sequence[ClassList] | None:
    """As `_check_labels`, of columns: from footers where they decide, else from the columns, or from their heads."""
    names, where = source.split_files[name], one_line(f"{request.dataset}, split {name}")
    one_by_one = source.kind == "webdataset" or (source.kind == "arrow" and source.revision is not None)
    if source.revision and (source.by_folder or source.kind in ("csv", "json")):
        every = [each for split in source.split_files.values() for each in split]
        tables = [each for each in every if PurePosixPath(each).name in METADATA]
        wanted = tables if source.by_folder else _choose_texts(source, names)
        call_datasets(request, partial(source.files.fetch, wanted))
    rows = source.rows(name, names[:1] if one_by_one else None)
    count = len(rows)
    beginning = (one_by_one and len(names) > 1) or not source.files.heads.isdisjoint(names)
    if not count and not beginning:
        raise UsageError("the split is empty", where=where, hint="another --split")
    columns = Columns(source, name, rows, request, classes or ())
    label = columns.find_labels(missing=not required)
    if label is None or classes is None:
        return None if label is None else ()
    if beginning:
        labels = columns.read_labels(label)
        values = [value for one in labels for value in one.values]
        task = request.task or SINGLE_LABEL
        if values and (required or not task.is_unlabelled(values)):
            task.match_labels(labels, request.model_classes(classes), where=where)
        return ()
    if not required and columns.lacks_labels():
        return None
    if (found := _match_footers(columns, label, rows, request.model_classes(classes), where)) is not None:
        return found
    split = DatasetSplit(source, name, request, classes, scored=required)
    return split.lists if split.is_labelled else None


def _choose_texts(source: DatasetSource, names: Sequence[str]) -> list[str]:
    """The first text files of a split, of which at most `TEXTS_LIMIT` bytes are read; of the others not even heads."""
    ends = accumulate(min(source.files.size(name), SMALL) for name in names)
    chosen = [name for name, end in zip(names, ends, strict=True) if end <= TEXTS_LIMIT]
    source.files.heads.update(set(names) - set(chosen))
    return chosen


def _match_footers(
    columns: Columns, label: str, rows: Rows, model: ModelClasses, where: str
) -> Sequence[ClassList] | None:
    """The class lists of parquet files that match the model's by their footers; None where those do not decide."""
    lists, bounds = columns.list_classes(label), [each for each in columns.list_bounds(label) if each]
    if len(bounds) < len(lists) or any(least < 0 for least, _ in bounds) or len(set(lists)) > 1:
        return None
    names, needed = lists[0], range(max(largest for _, largest in bounds) + 1)
    if len(needed) > len(model.names if names is None else names):
        return None
    try:
        match = match_dataset_classes(names, model, needed, where=where)
    except MismatchError:
        return None
    alike = names is not None and all(n == place for n, place in match.places.items())
    return [ClassList(file, names, match.numbered, alike) for file in rows.names()]


def _has_metadata(source: DatasetSource) -> bool:
    every = (name for names in source.split_files.values() for name in names)
    return any(PurePosixPath(name).name in METADATA for name in every)


def _check_class_folders(
    source: DatasetSource, name: str, request: Request, classes: Sequence[str] | None, required: bool
) -> Sequence[ClassList] | None:
    """As `_check_labels`, for images in folders."""
    folders = {
        split: [PurePosixPath(file).parent.name for file in names if _is_image(file)]
        for split, names in source.split_files.items()
    }
    names = sorted({folder for each in folders.values() for folder in each})
    where = one_line(f"{request.dataset}, split {name}")
    if len(set(folders[name])) < 2 or request.label_column is not None:
        if required and request.label_column is None:
            what = "there is no column of labels, and the images lie in no class folders"
            raise UsageError(what, where=where, hint="--label-column NAME, or a folder for each class")
        return () if len(set(folders[name])) > 1 else None
    if classes is not None:
        labels = FileLabels(name, [names.index(folder) for folder in folders[name]], tuple(names))
        return match_labels([labels], request.model_classes(classes), where=where).lists
    return ()


def _is_image(name: str) -> bool:
    return name.lower().endswith(IMAGE_SUFFIXES)


def measure_split(source: DatasetSource, name: str, most: int | None = None) -> SplitSize:
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
