"""Start here: the images of a dataset that a bake needs, for selection, test, calibration and training."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hfsoup.checkpoints.processor import describe_backend
from hfsoup.data.columns import Columns
from hfsoup.data.corruptions import Corruption
from hfsoup.data.dataset_split import DatasetSplit, Split
from hfsoup.data.labels import require_same_numbering
from hfsoup.data.leakage import check_leakage
from hfsoup.data.loading import open_dataset
from hfsoup.data.preprocessing import PreparedImages
from hfsoup.data.request import Request
from hfsoup.data.source import DatasetSource
from hfsoup.data.splits import (
    choose_calibration_split,
    choose_splits,
    describe_training_split,
    halve,
    is_training,
    limit_rows,
)
from hfsoup.utils.errors import UsageError
from hfsoup.utils.progress import Advance, Notify


@dataclass(frozen=True)
class Images:
    """The selection split, the test split and the others that a bake asked for, and where they come from.

    `revision` is a commit on the Hub; `backend` is the library that resized the images, with its version; `halved` says
    that selection and test are halves of one split of the dataset. `calibration` are images to estimate batch norms on,
    `learning` those that coefficients are learned from, `unlabelled` those that a network is trained on, None if not
    asked for. `mapping` maps the dataset's classes to the model's, if a file of `--labels` did; `seen` are
    all but the test images as they were prepared, by their use.
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
    seen: Mapping[str, PreparedImages] = field(default_factory=dict, repr=False)

    @property
    def content(self) -> list[str | None]:
        """What identifies the images and labels of all splits."""
        every = (self.selection, self.test, self.calibration, self.learning, self.unlabelled)
        return [split.fingerprint if split else None for split in every]


@dataclass(frozen=True)
class Cut:
    """Rows of a split of the dataset under a title, at most `limit` of them, which are drawn in equal shares."""

    split: DatasetSplit
    title: str
    rows: NDArray[np.int64]
    limit: int | None

    def __len__(self) -> int:
        return len(self.rows) if self.limit is None else min(len(self.rows), self.limit)

    def prepare(
        self,
        processor: Any,
        advance: Advance = lambda _: None,
        *,
        corruption: Corruption | None = None,
        home: Path | None = None,
    ) -> tuple[Split, PreparedImages]:
        """Decode and process its images as `DatasetSplit.prepare` does."""
        return self.split.prepare(
            processor, self.title, self.rows, self.limit, advance, corruption=corruption, home=home
        )

    def is_prepared(self, processor: Any) -> bool:
        """Whether `prepare` would find all its images in hfsoup's cache."""
        return self.split.is_prepared(processor, self.rows, self.limit)


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
        learn: halve the selection split once more, into images to learn coefficients from and images to score on.
        advance: called with the number of images that just became ready.
        expect: called once with the number of images that there will be.

    Raises:
        UsageError: no such split, column or config.
        MismatchError: the dataset's class names are not the model's.
        SoupError: images or labels that would make the scores wrong.
    """
    notes: dict[str, None] = {}
    with open_dataset(request) as source:
        cuts = _choose_cuts(source, request, classes, calibrate, learn, notes.setdefault)
        expect(sum(map(len, cuts.values())))
        done = {role: cut.prepare(processor, advance) for role, cut in cuts.items()}
        apart = [role for role in done if role != "test" and not _is_within_selection(role, cuts)]
        seen = {role: done[role][1] for role in apart}
        for use, prepared in seen.items():
            check_leakage(prepared, done["test"][1], request, note=notes.setdefault, use=use)
        source.files.require_unchanged()
    splits = {role: split for role, (split, _) in done.items()}
    return Images(
        request.dataset,
        request.config,
        source.revision,
        splits["selection"],
        splits["test"],
        halved=cuts["test"].split is cuts["selection"].split,
        notes=tuple(notes),
        backend=describe_backend(processor),
        calibration=splits.get("calibration"),
        learning=splits.get("learning"),
        mapping=request.read_class_mapping(),
        seen=seen,
    )


def _is_within_selection(role: str, cuts: Mapping[str, Cut]) -> bool:
    """Whether these are calibration images that also select."""
    return role == "calibration" and cuts[role].split is cuts["selection"].split


def find_prepared_splits(
    request: Request, processor: Any, classes: Sequence[str], *, calibrate: int = 0, learn: bool = False
) -> frozenset[str]:
    """The names of the splits whose images `load_images` would find in the cache without a download.

    Empty unless an earlier bake cached the columns of the dataset's files.
    """
    with open_dataset(request, to_cache=False) as source:
        names = choose_splits(list(source.split_files), request)
        if not all(source.rows(name).are_cached() for name in names if name):
            return frozenset()
        cuts = _choose_cuts(source, request, classes, calibrate, learn, lambda _: None).values()
        lacking = {cut.split.name for cut in cuts if not cut.is_prepared(processor)}
        return frozenset(cut.split.name for cut in cuts) - lacking


def load_unlabelled(
    request: Request,
    processor: Any,
    classes: Sequence[str],
    most: int,
    *,
    note: Callable[[str], None] = lambda _: None,
    advance: Advance = lambda _: None,
) -> Split:
    """At most `most` images of the calibration split to train a network on, drawn without their labels.

    Raises:
        UsageError: no such split, or it is the test split.
        SoupError: more than one test image in a hundred is among them, or there are too few to train on.
    """
    with open_dataset(request) as source:
        selection, test = cut_scored_splits(source, request, classes)
        name = _choose_calibration_split(source, request, selection, test, lambda _: None)
        if name == selection.split.name:
            note("the selection images are used for training too, without their labels, which raises their score")
            split, rows = selection.split, selection.rows
        else:
            split = DatasetSplit(source, name, request, classes, note, scored=False, most=most)
            rows = np.arange(len(split.labels))
        rows = rows[limit_rows(np.zeros(len(rows), np.int64), most)]
        if len(rows) < 2:
            raise UsageError(f"expected at least 2 images to train on, found {len(rows)}", where=request.dataset)
        found, seen = Cut(split, name, rows, None).prepare(processor, advance)
        check_leakage(seen, test.prepare(processor)[1], request, note=note, use="training")
        source.files.require_unchanged()
    return found


def cut_scored_splits(
    source: DatasetSource, request: Request, classes: Sequence[str], note: Notify = lambda _: None
) -> tuple[Cut, Cut]:
    """The selection and the test split: two splits of the dataset, or halves of one if no other has labels.

    Raises:
        MismatchError: their files number classes differently, and only numbers match them with the model's.
    """
    name, test_name = choose_splits(list(source.split_files), request)
    selection, test = DatasetSplit(source, name, request, classes, note), None
    if test_name is not None and not _lacks_labels(source, test_name, request, classes):
        found = DatasetSplit(source, test_name, request, classes, note, scored=False)
        test = found if found.is_labelled else None
    if test_name is not None and test is None:
        note(f"the split {test_name!r} has no labels, so {name!r} is halved for selection and test")
    lists = [found for split in (selection, test) if split for found in split.lists]
    require_same_numbering(lists, where=request.dataset)
    if test is not None:
        whole = [Cut(split, split.name, np.arange(len(split.labels)), request.limit) for split in (selection, test)]
        return whole[0], whole[1]
    first, second = halve(selection.labels)
    return (
        Cut(selection, f"{name}[first half]", first, request.limit),
        Cut(selection, f"{name}[second half]", second, request.limit),
    )


def _lacks_labels(source: DatasetSource, name: str, request: Request, classes: Sequence[str]) -> bool:
    """Whether the footers of a split say that it has no labels, so that its files need no download."""
    return source.kind == "parquet" and Columns(source, name, source.rows(name), request, classes).lacks_labels()


def _choose_cuts(
    source: DatasetSource, request: Request, classes: Sequence[str], calibrate: int, learn: bool, note: Notify
) -> dict[str, Cut]:
    """What to prepare, under the name of the field of `Images` that it becomes."""
    selection, test = cut_scored_splits(source, request, classes, note)
    cuts = {"selection": selection, "test": test}
    if calibrate:
        cuts["calibration"] = _cut_calibration(source, request, classes, selection, test, calibrate, note)
    if selection.split is test.split:
        name, strata = selection.split.name, selection.split.task.strata
        note(f"no separate test split: half of {name!r} is for selection, the other for test, stratified {strata}")
    for name in sorted({cut.split.name for cut in (selection, test) if is_training(cut.split.name)}):
        note(describe_training_split(name).removesuffix("."))
    if learn:
        cuts["learning"], cuts["selection"] = _halve_cut(selection, note)
    return {role: cuts[role] for role in ("learning", "selection", "test", "calibration") if role in cuts}


def _cut_calibration(
    source: DatasetSource,
    request: Request,
    classes: Sequence[str],
    selection: Cut,
    test: Cut,
    most: int,
    note: Notify,
) -> Cut:
    """At most `most` images of the calibration split; those of the selection split alone if that is it."""
    name = _choose_calibration_split(source, request, selection, test, note)
    if name == selection.split.name:
        return Cut(selection.split, name, selection.rows, most)
    split = DatasetSplit(source, name, request, classes, note, scored=False, most=most)
    return Cut(split, name, np.arange(len(split.labels)), most)


def _choose_calibration_split(source: DatasetSource, request: Request, selection: Cut, test: Cut, note: Notify) -> str:
    """`choose_calibration_split` for splits that are cut."""
    apart = test.split.name if test.split is not selection.split else None
    return choose_calibration_split(list(source.split_files), request, selection.split.name, apart, note)


def _halve_cut(cut: Cut, note: Notify) -> tuple[Cut, Cut]:
    """Two stratified halves of a cut, the first to learn from and the second to score on, which share its limit."""
    first, second = halve(cut.split.labels[cut.rows])
    note(
        f"coefficients are learned from a stratified half of {cut.title!r} and its labels; the other half scores and"
        " ranks"
    )
    limits = (None, None) if cut.limit is None else (cut.limit - cut.limit // 2, cut.limit // 2)
    return (
        Cut(cut.split, f"{cut.title}[learning half]", cut.rows[first], limits[0]),
        Cut(cut.split, f"{cut.title}[scoring half]", cut.rows[second], limits[1]),
    )
