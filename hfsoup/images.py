"""A dataset becomes splits that a model can be scored on: decoded and processed once, labels in the model's order."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hfsoup.errors import SoupError, UsageError
from hfsoup.hub import api, cache, hub_errors
from hfsoup.names import align, unnamed
from hfsoup.types import Request

Advance = Callable[[int], None]
BATCH = 32


@dataclass(frozen=True)
class Split:
    """Images of one split, ready for a model.

    `pixels` is a .npy file of float32, images × channels × height × width; `labels` are the model's class indices;
    `rule` says how the split was cut.
    """

    name: str
    rule: str
    fingerprint: str
    pixels: Path
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Images:
    """The split that selects, the split that reports, and where both come from; `revision` is a commit on the Hub."""

    dataset: str
    config: str | None
    revision: str | None
    selection: Split
    test: Split
    halved: bool
    notes: tuple[str, ...]


def load_images(
    request: Request, processor: Any, classes: Sequence[str], *, advance: Advance = lambda _: None
) -> Images:
    """Load, cut and prepare the selection and the test split.

    Args:
        request: the dataset and what to take of it.
        processor: the ingredients' image processor.
        classes: the model's class names in the order of its head.
        advance: told of images as they are ready.

    Raises:
        UsageError: no such split, column or config.
        MismatchError: the dataset's class names are not the model's.
    """
    source = _Source.open(request)
    name, test_name = _split_names(source.splits, request)
    notes: list[str] = []
    parts = [_Part(source, split, request, classes, notes) for split in dict.fromkeys((name, test_name or name))]
    if test_name is None:
        first, second = halves(parts[0].labels)
        cuts = [(parts[0], f"{name}[first half]", first), (parts[0], f"{name}[second half]", second)]
        notes.append(f"only the split {name!r} was there: a stratified half of it selects, the other half reports")
    else:
        cuts = [(part, part.name, np.arange(len(part.labels))) for part in parts]
    selection, test = (part.prepare(processor, title, rows, request.limit, advance) for part, title, rows in cuts)
    return Images(request.dataset, request.config, source.revision, selection, test, test_name is None, tuple(notes))


def halves(labels: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Two halves with the same share of every class: class by class, in a fixed shuffled order, in turn."""
    order = np.concatenate(_by_class(labels))
    return np.sort(order[0::2]), np.sort(order[1::2])


def limited(labels: NDArray[np.int64], limit: int) -> NDArray[np.int64]:
    """At most `limit` rows, every class in about its share, always the same ones."""
    seats = [((n + 0.5) / len(rows), row) for rows in _by_class(labels) for n, row in enumerate(rows.tolist())]
    return np.sort(np.array([row for _, row in sorted(seats)[:limit]], np.int64))


def _by_class(labels: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """The rows of each class, in an order that is shuffled by a hash of the row and so the same everywhere."""
    keys = np.array([int.from_bytes(hashlib.sha256(b"%d" % row).digest()[:8], "big") for row in range(len(labels))])
    groups = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    return [rows[np.argsort(keys[rows], kind="stable")] for rows in groups]


@dataclass(frozen=True)
class _Source:
    """A dataset that can be loaded split by split, pinned."""

    load: Callable[[str], Any]
    splits: tuple[str, ...]
    revision: str | None

    @classmethod
    def open(cls, request: Request) -> _Source:
        import datasets

        datasets.disable_progress_bars()
        path = Path(request.dataset).expanduser()
        if (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():
            found = datasets.load_from_disk(str(path))
            parts = found if isinstance(found, datasets.DatasetDict) else {"validation": found}
            return cls(parts.__getitem__, tuple(parts), None)
        target: dict[str, Any] = {"path": str(path), "name": request.config}
        if path.is_file():
            target = {"path": path.suffix.lstrip("."), "data_files": {"validation": str(path)}}
        elif not path.is_dir():
            with hub_errors(request.dataset):
                target = {**target, "path": request.dataset, "revision": api().dataset_info(request.dataset).sha}

        def names() -> list[str]:
            kind = target["path"]
            keys = {k: v for k, v in target.items() if k not in ("path", "name")}
            return list(datasets.get_dataset_split_names(kind, config_name=target.get("name"), **keys))

        def load(split: str) -> Any:
            return _loading(request, lambda: datasets.load_dataset(**target, split=split))

        return cls(load, tuple(_loading(request, names)), target.get("revision"))


def _loading(request: Request, act: Callable[[], Any]) -> Any:
    """What datasets raises, as an error with the dataset's name."""
    try:
        with hub_errors(request.dataset):
            return act()
    except (ValueError, FileNotFoundError, OSError) as error:
        text = str(error).strip().splitlines()[0][:300] if str(error).strip() else type(error).__name__
        hint = (
            "--dataset-config NAME"
            if "onfig" in text
            else "a Hub dataset, a folder with class folders, or parquet files"
        )
        raise UsageError(f"datasets cannot load this: {text}", where=request.dataset, hint=hint) from error


def _split_names(splits: Sequence[str], request: Request) -> tuple[str, str | None]:
    """The split that selects, and the one that reports or None where the first is to be halved."""
    usual = [name for name in ("validation", "valid", "val", "dev", "test") if name in splits]
    name = request.split or (usual[0] if usual else "validation")
    test = request.test_split or ("test" if "test" in splits and name != "test" else None)
    for wanted in filter(None, (name, test)):
        if wanted not in splits:
            what = f"there is no split {wanted!r}; this dataset has {', '.join(splits)}"
            raise UsageError(what, where=request.dataset, hint=f"--split {splits[0] if splits else 'NAME'}")
    if name == test:
        raise UsageError(f"the split {name!r} cannot both select and report", hint="leave out --test-split to halve it")
    return name, test


class _Part:
    """One split as datasets holds it, its labels already in the model's order."""

    def __init__(self, source: _Source, name: str, request: Request, classes: Sequence[str], notes: list[str]) -> None:
        self.name, self.where = name, f"{request.dataset}, split {name}"
        self.rows = source.load(name)
        features = self.rows.features
        self.image = _column(features, request.image_column, "Image", "--image-column", self.where)
        self.label = _column(features, request.label_column, "ClassLabel", "--label-column", self.where)
        if not len(self.rows):
            raise SoupError("the split is empty", where=self.where, hint="another --split")
        self.labels = self._labels(features[self.label], classes, notes)

    def _labels(self, feature: Any, classes: Sequence[str], notes: list[str]) -> NDArray[np.int64]:
        """One class index of the model per row."""
        values = list(self.rows.select_columns([self.label])[self.label])
        if any(value is None for value in values):
            raise SoupError("rows without a label", where=f"{self.where}, column {self.label}")
        names = getattr(feature, "names", None)
        if names is None and isinstance(values[0], str):
            names = sorted(set(values))
            values = [names.index(value) for value in values]
        if names is None or (unnamed(classes) and len(names) == len(classes)):
            notes.append("the model or the dataset names no classes: the dataset's numbers are taken as the model's")
            order = tuple(range(len(classes)))
        else:
            order = align(names, classes, where=self.where, against="the model")
        numbers = np.asarray(values)
        if numbers.dtype.kind not in "iu" or numbers.min() < 0 or numbers.max() >= len(order):
            raise SoupError(f"labels outside 0 to {len(order) - 1}", where=f"{self.where}, column {self.label}")
        found: NDArray[np.int64] = np.asarray(order, np.int64)[numbers]
        return found

    def prepare(
        self, processor: Any, title: str, rows: NDArray[np.int64], limit: int | None, advance: Advance
    ) -> Split:
        """Decode and process the rows once, into hfsoup's cache."""
        if limit is not None and limit < len(rows):
            rows = rows[limited(self.labels[rows], limit)]
        rule = f"{len(rows)} of {len(self.rows)} rows of the split {self.name!r}"
        fingerprint = hashlib.sha256(f"{self.rows._fingerprint}".encode() + rows.tobytes()).hexdigest()
        key = hashlib.sha256(
            json.dumps(
                [fingerprint, self.image, processor.to_dict(), type(processor).__name__], sort_keys=True, default=str
            ).encode()
        ).hexdigest()
        path = cache() / "images" / f"{key[:32]}.npy"
        if path.exists():
            advance(len(rows))
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._decode(processor, rows, path, advance)
        return Split(title, rule, fingerprint, path, self.labels[rows])

    def _decode(self, processor: Any, rows: NDArray[np.int64], path: Path, advance: Advance) -> None:
        partial = path.with_name(f"{path.stem}.{os.getpid()}.partial.npy")
        batches = [rows[at : at + BATCH] for at in range(0, len(rows), BATCH)]
        shape = self._pixels(processor, rows[:1]).shape[1:]
        pixels = np.lib.format.open_memmap(partial, "w+", np.float32, (len(rows), *shape))

        def fill(n: int) -> None:
            block = self._pixels(processor, batches[n])
            if block.shape[1:] != shape:
                raise SoupError(
                    f"images of several sizes after processing: {shape}, {block.shape[1:]}", where=self.where
                )
            pixels[n * BATCH : n * BATCH + len(block)] = block
            advance(len(block))

        try:
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                for _ in pool.map(fill, range(len(batches))):
                    pass
            pixels.flush()
            partial.rename(path)
        finally:
            partial.unlink(missing_ok=True)

    def _pixels(self, processor: Any, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Images × channels × height × width of some rows."""
        try:
            images = [image.convert("RGB") for image in self.rows.select(rows).select_columns([self.image])[self.image]]
        except (OSError, ValueError, SyntaxError, AttributeError) as error:
            text = f"an image among rows {rows[0]} to {rows[-1]} cannot be decoded: {error}"
            raise SoupError(text, where=f"{self.where}, column {self.image}") from error
        return np.asarray(processor(images=images, return_tensors="np")["pixel_values"], np.float32)


def _column(features: Any, asked: str | None, kind: str, flag: str, where: str) -> str:
    """The column asked for, or the only one of its kind."""
    shown = ", ".join(f"{name} ({type(feature).__name__})" for name, feature in features.items())
    if asked is not None:
        if asked not in features:
            raise UsageError(f"there is no column {asked!r}; found {shown}", where=where, hint=f"{flag} NAME")
        return asked
    found = [name for name, feature in features.items() if type(feature).__name__ == kind]
    if len(found) != 1:
        raise UsageError(
            f"expected one column of {kind}, found {len(found)} in {shown}", where=where, hint=f"{flag} NAME"
        )
    return str(found[0])
