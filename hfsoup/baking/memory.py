"""Memory: what a bake takes at least, and whether there is as much. A plan and a bake count with the same function."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import prod

from hfsoup.averaging.averager import BLOCK
from hfsoup.baking.disk import PREDICTION, count_classes, list_linear_inputs
from hfsoup.baking.requirements import CALIBRATION, count_members_in_memory, needs_images
from hfsoup.baking.workload import Workload
from hfsoup.checkpoints.safetensors_io import FLOATS, count_bytes
from hfsoup.data.tasks import task_of
from hfsoup.evaluation.batch_sizes import CALIBRATION as CALIBRATION_BATCH
from hfsoup.evaluation.batch_sizes import IN_MEMORY, USUAL
from hfsoup.ingredients.headers import Outline
from hfsoup.merges import MERGES
from hfsoup.options.options import Options
from hfsoup.recipes import RECIPES
from hfsoup.utils.errors import SoupError
from hfsoup.utils.memory import read_free_memory
from hfsoup.utils.text import format_size
from hfsoup.utils.threads import count_processors

CLASS = 2_000
"""Bytes that the names of one class take in configs, labels and records, about."""
BLOCK_COPIES = 4
"""Copies of a block in float64 that a merge holds, about."""


@dataclass(frozen=True)
class MemoryNeed:
    """`size` bytes of memory that a stage of a bake takes at least, besides Python, libraries and activations."""

    purpose: str
    size: int


@dataclass(frozen=True)
class _Sizes:
    """Bytes and counts that the stages are made of.

    `stored` are the bytes of one model as a soup is written, `elements` its float elements, `batch` the bytes of one
    batch of images, `image` those of one image.
    """

    stored: int
    elements: int
    batch: int
    image: int
    ingredients: int

    @property
    def single(self) -> int:
        """The bytes of one model in float32."""
        return FLOATS["F32"] * self.elements


def require_memory(need: MemoryNeed | None) -> None:
    """Refuse a bake that takes more memory than there is; what is not known is not refused.

    Raises:
        SoupError: the memory is too small.
    """
    free = read_free_memory()
    if need and need.size > free:
        needed = f"{format_size(need.size)} for {need.purpose}"
        what = f"the memory is too small: expected at least {needed}, found {format_size(free)}"
        raise SoupError(
            what,
            hint="fewer ingredients (--max-ingredients N), a smaller --batch-size, or another recipe or merge",
        )


def estimate_memory(model: Outline, options: Options, ingredients: int, work: Workload | None) -> MemoryNeed | None:
    """The stage of a bake that takes the most memory; None where no header says how large the models are.

    Args:
        model: one of the ingredients by config and headers.
        options: as for `bake`.
        ingredients: how many there are.
        work: how much there is to score; None without a dataset.
    """
    if model.specs is None:
        return None
    stored = options.stored_dtype
    kinds = [(stored if stored and s.dtype in FLOATS else s.dtype, s.shape) for s in model.specs]
    image = FLOATS["F32"] * prod(model.shape or ())
    sizes = _Sizes(
        sum(count_bytes(dtype, shape) for dtype, shape in kinds), model.elements,
        _count_batch(options, work) * image, image, ingredients,
    )  # fmt: skip
    need = max(_list_stages(sizes, model, options, work), key=lambda need: need.size)
    return replace(need, size=need.size + CLASS * count_classes(model))


def _count_batch(options: Options, work: Workload | None) -> int:
    """The images of a forward pass: no more than the larger split has."""
    if work is None:
        return 0
    sizes = [n for n in (work.selection, work.test) if n is not None]
    return min(options.batch_size or USUAL, max(sizes, default=USUAL))


def _list_stages(sizes: _Sizes, model: Outline, options: Options, work: Workload | None) -> Iterator[MemoryNeed]:
    merging = _measure_blocks(sizes.ingredients, model, options)
    yield MemoryNeed("averaging, a few blocks of tensors at a time", merging)
    if options.align != "none":
        yield MemoryNeed("alignment", _measure_alignment(sizes, options, work))
    if work is None:
        return
    several = FLOATS["F64"] * sizes.elements if sizes.ingredients > 1 and options.merge == "mean" else 0
    predictions = _measure_predictions(sizes.ingredients, model, options, work)
    # Weights of few bits are scored in float32.
    model_and_sum = max(sizes.stored, sizes.single) + several
    scoring = model_and_sum + sizes.batch + _measure_ahead(sizes, work) + merging + predictions
    yield MemoryNeed("scoring: a model, its running sum, batches of images and the predictions", scoring)
    if work.calibration and options.recalibrates:
        images = min(work.calibration, IN_MEMORY * CALIBRATION_BATCH) * sizes.image
        yield MemoryNeed("batch-norm statistics", model_and_sum + images + predictions)
    if (members := count_members_in_memory(options, sizes.ingredients)) > 1:
        # A network, the average and the gradient.
        learning = sizes.stored + merging + sizes.single * (members + 3) + 2 * sizes.batch
        yield MemoryNeed(f"learning: {members} ingredients at once in float32, and three models", learning)
    if options.distill:
        # The network, its gradient and the optimizer's two moments; the members that it matches, and its start.
        logits = FLOATS["F32"] * (work.unlabelled or 0) * count_classes(model)
        training = scoring + 4 * sizes.single + sizes.stored + sizes.single + logits
        yield MemoryNeed("distillation: the network with gradient and optimizer", training)
    if needs_images(options):
        estimates = sizes.single
        if not MERGES.get(options.merge).elementwise:
            estimates = FLOATS["F32"] * sum(inputs**2 for inputs in list_linear_inputs(model))
        network = sizes.stored + sizes.single + 2 * sizes.batch
        yield MemoryNeed(f"importance of weights for {options.merge}", network + 3 * estimates)


def _measure_ahead(sizes: _Sizes, work: Workload) -> int:
    """The bytes of the batches of images that are in memory at once; a split may have fewer."""
    images = max((n for n in (work.selection, work.test) if n is not None), default=None)
    most = IN_MEMORY * sizes.batch
    return most if images is None else min(most, images * sizes.image)


def _measure_blocks(ingredients: int, model: Outline, options: Options) -> int:
    """The bytes of the tensors that the processors merge at a time: blocks, or whole tensors where a merge needs them.

    Merges that solve for a layer hold a few matrices of inputs × inputs too.
    """
    merge, processors = MERGES.get(options.merge), count_processors()
    largest = max((prod(spec.shape) for spec in model.specs or ()), default=0)
    if merge.elementwise:
        return FLOATS["F64"] * BLOCK_COPIES * min(processors * BLOCK, model.elements)
    inputs = max(list_linear_inputs(model), default=0) if merge.importance else 0
    one = FLOATS["F64"] * (5 * inputs**2 + 4 * largest) + FLOATS["F32"] * ingredients * largest
    return min(processors, len(model.specs or ())) * one


def _measure_alignment(sizes: _Sizes, options: Options, work: Workload | None) -> int:
    """Two ingredients, or with --fit all of them, as stored and in float32, a network, and all calibration images."""
    members = sizes.ingredients if options.fit else 2
    images = min(work.calibration or work.selection or 0, CALIBRATION) if work else 0
    return members * (sizes.stored + sizes.single) + sizes.single + 2 * images * sizes.image


def _measure_predictions(ingredients: int, model: Outline, options: Options, work: Workload) -> int:
    """The bytes of the predictions of every candidate, and of logits where recipe or ensemble read them."""
    classes = count_classes(model)
    probabilities = task_of(model.config).threshold is not None
    one = FLOATS["F32"] * (classes + 1) if probabilities else PREDICTION
    logits = (work.selection or 0) if RECIPES.get(options.chosen_recipe).logits else 0
    logits += (work.test or 0) if options.ensemble else 0
    return (work.images or 0) * one + (FLOATS["F32"] * ingredients + FLOATS["F64"]) * logits * classes
