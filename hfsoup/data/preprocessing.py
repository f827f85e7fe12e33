"""Images become one cached file of pixels: decoded and processed once, compared with its hash at every bake."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from itertools import islice
from math import prod
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO
from warnings import catch_warnings, simplefilter

import numpy as np
from numpy.typing import NDArray

from hfsoup.data.decoding import PIXELS, BadImageError, Decoded, decode, read_size
from hfsoup.data.pixels import FLOAT, PixelFile, decode_table, expand, find_bytes, make_table
from hfsoup.data.workers import Workers, start_workers
from hfsoup.utils.cache import cache_root, mark_used, register_user
from hfsoup.utils.errors import LOADING_ERRORS, SoupError
from hfsoup.utils.hashing import hash_blake3, hash_bytes, hash_json
from hfsoup.utils.memory import read_free_memory
from hfsoup.utils.progress import Advance, Notify
from hfsoup.utils.text import format_size, one_line
from hfsoup.utils.threads import count_processors

if TYPE_CHECKING:
    from PIL.Image import Image

Change = Callable[["Image", int], "Image"]
Encoded = tuple[int, bytes | BadImageError]
BACKENDS = ("pillow", "transformers", "torch", "torchvision", "timm", "numpy")
BATCH = 32
# Pictures of more pixels are decoded one at a time, which bounds memory for any number of CPUs.
LARGE = 10_000_000
READING, STORED = "as transformers.pipeline", "bytes with a table, known by BLAKE3"
"""How images are read and stored; those that were prepared in another way are not taken from the cache."""
LARGE_PICTURE = "a large picture"
TOGETHER = 1 << 16
"""Pixels of the pictures that go through a processor in one call: of larger ones a call costs little."""
LOOK, WORTH = 4.0, 20.0
"""Seconds after which the pace is known, and seconds that must be left by it before processes are started."""
WORKER_BYTES = 500_000_000
"""Memory of such a process, about."""
PROBE = 64
_large = threading.Lock()


@dataclass(frozen=True)
class PreparedImages:
    """Images in the cache.

    `rows` are those of its images; `bad` the rows that have none, each with the reason; `digests` are hashes of the
    decoded images, equal for the same picture; `lost` are the rows with pixels that 8 bits cannot hold, each with the
    share of those; `blake3` is that of the file.
    """

    pixels: PixelFile
    rows: list[int]
    bad: list[tuple[int, str]]
    digests: list[str]
    lost: list[tuple[int, float]]
    blake3: str


@dataclass(frozen=True)
class _Image:
    """A row's pixels, as bytes or float32, and the hash of its picture, or None and the reason."""

    row: int
    pixels: NDArray[Any] | None
    outcome: str
    lost: float = 0.0


@dataclass(frozen=True)
class _Picture:
    """A row's decoded picture, changed as asked, the hash of what was decoded, and the share of its pixels lost."""

    row: int
    picture: Image
    digest: str
    lost: float


@dataclass(frozen=True)
class _Processing:
    """How encoded images become pixels; it can be sent to another process.

    `table` is what the processor makes of bytes, None if that is not known. With `leave_large`, large pictures are left
    to the caller, with the outcome LARGE_PICTURE. `floats` is not empty once an image is not made of bytes, so that no
    further ones are compared, and `batches` holds whether the processor gives several pictures the same bits as each.
    """

    processor: Any
    where: str
    change: Change | None
    mode: str | None
    table: NDArray[np.float32] | None
    leave_large: bool = False
    floats: list[bool] = field(default_factory=list)
    batches: list[bool] = field(default_factory=list)

    def __call__(self, given: Sequence[Encoded]) -> list[_Image]:
        """The images of some rows."""
        found = list(self._process_rows(given))
        # Only now, as memory that is freed after every image would go back to the system each time, which costs more.
        return [_store_as_bytes(self, image) for image in found]

    def _process_rows(self, given: Sequence[Encoded]) -> Iterator[_Image]:
        """Small pictures of one size go through the processor together, in the order of the rows."""
        group: list[_Picture] = []
        for row, data in given:
            one = self._decode_row(row, data)
            if group and not _fits(group, one):
                yield from _process_group(self, group)
                group = []
            if isinstance(one, _Image):
                yield one
            else:
                group.append(one)
        yield from _process_group(self, group)

    def _decode_row(self, row: int, data: bytes | BadImageError) -> _Image | _Picture:
        if isinstance(data, BadImageError):
            return _Image(row, None, str(data))
        try:
            width, height = read_size(data)
            work = self._measure_work(width, height)
            if work > max(PIXELS, width * height):
                what = f"{width} × {height} pixels would be resized to {work / 1e6:.0f} megapixels"
                raise BadImageError(f"{what}, at most {PIXELS / 1e6:.0f} are")
            if work <= LARGE:
                return _read_picture(self, row, decode(data, self.mode))
            if self.leave_large:
                return _Image(row, None, LARGE_PICTURE)
            with _large:
                return _process_group(self, [_read_picture(self, row, decode(data, self.mode))])[0]
        except BadImageError as error:
            return _Image(row, None, str(error))

    def _measure_work(self, width: int, height: int) -> int:
        """The pixels of a picture, or of the size that it is resized to if that is more."""
        sides = self.processor.to_dict().get("size")
        shorter = sides.get("shortest_edge") if isinstance(sides, dict) else None
        resized = int(shorter) ** 2 * max(width, height) // max(1, min(width, height)) if shorter else 0
        return max(width * height, resized)


@dataclass(frozen=True)
class _Job:
    """What is prepared: rows, their encoded images, and how."""

    rows: Sequence[int]
    read: Callable[[], Iterator[bytes | BadImageError]]
    how: _Processing


def prepare_images(
    rows: Sequence[int],
    read: Callable[[], Iterator[bytes | BadImageError]],
    processor: Any,
    *,
    content: str,
    where: str,
    advance: Advance = lambda _: None,
    note: Notify = lambda _: None,
    mode: str | None = None,
    change: Change | None = None,
    home: Path | None = None,
) -> PreparedImages:
    """Decode and process `rows`, or read them from the cache if every byte there is as it was written.

    Args:
        rows: which rows.
        read: returns the encoded image of each row in turn, or why there is none; not called if all are cached.
        processor: the ingredients' image processor.
        content: a hash of the data that the rows are in, and of the column.
        where: dataset and split, for errors.
        advance: called with the number of images that just became ready.
        note: called if the cache was damaged.
        mode: the Pillow mode that the dataset declares for its images.
        change: applied to each decoded image before it is processed; `content` must differ for different changes.
        home: the folder of the file instead of the cache.

    Raises:
        SoupError: the processor gives unusable pixels or takes no image, or the cache cannot be written.
    """
    from filelock import FileLock

    register_user()
    path = _cache_path(rows, processor, content, mode, home)
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):
        found = _read_cached(path, note)
        if found:
            mark_used(path)
            advance(len(rows))
            return found
        for left in path.parent.glob(f"{path.stem}.*.partial"):
            left.unlink()
        table = make_table(processor)
        how = _Processing(processor, where, change, mode, None if table is None else decode_table(table))
        try:
            return _write_pixels(_Job(rows, read, how), path, advance)
        except OSError as error:
            raise SoupError(f"prepared images cannot be written: {error.strerror}", where=str(path.parent)) from error


def are_prepared(rows: Sequence[int], processor: Any, *, content: str, mode: str | None = None) -> bool:
    """Whether `prepare_images` would find these images in the cache, if they are as they were written."""
    path = _cache_path(rows, processor, content, mode, None)
    return path.is_file() and path.with_suffix(".json").is_file()


def _cache_path(rows: Sequence[int], processor: Any, content: str, mode: str | None, home: Path | None) -> Path:
    """The path of the file of pixels, whose name is a hash of everything that they depend on."""
    versions = [_find_version(name) for name in BACKENDS]
    kind = f"{type(processor).__module__}.{type(processor).__qualname__}"
    key = hash_json(content, list(rows), kind, processor.to_dict(), versions, [READING, STORED, mode])
    return (home or cache_root() / "images") / f"{key[:32]}.npy"


def _find_version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _read_cached(path: Path, note: Notify) -> PreparedImages | None:
    """What an earlier bake prepared, if file and record are as they were written."""
    seal = path.with_suffix(".json")
    if not seal.exists():
        return None
    try:
        digest, text = seal.read_text("utf-8").split("\n", 1)
        if hash_bytes(text.encode()) == digest:
            values = json.loads(text)
            if values["blake3"] == hash_blake3(path):
                bad = [(row, reason) for row, reason in values["bad"]]
                lost = [(row, share) for row, share in values["lost"]]
                table = values["table"] and bytes.fromhex(values["table"])
                pixels = PixelFile(path, table)
                return PreparedImages(pixels, values["rows"], bad, values["digests"], lost, values["blake3"])
    except (OSError, ValueError):
        pass
    note("prepared images in the cache were damaged; they are prepared again")
    seal.unlink(missing_ok=True)
    return None


def _write_pixels(job: _Job, path: Path, advance: Advance) -> PreparedImages:
    """Write the pixels, then their record, each complete on the disk before it gets its name."""
    rows: list[int] = []
    bad: list[tuple[int, str]] = []
    digests: list[str] = []
    lost: list[tuple[int, float]] = []
    with tempfile.NamedTemporaryFile(
        dir=path.parent, prefix=f"{path.stem}.", suffix=".partial", delete=False
    ) as partial:
        name, writer = Path(partial.name), _Writer(partial, job)
        try:
            for found in _process_all(job):
                advance(1)
                if found.pixels is None:
                    bad.append((found.row, found.outcome))
                    continue
                if found.lost:
                    lost.append((found.row, found.lost))
                if not rows:
                    _require_room(path.parent, len(job.rows) * found.pixels.nbytes)
                writer.append(found.row, found.pixels)
                rows.append(found.row)
                digests.append(found.outcome)
            pixels = PixelFile(path, None if writer.table is None else writer.table.tobytes())
            if not rows:
                return PreparedImages(pixels, rows, bad, digests, lost, "")
            writer.finish()
            os.fsync(partial.fileno())
            prepared = PreparedImages(pixels, rows, bad, digests, lost, hash_blake3(name))
            name.rename(path)
            _write_seal(prepared)
            return prepared
        finally:
            name.unlink(missing_ok=True)


class _Writer:
    """Writes a .npy file of images, of bytes as long as all images are given as bytes, else of float32.

    Args:
        file: an empty file, open for reading and writing.
        job: what is written.
    """

    def __init__(self, file: BinaryIO | Any, job: _Job) -> None:
        self._file, self._job, self._count = file, job, 0
        self._shape: tuple[int, ...] = ()
        self.table = job.how.table

    def append(self, row: int, pixels: NDArray[Any]) -> None:
        """Write the next image.

        Raises:
            SoupError: its shape is not that of the others.
        """
        if not self._count:
            self._shape = pixels.shape
            self._write_header(len(self._job.rows))
        if pixels.shape != self._shape:
            what = f"images of several sizes after processing: {self._shape}, {pixels.shape}"
            raise SoupError(what, where=f"{self._job.how.where}, row {row}")
        if self.table is not None and pixels.dtype == FLOAT:
            self._widen(self.table)
            self.table = None
        elif self.table is None and pixels.dtype != FLOAT and self._job.how.table is not None:
            pixels = expand(pixels[None], self._job.how.table)
        self._file.write(pixels.tobytes())
        self._count += 1

    def finish(self) -> None:
        """Write the number of images."""
        self._file.seek(0)
        self._write_header(self._count)
        self._file.flush()

    def _write_header(self, count: int) -> None:
        """Write the .npy header; it is as long for any smaller count and either type, so that it can be overwritten."""
        descr = FLOAT.str if self.table is None else "|u1"
        facts = {"descr": descr, "fortran_order": False, "shape": (count, *self._shape)}
        np.lib.format.write_array_header_1_0(self._file, facts)
        self._begin = self._file.tell()

    def _widen(self, table: NDArray[np.float32]) -> None:
        """Make float32 of the bytes so far, from the last image on, so that none is overwritten before it is read."""
        size = prod(self._shape)
        for n in reversed(range(self._count)):
            self._file.seek(self._begin + n * size)
            stored = np.frombuffer(self._file.read(size), np.uint8).reshape(1, *self._shape)
            self._file.seek(self._begin + n * size * FLOAT.itemsize)
            self._file.write(expand(stored, table).tobytes())
        self._file.seek(self._begin + self._count * size * FLOAT.itemsize)


def _require_room(folder: Path, size: int) -> None:
    """Refuse images that do not fit on the disk, now that their size is known."""
    if size > (free := shutil.disk_usage(folder).free):
        what = f"the disk is too small: expected {format_size(size)} for prepared images, found {format_size(free)}"
        raise SoupError(what, where=str(folder), hint="--limit N, or free some space: hfsoup cache")


def _write_seal(prepared: PreparedImages) -> None:
    values = asdict(prepared)
    table = values.pop("pixels")["table"]
    text = json.dumps({**values, "table": table and table.hex()})
    target = prepared.pixels.path.with_suffix(".json")
    partial = target.with_name(f"{target.stem}.seal.partial")
    with partial.open("w", encoding="utf-8") as file:
        file.write(hash_bytes(text.encode()) + "\n" + text)
        file.flush()
        os.fsync(file.fileno())
    partial.rename(target)


def _process_all(job: _Job) -> Iterator[_Image]:
    """Every image in order, a few batches at a time, in threads and, where there is much to do, in processes."""
    threads, encoded = count_processors(), zip(job.rows, job.read(), strict=True)
    batches = iter(lambda: list(islice(encoded, BATCH)), [])
    helping = _Helpers(job.how, threads, len(job.rows))
    with catch_warnings(), helping as helpers, ThreadPoolExecutor(threads) as pool:
        simplefilter("ignore")
        under_way: deque[Future[Any]] = deque(pool.submit(helpers, given) for given in islice(batches, 2 * threads))
        try:
            while under_way:
                found = under_way.popleft().result()
                yield from found
                helpers.count(len(found))
                under_way.extend(pool.submit(helpers, given) for given in islice(batches, 1))
        finally:
            for left in under_way:
                left.cancel()


class _Helpers:
    """Prepares batches in the thread that calls, or, once so much is left that they pay, in a process of that thread.

    Args:
        how: how images become pixels.
        threads: how many threads call.
        total: how many images there are.
    """

    def __init__(self, how: _Processing, threads: int, total: int) -> None:
        self._how, self._threads, self._total, self._done = how, threads, total, 0
        self._begun = time.monotonic()
        self._workers: Workers | None = None

    def __enter__(self) -> _Helpers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._workers:
            self._workers.close()

    def __call__(self, given: Sequence[Encoded]) -> list[_Image]:
        """The images of some rows."""
        worker = self._workers.get() if self._workers else None
        if worker is None:
            return self._how(given)
        found: list[_Image] = worker.call(given)
        left = [pair for pair, image in zip(given, found, strict=True) if image.outcome == LARGE_PICTURE]
        large = iter(self._how(left))
        return [next(large) if image.outcome == LARGE_PICTURE else image for image in found]

    def count(self, images: int) -> None:
        """Count images that are ready; workers are started where threads would need much longer than that takes."""
        self._done += images
        passed = time.monotonic() - self._begun
        left = passed / self._done * (self._total - self._done)
        if self._workers is None and self._threads > 1 and passed >= LOOK and left >= WORTH:
            most = min(self._threads, read_free_memory() // (2 * WORKER_BYTES))
            self._workers = start_workers(replace(self._how, leave_large=True), most)


def _fits(group: Sequence[_Picture], one: _Image | _Picture) -> bool:
    """Whether a picture may go through the processor with those of a group: all are of one size, and small."""
    if isinstance(one, _Image) or one.picture.size != group[0].picture.size:
        return False
    return (len(group) + 1) * prod(one.picture.size) <= TOGETHER


def _read_picture(how: _Processing, row: int, found: Decoded) -> _Picture:
    """A picture as the image processor gets it."""
    picture = found.picture
    digest = hashlib.blake2b(f"{picture.size}".encode(), digest_size=16)
    # Pictures that are all white only because of their 16 bits are no duplicates of each other.
    digest.update((found.whole if found.lost else picture).tobytes())
    return _Picture(row, how.change(picture, row) if how.change else picture, digest.hexdigest(), found.lost)


def _process_group(how: _Processing, group: Sequence[_Picture]) -> list[_Image]:
    """Pictures as the image processor returns each alone."""
    if len(group) < 2 or how.batches == [False]:
        return [_process_picture(how, one) for one in group]
    try:
        pixels = _run_processor(how, [one.picture for one in group])
    except LOADING_ERRORS:
        # One of them is the reason.
        return [_process_picture(how, one) for one in group]
    together = [_check_pixels(how, one, found) for one, found in zip(group, pixels, strict=True)]
    if how.batches:
        return together
    alone = [_process_picture(how, one) for one in group]
    how.batches[:] = [all(_have_equal_bits(a, b) for a, b in zip(together, alone, strict=True))]
    return alone


def _have_equal_bits(first: _Image, second: _Image) -> bool:
    if first.pixels is None or second.pixels is None or first.pixels.shape != second.pixels.shape:
        return False
    return np.array_equal(first.pixels.view(np.uint32), second.pixels.view(np.uint32))


def _process_picture(how: _Processing, one: _Picture) -> _Image:
    """A picture as the image processor returns it."""
    try:
        pixels = _run_processor(how, [one.picture])[0]
    except LOADING_ERRORS as error:
        _require_processor(how)
        return _Image(one.row, None, f"the image processor refuses it ({_describe_error(error)})")
    return _check_pixels(how, one, pixels)


def _check_pixels(how: _Processing, one: _Picture, pixels: NDArray[np.float32]) -> _Image:
    if not np.isfinite(pixels).all():
        raise SoupError(
            "the image processor gives pixels that are NaN or infinite", where=f"{how.where}, row {one.row}"
        )
    return _Image(one.row, pixels, one.digest, one.lost)


def _store_as_bytes(how: _Processing, image: _Image) -> _Image:
    """The image with the bytes that its pixels stand for; as it is if it is not made of bytes, or another was not."""
    if image.pixels is None or how.table is None or how.floats:
        return image
    stored = find_bytes(image.pixels, how.table)
    if stored is None:
        how.floats.append(True)
        return image
    return replace(image, pixels=stored)


def _run_processor(how: _Processing, pictures: list[Image]) -> NDArray[np.float32]:
    """Images × the shape of one."""
    return np.asarray(how.processor(images=pictures, return_tensors="pt")["pixel_values"], "<f4")


def _require_processor(how: _Processing) -> None:
    """Refuse an image processor that cannot process a plain picture either.

    Raises:
        SoupError: it cannot.
    """
    from PIL import Image

    try:
        _run_processor(how, [Image.new("RGB", (PROBE, PROBE))])
    except LOADING_ERRORS as error:
        what = f"the models' image processor cannot process any image: {_describe_error(error)}"
        hint = "save a whole processor beside them: AutoImageProcessor.from_pretrained(START).save_pretrained(FOLDER)"
        raise SoupError(what, where=type(how.processor).__name__, hint=hint) from error


def _describe_error(error: Exception) -> str:
    return f"{type(error).__name__}: {one_line(error, 100)}" if isinstance(error, LookupError) else one_line(error, 100)
