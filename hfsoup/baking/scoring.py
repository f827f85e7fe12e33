"""The images and the scorer of a bake, made from its options."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from hfsoup.averaging.averager import Averager
from hfsoup.baking.requirements import needs_calibration
from hfsoup.data.tasks import task_of
from hfsoup.options.options import Options
from hfsoup.recipes import RECIPES
from hfsoup.utils.distributed import World

if TYPE_CHECKING:
    from hfsoup.data.images import Images
    from hfsoup.data.tasks.task import Task
    from hfsoup.evaluation.journal import Journal
    from hfsoup.evaluation.scorer import Scorer


def require_precision(options: Options, world: World) -> None:
    """Refuse a precision that the device does not compute in, before anything is pulled.

    Raises:
        UsageError: it does not.
    """
    if options.dataset is not None:
        from hfsoup.evaluation.precision import choose_precision

        choose_precision(options.precision, world.device)


def make_scorer(
    averager: Averager,
    options: Options,
    world: World,
    journal: Journal,
    images: Images,
    advance: Callable[[int], None],
) -> Scorer:
    """Make the scorer of mixes that these options ask for."""
    from hfsoup.evaluation.forecast import MOST_BYTES, count_logit_bytes
    from hfsoup.evaluation.metrics import load_metric
    from hfsoup.evaluation.precision import choose_precision
    from hfsoup.evaluation.scorer import Scorer

    small = count_logit_bytes(images.selection, len(averager.family.labels)) <= MOST_BYTES
    return Scorer(
        averager,
        load_metric(options.metric, task_of(averager.family.config), trust_remote=options.trust_remote_metric),
        world,
        journal,
        batch_size=options.batch_size,
        bn=options.bn,
        calibration=images.calibration,
        race=options.race,
        precision=choose_precision(options.precision, world.device),
        selection=images.selection,
        keep=[images.selection] if small or RECIPES.get(options.chosen_recipe).logits else [],
        advance=advance,
    )


def load_bake_images(
    options: Options,
    processor: Any,
    labels: tuple[str, ...],
    task: Task,
    batch_norm: bool,
    advance: Callable[[int], None],
    expect: Callable[[int], None],
) -> Images:
    """Load all images that these options need, for ingredients with or without batch norms."""
    from hfsoup.data.images import load_images
    from hfsoup.evaluation.batch_norm import IMAGES

    calibrate = IMAGES if needs_calibration(options, batch_norm) else 0
    return load_images(
        options.make_request(task), processor, labels, calibrate=calibrate, advance=advance, expect=expect,
        learn=RECIPES.get(options.chosen_recipe).epochs > 0,
    )  # fmt: skip
