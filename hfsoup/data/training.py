"""A split to train on: its images as they are encoded, its labels, and the classes that they are of."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from numpy.typing import NDArray

from hfsoup.data.columns import Columns
from hfsoup.data.dataset_split import DatasetSplit
from hfsoup.data.decoding import BadImageError, decode
from hfsoup.data.loading import open_dataset
from hfsoup.data.preview import SplitSize, is_countable, measure_split
from hfsoup.data.request import Request
from hfsoup.data.source import DatasetSource
from hfsoup.data.splits import choose_splits, require_split
from hfsoup.utils.errors import SoupError, UsageError
from hfsoup.utils.hashing import hash_bytes
from hfsoup.utils.progress import Advance, Notify

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class TrainingSplit:
    """The images of a split in one file, and the class of each; `revision` is the dataset's commit on the Hub.

    `ends` are the places in the file where each image ends; `mode` is the Pillow mode that the dataset declares.
    """

    name: str
    revision: str | None
    classes: tuple[str, ...]
    labels: NDArray[np.int64]
    ends: NDArray[np.int64]
    mode: str | None
    file: BinaryIO = field(repr=False)

    def __len__(self) -> int:
        return len(self.labels)

    def hash_content(self) -> str:
        """The hexadecimal BLAKE3 of all that a training sees: the classes, and each image with its label, in order."""
        facts = json.dumps([self.mode, self.classes, self.labels.tolist(), self.ends.tolist()])
        return hash_bytes(facts.encode(), self.file)

    def read_picture(self, row: int) -> Image:
        """The image of a row as RGB, as `transformers.pipeline` has it."""
        begin = int(self.ends[row - 1]) if row else 0
        self.file.seek(begin)
        return decode(self.file.read(int(self.ends[row]) - begin), self.mode).picture


def load_training_split(
    request: Request, name: str, file: BinaryIO, *, note: Notify, advance: Advance = lambda _: None
) -> TrainingSplit:
    """Load a split that a bake neither selects on nor tests on.

    Args:
        request: the dataset, with the splits to select and test on that a bake will be given.
        name: the split to train on.
        file: an empty file to write the images to, open for reading and writing.
        note: called with what the user should know.
        advance: called with the number of images that just became ready.

    Raises:
        UsageError: no such split or column, or a bake takes it to select or test on.
        SoupError: images cannot be decoded, or labels are missing.
    """
    with open_dataset(request) as source:
        _require_training_split(source, name, request)
        classes = _read_classes(source, name, request)
        split = DatasetSplit(source, name, request, classes, note)
        rows, ends = _copy_images(split, request, file, note, advance)
        source.files.require_unchanged()
        return TrainingSplit(name, source.revision, classes, split.labels[rows], ends, split.mode, file)


def measure_training_split(request: Request, name: str) -> SplitSize | None:
    """The size of a split that a bake neither selects on nor tests on, None if unknown before its download.

    Raises:
        UsageError: no such split, or a bake takes it to select or test on.
    """
    with open_dataset(request, to_cache=False) as source:
        _require_training_split(source, name, request)
        return measure_split(source, name) if is_countable(source) else None


def _require_training_split(source: DatasetSource, name: str, request: Request) -> None:
    splits = list(source.split_files)
    require_split(name, splits, request, "--train-split", fit=splits)
    if name in choose_splits(splits, request):
        what = f"a bake selects or tests on the split {name!r}, so no run may train on it"
        raise UsageError(what, where=request.dataset, hint="another --train-split, --split or --test-split")


def _read_classes(source: DatasetSource, name: str, request: Request) -> tuple[str, ...]:
    """The names of the classes as the dataset declares them; else its labels, sorted."""
    columns = Columns(source, name, source.rows(name), request, ())
    files = columns.read_labels(str(columns.find_labels()))
    if files[0].names is not None:
        return files[0].names
    values = {value for one in files for value in one.values if value is not None}
    if all(isinstance(value, int) for value in values):
        return tuple(map(str, range(max(values, default=0) + 1)))
    return tuple(sorted(map(str, values)))


def _copy_images(
    split: DatasetSplit, request: Request, file: BinaryIO, note: Notify, advance: Advance
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Write every image that can be decoded; their rows, and where each ends in the file."""
    rows, sizes, bad = list[int](), list[int](), list[str]()
    for row, data in enumerate(split.read_images(np.arange(len(split.labels)))):
        try:
            if isinstance(data, BadImageError):
                raise data
            decode(data, split.mode)
        except BadImageError as error:
            bad.append(f"row {row}: {error}")
        else:
            sizes.append(file.write(data))
            rows.append(row)
        advance(1)
    if bad:
        what = f"{len(bad)} of {len(split.labels)} images cannot be decoded or used: {'; '.join(bad[:3])}"
        if not request.skip_bad_images or not rows:
            raise SoupError(what, where=split.where, hint="--skip-bad-images leaves them out")
        note(f"{what}; left out")
    return np.array(rows, np.int64), np.cumsum(sizes, dtype=np.int64)
