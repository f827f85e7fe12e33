"""Further test images: the test split with corruptions, and other datasets of the same classes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from shutil import rmtree
from typing import Any

import numpy as np

from hfsoup.checkpoints.processor import describe_backend
from hfsoup.data.corruptions import Corruption
from hfsoup.data.dataset_split import DatasetSplit, Split
from hfsoup.data.images import Images, cut_scored_splits
from hfsoup.data.leakage import check_leakage
from hfsoup.data.loading import open_dataset, open_workspace
from hfsoup.data.preprocessing import PreparedImages
from hfsoup.data.preview import SplitSize, is_countable, measure_split
from hfsoup.data.request import Request
from hfsoup.data.splits import describe_training_split, is_training
from hfsoup.utils.errors import UsageError
from hfsoup.utils.text import one_line


def corrupt_test_split(
    request: Request, processor: Any, classes: Sequence[str], corruptions: Sequence[Corruption]
) -> Iterator[Split]:
    """The test split of `load_images` under each corruption in turn; its pixels are deleted with the next."""
    with open_dataset(request) as source, open_workspace() as work:
        _, test = cut_scored_splits(source, request, classes)
        for corruption in corruptions:
            home = work / corruption.name
            home.mkdir()
            yield test.prepare(processor, corruption=corruption, home=home)[0]
            rmtree(home)


def measure_other_dataset(request: Request) -> SplitSize:
    """The size of the test split of another dataset, which must exist; nothing of it is cached.

    Raises:
        UsageError: datasets cannot load it, or it has no such split.
        HubError: the Hub refuses or cannot be reached.
    """
    with open_dataset(request, to_cache=False) as source:
        name = _choose_test_split(list(source.split_files), request)
        return measure_split(source, name) if is_countable(source) else SplitSize(None, 0, 0)


def _choose_test_split(names: Sequence[str], request: Request) -> str:
    """The split of another dataset to test on: its test split, else the usual or only one."""
    usual = [name for name in ("test", "validation", "valid", "val", "dev") if name in names]
    if not usual and len(names) != 1:
        what = f"expected a split called test, or a single one, found {one_line(', '.join(names))}"
        raise UsageError(what, where=request.dataset, hint="a dataset with a test split")
    return [*usual, *names][0]


def load_other_dataset(
    request: Request, processor: Any, classes: Sequence[str], seen: Mapping[str, PreparedImages]
) -> Images:
    """Another dataset of the same classes to test on, as both splits: its test split, else the usual or only one.

    Raises:
        UsageError: no such split or column.
        MismatchError: the dataset's class names are not the model's.
        SoupError: more than one image in a hundred is also a selection image, or its labels or images are unusable.
    """
    notes: dict[str, None] = {}
    with open_dataset(request) as source:
        name = _choose_test_split(list(source.split_files), request)
        if is_training(name):
            notes.setdefault(describe_training_split(f"{request.dataset}, split {name}").removesuffix("."))
        part = DatasetSplit(source, name, request, classes, notes.setdefault)
        split, held = part.prepare(processor, name, np.arange(len(part.labels)), request.limit)
        for use, prepared in seen.items():
            check_leakage(prepared, held, request, note=notes.setdefault, use=use)
        source.files.require_unchanged()
    return Images(
        request.dataset, request.config, source.revision, split, split, halved=False, notes=tuple(notes),
        backend=describe_backend(processor),
    )  # fmt: skip
