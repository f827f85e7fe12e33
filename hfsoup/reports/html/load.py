"""What a report is made of: the record of a soup, and those files of it that a report shows, hashed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hfsoup.hub.download import fetch_file
from hfsoup.ingredients.pull import list_files
from hfsoup.ingredients.resolve import resolve_patterns
from hfsoup.provenance.manifest import FILE_NAME as RECORD
from hfsoup.provenance.manifest import Manifest, read_manifest
from hfsoup.provenance.predictions import FILE_NAME, MAX_BYTES, TestPredictions, parse_predictions
from hfsoup.reports.figures import FOLDER, TITLES
from hfsoup.utils.errors import MismatchError, SoupError
from hfsoup.utils.text import quoted

Open = Callable[[str], Path | None]
PICTURE_LIMIT = 8 << 20


@dataclass(frozen=True)
class ReportData:
    """A soup as its folder tells it.

    `seen` is what was said of the test images, None where nothing was tested or the soup is of an older hfsoup;
    `pictures` are its PNG files by their names below the folder; `local` says whether it lies on this disk.
    """

    place: str
    local: bool
    record: Manifest
    seen: TestPredictions | None
    pictures: dict[str, bytes]


def load_report_data(place: str) -> ReportData:
    """Read the soup in a folder or repository, without its weights.

    Raises:
        SoupError: there is no record, or it is damaged.
        MismatchError: a file is not the one that was recorded.
    """
    local = Path(place).is_dir()
    opened = _open_folder(Path(place)) if local else _open_repo(place)
    path = opened(RECORD)
    if path is None:
        raise SoupError(f"expected {RECORD}, found none", where=place, hint="a folder or repository that hfsoup baked")
    record = read_manifest(path.parent, where=place)
    seen = _read_recorded(opened, record, FILE_NAME, place, MAX_BYTES)
    names = [f"{FOLDER}/{name}{end}.png" for name in TITLES for end in ("", "-dark")]
    pictures = {name: _read_recorded(opened, record, name, place, PICTURE_LIMIT) for name in names}
    predictions = _require_same_images(parse_predictions(seen, where=place), record, place) if seen else None
    return ReportData(place, local, record, predictions, {name: data for name, data in pictures.items() if data})


def _open_folder(folder: Path) -> Open:
    return lambda name: folder / name if (folder / name).is_file() and not (folder / name).is_symlink() else None


def _open_repo(place: str) -> Open:
    source = resolve_patterns((place,))[0]
    files = list_files(source, source.subfolder)

    def opened(name: str) -> Path | None:
        if name not in files:
            return None
        return fetch_file(source.repo, files[name], source.revision or "", kind="model")

    return opened


def _read_recorded(opened: Open, record: Manifest, name: str, place: str, most: int) -> bytes | None:
    """A file that the record names; one that it does not name is no part of the soup."""
    expected = record.files.get(name)
    if expected is None:
        return None
    path = opened(name)
    if path is None:
        raise MismatchError(f"{name}: missing", where=place, hint="do not use it; bake it again")
    if path.stat().st_size > most:
        raise SoupError(f"{name} is over the limit of {most} bytes", where=place)
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != expected:
        raise MismatchError(
            f"{name} is not the file that was recorded", where=place, hint=f"hfsoup verify {quoted(place)}"
        )
    return data


def _require_same_images(seen: TestPredictions, record: Manifest, place: str) -> TestPredictions:
    """What was seen, if it is of as many images and ingredients as the record's."""
    if record.dataset is None or record.dataset.test.images != len(seen.rows):
        raise MismatchError(f"{FILE_NAME} is of other images than {RECORD}", where=place, hint="bake it again")
    if seen.best_ingredient >= len(record.ingredients):
        raise MismatchError(f"{FILE_NAME} is of other ingredients than {RECORD}", where=place, hint="bake it again")
    return seen
