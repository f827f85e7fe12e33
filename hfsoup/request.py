"""What is asked of a dataset."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Request:
    """What the user asked of a dataset; `revision` is a commit on the Hub, None for the head."""

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
