"""Other images to report on: the test split as it might arrive, and further datasets of the same classes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from shutil import rmtree
from typing import Any

import numpy as np

from hfsoup.checkpoints.model_inputs import describe_backend
from hfsoup.data.corruptions import Corruption
from hfsoup.data.images import DatasetSplit, Images, Split, cuts_of, scored_parts
from hfsoup.data.leakage import apart
from hfsoup.data.preprocessing import Prepared
from hfsoup.data.request import Request
from hfsoup.data.source import opened, workspace
from hfsoup.data.splits import is_training, trained_on
from hfsoup.utils.errors import UsageError
from hfsoup.utils.text import one_line


def corrupted(
    request: Request, processor: Any, classes: Sequence[str], corruptions: Sequence[Corruption]
) -> Iterator[Split]:
    """The test split of `load_images` under each corruption in turn; its pixels go when the next one is asked for."""
    with opened(request) as source, workspace() as work:
        part, title, rows = cuts_of(*scored_parts(source, request, classes, lambda _: None))[-1]
        for corruption in corruptions:
            home = work / corruption.name
            home.mkdir()
            yield part.prepare(processor, title, rows, request.limit, corruption=corruption, home=home)[0]
            rmtree(home)


def look_at_other(request: Request) -> None:
    """See that another dataset is there and has a split to report on; nothing of it is kept.

    Raises:
        UsageError: datasets cannot load it, or it has no such split.
        HubError: the Hub refuses or cannot be reached.
    """
    with opened(request, kept=False) as source:
        _reporting(list(source.parts), request)


def _reporting(names: Sequence[str], request: Request) -> str:
    """The split of another dataset that reports: its test split, else the usual or only one."""
    usual = [name for name in ("test", "validation", "valid", "val", "dev") if name in names]
    if not usual and len(names) != 1:
        what = f"expected a split called test, or a single one, found {one_line(', '.join(names))}"
        raise UsageError(what, where=request.dataset, hint="a dataset with a test split")
    return [*usual, *names][0]


def load_other(request: Request, processor: Any, classes: Sequence[str], seen: Sequence[Prepared]) -> Images:
    """Another dataset of the same classes to report on, as both splits: its test split, else the usual or only one.

    Raises:
        UsageError: no such split or column.
        MismatchError: the dataset's class names are not the model's.
        SoupError: more than one image in a hundred is among those that select, or they would make the scores wrong.
    """
    notes: dict[str, None] = {}
    with opened(request) as source:
        name = _reporting(list(source.parts), request)
        if is_training(name):
            notes.setdefault(trained_on(f"{request.dataset}, split {name}").removesuffix("."))
        part = DatasetSplit(source, name, request, classes, notes.setdefault)
        split, held = part.prepare(processor, name, np.arange(len(part.labels)), request.limit)
        for prepared in seen:
            apart(prepared, held, request, note=notes.setdefault)
        source.files.require_unchanged()
    return Images(
        request.dataset, request.config, source.revision, split, split, halved=False, notes=tuple(notes),
        backend=describe_backend(processor),
    )  # fmt: skip
