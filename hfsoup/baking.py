"""The order of the stages."""

from __future__ import annotations

import inspect
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hfsoup.average import Averager
from hfsoup.check import check, remarks
from hfsoup.errors import SoupError, UsageError
from hfsoup.hub import told
from hfsoup.licences import check_licences
from hfsoup.options import Options
from hfsoup.preflight import concerns
from hfsoup.pull import needed, pull
from hfsoup.recipes import RECIPES
from hfsoup.resolve import resolve
from hfsoup.searching import Search
from hfsoup.soup import Soup
from hfsoup.types import Family, Mix, Score, Source
from hfsoup.watch import Watch
from hfsoup.world import World

if TYPE_CHECKING:
    from hfsoup.images import Images


def bake(*ingredients: str, **options: Any) -> Soup:
    """Make a soup of `ingredients`: Hub names, globs such as `org/model-*`, with `@REVISION`, or local folders.

    Args:
        ingredients: what to make it of; order is kept.
        options: those of `hfsoup bake`, with underscores: recipe, merge, dataset, split, output, push …

    Returns:
        The soup. Nothing is written unless `output` is given, and nothing pushed unless `push` is.

    Raises:
        SoupError: something is wrong that the message says how to mend.
    """
    return run(ingredients, Options.of(options), Watch())


def run(patterns: tuple[str, ...], options: Options, watch: Watch) -> Soup:
    """Resolve, pull, check, search, test, write, push."""
    recipe = RECIPES.get(options.chosen_recipe)
    if recipe.needs_data and not options.dataset:
        raise UsageError(f"the recipe {recipe.name} needs data to search with", hint="--dataset ORG/NAME")
    if not patterns:
        raise UsageError("no ingredients", hint='hfsoup bake "org/model-*"')
    world, clock = World(options.device, alone=options.dataset is None), Clock()
    with told(watch.note), ExitStack() as stack:
        world.on_main(lambda: _claim(patterns, options, stack))
        family = world.on_main(lambda: gather(patterns, options, watch, clock))
        images = None
        if options.dataset:
            with clock("prepare"):
                images = world.on_main(lambda: _images(family, options, watch))
        if options.align != "none":
            with clock("align"):
                family = world.on_main(lambda: _aligned(family, options, watch, images, world))
        averager = stack.enter_context(Averager(family, options.merge, options.stored_dtype))
        if images:
            soup = _measured(patterns, options, watch, clock, world, averager, _settling(images, family, options))
        else:
            mix = searched(family, options, watch, None)[1]
            soup = Soup(family, mix, options, patterns, (None,) * len(family), seconds=clock.seconds)
        return world.on_main(lambda: deliver(soup, watch, clock))


def gather(patterns: tuple[str, ...], options: Options, watch: Watch, clock: Clock) -> Family:
    """Everything before the first score: which ingredients there are, on this disk and fit to be averaged."""
    from hfsoup.push import may_push

    if options.push:
        may_push(options.push, create_pr=options.create_pr)
    with clock("pull"):
        with watch.stage("Resolving"):
            sources = resolve(patterns, exclude=options.push, include_soups=options.include_soups, notify=watch.note)
        with watch.stage("Pulling", _bytes(sources), "B") as advance:
            ingredients = pull(sources, advance=advance, notify=watch.note)
    with clock("check"), watch.stage("Checking"):
        family = check(
            ingredients,
            exact=bool(options.dataset),
            on_mismatch=options.on_mismatch,
            processor_from=options.processor_from,
        )
        for remark in remarks(family):
            watch.note(remark)
    if options.push:
        check_licences(family.ingredients, options.license)
    with clock("check"), watch.stage("Comparing weights"):
        for concern in concerns(family) if options.dataset and options.align == "none" else ():
            watch.note(concern)
    return family


def _claim(patterns: tuple[str, ...], options: Options, stack: ExitStack) -> None:
    """Hold the output folder from the start; what stands there already must be this bake's own work, or may go."""
    from hfsoup.lock import begun_by
    from hfsoup.write import claimed

    if options.output is None:
        return
    target = Path(options.output)
    stack.enter_context(claimed(target))
    if os.path.lexists(target) and not options.overwrite and not begun_by(target, patterns, options):
        raise SoupError(
            "the output folder is already there", where=options.output, hint="--overwrite, or another --output"
        )


def deliver(soup: Soup, watch: Watch, clock: Clock) -> Soup:
    """Write the folder and push it, where asked to."""
    options = soup.options
    if options.output:
        with clock("average"), watch.stage("Writing"):
            soup = soup.save(options.output, overwrite=options.overwrite)
    if options.push:
        with clock("push"), watch.stage("Pushing"):
            soup = soup.push_to_hub(
                options.push, private=options.private, create_pr=options.create_pr, revision=options.revision
            )
    return soup


class Clock:
    """Seconds by stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Count the block towards `name`."""
        begin = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - begin


def _measured(
    patterns: tuple[str, ...],
    options: Options,
    watch: Watch,
    clock: Clock,
    world: World,
    averager: Averager,
    images: Images,
) -> Soup:
    """Search with the selection split, then score soup and best ingredient once on the test split."""
    from hfsoup.evaluation import RECALIBRATE, Scorer
    from hfsoup.hub import cache
    from hfsoup.journal import Journal
    from hfsoup.metrics import metric

    family = averager.family
    for note in images.notes if world.main else ():
        watch.note(note)
    chosen = metric(options.metric, trust_remote=options.trust_remote_metric)
    with clock("evaluate"), watch.stage("Scoring", unit="images") as advance:
        journal = Journal(cache() / "scores.sqlite", read=options.resume, notify=watch.note)
        scorer = Scorer(
            averager, chosen, world, journal,
            batch_size=options.batch_size, bn=options.bn, calibration=images.calibration, race=options.race,
            advance=advance,
        )  # fmt: skip
        search, mix = searched(family, options, watch, lambda mix, least: scorer.score(mix, images.selection, least))
        selection = search.score(mix)
        best = search.ranked[0]
        comparison = scorer.compare(mix, selection.bn, search.mix((best,)), images.test)
        statistics = scorer.statistics(mix) if selection.bn == RECALIBRATE else {}
        modes = scorer.scores(mix, images.selection)
    scores = tuple(search.scores.get(search.mix((i,))) for i in range(len(family)))
    return Soup(
        family, mix, options, patterns, scores, tuple(search.trace), selection, comparison, best, images,
        scorer.images_forwarded, scorer.images_spared, images.notes, modes, statistics, clock.seconds,
    )  # fmt: skip


def _images(family: Family, options: Options, watch: Watch) -> Images:
    from hfsoup.calibrate import IMAGES
    from hfsoup.images import load_images
    from hfsoup.models import image_processor

    processor = image_processor(family.processing.processor_folder)
    calibrate = IMAGES if options.align != "none" or _settles(family, options) else 0
    with watch.stage("Preparing images", unit="images") as advance:
        return load_images(options.request(), processor, family.labels, calibrate=calibrate, advance=advance)


def _settles(family: Family, options: Options) -> bool:
    """Whether batch norms get new statistics; those of a fitted network fit already."""
    return family.has_batch_norm and options.bn != "average" and not options.fit


def _settling(images: Images, family: Family, options: Options) -> Images:
    """The images without those that were looked at for an alignment alone."""
    return images if _settles(family, options) else replace(images, calibration=None)


def _aligned(family: Family, options: Options, watch: Watch, images: Images | None, world: World) -> Family:
    from hfsoup.alignment.family import aligned

    with watch.stage("Aligning") as advance:
        return aligned(
            family,
            method=options.align,
            seed=options.seed,
            images=images.calibration if images else None,
            fitted=options.fit,
            device=world.device if images else None,
            advance=advance,
        )


def searched(
    family: Family, options: Options, watch: Watch, score: Callable[[Mix, float | None], Score] | None
) -> tuple[Search, Mix]:
    """The recipe's walk over a family, and the mix where it ends."""
    names = tuple(map(str, family.ingredients))
    search = Search(names, score, options.rules(), lambda decision: watch.decision(names, decision))
    mix = RECIPES.get(options.chosen_recipe).function(search)
    for i in search.left_out:
        watch.note(f"{names[i]} is below --min-score {options.min_score}; left out")
    return search, mix


def _bytes(sources: tuple[Source, ...]) -> int:
    return sum(file.size for source in sources if not source.folder for file in needed(source))


def free(folder: Path) -> Path:
    """`folder`, or the first of `folder-2`, `folder-3` … that is not there yet."""
    n, found = 2, folder
    while found.exists():
        n, found = n + 1, folder.with_name(f"{folder.name}-{n}")
    return found


bake.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
    [
        inspect.Parameter("ingredients", inspect.Parameter.VAR_POSITIONAL, annotation=str),
        *(
            inspect.Parameter(f.name, inspect.Parameter.KEYWORD_ONLY, default=f.default, annotation=f.type)
            for f in fields(Options)
        ),
    ],
    return_annotation=Soup,
)
