"""A baked soup as one HTML page that needs nothing else: its tables, pictures, classes and images."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from hfsoup.hub.notices import listening
from hfsoup.reports.html.gallery import Gallery, load_gallery
from hfsoup.reports.html.load import ReportData, load_report_data
from hfsoup.reports.html.render import render_html
from hfsoup.utils.errors import SoupError
from hfsoup.utils.progress import Watch


def make_report(place: str, *, images: bool = True, watch: Watch | None = None) -> str:
    """The page of a soup.

    Args:
        place: a baked folder, or `ORG/NAME` on the Hub, with `@REVISION`.
        images: read the test images on which soup and best ingredient differ from the dataset.
        watch: notified of the stages.

    Raises:
        SoupError: there is no record, or a file that it names is not the one that was baked.
    """
    watch = watch or Watch()
    return compose_report(read_soup(place, watch), images=images, watch=watch)


def read_soup(place: str, watch: Watch) -> ReportData:
    """What a report of the soup in `place` shows, without its images.

    Raises:
        SoupError: as for `make_report`.
    """
    with listening(watch.note), watch.stage("Reading the record"):
        return load_report_data(place)


def compose_report(found: ReportData, *, images: bool, watch: Watch) -> str:
    """The page of what was read of a soup, with test images on request."""
    shown = Gallery((), "")
    if images and found.seen is not None:
        with listening(watch.note), watch.stage("Reading the images") as stage:
            shown = load_gallery(found)
            stage.done(shown.missing or f"Read {len(shown.tiles)} images on which the two differ")
    return render_html(found, shown)


def require_writable(path: Path, *, overwrite: bool) -> None:
    """Fail where a page would take the place of something that may not go."""
    if os.path.lexists(path) and not (overwrite and path.is_file()):
        raise SoupError("the file is already there", where=str(path), hint="--overwrite, or another --output")


def write_report(text: str, path: Path, *, overwrite: bool = False) -> None:
    """Write a page, whole or not at all.

    Raises:
        SoupError: the file is there and may not be replaced, or the disk refuses.
    """
    require_writable(path, overwrite=overwrite)
    try:
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", dir=path.parent, suffix=".partial", delete=False
        ) as file:
            partial = Path(file.name)
            try:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
                partial.chmod(0o644)
                partial.replace(path)
            finally:
                partial.unlink(missing_ok=True)
    except OSError as error:
        raise SoupError(f"the page could not be written: {error.strerror}", where=str(path)) from error
