"""Train a distilled network again from its record, to see that the same one comes out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from hfsoup.averaging.mix import Mix
from hfsoup.baking.distill import limit_training_images
from hfsoup.data.tasks import task_of
from hfsoup.ingredients.family import Family
from hfsoup.networks.distillation.result import append_member
from hfsoup.utils.errors import MismatchError

if TYPE_CHECKING:
    from hfsoup.averaging.averager import Averager
    from hfsoup.options.options import Options
    from hfsoup.provenance.manifest import Manifest
    from hfsoup.provenance.records import DistillationRecord
    from hfsoup.utils.distributed import World


def retrain_network(
    averager: Averager,
    record: Manifest,
    options: Options,
    world: World,
    where: str,
    advance: Callable[[int], None] = lambda _: None,
) -> tuple[Family, Mix]:
    """Train the network again; the family with it as one more member, and the mix of it alone.

    Raises:
        MismatchError: the images have changed, or the network differs from the recorded one.
    """
    from hfsoup.checkpoints.processor import load_image_processor
    from hfsoup.data.images import load_unlabelled
    from hfsoup.networks.distillation.family import distill_family

    family, found = averager.family, _require_training(record, options, where)
    data, request = record.dataset, options.make_request(task_of(family.config))
    if data:
        request = replace(request, revision=data.revision, mapping=data.mapping)
    processor = load_image_processor(family.processor_ingredient.processor_folder)
    split = load_unlabelled(request, processor, family.labels, limit_training_images(options))
    if split.fingerprint != found.images.fingerprint:
        raise _make_error("the images of the training have changed", where)
    made = distill_family(
        averager, tuple(found.members), _find_start(record, found),
        record.batch_norm.arrays() if record.batch_norm else {}, split, world.accelerator,
        epochs=found.epochs, seed=found.seed, fresh=True, advance=advance,
    )  # fmt: skip
    if made.weights[0].sha256 != found.weights:
        raise _make_error("the network, trained again, differs from the one that was baked", where)
    return append_member(family, made)


def _find_start(record: Manifest, found: DistillationRecord) -> Mix:
    """The mix that the training started from: the recipe's, with coefficients by tensor, or one ingredient."""
    mix, plain = record.mix(), Mix(tuple(found.start), found.base)
    return mix if (mix.coefficients, mix.base) == (plain.coefficients, plain.base) else plain


def _require_training(record: Manifest, options: Options, where: str) -> DistillationRecord:
    """The record of the training, if options and ingredients match it."""
    found, count = record.distillation, len(record.ingredients)
    if found is None or options.distill is None:
        raise _make_error("the record holds no training", where)
    asked = (options.distill, options.seed) == (found.epochs, found.seed)
    if not asked or len(found.start) != count or not all(0 <= i < count for i in found.members):
        raise _make_error("the recorded training does not match the ingredients and options", where)
    return found


def _make_error(what: str, where: str) -> MismatchError:
    return MismatchError(
        f"this is not what its record says: {what}", where=where, hint="do not use this soup; bake it again"
    )
