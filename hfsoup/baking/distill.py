"""Distillation: train one network to match the ingredients that the recipe chose."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from hfsoup.data.tasks import task_of
from hfsoup.networks.distillation.result import Distillation, count_forwarded
from hfsoup.utils.errors import SoupError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from hfsoup.averaging.averager import Averager
    from hfsoup.averaging.mix import Mix
    from hfsoup.data.images import Images
    from hfsoup.evaluation.scorer import Scorer
    from hfsoup.ingredients.family import Family
    from hfsoup.options.options import Options
    from hfsoup.recipes._search import Search
    from hfsoup.utils.distributed import World
    from hfsoup.utils.progress import Watch

MOST = 10_000
"""Images that a training sees at most, unless --limit says how many."""


Statistics = dict[str, "NDArray[np.float32]"]


def load_unlabelled_images(images: Images, family: Family, options: Options, watch: Watch) -> Images:
    """Add the images to distill on, if --distill is given."""
    if options.distill is None:
        return images
    from hfsoup.checkpoints.processor import load_image_processor
    from hfsoup.data.images import load_unlabelled

    most, notes = limit_training_images(options), list(images.notes)
    with watch.stage("Preparing images for distillation", unit="images") as stage:
        request = replace(options.make_request(task_of(family.config)), revision=images.revision)
        processor = load_image_processor(family.processor_ingredient.processor_folder)
        split = load_unlabelled(request, processor, family.labels, most, note=notes.append, advance=stage)
        stage.done(f"Prepared {len(split):,} images for distillation, without labels")
    return replace(images, unlabelled=split, notes=tuple(dict.fromkeys(notes)))


def distill_network(
    averager: Averager,
    scorer: Scorer,
    search: Search,
    mix: Mix,
    images: Images,
    options: Options,
    world: World,
    watch: Watch,
    tell: Callable[[str], None],
) -> tuple[Distillation | None, Statistics]:
    """Train a network to match the members of `mix`; the network, and the batch-norm statistics that it started with.

    It starts from the mix or from the best ingredient, whichever scores higher on the selection split. Only the main
    process trains, so that the result does not depend on the number of processes. None without --distill, or if the
    recipe kept one ingredient.
    """
    from hfsoup.evaluation.scorer import RECALIBRATE

    if options.distill is None:
        return None, {}
    if len(mix.members) < 2:
        watch.note("the recipe kept one ingredient, so there is nothing to distill")
        return None, {}
    split = images.unlabelled
    if split is None:
        raise SoupError("there are no images to distill on")
    start = max((mix, search.mix(search.ranked[:1])), key=lambda one: search.score(one).key)
    before = search.score(start)
    statistics = scorer.estimate_statistics(start) if before.bn == RECALIBRATE else {}
    epochs, done = options.distill, 0
    every = count_forwarded(len(split), epochs, len(mix.members))

    def advance(count: int) -> None:
        nonlocal done
        done += count
        tell(f"training, {done:,} of {every:,} images")

    def train() -> Distillation:
        from hfsoup.networks.distillation.family import distill_family

        made = distill_family(
            averager, mix.members, start, statistics, split, world.accelerator,
            epochs=epochs, seed=options.seed, advance=advance,
        )  # fmt: skip
        return Distillation(made, mix.members, start, before, split, epochs, options.seed)

    return world.on_each_host(train, lambda found: found.ingredient.content), statistics


def limit_training_images(options: Options) -> int:
    """The most images to prepare for distillation; 0 without --distill."""
    return (options.limit or MOST) if options.distill else 0
