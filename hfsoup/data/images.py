"""A dataset becomes splits that a model can be scored on: cut, labelled in the model's order, decoded once."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hfsoup.checkpoints.model_inputs import describe_backend
from hfsoup.data.corruptions import Corruption
from hfsoup.data.decoding import BadImageError
from hfsoup.data.label_mapping import BY_NAME, BY_NUMBER, read_mapping
from hfsoup.data.labels import (
    UNLABELLED,
    ClassList,
    FileLabels,
    Note,
    check_classes,
    check_folders,
    format_rows,
    normalize_name,
    require_same_numbering,
)
from hfsoup.data.leakage import check_leakage
from hfsoup.data.preprocessing import Advance, PreparedImages, are_prepared, prepare_images
from hfsoup.data.request import Request
from hfsoup.data.rows import ShardMetadata
from hfsoup.data.source import DatasetSource, open_dataset
from hfsoup.data.splits import (
    choose_calibration_split,
    choose_splits,
    describe_training_split,
    halve,
    is_training,
    limit_rows,
)
from hfsoup.data.tasks import SINGLE_LABEL
from hfsoup.utils.errors import MismatchError, SoupError, UsageError
from hfsoup.utils.text import join_names, one_line, quoted

DEFAULT_RULE = "by name"
FOLDERS = ""
"""Stands for the column of labels that the folders are in which images lie."""
ONE_HOT = "*"
"""Stands for a column of yes and no for each class."""
WEBDATASET = "cls"
"""What the layout of that name calls its labels."""
LABEL_NAMES = ("label", "labels", "class", "classes", "cls", "category", "target")
"""What a column of labels is called where datasets does not say which one it is."""


@dataclass(frozen=True)
class Split:
    """Images of one split, ready for a model.

    `pixels` is a .npy file of float32, images × channels × height × width; `labels` are the model's class indices;
    `rule` says how the split was cut; `fingerprint` is a hash of the data files, the rows and the labels. `rows` are
    where the images are in the dataset's split `part`, in its column `column`; `labelled_by` says how its labels became
    the model's.
    """

    name: str
    rule: str
    fingerprint: str
    pixels: Path
    labels: NDArray[np.int64]
    rows: NDArray[np.int64]
    part: str
    column: str
    labelled_by: str = ""

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def is_training(self) -> bool:
        """Whether the dataset calls it a split to train on."""
        return is_training(self.part)


@dataclass(frozen=True)
class Images:
    """The split that selects, the split that reports, and where both come from.

    `revision` is a commit on the Hub; `backend` is the library that resized the images, with its version, and
    `calibration` are images to estimate batch norms on, where they were asked for; `learning` is the half of the split
    that selects from which coefficients are learned, where they are; `unlabelled` are those that a network is trained
    on; `mapping` is what matched the dataset's classes with the model's, where a file did; `seen` are the images that
    select and those of `learning`, as they were prepared.
    """

    dataset: str
    config: str | None
    revision: str | None
    selection: Split
    test: Split
    halved: bool
    notes: tuple[str, ...]
    backend: str
    calibration: Split | None = None
    learning: Split | None = None
    unlabelled: Split | None = None
    mapping: Mapping[str, str | int] | None = None
    seen: tuple[PreparedImages, ...] = field(default=(), repr=False)


def load_images(
    request: Request,
    processor: Any,
    classes: Sequence[str],
    *,
    calibrate: int = 0,
    learn: bool = False,
    advance: Advance = lambda _: None,
    expect: Advance = lambda _: None,
) -> Images:
    """Load, cut, check and prepare the selection and the test split.

    Args:
        request: the dataset and what to take of it.
        processor: the ingredients' image processor.
        classes: the model's class names in the order of its head.
        calibrate: prepare at most this many images to estimate batch norms on, too.
        learn: halve the split that selects once more, into images to learn from and images to score on.
        advance: told of images as they are ready.
        expect: told how many there will be, once that is known.

    Raises:
        UsageError: no such split, column or config.
        MismatchError: the dataset's class names are not the model's.
        SoupError: images or labels that would make the scores wrong.
    """
    notes: dict[str, None] = {}
    note: Note = notes.setdefault
    with open_dataset(request) as source:
        cuts, halved = _choose_cuts(source, request, classes, calibrate, learn, note)
        expect(sum(len(rows) if most is None else min(len(rows), most) for *_, rows, most in cuts))
        done = [part.prepare(processor, title, rows, most, advance) for part, title, rows, most in cuts]
        calibration = done.pop()[0] if calibrate else None
        *learning, (selection, seen), (test, held) = done
        every = (seen, *(prepared for _, prepared in learning))
        for prepared in every:
            check_leakage(prepared, held, request, note=note)
        source.files.require_unchanged()
    return Images(
        request.dataset, request.config, source.revision, selection, test, halved, tuple(notes),
        describe_backend(processor), calibration, learning[0][0] if learning else None,
        mapping=mapping_of(request), seen=every,
    )  # fmt: skip


def find_prepared_splits(
    request: Request, processor: Any, classes: Sequence[str], *, calibrate: int = 0, learn: bool = False
) -> frozenset[str]:
    """The splits of which `load_images` would find all that it takes in the cache, and pull no file.

    The dataset is looked into only where an earlier bake kept what its files say of themselves.
    """
    with open_dataset(request, to_cache=False) as source:
        if not all(source.rows(name).are_cached() for name in choose_splits(list(source.split_files), request) if name):
            return frozenset()
        cuts, _ = _choose_cuts(source, request, classes, calibrate, learn, lambda _: None)
        lacking = {part.name for part, _, rows, most in cuts if not part.is_prepared(processor, rows, most)}
        return frozenset(part.name for part, *_ in cuts) - lacking


def _choose_cuts(
    source: DatasetSource, request: Request, classes: Sequence[str], calibrate: int, learn: bool, note: Note
) -> tuple[list[tuple[DatasetSplit, str, NDArray[np.int64], int | None]], bool]:
    """What to prepare: images to learn from, to select, to report and to look at; whether one split is halved."""
    parts, name, test_name = open_scored_splits(source, request, classes, note)
    settles = choose_calibration_split(list(source.split_files), request, name, note) if calibrate else None
    if settles is not None and settles not in parts:
        parts[settles] = DatasetSplit(source, settles, request, classes, note, scored=False, most=calibrate)
    selecting, testing = cut_splits(parts, name, test_name)
    if test_name is None:
        cut = f", cut {request.task.strata}" if request.task not in (None, SINGLE_LABEL) else ""
        note(f"only the split {name!r} was there: a stratified half of it selects, the other half reports{cut}")
    for trained in sorted({part.name for part in (selecting[0], testing[0]) if is_training(part.name)}):
        note(describe_training_split(trained).removesuffix("."))
    cuts = [(*selecting, request.limit), (*testing, request.limit)]
    if learn:
        cuts = [*halve_cut(*cuts.pop(0), note=note), *cuts]
    if settles is not None:
        rows = selecting[2] if settles == name else np.arange(len(parts[settles].labels))
        cuts.append((parts[settles], settles, rows, calibrate))
    return cuts, test_name is None


def open_scored_splits(
    source: DatasetSource, request: Request, classes: Sequence[str], note: Note
) -> tuple[dict[str, DatasetSplit], str, str | None]:
    """The split that selects and the one that reports, with their names; a split without labels does not report.

    Raises:
        MismatchError: their files number classes differently, and numbers decide.
    """
    name, test_name = choose_splits(list(source.split_files), request)
    parts = {name: DatasetSplit(source, name, request, classes, note)}
    if test_name is not None and not lacks_labels(source, test_name, request, classes):
        part = DatasetSplit(source, test_name, request, classes, note, scored=False)
        parts.update({test_name: part} if part.is_labelled else {})
    if test_name is not None and test_name not in parts:
        note(f"the split {test_name!r} has no labels, so it does not report, and {name!r} is halved")
        test_name = None
    require_same_numbering([found for part in parts.values() for found in part.lists], where=request.dataset)
    return parts, name, test_name


def lacks_labels(source: DatasetSource, name: str, request: Request, classes: Sequence[str]) -> bool:
    """Whether the footers of a split say that all its labels are -1, so that its files need not be pulled."""
    if source.kind != "parquet":
        return False
    rows = source.rows(name)
    facts = rows.metadata()
    where = one_line(f"{request.dataset}, split {name}")
    columns = Columns(source, name, rows.names(), facts, request, classes, where)
    label = columns.find_labels(columns.find_images(), missing=True)
    return label is None or all(fact.bounds.get(label) == (UNLABELLED, UNLABELLED) for fact in facts)


def mapping_of(request: Request) -> Mapping[str, str | int] | None:
    """What maps the dataset's classes to the model's, where a file does."""
    if request.mapping is not None or request.labels in (None, BY_NAME, BY_NUMBER):
        return request.mapping
    return read_mapping(str(request.labels))


def hash_content(source: DatasetSource, part: str, column: str, *more: str, files: Sequence[str] | None = None) -> str:
    """A hash of the files that the images of a split are in, of their column, and of what else is done to them."""
    return hashlib.sha256(" ".join([source.hash_content(part, files), column, *more]).encode()).hexdigest()


def hash_split(content: str, rows: NDArray[np.int64], labels: NDArray[np.int64]) -> str:
    """A hash of what a split holds: its files, rows and labels."""
    return hashlib.sha256(content.encode() + rows.tobytes() + labels.tobytes()).hexdigest()


def cut_splits(
    parts: Mapping[str, DatasetSplit], name: str, test_name: str | None
) -> list[tuple[DatasetSplit, str, NDArray[np.int64]]]:
    """The split that selects and the one that reports, or two halves of the first: part, title and rows of each."""
    if test_name is None:
        first, second = halve(parts[name].labels)
        return [(parts[name], f"{name}[first half]", first), (parts[name], f"{name}[second half]", second)]
    return [(part, part.name, np.arange(len(part.labels))) for part in (parts[name], parts[test_name])]


def halve_cut(
    part: DatasetSplit, title: str, rows: NDArray[np.int64], limit: int | None, *, note: Note
) -> list[tuple[DatasetSplit, str, NDArray[np.int64], int | None]]:
    """Two stratified halves of a cut, the first to learn from and the second to score on, which share its limit."""
    first, second = halve(part.labels[rows])
    note(f"a stratified half of {title!r} teaches the coefficients, labels included; the other half scores and ranks")
    mosts = (None, None) if limit is None else (limit - limit // 2, limit // 2)
    return [
        (part, f"{title}[learning half]", rows[first], mosts[0]),
        (part, f"{title}[scoring half]", rows[second], mosts[1]),
    ]


class DatasetSplit:
    """One split, its labels already in the model's order.

    One that is not `scored` may do without labels, which the Hub writes as -1 in every row. Where at most `most` of its
    images are wanted and few of its files hold as many, the others are not looked at, nor are labels.
    """

    def __init__(
        self,
        source: DatasetSource,
        name: str,
        request: Request,
        classes: Sequence[str],
        note: Note = lambda _: None,
        *,
        scored: bool = True,
        most: int | None = None,
    ) -> None:
        self._request, self._classes, self._note, self._source = request, classes, note, source
        self._task = request.task or SINGLE_LABEL
        self.name, self.where = name, one_line(f"{request.dataset}, split {name}")
        self._files = None if most is None else source.draw_files(name, most)
        self.rows = source.rows(name, self._files)
        if self._files is None and request.limit is None and not source.by_folder:
            self.rows.fetch()
        count = len(self.rows)
        if not count:
            raise UsageError("the split is empty", where=self.where, hint="another --split")
        promised = source.expected_rows.get(name)
        if self._files is None and promised not in (None, count):
            what = f"its card promises {promised} rows in the split {quoted(name)}, found {count}"
            raise SoupError(what, where=request.dataset, hint="a complete copy of the dataset")
        self._columns = Columns(source, name, self.rows.names(), self.rows.metadata(), request, classes, self.where)
        self.image = self._columns.find_images()
        self._mode = self._columns.find_mode(self.image)
        self.label: str | None = None
        self.labels, self.lists, self.labelled_by = np.zeros(count, np.int64), tuple[ClassList, ...](), ""
        self.is_labelled = self._files is None and (scored or self._has_labels())
        if self.is_labelled:
            self._match_labels()

    def _has_labels(self) -> bool:
        """Whether any row has a label."""
        label = self._columns.find_labels(self.image, missing=True)
        if label is None:
            return False
        values = [value for each in self._read_labels(label) for value in each]
        return len(set(values)) > 1 if label == FOLDERS else not self._task.is_unlabelled(values)

    def _read_labels(self, label: str) -> list[list[Any]]:
        """The labels of each file."""
        if label == FOLDERS:
            return [self.rows.read_folders(self.image)]
        if label == ONE_HOT:
            names, columns = self._columns.find_one_hot(), map(self.rows.read_column, self._columns.find_one_hot())
            return [_list_true_columns(names, list(each), self.where) for each in zip(*columns, strict=True)]
        return self.rows.read_column(label)

    def _match_labels(self) -> None:
        """Find the model's class of every row."""
        label = str(self._columns.find_labels(self.image))
        if label == FOLDERS and not self._has_labels():
            what = "there is no column of labels, and the images lie in no class folders"
            raise UsageError(what, where=self.where, hint="--label-column NAME, or a folder for each class")
        where = self.where if label in (FOLDERS, ONE_HOT) else f"{self.where}, column {one_line(label)}"
        asked, mapping = self._request.labels, mapping_of(self._request)
        columns = zip(self.rows.names(), self._read_labels(label), self._columns.list_classes(label), strict=True)
        found = self._task.match_labels(
            [FileLabels(*column) for column in columns], self._classes, where=where, asked=asked, mapping=mapping
        )
        self.label, self.labels, self.lists, self.labelled_by = label, found.numbers, found.lists, found.rule
        if found.rule != DEFAULT_RULE or asked:
            self._note(f"labels of the split {self.name!r}: {found.rule}")
        check_classes(self.labels, self._classes, where=self.where, note=self._note)
        if self._source.by_folder and label != FOLDERS and self.labels.ndim == 1:
            check_folders(self.rows.read_folders(self.image), self.labels, self._classes, where)

    def prepare(
        self,
        processor: Any,
        title: str,
        rows: NDArray[np.int64],
        limit: int | None,
        advance: Advance = lambda _: None,
        *,
        corruption: Corruption | None = None,
        home: Path | None = None,
    ) -> tuple[Split, PreparedImages]:
        """Decode and process the rows, or `limit` of them, once, into hfsoup's cache or `home`."""
        cut = limit is not None and limit < len(rows)
        rows = self._apply_limit(rows, limit)
        more = [corruption.key] if corruption else []
        content = hash_content(self._source, self.name, self.image, *more, files=self._files)
        where = f"{self.where}, column {one_line(self.image)}"
        found = prepare_images(
            rows.tolist(), lambda: self._read_images(rows), processor, content=content, where=where, advance=advance,
            note=self._note, mode=self._mode, change=corruption, home=home,
        )  # fmt: skip
        self._report_bad(found, len(rows), where)
        self._note_lost(found)
        kept = np.asarray(found.rows, np.int64)
        labels = self.labels[kept]
        if self.is_labelled:
            where = one_line(f"{self._request.dataset}, split {title}")
            check_classes(labels, self._classes, where=where, note=self._note, limited=cut)
        rule = f"{len(kept)} of {len(self.labels)} rows of {self._describe_extent()}"
        seal = hash_split(content, kept, labels)
        return Split(title, rule, seal, found.path, labels, kept, self.name, self.image, self.labelled_by), found

    def is_prepared(self, processor: Any, rows: NDArray[np.int64], limit: int | None) -> bool:
        """Whether `prepare` would find these rows in hfsoup's cache."""
        content = hash_content(self._source, self.name, self.image, files=self._files)
        return are_prepared(self._apply_limit(rows, limit).tolist(), processor, content=content, mode=self._mode)

    def _apply_limit(self, rows: NDArray[np.int64], limit: int | None) -> NDArray[np.int64]:
        return rows if limit is None or limit >= len(rows) else rows[limit_rows(self.labels[rows], limit)]

    def _note_lost(self, found: PreparedImages) -> None:
        """Say how many images are not seen as their files have them, for neither are they by those who use the soup."""
        if not found.lost:
            return
        rows, shares = zip(*found.lost, strict=True)
        self._note(
            f"{len(rows)} of {len(found.rows)} images of the split {self.name!r} have more than 8 bits a pixel, which"
            f" pipeline() cuts off and so does every score here: {sum(shares) / len(shares):.0%} of their pixels are"
            f" white or black only for that ({format_rows(rows)})"
        )

    def _describe_extent(self) -> str:
        """What the rows are counted in."""
        if self._files is None:
            return f"the split {self.name!r}"
        every = len(self._source.split_files[self.name])
        return f"{len(self._files)} of the {every} files of the split {self.name!r}, drawn by a hash of their places"

    def _read_images(self, rows: NDArray[np.int64]) -> Iterator[bytes | BadImageError]:
        """The encoded image of each row, or why there is none."""
        for cell in self.rows.read_cells(self.image, rows.tolist()):
            try:
                yield self._source.read_image(cell)
            except BadImageError as error:
                yield error

    def _report_bad(self, found: PreparedImages, total: int, where: str) -> None:
        """Images that cannot be used are an error, or left out and counted where that was asked for."""
        if not found.bad:
            return
        reasons = "".join(f"\n  row {row} of split {self.name}: {reason}" for row, reason in found.bad[:8])
        what = f"{len(found.bad)} of {total} images cannot be decoded or used"
        if not self._request.skip_bad_images or not found.rows:
            hint = "--skip-bad-images leaves them out and says so" if found.rows else "another --split"
            raise SoupError(f"{what}:{reasons}", where=where, hint=hint)
        rows = format_rows([row for row, _ in found.bad])
        self._note(f"{what} and are left out of the split {self.name!r}: {rows} ({found.bad[0][1]})")


class Columns:
    """The columns of a split, file by file: which one holds images, which labels, and the names of classes.

    Args:
        source: the dataset.
        split: the split's name.
        names: what the files are called.
        facts: what they say of themselves.
        request: what was asked for.
        classes: the model's class names.
        where: dataset and split, for errors.
    """

    def __init__(
        self,
        source: DatasetSource,
        split: str,
        names: Sequence[str],
        facts: Sequence[ShardMetadata],
        request: Request,
        classes: Sequence[str],
        where: str,
    ) -> None:
        self._names, self._request, self._classes, self._where = names, request, classes, where
        self._declared = source.declared_features(split)
        self._features = [self._merge_features(fact.features) for fact in facts]
        self._own = [fact.features for fact in facts]
        self._by_folder = source.by_folder

    def find_images(self) -> str:
        """The column of images: the one asked for, the one that is declared so, or the only one that may hold some.

        Raises:
            UsageError: there is none, or several.
        """
        from datasets import Image

        features = self._features[0]
        asked = self._request.image_column
        images = [name for name, feature in features.items() if isinstance(feature, Image)]
        able = images or [name for name, feature in features.items() if _may_hold_images(feature)]
        flag = "--image-column"
        name = (
            self._require_column(asked, able, flag) if asked else self._require_one(able, "Image", flag, list(features))
        )
        for file, columns in zip(self._names, self._features, strict=True):
            feature = columns.get(name)
            if not isinstance(feature, Image) and not _may_hold_images(feature):
                found = "no such column" if feature is None else type(feature).__name__
                where = f"{self._where}, column {one_line(name)}"
                hint = f"{flag} {shlex.quote(one_line(able[0]))}" if able and able[0] != name else ""
                raise UsageError(f"expected images, found {found}{self._in_file(file)}", where=where, hint=hint)
        return name

    def find_mode(self, image: str) -> str | None:
        """The Pillow mode that the files declare for a column of images.

        Raises:
            UsageError: they declare several.
        """
        found: dict[str | None, str] = {
            getattr(features[image], "mode", None): file
            for file, features in zip(self._names, self._features, strict=True)
        }
        if len(found) > 1:
            what = " and ".join(f"{mode or 'none'} in {quoted(file)}" for mode, file in found.items())
            where = f"{self._where}, column {one_line(image)}"
            raise UsageError(f"expected one mode of all images, found {what}", where=where, hint="files alike")
        return next(iter(found))

    def find_labels(self, image: str, *, missing: bool = False) -> str | None:
        """The column of labels: the one asked for, the only one of classes, or the folders that the images lie in.

        Args:
            image: the column of images.
            missing: whether None is an answer.

        Raises:
            UsageError: there is none, or several, or only some of the files have it.
        """
        features, task = self._features[0], self._request.task or SINGLE_LABEL
        asked = self._request.label_column
        classes = task.label_columns(features)
        if asked is None and len(classes) != 1 and task.one_hot and self.find_one_hot():
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
                able, "ClassLabel", "--label-column", [*usual, *(n for n in features if n != image)]
            )
        for file, columns in zip(self._names, self._features, strict=True):
            if name not in columns:
                what = f"there is no column {one_line(name)!r}{self._in_file(file)}"
                raise UsageError(what, where=self._where, hint="files with the same columns")
        return name

    def list_classes(self, label: str) -> list[tuple[str, ...] | None]:
        """What each file calls the class numbers of a column.

        Raises:
            MismatchError: a card beside the files calls them otherwise than a file does.
        """
        found: list[tuple[str, ...] | None] = []
        task = self._request.task or SINGLE_LABEL
        declared = task.class_names(self._declared.features.get(label))
        for file, own in zip(self._names, self._own, strict=True):
            names = task.class_names(own.get(label))
            if names and declared and list(names) != list(declared):
                what = f"{quoted(self._declared.name)} and {quoted(file)} number their classes differently"
                lists = f"{join_names(declared, 12)}\n  {join_names(names, 12)}"
                hint = "the names that the file has, in both"
                raise MismatchError(f"{what}:\n  {lists}", where=self._where, hint=hint)
            either = names or declared
            found.append(tuple(either) if either else None)
        return found if label != FOLDERS else [None]

    def find_one_hot(self) -> list[str]:
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
            raise UsageError(what, where=self._where, hint=f"{flag} {shlex.quote(one_line(near[0]))}" if near else "")
        return able[0]

    def _describe_columns(self) -> str:
        features = self._features[0].items()
        return one_line(", ".join(f"{name} ({type(feature).__name__})" for name, feature in features), 400)

    def _in_file(self, file: str) -> str:
        return f" in {quoted(file)}" if len(self._names) > 1 else ""


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
