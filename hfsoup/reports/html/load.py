"""What a report is made of: the record of a soup, and those files of it that a report shows, hashed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hfsoup.checkpoints.types import Source
from hfsoup.hub.download import fetch_file
from hfsoup.ingredients.pull import list_files
from hfsoup.ingredients.resolve import resolve_patterns
from hfsoup.provenance.manifest import FILE_NAME as RECORD
from hfsoup.provenance.manifest import Manifest, fetch_manifest, read_manifest, require_size
from hfsoup.provenance.predictions import FILE_NAME, MAX_BYTES, TestPredictions, parse_predictions
from hfsoup.reports.figures import FOLDER, TITLES
from hfsoup.utils.errors import MismatchError
from hfsoup.utils.text import quoted

Open = Callable[[str, int], Path | None]
"""Returns the path of a file, given its name and the most bytes that it may have; None if there is no such file."""
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
    source = None if local else resolve_patterns((place,))[0]
    record = fetch_manifest(source, where=place) if source else read_manifest(Path(place), where=place)
    opened = _open_repo(source, place) if source else _open_folder(Path(place), place)
    seen = _read_recorded(opened, record, FILE_NAME, place, MAX_BYTES)
    names = [f"{FOLDER}/{name}{end}.png" for name in TITLES for end in ("", "-dark")]
    pictures = {name: _read_recorded(opened, record, name, place, PICTURE_LIMIT) for name in names}
    predictions = _require_same_images(parse_predictions(seen, where=place), record, place) if seen else None
    return ReportData(place, local, record, predictions, {name: data for name, data in pictures.items() if data})


def _open_folder(folder: Path, place: str) -> Open:
    def opened(name: str, most: int) -> Path | None:
        path = folder / name
        if not path.is_file() or path.is_symlink():
            return None
        require_size(name, path.stat().st_size, most, where=place)
        return path

    return opened


def _open_repo(source: Source, place: str) -> Open:
    files = list_files(source, source.subfolder)

    def opened(name: str, most: int) -> Path | None:
        if name not in files:
            return None
        # By the listing, so that nothing larger is pulled.
        require_size(name, files[name].size, most, where=place)
        return fetch_file(source.repo, files[name], source.revision or "", kind="model")

    return opened


def _read_recorded(opened: Open, record: Manifest, name: str, place: str, most: int) -> bytes | None:
    """A file that the record names; one that it does not name is no part of the soup."""
    expected = record.files.get(name)
    if expected is None:
        return None
    path = opened(name, most)
    if path is None:
        raise MismatchError(f"{name}: missing", where=place, hint="do not use it; bake it again")
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
