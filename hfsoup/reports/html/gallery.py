"""The test images on which soup and best ingredient differ, read again from the dataset, as small pictures."""

from __future__ import annotations

import io
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hfsoup.data.decoding import BadImageError, decode
from hfsoup.data.request import Request
from hfsoup.hub.notices import notify_listener
from hfsoup.utils.errors import MismatchError, SoupError
from hfsoup.utils.text import one_line

if TYPE_CHECKING:
    from PIL.Image import Image

    from hfsoup.provenance.predictions import TestPredictions
    from hfsoup.reports.html.load import ReportData

MOST, SIDE, SMALL = 40, 144, 64


@dataclass(frozen=True)
class Tile:
    """A picture as a data URI, and the place of its image among the test images; `pixels` where it is enlarged."""

    place: int
    picture: str
    pixels: bool


@dataclass(frozen=True)
class Gallery:
    """Pictures, or in `missing` why there are none."""

    tiles: tuple[Tile, ...]
    missing: str


def find_differences(seen: TestPredictions) -> list[int]:
    """The places among the test images at which the two name different classes."""
    return [n for n, (soup, best) in enumerate(zip(seen.soup, seen.best, strict=True)) if soup != best]


def load_gallery(found: ReportData) -> Gallery:
    """Up to 40 of the images on which the two differ, evenly spaced among them."""
    seen, dataset = found.seen, found.record.dataset
    if seen is None or dataset is None:
        return Gallery((), "")
    if dataset.revision is None and not found.local:
        return Gallery((), "The images were in a folder of whoever baked this soup, so they are not shown.")
    every = find_differences(seen)
    places = [every[n * len(every) // MOST] for n in range(MOST)] if len(every) > MOST else every
    if not places:
        return Gallery((), "")
    request = Request(dataset.id, dataset.config, revision=dataset.revision)
    try:
        return Gallery(tuple(_tiles(seen, places, request, dataset.test.fingerprint)), "")
    except MismatchError as error:
        return Gallery((), f"The images could not be read again: {error.what}.")
    except SoupError as error:
        # A report may be published, and what a disk or the Hub answers may be for the reader's eyes only.
        notify_listener(f"the images could not be read again: {one_line(error.what, 300)}")
        return Gallery((), "The images could not be read again.")


def _tiles(seen: TestPredictions, places: Sequence[int], request: Request, expected: str) -> list[Tile]:
    from hfsoup.data.dataset_split import hash_split
    from hfsoup.data.loading import open_dataset

    with open_dataset(request) as source:
        if seen.part not in source.split_files:
            raise MismatchError("the dataset has no such split any more")
        table = source.rows(seen.part)
        rows, labels = np.asarray(seen.rows, np.int64), seen.label_array()
        content = source.hash_images(seen.part, seen.column)
        if hash_split(content, rows, labels) != expected or rows.max() >= len(table):
            raise MismatchError("the dataset is not the one that was scored")
        cells = table.read_cells(seen.column, [seen.rows[n] for n in places])
        return [_tile(n, source.read_image(cell)) for n, cell in zip(places, cells, strict=True)]


def _tile(place: int, data: bytes) -> Tile:
    try:
        image = decode(data).picture
    except BadImageError as error:
        raise SoupError(f"an image {error}") from error
    small = max(image.size) <= SMALL
    image.thumbnail((SIDE, SIDE))
    return Tile(place, _uri(image, "PNG" if small else "JPEG"), small)


def _uri(image: Image, form: str) -> str:
    held = io.BytesIO()
    image.save(held, form, **({} if form == "PNG" else {"quality": 82}))
    return encode_data_uri(held.getvalue(), form.lower())


def encode_data_uri(data: bytes, form: str) -> str:
    """Bytes of a picture as a page holds them."""
    return f"data:image/{form};base64,{b64encode(data).decode()}"
