"""What the user asks of a dataset: its name, splits, columns, limit and how its labels are matched."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hfsoup.data.class_names import ModelClasses
from hfsoup.data.label_mapping import BY_NAME, BY_NUMBER, read_mapping

if TYPE_CHECKING:
    from hfsoup.data.tasks.task import Task

NO_SPLIT = "none"
"""The `test_split` that stands for none: the selection split is halved."""


@dataclass(frozen=True)
class Request:
    """What the user asked of a dataset.

    `revision` is a branch, tag or commit on the Hub, None for the head; `labels` is `by-name`, `by-number` or a file
    that maps the dataset's classes to the model's, and `mapping` is what that file said at an earlier time; `task` is
    that of the models, None for one class an image.
    """

    dataset: str
    config: str | None = None
    split: str | None = None
    test_split: str | None = None
    image_column: str | None = None
    label_column: str | None = None
    limit: int | None = None
    revision: str | None = None
    skip_bad_images: bool = False
    calibration_split: str | None = None
    labels: str | None = None
    mapping: Mapping[str, str | int] | None = None
    allow_duplicates: bool = False
    task: Task | None = None

    def model_classes(self, names: Sequence[str]) -> ModelClasses:
        """The classes of a model, to be matched with those of the dataset as this request says.

        Raises:
            UsageError: the file that `labels` names cannot be read.
        """
        return ModelClasses(names, self.labels, self.read_class_mapping())

    def read_class_mapping(self) -> Mapping[str, str | int] | None:
        """What maps the dataset's classes to the model's, from `mapping` or the file that `labels` names; else None.

        Raises:
            UsageError: the file cannot be read.
        """
        if self.mapping is not None or self.labels in (None, BY_NAME, BY_NUMBER):
            return self.mapping
        return read_mapping(str(self.labels))


def split_revision(dataset: str) -> tuple[str, str | None]:
    """A dataset's name and the revision after its `@`; a path on this disk has none."""
    # A record's dataset may be no path at all, which pathlib raises errors for.
    if "@" not in dataset or os.path.exists(os.path.expanduser(dataset)):  # noqa: PTH110, PTH111
        return dataset, None
    name, _, revision = dataset.partition("@")
    return name, revision or None
