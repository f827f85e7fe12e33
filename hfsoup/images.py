"""A dataset becomes splits that a model can be scored on: cut, labelled in the model's order, decoded once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hfsoup.classes import check_classes, check_folders, class_numbers, rows_text
from hfsoup.corruptions import Corruption
from hfsoup.datasource import Source, opened
from hfsoup.errors import SoupError, UsageError
from hfsoup.halving import halves, limited
from hfsoup.inputs import backend
from hfsoup.likeness import alike
from hfsoup.names import flat
from hfsoup.pixels import Advance, Prepared, prepare
from hfsoup.request import Request
from hfsoup.splits import calibration_name, split_names

Note = Callable[[str], None]
# The most test images, as a share, that may be among those that select. Public test sets hold a few such doubles.
SHARED = 0.01
UNLABELLED = -1
"""What stands for a label where there is none."""


@dataclass(frozen=True)
class Split:
    """Images of one split, ready for a model.

    `pixels` is a .npy file of float32, images × channels × height × width; `labels` are the model's class indices;
    `rule` says how the split was cut; `fingerprint` is a hash of the data files, the rows and the labels. `rows` are
    where the images are in the dataset's split `part`, in its column `column`.
    """

    name: str
    rule: str
    fingerprint: str
    pixels: Path
    labels: NDArray[np.int64]
    rows: NDArray[np.int64]
    part: str
    column: str

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Images:
    """The split that selects, the split that reports, and where both come from.

    `revision` is a commit on the Hub; `backend` is the library that resized the images, with its version, and
    `calibration` are images to estimate batch norms on, where they were asked for; `learning` is the half of the split
    that selects from which coefficients are learned, where they are; `unlabelled` are those that a network is trained
    on; `seen` are the images that select and those of `learning`, as they were prepared.
    """

    dataset: str
    config: str | None
    revision: str | None
    selection: Split
    test: Split
    halved: bool
    notes: tuple[str, ...]
    backend: str
    calibration: Split | None = None
    learning: Split | None = None
    unlabelled: Split | None = None
    seen: tuple[Prepared, ...] = field(default=(), repr=False)


def load_images(
    request: Request,
    processor: Any,
    classes: Sequence[str],
    *,
    calibrate: int = 0,
    learn: bool = False,
    advance: Advance = lambda _: None,
    expect: Advance = lambda _: None,
) -> Images:
    """Load, cut, check and prepare the selection and the test split.

    Args:
        request: the dataset and what to take of it.
        processor: the ingredients' image processor.
        classes: the model's class names in the order of its head.
        calibrate: prepare at most this many images to estimate batch norms on, too.
        learn: halve the split that selects once more, into images to learn from and images to score on.
        advance: told of images as they are ready.
        expect: told how many there will be, once that is known.

    Raises:
        UsageError: no such split, column or config.
        MismatchError: the dataset's class names are not the model's.
        SoupError: images or labels that would make the scores wrong.
    """
    notes: dict[str, None] = {}
    note: Note = notes.setdefault
    with opened(request) as source:
        name, test_name = split_names(list(source.parts), request)
        settles = calibration_name(list(source.parts), request, name, note) if calibrate else None
        tables = source.load([n for n in source.parts if n in (name, test_name, settles)])
        scored = (name, test_name)
        parts = {n: Part(source, n, tables[n], request, classes, note, scored=n in scored) for n in tables}
        selecting, testing = cuts_of(parts, name, test_name)
        if test_name is None:
            note(f"only the split {name!r} was there: a stratified half of it selects, the other half reports")
        cuts = [(*selecting, request.limit), (*testing, request.limit)]
        if learn:
            cuts = [*in_two(*cuts.pop(0), note=note), *cuts]
        if settles is not None:
            rows = selecting[2] if settles == name else np.arange(len(parts[settles].labels))
            cuts.append((parts[settles], settles, rows, calibrate))
        expect(sum(len(rows) if most is None else min(len(rows), most) for *_, rows, most in cuts))
        done = [part.prepare(processor, title, rows, most, advance) for part, title, rows, most in cuts]
        calibration = done.pop()[0] if settles is not None else None
        *learning, (selection, seen), (test, held) = done
        every = (seen, *(prepared for _, prepared in learning))
        for prepared in every:
            apart(prepared, held, where=request.dataset, note=note)
        source.files.unchanged()
    halved = test_name is None
    return Images(
        request.dataset, request.config, source.revision, selection, test, halved, tuple(notes), backend(processor),
        calibration, learning[0][0] if learning else None, seen=every,
    )  # fmt: skip


def content_hash(source: Source, part: str, column: str, *more: str) -> str:
    """A hash of the files that the images of a split are in, of their column, and of what else is done to them."""
    return hashlib.sha256(" ".join([source.content(part), column, *more]).encode()).hexdigest()


def fingerprint(content: str, rows: NDArray[np.int64], labels: NDArray[np.int64]) -> str:
    """A hash of what a split holds: its files, rows and labels."""
    return hashlib.sha256(content.encode() + rows.tobytes() + labels.tobytes()).hexdigest()


def cuts_of(parts: Mapping[str, Part], name: str, test_name: str | None) -> list[tuple[Part, str, NDArray[np.int64]]]:
    """The split that selects and the one that reports, or two halves of the first: part, title and rows of each."""
    if test_name is None:
        first, second = halves(parts[name].labels)
        return [(parts[name], f"{name}[first half]", first), (parts[name], f"{name}[second half]", second)]
    return [(part, part.name, np.arange(len(part.labels))) for part in (parts[name], parts[test_name])]


def in_two(
    part: Part, title: str, rows: NDArray[np.int64], limit: int | None, *, note: Note
) -> list[tuple[Part, str, NDArray[np.int64], int | None]]:
    """Two stratified halves of a cut, the first to learn from and the second to score on, which share its limit."""
    first, second = halves(part.labels[rows])
    note(f"a stratified half of {title!r} teaches the coefficients, labels included; the other half scores and ranks")
    mosts = (None, None) if limit is None else (limit - limit // 2, limit // 2)
    return [
        (part, f"{title}[learning half]", rows[first], mosts[0]),
        (part, f"{title}[scoring half]", rows[second], mosts[1]),
    ]


class Part:
    """One split as datasets holds it, its labels already in the model's order.

    One that is not `scored` may do without labels, which the Hub writes as -1 in every row.
    """

    def __init__(
        self,
        source: Source,
        name: str,
        rows: Any,
        request: Request,
        classes: Sequence[str],
        note: Note = lambda _: None,
        *,
        scored: bool = True,
    ) -> None:
        from datasets import Image

        self._request, self._classes, self._note, self._source = request, classes, note, source
        self.name, self.where = name, flat(f"{request.dataset}, split {name}")
        if not len(rows):
            raise SoupError("the split is empty", where=self.where, hint="another --split")
        features = rows.features
        self.image = _column(features, request.image_column, "Image", "--image-column", self.where)
        if type(features[self.image]).__name__ != "Image":
            what = f"expected images, found {type(features[self.image]).__name__}"
            raise UsageError(what, where=f"{self.where}, column {flat(self.image)}", hint="--image-column NAME")
        self._mode = features[self.image].mode
        self._cells = rows.select_columns([self.image]).cast_column(self.image, Image(decode=False))
        label = _column(features, request.label_column, "ClassLabel", "--label-column", self.where)
        where = f"{self.where}, column {flat(label)}"
        values = list(rows.select_columns([label])[label])
        self.labels, self._labelled = np.zeros(len(rows), np.int64), scored or any(v != UNLABELLED for v in values)
        if not self._labelled:
            return
        self.labels = class_numbers(values, features[label], classes, where=where, note=note)
        check_classes(self.labels, classes, where=self.where, note=note)
        if source.by_folder:
            paths = [cell["path"] if cell else None for cell in self._cells[self.image]]
            check_folders(paths, self.labels, classes, where)

    def prepare(
        self,
        processor: Any,
        title: str,
        rows: NDArray[np.int64],
        limit: int | None,
        advance: Advance = lambda _: None,
        *,
        corruption: Corruption | None = None,
        home: Path | None = None,
    ) -> tuple[Split, Prepared]:
        """Decode and process the rows, or `limit` of them, once, into hfsoup's cache or `home`."""
        cut = limit is not None and limit < len(rows)
        if limit is not None and cut:
            rows = rows[limited(self.labels[rows], limit)]
        content = content_hash(self._source, self.name, self.image, *([corruption.facts] if corruption else []))
        where = f"{self.where}, column {flat(self.image)}"
        found = prepare(
            rows.tolist(), self._read, processor, content=content, where=where, advance=advance, note=self._note,
            mode=self._mode, change=corruption, home=home,
        )  # fmt: skip
        self._bad(found, len(rows), where)
        self._lost(found)
        kept = np.asarray(found.rows, np.int64)
        labels = self.labels[kept]
        if self._labelled:
            where = flat(f"{self._request.dataset}, split {title}")
            check_classes(labels, self._classes, where=where, note=self._note, limited=cut)
        rule = f"{len(kept)} of {len(self.labels)} rows of the split {self.name!r}"
        seal = fingerprint(content, kept, labels)
        return Split(title, rule, seal, found.path, labels, kept, self.name, self.image), found

    def _lost(self, found: Prepared) -> None:
        """Say how many images are not seen as their files have them, for neither are they by those who use the soup."""
        if not found.lost:
            return
        rows, shares = zip(*found.lost, strict=True)
        self._note(
            f"{len(rows)} of {len(found.rows)} images of the split {self.name!r} have more than 8 bits a pixel, which"
            f" pipeline() cuts off and so does every score here: {sum(shares) / len(shares):.0%} of their pixels are"
            f" white or black only for that ({rows_text(rows)})"
        )

    def _read(self, row: int) -> bytes:
        return self._source.image(self._cells[row][self.image])

    def _bad(self, found: Prepared, total: int, where: str) -> None:
        """Images that cannot be used are an error, or left out and counted where that was asked for."""
        if not found.bad:
            return
        reasons = "".join(f"\n  row {row} of split {self.name}: {reason}" for row, reason in found.bad[:8])
        what = f"{len(found.bad)} of {total} images cannot be decoded or used"
        if not self._request.skip_bad_images or not found.rows:
            hint = "--skip-bad-images leaves them out and says so" if found.rows else "another --split"
            raise SoupError(f"{what}:{reasons}", where=where, hint=hint)
        rows = rows_text([row for row, _ in found.bad])
        self._note(f"{what} and are left out of the split {self.name!r}: {rows} ({found.bad[0][1]})")


def apart(seen: Prepared, held: Prepared, *, where: str, note: Note, role: str = "select") -> None:
    """See that the test images are not those that `role` says: by a hash of every decoded image.

    Raises:
        SoupError: more than one test image in a hundred is among the others, pixel for pixel.
    """
    known = set(seen.digests)
    shared = [row for row, digest in zip(held.rows, held.digests, strict=True) if digest in known]
    similar = [held.rows[n] for _, n in alike(seen.path, held.path) if held.rows[n] not in set(shared)]
    if similar:
        note(f"{len(similar)} of {len(held.rows)} test images look like one that {role}s ({rows_text(similar)})")
    if not shared:
        return
    text = f"{len(shared)} of {len(held.rows)} test images are also among those that {role} ({rows_text(shared)})"
    if len(shared) > SHARED * len(held.rows):
        hint = "remove the doubles; a score on images that made the model is no test"
        raise SoupError(f"{text}, at most {SHARED:.0%} may be", where=where, hint=hint)
    note(text)


def _column(features: Any, asked: str | None, kind: str, flag: str, where: str) -> str:
    """The column asked for, or the only one of its kind."""
    shown = flat(", ".join(f"{name} ({type(feature).__name__})" for name, feature in features.items()), 400)
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
