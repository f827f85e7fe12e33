"""What a dataset holds, and whether these models can be scored on it, told before anything of it is pulled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from hfsoup.data.images import Columns, DatasetSplit, mapping_of
from hfsoup.data.labels import UNLABELLED, FileLabels, Note, match_dataset_classes, match_labels
from hfsoup.data.request import Request
from hfsoup.data.shards import IMAGE_SUFFIXES
from hfsoup.data.source import METADATA, DatasetSource, open_dataset
from hfsoup.data.splits import choose_calibration_split, choose_splits
from hfsoup.data.tasks import SINGLE_LABEL
from hfsoup.hub.download import is_cached
from hfsoup.utils.errors import MismatchError, UsageError
from hfsoup.utils.text import one_line

COUNTABLE = ("parquet", "imagefolder")
"""Kinds of datasets whose rows can be counted from outside."""


@dataclass(frozen=True)
class SplitSize:
    """A split: its images, None where its files do not tell, its bytes, and those on this disk already."""

    images: int | None
    size: int
    held: int


@dataclass(frozen=True)
class DatasetPreview:
    """A dataset and what is used of it: the split that selects, the one that reports, None where the first is halved.

    `parts` is None where they cannot be told before the data is there. Of the split that batch norms look at, the files
    count that hold as many images as are wanted.
    """

    id: str
    revision: str | None
    selection: str
    test: str | None
    calibration: str
    parts: dict[str, SplitSize] | None


def preview_dataset(
    request: Request, classes: Sequence[str] | None = None, *, most: int = 0, note: Note = lambda _: None
) -> DatasetPreview:
    """Look at a dataset through its listing, its cards, and the footers of its parquet files; nothing of it is kept.

    Args:
        request: what is asked.
        classes: the model's classes, with which those of the dataset are compared as far as can be told; None for none.
        most: how many images batch norms or a training look at.
        note: told what a bake will have to assume.

    Raises:
        UsageError: datasets cannot load it, or there is no such split or column.
        MismatchError: the dataset's classes are not the model's.
        HubError: the Hub refuses or cannot be reached.
    """
    with open_dataset(request, to_cache=False) as source:
        splits = list(source.split_files)
        selection, test = choose_splits(splits, request)
        if _has_readable_columns(source):
            labelled = [
                _check_labels(source, name, request, classes, test=name == test)
                for name in filter(None, (selection, test))
            ]
            if test and not labelled[-1]:
                note(f"the split {test!r} has no labels, so it does not report, and {selection!r} is halved")
                test = None
        calibration = choose_calibration_split(splits, request, selection, lambda _: None)
        parts = None
        if source.kind in COUNTABLE and not _has_archives(source):
            parts = {name: _measure_split(source, name, None) for name in filter(None, (selection, test))}
            parts.setdefault(calibration, _measure_split(source, calibration, most))
        return DatasetPreview(request.dataset, source.revision, selection, test, calibration, parts)


def _has_archives(source: DatasetSource) -> bool:
    return any(name.endswith(".zip") for names in source.split_files.values() for name in names)


def _has_readable_columns(source: DatasetSource) -> bool:
    """Whether columns and classes show without pulling files."""
    if source.kind == "imagefolder":
        every = [name for names in source.split_files.values() for name in names]
        return not _has_archives(source) and not any(PurePosixPath(name).name in METADATA for name in every)
    return source.kind == "parquet" or (source.kind == "arrow" and source.revision is None)


def _check_labels(
    source: DatasetSource, name: str, request: Request, classes: Sequence[str] | None, *, test: bool
) -> bool:
    """Whether a split has labels; its columns and classes must be those of these models."""
    if source.by_folder:
        return _check_class_folders(source, name, request, classes)
    where = one_line(f"{request.dataset}, split {name}")
    rows = source.rows(name)
    facts = rows.metadata()
    if not len(rows):
        raise UsageError("the split is empty", where=where, hint="another --split")
    columns = Columns(source, name, rows.names(), facts, request, classes or (), where)
    label = columns.find_labels(columns.find_images(), missing=test)
    if label is None or classes is None:
        return label is not None
    lists = columns.list_classes(label)
    bounds = [fact.bounds.get(label) for fact in facts]
    if test and all(bound == (UNLABELLED, UNLABELLED) for bound in bounds):
        return False
    single = request.task in (None, SINGLE_LABEL)
    if single and all(bound and bound[0] >= 0 for bound in bounds) and len(set(lists)) == 1:
        needed = range(max(bound[1] for bound in bounds if bound) + 1)
        count = len(classes) if lists[0] is None else len(lists[0])
        try:
            if len(needed) <= count:
                match_dataset_classes(
                    lists[0], classes, needed, where=where, asked=request.labels, mapping=mapping_of(request)
                )
                return True
        except MismatchError:
            pass
    # What the footers leave open, the labels themselves decide.
    return DatasetSplit(source, name, request, classes, scored=not test).is_labelled


def _check_class_folders(source: DatasetSource, name: str, request: Request, classes: Sequence[str] | None) -> bool:
    """As `_labelled`, of images in folders."""
    folders = {
        split: [_parent_name(file) for file in names if _is_image(file)] for split, names in source.split_files.items()
    }
    names = sorted({folder for each in folders.values() for folder in each})
    if len(set(folders[name])) < 2 or request.label_column is not None:
        return len(set(folders[name])) > 1
    if classes is not None:
        labels = FileLabels(name, [names.index(folder) for folder in folders[name]], tuple(names))
        where = one_line(f"{request.dataset}, split {name}")
        match_labels([labels], classes, where=where, asked=request.labels, mapping=mapping_of(request))
    return True


def _parent_name(name: str) -> str:
    return PurePosixPath(name).parent.name


def _is_image(name: str) -> bool:
    return name.lower().endswith(IMAGE_SUFFIXES)


def _measure_split(source: DatasetSource, name: str, most: int | None) -> SplitSize:
    """A split, or as many of its files as hold `most` images."""
    files, every = source.files, source.split_files[name]
    used = (source.draw_files(name, most) if most else None) or every
    held = [f for f in used if not files.revision or is_cached(files.repo, files.listing[f], files.revision, "dataset")]
    images = source.expected_rows.get(name) if used is every else None
    if images is None and source.by_folder:
        images = sum(map(_is_image, every)) or None
    elif images is None:
        images = len(source.rows(name, used))
    return SplitSize(images, sum(map(files.size, used)), sum(map(files.size, held)))
