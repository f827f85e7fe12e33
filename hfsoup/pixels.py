"""Images become one sealed file of pixels: decoded and processed once, checked at every bake."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO
from warnings import catch_warnings, simplefilter

import numpy as np
from numpy.typing import NDArray

from hfsoup.decoding import BadImageError, area, decode
from hfsoup.errors import SoupError
from hfsoup.hashing import facts_hash, file_hash
from hfsoup.hub import cache

if TYPE_CHECKING:
    from PIL.Image import Image

Advance = Callable[[int], None]
Note = Callable[[str], None]
Change = Callable[["Image", int], "Image"]
BACKENDS = ("pillow", "transformers", "torch", "torchvision", "numpy")
BATCH = 32
# Pictures of more pixels are decoded one at a time, which bounds memory whatever the number of processors.
LARGE = 10_000_000
_large = threading.Lock()


@dataclass(frozen=True)
class Prepared:
    """A file of pixels in the cache, float32, images × channels × height × width.

    `rows` are those of its images; `bad` the rows that have none, each with the reason; `digests` are hashes of the
    decoded images, equal for the same picture; `sha256` is that of the file.
    """

    path: Path
    rows: list[int]
    bad: list[tuple[int, str]]
    digests: list[str]
    sha256: str


@dataclass(frozen=True)
class _Job:
    rows: Sequence[int]
    read: Callable[[int], bytes]
    processor: Any
    where: str
    change: Change | None


def prepare(
    rows: Sequence[int],
    read: Callable[[int], bytes],
    processor: Any,
    *,
    content: str,
    where: str,
    advance: Advance = lambda _: None,
    note: Note = lambda _: None,
    change: Change | None = None,
    home: Path | None = None,
) -> Prepared:
    """Decode and process `rows`, or take them from the cache if every byte there is as it was written.

    Args:
        rows: which rows.
        read: gives the encoded image of a row.
        processor: the ingredients' image processor.
        content: a hash of the data that the rows are in, and of the column.
        where: dataset and split, for errors.
        advance: told of images as they are ready.
        note: told if the cache was damaged.
        change: what to do to a decoded image before it is processed; `content` has to tell changes apart.
        home: where the file goes instead of the cache.
    """
    from filelock import FileLock

    job = _Job(rows, read, processor, where, change)
    path = (home or cache() / "images") / f"{_key(job, content)}.npy"
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):
        found = _sealed(path, note)
        if found:
            advance(len(rows))
            return found
        for left in path.parent.glob(f"{path.stem}.*.partial"):
            left.unlink()
        try:
            return _make(job, path, advance)
        except OSError as error:
            raise SoupError(f"the images cannot be kept: {error.strerror}", where=str(path.parent)) from error


def _key(job: _Job, content: str) -> str:
    """A hash of everything that the pixels depend on."""
    versions = [_version(name) for name in BACKENDS]
    kind = f"{type(job.processor).__module__}.{type(job.processor).__qualname__}"
    return facts_hash(content, list(job.rows), kind, job.processor.to_dict(), versions)[:32]


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _sealed(path: Path, note: Note) -> Prepared | None:
    """What an earlier bake prepared, if its seal is whole and the file is the one that was sealed."""
    seal = path.with_suffix(".json")
    if not seal.exists():
        return None
    try:
        digest, text = seal.read_text("utf-8").split("\n", 1)
        if hashlib.sha256(text.encode()).hexdigest() == digest:
            values = json.loads(text)
            if values["sha256"] == file_hash(path):
                bad = [(row, reason) for row, reason in values["bad"]]
                return Prepared(path, values["rows"], bad, values["digests"], values["sha256"])
    except (OSError, ValueError):
        pass
    note("prepared images in the cache were damaged; they are prepared again")
    seal.unlink(missing_ok=True)
    return None


def _make(job: _Job, path: Path, advance: Advance) -> Prepared:
    """Write the file, then its seal, each complete on the disk before it gets its name."""
    rows: list[int] = []
    bad: list[tuple[int, str]] = []
    digests: list[str] = []
    shape: tuple[int, ...] | None = None
    with tempfile.NamedTemporaryFile(
        dir=path.parent, prefix=f"{path.stem}.", suffix=".partial", delete=False
    ) as partial:
        name = Path(partial.name)
        try:
            for row, pixels, outcome in _images(job):
                advance(1)
                if pixels is None:
                    bad.append((row, outcome))
                    continue
                if shape is None:
                    shape = pixels.shape
                    _header(partial, len(job.rows), shape)
                if pixels.shape != shape:
                    what = f"images of several sizes after processing: {shape}, {pixels.shape}"
                    raise SoupError(what, where=f"{job.where}, row {row}")
                rows.append(row)
                digests.append(outcome)
                partial.write(pixels.tobytes())
            if shape is None:
                return Prepared(path, rows, bad, digests, "")
            partial.seek(0)
            _header(partial, len(rows), shape)
            partial.flush()
            os.fsync(partial.fileno())
            prepared = Prepared(path, rows, bad, digests, file_hash(name))
            name.rename(path)
            _seal(prepared)
            return prepared
        finally:
            name.unlink(missing_ok=True)


def _seal(prepared: Prepared) -> None:
    values = asdict(prepared)
    del values["path"]
    text = json.dumps(values)
    target = prepared.path.with_suffix(".json")
    partial = target.with_name(f"{target.stem}.seal.partial")
    with partial.open("w", encoding="utf-8") as file:
        file.write(hashlib.sha256(text.encode()).hexdigest() + "\n" + text)
        file.flush()
        os.fsync(file.fileno())
    partial.rename(target)


def _header(file: BinaryIO | Any, count: int, shape: tuple[int, ...]) -> None:
    """The .npy header; it is as long for any smaller count, so that it can be written again."""
    facts = {"descr": "<f4", "fortran_order": False, "shape": (count, *shape)}
    np.lib.format.write_array_header_1_0(file, facts)


def _images(job: _Job) -> Iterator[tuple[int, NDArray[np.float32] | None, str]]:
    """Row, pixels and digest of every image in order, or row, None and the reason; few batches at a time."""

    def batch(rows: Sequence[int]) -> list[tuple[int, NDArray[np.float32] | None, str]]:
        return [_image(job, row) for row in rows]

    workers = os.cpu_count() or 1
    batches = iter([job.rows[at : at + BATCH] for at in range(0, len(job.rows), BATCH)])
    with catch_warnings(), ThreadPoolExecutor(workers) as pool:
        simplefilter("ignore")
        under_way: deque[Future[Any]] = deque(pool.submit(batch, rows) for rows in islice(batches, 2 * workers))
        try:
            while under_way:
                yield from under_way.popleft().result()
                under_way.extend(pool.submit(batch, rows) for rows in islice(batches, 1))
        finally:
            for left in under_way:
                left.cancel()


def _image(job: _Job, row: int) -> tuple[int, NDArray[np.float32] | None, str]:
    try:
        data = job.read(row)
        with _large if area(data) > LARGE else nullcontext():
            return _shown(job, row, decode(data))
    except BadImageError as error:
        return row, None, str(error)


def _shown(job: _Job, row: int, picture: Image) -> tuple[int, NDArray[np.float32] | None, str]:
    """What the processor makes of a picture."""
    digest = hashlib.blake2b(f"{picture.size}".encode(), digest_size=16)
    digest.update(picture.tobytes())
    if job.change:
        picture = job.change(picture, row)
    try:
        pixels = np.asarray(job.processor(images=[picture], return_tensors="np")["pixel_values"], "<f4")[0]
    except (ValueError, TypeError, RuntimeError, IndexError, ZeroDivisionError) as error:
        return row, None, f"the image processor refuses it ({str(error)[:100]})"
    if not np.isfinite(pixels).all():
        raise SoupError("the image processor gives pixels that are NaN or infinite", where=f"{job.where}, row {row}")
    return row, pixels, digest.hexdigest()
