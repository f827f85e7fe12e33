"""One split of a dataset: its labels in the order of the model's classes, its images decoded and processed once."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hfsoup.data.columns import FOLDERS, ONE_HOT, Columns
from hfsoup.data.corruptions import Corruption
from hfsoup.data.decoding import BadImageError
from hfsoup.data.labels import ClassList, check_classes, check_folders, format_rows
from hfsoup.data.pixels import PixelFile
from hfsoup.data.preprocessing import PreparedImages, are_prepared, prepare_images
from hfsoup.data.request import Request
from hfsoup.data.source import DatasetSource
from hfsoup.data.splits import is_training, limit_rows
from hfsoup.data.tasks import SINGLE_LABEL
from hfsoup.utils.errors import SoupError, UsageError
from hfsoup.utils.progress import Advance, Notify
from hfsoup.utils.text import one_line, quoted

DEFAULT_RULE = "by name"


@dataclass(frozen=True)
class Split:
    """Images of one split, ready for a model.

    `pixels` are the prepared images, float32 when they are read. `labels` are the model's class indices, one
    an image, or 0 and 1, images × classes. `rule` says which rows they are; `fingerprint` is a hash of data files,
    rows and labels. `rows` are the places of the images in the dataset's split `part`, in its column `column`;
    `labelled_by` says how the dataset's labels were matched with the model's classes.
    """

    name: str
    rule: str
    fingerprint: str
    pixels: PixelFile
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


class DatasetSplit:
    """One split of a dataset, its labels already in the order of the model's classes.

    Args:
        source: the dataset.
        name: the split's name there.
        request: what is asked of the dataset.
        classes: the model's class names.
        note: called with what the user should know.
        scored: whether it must have labels; one that need not may have -1 in every row, as test splits on the Hub do.
        most: how many images are wanted, to be used without labels: of a split of several files, only as many files
            are read as hold them. None for all images.

    Raises:
        UsageError: it is empty, or has no column of images or labels.
        MismatchError: its classes are not the model's.
        SoupError: its labels are incomplete, or rows are missing.
    """

    def __init__(
        self,
        source: DatasetSource,
        name: str,
        request: Request,
        classes: Sequence[str],
        note: Notify = lambda _: None,
        *,
        scored: bool = True,
        most: int | None = None,
    ) -> None:
        self._request, self._classes, self._note, self._source = request, classes, note, source
        self.task = request.task or SINGLE_LABEL
        self.name, self.where = name, one_line(f"{request.dataset}, split {name}")
        self._files = None if most is None else source.draw_files(name, most)
        self._rows = source.rows(name, self._files)
        if self._files is None and request.limit is None and not source.by_folder:
            self._rows.fetch()
        count = len(self._rows)
        if not count:
            raise UsageError("the split is empty", where=self.where, hint="another --split")
        expected = source.expected_rows.get(name)
        if self._files is None and expected not in (None, count):
            what = f"expected {expected} rows in the split {quoted(name)} as its card says, found {count}"
            raise SoupError(what, where=request.dataset, hint="a complete copy of the dataset")
        self._columns = Columns(source, name, self._rows, request, classes)
        self._image, self.mode = self._columns.image, self._columns.find_mode()
        self.labels, self.lists, self._rule = np.zeros(count, np.int64), tuple[ClassList, ...](), ""
        self.is_labelled = self._files is None and (scored or self._has_labels())
        if self.is_labelled:
            self._match_labels()

    def _has_labels(self) -> bool:
        """Whether any row has a label."""
        label = self._columns.find_labels(missing=True)
        if label is None:
            return False
        values = [value for file in self._columns.read_labels(label) for value in file.values]
        return len(set(values)) > 1 if label == FOLDERS else not self.task.is_unlabelled(values)

    def _match_labels(self) -> None:
        """Find the model's class of every row."""
        label = str(self._columns.find_labels())
        if label == FOLDERS and not self._has_labels():
            what = "there is no column of labels, and the images lie in no class folders"
            raise UsageError(what, where=self.where, hint="--label-column NAME, or a folder for each class")
        where = self.where if label in (FOLDERS, ONE_HOT) else f"{self.where}, column {one_line(label)}"
        model = self._request.model_classes(self._classes)
        found = self.task.match_labels(self._columns.read_labels(label), model, where=where)
        self.labels, self.lists, self._rule = found.labels, found.lists, found.rule
        if found.rule != DEFAULT_RULE or model.asked:
            self._note(f"labels of the split {self.name!r}: {found.rule}")
        check_classes(self.labels, self._classes, where=self.where, note=self._note)
        if self._source.by_folder and label != FOLDERS and self.labels.ndim == 1:
            check_folders(self._rows.read_folders(self._image), self.labels, self._classes, where)

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
        """Decode and process `rows`, or `limit` of them in equal shares of the classes, into hfsoup's cache.

        Args:
            processor: the ingredients' image processor.
            title: what the result is called, as in `validation[first half]`.
            rows: places of rows in the split, ascending.
            limit: the most images, None for all.
            advance: called with the number of images that just became ready.
            corruption: what to do to each decoded image before it is processed.
            home: the folder to write to instead of the cache.

        Raises:
            SoupError: images cannot be decoded and are not to be skipped, or all are of one class.
        """
        limited = limit is not None and limit < len(rows)
        rows = self._apply_limit(rows, limit)
        changes = [corruption.key] if corruption else []
        content = self._source.hash_images(self.name, self._image, *changes, files=self._files)
        where = f"{self.where}, column {one_line(self._image)}"
        found = prepare_images(
            rows.tolist(), lambda: self.read_images(rows), processor, content=content, where=where, advance=advance,
            note=self._note, mode=self.mode, change=corruption, home=home,
        )  # fmt: skip
        self._report_bad(found, len(rows), where)
        self._note_lost(found)
        usable = np.asarray(found.rows, np.int64)
        labels = self.labels[usable]
        if self.is_labelled:
            where = one_line(f"{self._request.dataset}, split {title}")
            check_classes(labels, self._classes, where=where, note=self._note, limited=limited)
        rule = f"{len(usable)} of {len(self.labels)} rows of {self._describe_extent()}"
        fingerprint = hash_split(content, usable, labels)
        return Split(title, rule, fingerprint, found.pixels, labels, usable, self.name, self._image, self._rule), found

    def is_prepared(self, processor: Any, rows: NDArray[np.int64], limit: int | None) -> bool:
        """Whether `prepare` would find these rows in hfsoup's cache."""
        content = self._source.hash_images(self.name, self._image, files=self._files)
        return are_prepared(self._apply_limit(rows, limit).tolist(), processor, content=content, mode=self.mode)

    def _apply_limit(self, rows: NDArray[np.int64], limit: int | None) -> NDArray[np.int64]:
        return rows if limit is None or limit >= len(rows) else rows[limit_rows(self.labels[rows], limit)]

    def _note_lost(self, found: PreparedImages) -> None:
        """Note images of more than 8 bits, which every score and `pipeline()` see cut off."""
        if not found.lost:
            return
        rows, shares = zip(*found.lost, strict=True)
        self._note(
            f"{len(rows)} of {len(found.rows)} images of the split {self.name!r} have more than 8 bits a channel, which"
            f" are cut off here as in pipeline(): {sum(shares) / len(shares):.0%} of their pixels become white or black"
            f" ({format_rows(rows)})"
        )

    def _describe_extent(self) -> str:
        """What the rows are counted in."""
        if self._files is None:
            return f"the split {self.name!r}"
        every = len(self._source.split_files[self.name])
        return f"{len(self._files)} of the {every} files of the split {self.name!r}, chosen by a hash of their position"

    def read_images(self, rows: NDArray[np.int64]) -> Iterator[bytes | BadImageError]:
        """The encoded image of each row, or why there is none."""
        for cell in self._rows.read_cells(self._image, rows.tolist()):
            try:
                yield self._source.read_image(cell)
            except BadImageError as error:
                yield error

    def _report_bad(self, found: PreparedImages, total: int, where: str) -> None:
        """Refuse images that cannot be decoded, or note them if `--skip-bad-images` leaves them out."""
        if not found.bad:
            return
        reasons = "".join(f"\n  row {row} of split {self.name}: {reason}" for row, reason in found.bad[:8])
        what = f"{len(found.bad)} of {total} images cannot be decoded or used"
        if not self._request.skip_bad_images or not found.rows:
            hint = "--skip-bad-images leaves them out" if found.rows else "another --split"
            raise SoupError(f"{what}:{reasons}", where=where, hint=hint)
        rows = format_rows([row for row, _ in found.bad])
        self._note(f"{what} and are left out of the split {self.name!r}: {rows} ({found.bad[0][1]})")


def hash_split(content: str, rows: NDArray[np.int64], labels: NDArray[np.int64]) -> str:
    """A hash of what a split holds: its files, rows and labels."""
    return hashlib.sha256(content.encode() + rows.tobytes() + labels.tobytes()).hexdigest()
