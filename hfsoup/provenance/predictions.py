"""evaluation.json: what soup and best ingredient said of every test image, for a report; and the pictures beside it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from hfsoup.checkpoints.inspection import MAX_CLASSES
from hfsoup.utils.errors import SoupError

if TYPE_CHECKING:
    from hfsoup.data.tasks.task import Calibration, Predicted
    from hfsoup.provenance.result import BakeResult

FILE_NAME = "evaluation.json"
MAX_BYTES = 24 << 20
MAX_CELLS = 1 << 27
"""The most images × classes of multi-label predictions."""
Index = Annotated[int, Field(ge=0, lt=1 << 53)]
"""Below what every program reads as the same number from JSON."""
Text = Annotated[str, Field(max_length=4096)]


class CalibrationRecord(BaseModel):
    """Confidences in equal bins from 0 to 1: how many, how many of them right, and their mean."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    count: Annotated[list[Index], Field(min_length=1, max_length=100)]
    right: list[Index]
    confidence: list[Annotated[float, Field(ge=0, le=1)]]

    @model_validator(mode="after")
    def _whole(self) -> CalibrationRecord:
        if not len(self.count) == len(self.right) == len(self.confidence):
            raise ValueError("expected as many counts as bins")
        if any(right > count for right, count in zip(self.right, self.count, strict=True)):
            raise ValueError("more confidences are right than there are")
        return self


class CalibrationPair(BaseModel):
    """Those of the soup and those of its best ingredient."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    soup: CalibrationRecord
    best: CalibrationRecord

    @model_validator(mode="after")
    def _same_bins(self) -> CalibrationPair:
        if len(self.soup.count) != len(self.best.count):
            raise ValueError("expected the same bins of both")
        return self


class TestPredictions(BaseModel):
    """Test images and what was said of them.

    `rows` are the images' places in the dataset's split `part`, in its column `column`; `labels`, `soup` and
    `best` are their classes as indices into `classes`: what is true, and what the soup and the ingredient number
    `best_ingredient` predict. Of a single-label model that is one class an image, of a multi-label one a list.
    `calibration` counts the confidences of the likeliest class of every image, or of every class of every image; older
    records have none.
    """

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    part: Text
    column: Text
    classes: Annotated[list[Text], Field(min_length=1)]
    best_ingredient: Index
    rows: Annotated[list[Index], Field(min_length=1)]
    labels: list[Index] | list[list[Index]]
    soup: list[Index] | list[list[Index]]
    best: list[Index] | list[list[Index]]
    calibration: CalibrationPair | None = None

    @model_validator(mode="after")
    def _whole(self) -> TestPredictions:
        lists = not all(isinstance(one, int) for one in self.labels)
        if len(self.classes) > MAX_CLASSES or (lists and len(self.classes) * len(self.rows) > MAX_CELLS):
            raise ValueError(f"{len(self.rows)} images of {len(self.classes)} classes are too many")
        groups: dict[str, Sequence[Any]] = {"labels": self.labels, "soup": self.soup, "best": self.best}
        for name, found in groups.items():
            if len(found) != len(self.rows):
                raise ValueError(f"expected {len(self.rows)} {name}, found {len(found)}")
            most = max(max(list_classes(one), default=0) for one in found)
            if most >= len(self.classes):
                raise ValueError(f"expected {name} below {len(self.classes)}, found {most}")
        total = len(self.rows) * (len(self.classes) if lists else 1)
        for side in (self.calibration.soup, self.calibration.best) if self.calibration else ():
            if sum(side.count) != total:
                raise ValueError(f"expected {total} confidences, found {sum(side.count)}")
        return self

    def label_array(self) -> NDArray[np.int64]:
        """The labels as a split holds them: one index an image, or images × classes of 0 and 1."""
        if all(isinstance(one, int) for one in self.labels):
            return np.asarray(self.labels, np.int64)
        found = np.zeros((len(self.rows), len(self.classes)), np.int64)
        for row, one in enumerate(self.labels):
            found[row, list(list_classes(one))] = 1
        return found

    def text(self) -> str:
        """The file's content, one key a line."""
        lines = [f"{json.dumps(k)}: {json.dumps(v, ensure_ascii=False)}" for k, v in self.model_dump().items()]
        return "{\n" + ",\n".join(lines) + "\n}\n"


def list_classes(named: Any) -> tuple[int, ...]:
    """The classes that are true of an image or predicted: one of a single-label model, else any number."""
    return (named,) if isinstance(named, int) else tuple(named)


def record_predictions(soup: BakeResult) -> TestPredictions | None:
    """The record of a soup; None of one that was not tested."""
    seen, images = soup.evaluation.evidence, soup.images
    if seen is None or images is None or soup.best is None:
        return None
    soup_bins, best_bins = map(_record_calibration, seen.calibration)
    return TestPredictions(
        part=images.test.part,
        column=images.test.column,
        classes=list(soup.family.labels),
        best_ingredient=soup.best,
        rows=images.test.rows.tolist(),
        labels=soup.task.list_true(images.test.labels),
        soup=_listed(seen.soup),
        best=_listed(seen.best),
        calibration=CalibrationPair(soup=soup_bins, best=best_bins),
    )


def _record_calibration(found: Calibration) -> CalibrationRecord:
    return CalibrationRecord(count=[*found.count], right=[*found.right], confidence=[*found.confidence])


def _listed(named: Sequence[Predicted]) -> Any:
    return [one if isinstance(one, int) else list(one) for one in named]


def parse_predictions(data: bytes, *, where: str) -> TestPredictions:
    """The record in a file, which may come from anyone.

    Raises:
        SoupError: it is not one that hfsoup wrote.
    """
    try:
        return TestPredictions.model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))[:200]
        raise SoupError(f"{FILE_NAME} is damaged: {place}: {first['msg']}", where=where) from error
