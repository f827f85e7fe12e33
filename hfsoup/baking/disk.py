"""Disk: the bytes that a bake writes, where, and whether they fit. A plan and a bake count with the same function."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

from hfsoup.baking.distill import limit_training_images
from hfsoup.baking.requirements import CALIBRATION, needs_base, needs_calibration, needs_images
from hfsoup.baking.workload import Workload
from hfsoup.checkpoints.dtypes import FLOAT_DTYPES
from hfsoup.checkpoints.inspection import read_class_names
from hfsoup.checkpoints.safetensors_io import FLOATS, count_bytes
from hfsoup.checkpoints.types import Source
from hfsoup.data.preview import DatasetPreview, SplitSize
from hfsoup.data.tasks import task_of
from hfsoup.ingredients.headers import Outline, list_weight_files, peek_processor, read_adapter_specs
from hfsoup.ingredients.pull import PICKLES, count_missing_bytes, include_bases
from hfsoup.merges import MERGES
from hfsoup.options.options import Options
from hfsoup.recipes import RECIPES
from hfsoup.utils.cache import cache_root
from hfsoup.utils.errors import SoupError
from hfsoup.utils.text import format_size

SPARE = 10_000_000
"""Bytes left free, for whatever else grows meanwhile."""
CARD = 30_000
"""Bytes of the card, config and records of a soup, about."""
IMAGE = 50
"""Bytes that the cache's record of prepared images, and the record of a soup, have for every image."""
SCORE = 1_200
"""Bytes of a score in the journal besides the predictions."""
PREDICTION = 12
"""Bytes of the prediction for one image: its class, the confidence and the true class's probability."""
FIGURES = 600_000
"""Bytes of the files that --figures draws, about."""


@dataclass(frozen=True)
class DiskNeed:
    """`size` bytes that are written to a folder, which need not exist yet, and what for."""

    purpose: str
    folder: Path
    size: int

    @property
    def existing_parent(self) -> Path:
        """The nearest parent that exists, or the folder itself."""
        path = self.folder.absolute()
        return next(p for p in (path, *path.parents) if p.is_dir())

    @property
    def free(self) -> int:
        """Free bytes of its disk."""
        return shutil.disk_usage(self.existing_parent).free


@dataclass(frozen=True)
class Download:
    """A repository to pull: `size` bytes are needed of it, of which `cached` are on this disk.

    Images that an earlier bake prepared count as cached.
    """

    id: str
    revision: str | None
    size: int
    cached: int


@dataclass(frozen=True)
class DataNeeds:
    """What a bake reads of its dataset: the files, None if they are not known before, and images still to prepare.

    `others` are the sizes of the splits of --eval.
    """

    files: Download | None
    images: int
    others: tuple[SplitSize, ...] = ()


def require_disk(needs: Sequence[DiskNeed]) -> None:
    """Refuse a bake that does not fit on its disks; needs on one disk add up.

    Raises:
        SoupError: a disk is too small.
    """
    disks: dict[int, list[DiskNeed]] = {}
    for need in needs:
        if need.size:
            disks.setdefault(need.existing_parent.stat().st_dev, []).append(need)
    for shared in disks.values():
        total, free = sum(need.size for need in shared) + SPARE, min(need.free for need in shared)
        if total > free:
            parts = ", ".join(f"{format_size(need.size)} for {need.purpose}" for need in shared)
            what = f"the disk is too small: expected {format_size(total)} ({parts}), found {format_size(free)}"
            where = ", ".join(dict.fromkeys(str(need.folder) for need in shared))
            hint = "free some space (hfsoup cache shows what hfsoup keeps), or use another HF_HOME or --output"
            raise SoupError(what, where=where, hint=hint)


def list_disk_needs(
    sources: Sequence[Source],
    bases: Sequence[Source],
    options: Options,
    first: Outline,
    data: DataNeeds | None,
    work: Workload | None,
) -> tuple[DiskNeed, ...]:
    """The bytes that a bake writes, by what they are for.

    Args:
        sources: the ingredients.
        bases: the base of recipe or merge, if it is known; one that only cards name counts as large as an ingredient.
        options: as for `bake`.
        first: the first ingredient's config and headers, of an adapter those of its base.
        data: what is read of datasets.
        work: how much there is to score.
    """
    from huggingface_hub import constants

    hub, cache = Path(constants.HF_HUB_CACHE), cache_root()
    found = [
        DiskNeed("ingredients", hub, count_missing_bytes((*sources, *bases)) + _guess_base(sources[0], bases, options))
    ]
    if data and data.files:
        found.append(DiskNeed("the dataset", hub, data.files.size - data.files.cached))
    if data and data.others:
        found.append(DiskNeed("the datasets of --eval", hub, sum(part.size - part.held for part in data.others)))
    if data and first.shape:
        found.append(DiskNeed("prepared images", cache / "images", _measure_images(data, options, work, first)))
    kinds = {
        "converted pickles": ("converted", _measure_converted((*sources, *bases))),
        "merged adapters": ("merged", _measure_merged(sources, first, options)),
        "aligned copies": ("aligned", _measure_aligned(sources, first, options)),
        "importance of weights": ("importance", len(sources) * _measure_importance(first, options)),
        "the distilled network": ("distilled", measure_soup(sources[0], first, options) if options.distill else 0),
        "scores": ("", _measure_scores(len(sources), options, first, work) if work else 0),
    }
    found += [DiskNeed(name, cache / folder, size) for name, (folder, size) in kinds.items()]
    if options.output or options.push:
        folder = Path(options.output).absolute().parent if options.output else Path(tempfile.gettempdir())
        found.append(DiskNeed("the soup", folder, _measure_output(sources[0], first, options, work)))
    return tuple(need for need in found if need.size)


def measure_soup(source: Source, first: Outline, options: Options) -> int:
    """The bytes of the weights of a soup of models like `source`."""
    if first.specs is None:
        whole = sum(file.size for file in list_weight_files(source))
        return whole if options.dtype is None else whole * FLOATS[FLOAT_DTYPES[options.dtype]] // FLOATS["F32"]
    stored = options.stored_dtype
    return sum(count_bytes(stored if stored and s.dtype in FLOATS else s.dtype, s.shape) for s in first.specs)


def measure_dataset(found: DatasetPreview, options: Options, source: Source, first: Outline) -> DataNeeds:
    """What a bake reads of a dataset, and how many of its images are still to be prepared."""
    if found.parts is None:
        return DataNeeds(None, 0, found.others)
    norms = first.has_batch_norm is not False
    looks = needs_calibration(options, norms) or options.distill is not None
    names = {found.selection, found.test, found.calibration if looks else None}
    parts = {name: part for name, part in found.parts.items() if name in names}
    ready = _find_prepared_splits(options, source, first)
    size = sum(p.size for p in parts.values())
    held = sum(p.size if name in ready else p.held for name, p in parts.items())
    cuts = {cut for cut in _list_cuts(found, options, norms) if cut.split not in ready}
    return DataNeeds(Download(found.id, found.revision, size, held), sum(cut.images for cut in cuts), found.others)


@dataclass(frozen=True)
class ImageCut:
    """Images of one split that are prepared as one file; `rule` tells files of as many images apart."""

    split: str
    images: int
    rule: str = "all"


def _list_cuts(found: DatasetPreview, options: Options, norms: bool) -> Iterator[ImageCut]:
    """What `load_images` and `load_unlabelled` prepare, where the number of images is known."""
    whole = {name: part.images for name, part in (found.parts or {}).items()}
    selecting, testing, limit = whole.get(found.selection), whole.get(found.test or found.selection), options.limit
    half = found.test is None
    if selecting is None or testing is None:
        return
    if half:
        selecting, testing = selecting - selecting // 2, testing // 2
    learn = RECIPES.get(options.chosen_recipe).epochs > 0
    for name, count, rule in (
        (found.selection, selecting, "learn" if learn else "first" if half else "all"),
        (found.test or found.selection, testing, "second" if half else "all"),
    ):
        yield ImageCut(name, *((min(limit, count), f"{rule}, limited") if limit and limit < count else (count, rule)))
    seen = {found.selection: (selecting, "first" if half else "all"), found.test: (testing, "all")}
    count, rule = seen.get(found.calibration, (whole.get(found.calibration) or 0, "all"))
    uses = {"calibration": CALIBRATION if needs_calibration(options, norms) else 0}
    uses["distillation"] = limit_training_images(options)
    for use, most in uses.items():
        yield ImageCut(found.calibration, min(count, most), rule if most >= count else f"{rule}, {use}")


def _find_prepared_splits(options: Options, source: Source, first: Outline) -> frozenset[str]:
    """The splits whose images an earlier bake prepared for these models; none if that is not known before.

    Distillation and corruptions read the files again, and --processor-from is resolved only once models are checked.
    """
    from hfsoup.data.images import find_prepared_splits

    unknown = source.base or options.processor_from or options.distill or options.shifts
    if unknown or not any(cache_root().glob("images/*.npy")):
        return frozenset()
    try:
        processor = peek_processor(source)
        classes = read_class_names(first.config, where=str(source))
    except SoupError:
        return frozenset()
    calibrate = CALIBRATION if needs_calibration(options, first.has_batch_norm is not False) else 0
    learn = RECIPES.get(options.chosen_recipe).epochs > 0
    return find_prepared_splits(
        options.make_request(task_of(first.config)), processor, classes, calibrate=calibrate, learn=learn
    )


def _measure_images(data: DataNeeds, options: Options, work: Workload | None, first: Outline) -> int:
    """The bytes of prepared images, one a pixel and channel, and of the corrupted test images of one kind at a time.

    Processors whose pixels are no bytes write four times as many; that is checked once the first image is processed.
    """
    others = [part.images or 0 for part in data.others]
    images = data.images + sum(n if options.limit is None else min(n, options.limit) for n in others)
    corrupted = (work.test or 0) if work and options.shifts else 0
    return (images + corrupted) * (prod(first.shape or ()) + IMAGE)


def _guess_base(source: Source, bases: Sequence[Source], options: Options) -> int:
    """The bytes of a base that only the ingredients' cards name: those of an ingredient."""
    named = not bases and not source.base and needs_base(options)
    return sum(file.size for file in list_weight_files(source)) if named else 0


def _measure_converted(sources: Sequence[Source]) -> int:
    files = [file for s in include_bases(sources) if not s.base for file in list_weight_files(s)]
    return sum(file.size for file in files if file.name.endswith(PICKLES))


@dataclass(frozen=True)
class AdapterSize:
    """Of an adapter: rows and columns of every layer that it changes, and bytes of the tensors that it holds whole."""

    layers: tuple[tuple[int, int], ...]
    whole: int

    @property
    def changed(self) -> int:
        """Elements of the layers that it changes."""
        return sum(rows * columns for rows, columns in self.layers)

    def measure(self, rank: int) -> int:
        """The bytes of an adapter of that rank for the same layers: both factors in float32, and whole tensors."""
        factors = (min(rank, rows, columns) * (rows + columns) for rows, columns in self.layers)
        return FLOATS["F32"] * sum(factors) + self.whole


def _measure_adapter(source: Source, first: Outline) -> AdapterSize:
    """An adapter by its header; of a pickle, which has none, every matrix of the base counts as changed."""
    specs = read_adapter_specs(source)
    if specs is None:
        return AdapterSize(tuple((s.shape[0], prod(s.shape[1:])) for s in first.specs or () if len(s.shape) > 1), 0)
    known = {spec.name: spec for spec in specs}
    pairs = [(a, known.get(a.name.replace(".lora_A.", ".lora_B."))) for a in specs if ".lora_A." in a.name]
    layers = tuple((b.shape[0], prod(a.shape[1:])) for a, b in pairs if b is not None and a.shape and b.shape)
    whole = sum(count_bytes(spec.dtype, spec.shape) for spec in specs if ".lora_" not in spec.name)
    return AdapterSize(layers, whole)


def _measure_merged(sources: Sequence[Source], first: Outline, options: Options) -> int:
    """Adapters merged into their base, whose changed tensors are float64; with --as-adapter the soup too."""
    adapters = [source for source in sources if source.base]
    if not adapters:
        return 0
    whole, found = measure_model(adapters[0], first), _measure_adapter(adapters[0], first)
    width = whole // first.elements if first.elements else FLOATS["F32"]
    one = whole + found.changed * (FLOATS["F64"] - width)
    if options.as_adapter is None:
        return len(adapters) * one
    return (len(adapters) + 1) * one + found.measure(options.as_adapter)


def measure_model(source: Source, first: Outline) -> int:
    """The bytes of a model like `source` in its own dtypes."""
    if first.specs is None:
        return sum(file.size for file in list_weight_files(source))
    return sum(count_bytes(spec.dtype, spec.shape) for spec in first.specs)


def _measure_aligned(sources: Sequence[Source], first: Outline, options: Options) -> int:
    """A copy of every ingredient but the first one, and the fitted network."""
    copies = len(sources) - 1 + options.fit if options.align != "none" else 0
    return copies * measure_model(sources[0], first)


def _measure_importance(first: Outline, options: Options) -> int:
    """The bytes of the importance of one ingredient's weights.

    Where a merge is elementwise, importance has the shape of a tensor; else, of a linear layer, it is inputs × inputs.
    """
    if needs_images(options) is None:
        return 0
    if MERGES.get(options.merge).elementwise:
        return FLOATS["F32"] * first.elements
    return FLOATS["F32"] * sum(inputs**2 for inputs in list_linear_inputs(first))


def list_linear_inputs(first: Outline) -> list[int]:
    """The inputs of every linear layer and 1×1 convolution, by the shapes of the weights."""
    weights = [spec.shape for spec in first.specs or () if spec.name.endswith(".weight") and len(spec.shape) in (2, 4)]
    return [shape[1] for shape in weights if prod(shape[2:]) == 1]


def _measure_scores(ingredients: int, options: Options, first: Outline, work: Workload) -> int:
    """The bytes of predictions in the journal, and of the logits that recipes and ensembles read."""
    classes = count_classes(first)
    plain = PREDICTION if task_of(first.config).threshold is None else 4 * classes + 4
    logits = (work.selection or 0) if RECIPES.get(options.chosen_recipe).logits else 0
    logits += (work.test or 0) if options.ensemble else 0
    return (work.images or 0) * plain + (work.evaluations or 0) * SCORE + 4 * ingredients * logits * classes


def count_classes(first: Outline) -> int:
    """The classes of a model by its config; 2, as transformers has it, if it names none."""
    return len(first.config.get("id2label") or first.config.get("label_names") or ()) or int(
        first.config.get("num_labels") or 2
    )


def _measure_output(source: Source, first: Outline, options: Options, work: Workload | None) -> int:
    """The bytes of the folder that is written."""
    if options.as_adapter and source.base:
        weights = _measure_adapter(source, first).measure(options.as_adapter)
    else:
        weights = measure_soup(source, first, options)
    images = IMAGE * (work.test or 0) if work else 0
    return weights + CARD + images + (FIGURES if options.figures else 0)
