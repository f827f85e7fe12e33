"""From names to a family: resolve the ingredients, pull them, check that they fit together."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from hfsoup.baking.disk import DataNeeds, DiskNeed, list_disk_needs, measure_dataset, require_disk
from hfsoup.baking.distill import limit_training_images
from hfsoup.baking.memory import MemoryNeed, estimate_memory, require_memory
from hfsoup.baking.requirements import CALIBRATION, may_extrapolate, needs_base, one_is_enough
from hfsoup.baking.workload import Workload, estimate_workload
from hfsoup.checkpoints.inspection import read_class_names
from hfsoup.checkpoints.timm_config import format_model_type
from hfsoup.checkpoints.types import Ingredient, Source
from hfsoup.data.tasks import require_classifier, require_metric, task_of
from hfsoup.ingredients.base_model import find_known_base, resolve_base
from hfsoup.ingredients.cards import check_licences, describe_unknown_license
from hfsoup.ingredients.compatibility import check_compatibility, list_remarks
from hfsoup.ingredients.diagnose import examine_weights
from hfsoup.ingredients.family import Family
from hfsoup.ingredients.find import find_base, find_ingredients, require_several
from hfsoup.ingredients.headers import Outline, peek_config, read_outline
from hfsoup.ingredients.pull import count_bytes, count_missing_bytes, include_bases, pull_ingredients
from hfsoup.options.options import Options
from hfsoup.utils.errors import MismatchError, UsageError
from hfsoup.utils.progress import Clock, Watch
from hfsoup.utils.text import format_count, format_size, join_names

if TYPE_CHECKING:
    from hfsoup.baking.prefetch import Prefetcher
    from hfsoup.data.preview import DatasetPreview


def gather_family(
    patterns: tuple[str, ...],
    options: Options,
    watch: Watch,
    clock: Clock,
    prefetcher: Prefetcher | None = None,
    *,
    several: bool = True,
) -> Family:
    """Resolve, pull and check the ingredients: all that comes before the first score.

    Args:
        patterns: as for `bake`.
        options: as for `bake`.
        watch: is shown the stages.
        clock: counts their seconds.
        prefetcher: prepares images meanwhile.
        several: expect more than one ingredient, not exactly one.
    """
    with clock("pull"):
        sources = resolve_ingredients(patterns, options, watch)
        _check_count(sources, options, several)
        given = find_base(options.base, notify=watch.note) if options.base else None
        first = read_outline(sources[0])
        needs = assess_needs(sources, given, options, first, watch)
        if prefetcher:
            prefetcher.start(sources[0], options, count_missing_bytes(sources))
        ingredients = _pull_ingredients(sources, watch, prefetcher)
    with clock("check"), watch.stage("Checking") as stage:
        family = _check_family(sources, ingredients, options, watch, several)
        # Pickles have no header, and ingredients may have been left out.
        require_memory(estimate_memory(replace(first, specs=family.tensors), options, len(family), needs.work))
        classes = format_count(len(family.labels), "class", "es")
        stage.done(f"Checked: one {format_model_type(family.config)} with {classes}")
    if whose := needs_base(options):
        with clock("pull"), watch.stage("Pulling the base") as stage:
            family = resolve_base(family, given, why=whose, notify=watch.note)
            stage.done(f"Pulled the base of {whose}")
    elif may_extrapolate(options):
        with clock("pull"), watch.stage("Looking for the base") as stage:
            family = find_known_base(family, notify=watch.note)
            stage.done(f"{'Pulled the' if family.base else 'Found no'} base for extrapolation")
    if options.as_adapter and family.base:
        from hfsoup.averaging.low_rank import require_own_base

        require_own_base(family)
    if options.push:
        base = (family.base.ingredient,) if family.base else ()
        check_licences((*family.ingredients, *base), options.license)
    if options.dataset and options.align == "none" and len(family) > 1:
        with clock("check"), watch.stage("Comparing weights") as stage:
            family = examine_weights(family, watch.note)
            stage.done("Compared the weights")
    return family


def _check_count(sources: Sequence[Source], options: Options, several: bool) -> None:
    """Refuse too few models, or several where one is to be scored."""
    if not several:
        _require_one(sources)
    elif not sources[0].folder:
        # A single local folder is refused after its own errors, which are more useful.
        require_several(sources, one_is_enough(options))


@dataclass(frozen=True)
class Needs:
    """What a bake takes; `work` and `data` are None without a dataset."""

    work: Workload | None
    data: DataNeeds | None
    disk: tuple[DiskNeed, ...]
    memory: MemoryNeed | None


def assess_needs(
    sources: Sequence[Source],
    base: Source | None,
    options: Options,
    first: Outline,
    watch: Watch,
    *,
    elsewhere: bool = False,
) -> Needs:
    """What a bake takes at most, which a plan shows and a bake checks, before anything is pulled or written.

    Args:
        sources: the ingredients.
        base: the model that --base names.
        options: as for `bake`.
        first: the first ingredient by config and headers.
        watch: is shown the stages.
        elsewhere: it is for another machine, so that disk and memory of this one need not be large enough.

    Raises:
        SoupError: disk or memory are too small, or the dataset is not one that the models can be scored on.
    """
    found = inspect_dataset(options, sources[0], watch)
    work = estimate_workload(found, options, len(sources), first) if found else None
    data = measure_dataset(found, options, sources[0], first) if found else None
    disk = list_disk_needs(sources, (base,) if base else (), options, first, data, work)
    memory = estimate_memory(first, options, len(sources), work)
    if not elsewhere:
        require_disk(disk)
        require_memory(memory)
    return Needs(work, data, disk, memory)


def _require_one(sources: Sequence[Source]) -> None:
    """Refuse several models where one is to be scored."""
    if len(sources) > 1:
        names = join_names([str(source) for source in sources], 4)
        hint = f"hfsoup eval {shlex.quote(sources[0].id)} --dataset …, one by one; or hfsoup bake, which scores each"
        raise UsageError(f"expected one model, found {len(sources)}", where=names, hint=hint)


def resolve_ingredients(
    patterns: tuple[str, ...], options: Options, watch: Watch, *, keep: bool = True
) -> tuple[Source, ...]:
    """Find the ingredients and pin them to commits; check first that the soup may be pushed.

    Args:
        patterns: as for `bake`.
        options: as for `bake`.
        watch: is shown the stage.
        keep: keep what is read of them in the cache.
    """
    from hfsoup.hub.push import require_push_access

    if doubt := describe_unknown_license(options.license):
        watch.note(doubt)
    if options.push:
        require_push_access(options.push, create_pr=options.create_pr)
    with watch.stage("Resolving") as stage:
        sources = find_ingredients(
            patterns,
            target=options.push,
            exclude=options.exclude or (),
            fine_tunes_of=options.fine_tunes_of,
            include_soups=options.include_soups,
            on_mismatch=options.on_mismatch,
            weights_file=options.weights_file,
            state_dict_key=options.state_dict_key,
            keep=keep,
            notify=watch.note,
        )
        stage.done(f"Resolved {format_count(len(sources), 'ingredient')}")
    return sources


def _check_family(
    sources: Sequence[Source], ingredients: tuple[Ingredient, ...], options: Options, watch: Watch, several: bool
) -> Family:
    """Check that the ingredients fit together, and that these options can make a soup of them."""
    family = check_compatibility(
        ingredients, on_mismatch=options.on_mismatch, processor_from=options.processor_from, labels=options.labels
    )
    for remark in list_remarks(family):
        watch.note(remark)
    if several:
        require_several(sources, one_is_enough(options))
    if several and len(family) < 2 <= len(ingredients):
        hint = "hfsoup check shows how they differ; --exclude GLOB leaves some out"
        raise MismatchError("no two of the ingredients fit together", hint=hint)
    if options.dataset:
        task = require_classifier(family.config, len(family.labels), where=str(family.reference))
        require_metric(options.metric, task, trust_remote=options.trust_remote_metric)
    if options.as_adapter:
        from hfsoup.averaging.low_rank import require_adapters

        require_adapters(family, options.bn if options.dataset else "average")
    return family


def inspect_dataset(options: Options, first: Source, watch: Watch) -> DatasetPreview | None:
    """Check from listing and headers that these models can be scored on the dataset, before anything is pulled.

    Args:
        options: as for `bake`; without a dataset there is nothing to check.
        first: an ingredient, whose classes are compared with the dataset's unless it may be left out; those of an
            adapter are known once it is pulled.
        watch: is shown the stage.

    Raises:
        SoupError: the models do regression.
        UsageError: there is no such dataset, split, column or metric.
        MismatchError: its classes are not the model's.
    """
    if options.dataset is None:
        return None
    from hfsoup.data.preview import preview_dataset
    from hfsoup.data.shifts import measure_other_dataset
    from hfsoup.evaluation.metrics import load_metric

    config, classes = peek_config(first.base or first), None
    task = task_of(config)
    if not first.base:
        classes = read_class_names(config, where=f"{first}, config.json")
        task = require_classifier(config, len(classes), where=str(first))
    if options.on_mismatch == "skip-ingredient":
        classes = None
    load_metric(options.metric, task, trust_remote=options.trust_remote_metric)
    with watch.stage("Reading the dataset's metadata") as stage:
        found = preview_dataset(
            options.make_request(task), classes, most=max(CALIBRATION, limit_training_images(options))
        )
        others = tuple(measure_other_dataset(request) for request in options.make_other_requests(task).values())
        stage.done(f"Read the metadata of {options.dataset}")
    return replace(found, others=others)


def _pull_ingredients(
    sources: tuple[Source, ...], watch: Watch, prefetcher: Prefetcher | None
) -> tuple[Ingredient, ...]:
    """Pull the sources, and say how much was cached."""
    every = include_bases(sources)
    holdings = [count_bytes(source) for source in every if not source.folder]
    total, there = sum(size for size, _ in holdings), sum(size == cached for size, cached in holdings)
    with watch.stage("Pulling", total, "B" if total else "") as stage:
        ingredients = pull_ingredients(sources, advance=stage, notify=watch.note, follower=prefetcher)
        known = f" ({there} cached)" if there else ""
        text = (
            f"Pulled {format_count(len(holdings), 'checkpoint')}, {format_size(total)}{known}" if holdings else "Opened"
        )
        local = format_count(len(every) - len(holdings), "local checkpoint")
        stage.done(text if len(holdings) == len(every) else f"{text}{', and' if holdings else ''} {local}")
    return ingredients
