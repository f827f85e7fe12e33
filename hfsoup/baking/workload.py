"""How much a bake has to do: candidates, images that go through a network, time. All of this arithmetic stands here."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from hfsoup.baking.distill import limit_training_images
from hfsoup.baking.requirements import CALIBRATION, count_evaluations, needs_images
from hfsoup.data.corruptions import CORRUPTIONS
from hfsoup.evaluation.journal import read_pace
from hfsoup.networks.distillation.result import count_forwarded
from hfsoup.recipes import RECIPES

if TYPE_CHECKING:
    from hfsoup.data.preview import DatasetPreview
    from hfsoup.ingredients.headers import Outline
    from hfsoup.options.options import Options

LINE_STEPS = 9
"""Averages between the two best ingredients that `--figure-line` scores."""


@dataclass(frozen=True)
class Workload:
    """The most that scoring takes, in images and seconds; None for what cannot be known before a bake.

    `images` are forwarded at most, and `seconds` is estimated from the pace of an earlier bake or check, or `unknown`
    says why there is no estimate. A merge that estimates importance is `shown` images by every ingredient, `estimated`
    in all. A recipe that learns goes `epochs` times over `learning` images, which are in `images` and not in `seconds`.
    A network is distilled on `unlabelled` images, for which ingredients and network forward `training` images.
    """

    selection: int | None
    test: int | None
    calibration: int | None
    evaluations: int | None
    images: int | None = None
    seconds: float | None = None
    unknown: str = ""
    shown: int | None = None
    estimated: int | None = None
    learning: int | None = None
    epochs: int = 0
    unlabelled: int | None = None
    training: int | None = None


class SplitSizes(NamedTuple):
    """Images of each split that a bake reads; None where that cannot be known before."""

    selection: int | None
    test: int | None
    calibration: int | None


class Modes(NamedTuple):
    """How often a single ingredient and a mix are scored: once with each kind of batch-norm statistics."""

    single: int
    mix: int


def count_modes(bn: str, *, batch_norm: bool) -> Modes:
    """How often they are scored with a `--bn`; a single ingredient also has statistics of its own."""
    if not batch_norm or bn == "average":
        return Modes(1, 1)
    return Modes(2, 2 if bn == "auto" else 1)


def count_search_images(mixes: int, *, ingredients: int, selection: int, modes: Modes) -> int:
    """Images evaluated to score a number of mixes, of which single ingredients come first."""
    single = min(mixes, ingredients)
    return selection * (modes.single * single + modes.mix * (mixes - single))


def count_test_images(test: int, *, members: int, shifts: bool, ensemble: bool) -> int:
    """Images forwarded after the search: soup and best ingredient on the test split, its corruptions, the ensemble."""
    return test * (2 + (2 * len(CORRUPTIONS) if shifts else 0) + (members if ensemble else 0))


def estimate_workload(preview: DatasetPreview, options: Options, ingredients: int, first: Outline) -> Workload:
    """Estimate what scoring takes at most.

    Args:
        preview: the dataset's splits and their sizes.
        options: what is to be baked.
        ingredients: how many there are.
        first: what the headers say of the first ingredient.
    """
    recipe, sizes = RECIPES.get(options.chosen_recipe), _count_images(preview, options.limit)
    norms = first.has_batch_norm is not False and options.bn != "average"
    evaluations = count_evaluations(options, ingredients, based=True)
    work = Workload(sizes.selection, sizes.test, sizes.calibration if norms else None, evaluations)
    if needs_images(options) and sizes.calibration is not None:
        work = replace(work, shown=sizes.calibration, estimated=ingredients * sizes.calibration)
    if recipe.epochs and work.selection is not None:
        half = work.selection // 2
        work = replace(work, selection=half, learning=work.selection - half, epochs=recipe.epochs)
    work = _add_images_and_time(work, options, ingredients, first, count_modes(options.bn, batch_norm=norms))
    return _add_distillation(work, preview, options, ingredients)


def _count_images(preview: DatasetPreview, limit: int | None) -> SplitSizes:
    if preview.parts is None:
        return SplitSizes(None, None, None)

    def count(name: str | None) -> int | None:
        return preview.parts[name].images if preview.parts and name in preview.parts else None

    first = count(preview.selection)
    second = count(preview.test) if preview.test else first
    if preview.test is None and first is not None:
        first, second = first - first // 2, first // 2
    selection, test = (n if limit is None or n is None else min(n, limit) for n in (first, second))
    third = count(preview.calibration)
    return SplitSizes(selection, test, None if third is None else min(third, CALIBRATION))


def _add_images_and_time(work: Workload, options: Options, ingredients: int, first: Outline, modes: Modes) -> Workload:
    selection, test, mixes = work.selection, work.test, work.evaluations
    if mixes is None:
        return replace(work, unknown=f"the recipe {options.chosen_recipe} does not say how many candidates it scores")
    if selection is None or test is None:
        return replace(work, unknown="the number of images is not in the dataset's metadata")
    if options.eval:
        return replace(work, unknown="the sizes of the --eval datasets are not read before the bake")
    images = count_search_images(mixes, ingredients=ingredients, selection=selection, modes=modes)
    images += count_test_images(test, members=ingredients, shifts=options.shifts, ensemble=options.ensemble)
    if options.figures:
        # Every ingredient and candidate on the test split, and the plain mean of all on both.
        images += test * max(ingredients, mixes) + modes.mix * selection
    if options.figure_line:
        images += LINE_STEPS * (modes.mix * selection + test)
    pace = read_pace(first.config, options.pace_settings)
    total, forwarded = images + work.epochs * (work.learning or 0), images
    if pace is None:
        # What `hfsoup check` measured has no statistics of batch norms in it, which every mix estimates.
        pace = read_pace(first.config, replace(options, bn="average").pace_settings)
        forwarded += mixes * (work.calibration or 0)
    if pace is None:
        return replace(work, images=total, unknown="this architecture was not scored on this machine before")
    return replace(work, images=total, seconds=forwarded / pace)


def _add_distillation(work: Workload, preview: DatasetPreview, options: Options, ingredients: int) -> Workload:
    if options.distill is None or preview.parts is None:
        return work
    same = preview.calibration == preview.selection
    count = work.selection if same else preview.parts[str(preview.calibration)].images
    if count is None:
        return work
    seen = min(count, limit_training_images(options))
    return replace(work, unlabelled=seen, training=count_forwarded(seen, options.distill, ingredients))
