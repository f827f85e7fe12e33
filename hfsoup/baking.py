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
from hfsoup.base import with_base
from hfsoup.check import check, remarks
from hfsoup.config import is_config, load
from hfsoup.course import Course
from hfsoup.errors import SoupError, UsageError
from hfsoup.evidence import pictured, witnessed
from hfsoup.figures import may_draw
from hfsoup.further import count, shifts
from hfsoup.hub import told
from hfsoup.human import counted, size
from hfsoup.licences import check_licences
from hfsoup.merges import MERGES
from hfsoup.options import Options
from hfsoup.preflight import concerns
from hfsoup.pull import pull, with_bases
from hfsoup.recipes import RECIPES, Recipe
from hfsoup.registry import Entry
from hfsoup.resolve import resolve
from hfsoup.room import afford, held, needs
from hfsoup.searching import Search
from hfsoup.soup import Soup
from hfsoup.types import Comparison, Family, Ingredient, Mix, Score, Source, Truncated
from hfsoup.watch import Stage, Watch
from hfsoup.world import World

if TYPE_CHECKING:
    from hfsoup.evaluation import Scorer
    from hfsoup.images import Images, Split


def bake(*ingredients: str, **options: Any) -> Soup:
    """Make a soup of `ingredients`: Hub names, globs such as `org/model-*`, with `@REVISION`, or local folders.

    Args:
        ingredients: what to make it of; order is kept. A single YAML file is a config of ingredients and options.
        options: those of `hfsoup bake`, with underscores: recipe, merge, dataset, split, output, push …

    Returns:
        The soup. Nothing is written unless `output` is given, and nothing pushed unless `push` is.

    Raises:
        SoupError: something is wrong that the message says how to mend.
    """
    if is_config(ingredients):
        return run(*load(Path(ingredients[0]), options), Watch())
    return run(ingredients, Options.of(options), Watch())


def run(patterns: tuple[str, ...], options: Options, watch: Watch) -> Soup:
    """Resolve, pull, check, search, test, write, push."""
    asked(patterns, options)
    for text in (*RECIPES.broken, *MERGES.broken):
        watch.note(text)
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
        averager = stack.enter_context(Averager(family, options.merge, options.stored_dtype, options.settings()))
        if images:
            soup = _measured(patterns, options, watch, clock, world, averager, _settling(images, family, options))
        else:
            mix = searched(family, options, watch, None)[1]
            adapter = world.on_main(lambda: _truncated(averager, mix, options, watch))
            soup = Soup(family, mix, options, patterns, (None,) * len(family), seconds=clock.seconds, adapter=adapter)
        return world.on_main(lambda: deliver(soup, watch, clock))


def asked(patterns: tuple[str, ...], options: Options) -> Entry[Recipe]:
    """The recipe that is asked for, where all is there that it needs.

    Raises:
        UsageError: there is no such recipe, it lacks data or a package, or there are no ingredients.
    """
    recipe = RECIPES.get(options.chosen_recipe)
    if recipe.needs_data and not options.dataset:
        raise UsageError(f"the recipe {recipe.name} needs data to search with", hint="--dataset ORG/NAME")
    recipe.require()
    if options.figures:
        may_draw()
    if not patterns:
        raise UsageError("no ingredients", hint='hfsoup bake "org/model-*"')
    return recipe


def gather(patterns: tuple[str, ...], options: Options, watch: Watch, clock: Clock) -> Family:
    """Everything before the first score: which ingredients there are, on this disk and fit to be averaged."""
    from hfsoup.push import may_push

    if options.push:
        may_push(options.push, create_pr=options.create_pr)
    with clock("pull"):
        with watch.stage("Resolving") as stage:
            sources = resolve(patterns, exclude=options.push, include_soups=options.include_soups, notify=watch.note)
            stage.done(f"Resolved {counted(len(sources), 'ingredient')}")
        afford(needs(sources, options))
        ingredients = _pulled(sources, watch)
    with clock("check"), watch.stage("Checking") as stage:
        family = check(
            ingredients,
            exact=bool(options.dataset),
            on_mismatch=options.on_mismatch,
            processor_from=options.processor_from,
        )
        for remark in remarks(family):
            watch.note(remark)
        if options.as_adapter:
            from hfsoup.truncation import may_be_adapter

            may_be_adapter(family, options.bn if options.dataset else "average")
        if whose := needs_base(options):
            family = with_base(family, options.base, why=whose, notify=watch.note)
        if options.push:
            base = (family.base.ingredient,) if family.base else ()
            check_licences((*family.ingredients, *base), options.license)
        for concern in concerns(family) if options.dataset and options.align == "none" else ():
            watch.note(concern)
        stage.done(f"Checked: one {family.config.get('model_type')} with {counted(len(family.labels), 'class', 'es')}")
    return family


def _pulled(sources: tuple[Source, ...], watch: Watch) -> tuple[Ingredient, ...]:
    """The sources on this disk, with a line that says what of them was here."""
    every = with_bases(sources)
    holdings = [held(source) for source in every if not source.folder]
    total, there = sum(size for size, _ in holdings), sum(size == cached for size, cached in holdings)
    with watch.stage("Pulling", total, "B" if total else "") as stage:
        ingredients = pull(sources, advance=stage, notify=watch.note)
        known = f" ({there} cached)" if there else ""
        text = f"Pulled {counted(len(holdings), 'checkpoint')}, {size(total)}{known}" if holdings else "Opened"
        local = counted(len(every) - len(holdings), "local checkpoint")
        stage.done(text if len(holdings) == len(every) else f"{text}{', and' if holdings else ''} {local}")
    return ingredients


def needs_base(options: Options) -> str | None:
    """What of the options needs the model that the ingredients started from, in words.

    Raises:
        UsageError: a base is given that nothing needs.
    """
    chosen: dict[str, Entry[Any]] = {
        "the recipe": RECIPES.get(options.chosen_recipe),
        "the merge": MERGES.get(options.merge),
    }
    whose = next((f"{kind} {entry.name}" for kind, entry in chosen.items() if entry.needs_base), None)
    if options.base and whose is None:
        names = ", ".join(entry.name for entry in (*RECIPES, *MERGES) if entry.needs_base)
        raise UsageError("neither recipe nor merge use a base", hint=f"one that does: {names}")
    if whose and options.align != "none":
        raise UsageError(f"{whose} needs a base, which is not in the basis that ingredients are aligned to")
    return whose


def _claim(patterns: tuple[str, ...], options: Options, stack: ExitStack) -> None:
    """Hold the output folder from the start; what stands there already must be this bake's own work, or may go."""
    from hfsoup.write import claimed

    if options.output is not None:
        stack.enter_context(claimed(Path(options.output)))
    own(patterns, options)


def own(patterns: tuple[str, ...], options: Options) -> None:
    """Refuse an output folder that holds something else than this bake's own work, unless it may go."""
    from hfsoup.lock import begun_by

    if options.output is None:
        return
    target = Path(options.output)
    if os.path.lexists(target) and not options.overwrite and not begun_by(target, patterns, options):
        raise SoupError(
            "the output folder is already there", where=options.output, hint="--overwrite, or another --output"
        )


def deliver(soup: Soup, watch: Watch, clock: Clock) -> Soup:
    """Write the folder and push it, where asked to."""
    options = soup.options
    if options.output:
        with clock("average"), watch.stage("Writing") as stage:
            soup = soup.save(options.output, overwrite=options.overwrite)
            stage.done(f"Wrote {soup.path}")
    if options.push:
        with clock("push"), watch.stage("Pushing") as stage:
            soup = soup.push_to_hub(
                options.push, private=options.private, create_pr=options.create_pr, revision=options.revision
            )
            stage.done(f"Pushed to {options.push}")
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
    from hfsoup.journal import Journal
    from hfsoup.metrics import metric
    from hfsoup.pace import journal_path, keep

    family = averager.family
    for note in images.notes if world.main else ():
        watch.note(note)
    recipe = RECIPES.get(options.chosen_recipe)
    chosen = metric(options.metric, trust_remote=options.trust_remote_metric)
    with clock("evaluate"), watch.stage("Scoring", unit="images") as stage, ExitStack() as stack:
        journal = Journal(journal_path(), read=options.resume, notify=watch.note)
        scorer = Scorer(
            averager, chosen, world, journal,
            batch_size=options.batch_size, bn=options.bn, calibration=images.calibration, race=options.race,
            keep=[images.selection] if recipe.logits else [], advance=stage,
        )  # fmt: skip
        course = _course(stage, scorer, family, options, images)
        search, mix = searched(
            family, options, watch, course, lambda members: scorer.ensemble(members, images.selection).score
        )
        course.end()
        best, given = search.ranked[0], scorer
        adapter = world.on_main(lambda: _truncated(averager, mix, options, watch))
        shipped, alone = mix, search.mix((best,))
        if adapter:
            from hfsoup.truncation import beside

            whole, shipped = beside(family, adapter)
            alone = Mix.of((best,), len(whole))
            given = scorer.over(stack.enter_context(Averager(whole, options.merge)))
        selection = given.score(shipped, images.selection) if adapter else search.score(mix)

        def judge(split: Split) -> Comparison:
            return given.compare(shipped, selection.bn, alone, split, recipe.choices)

        comparison, ensemble = judge(images.test), None
        if options.ensemble:
            answers = given.answers(shipped, selection.bn, images.test)
            ensemble = given.judged(answers, scorer.ensemble(mix.members, images.test), images.test, recipe.choices)
        shifted = shifts(options, family, images, world, judge)
        statistics = scorer.statistics(mix) if selection.bn == RECALIBRATE else {}
        modes = scorer.scores(mix, images.selection)
        evidence = witnessed(given, shipped, alone, selection.bn, images.test, search.began)
        evidence = pictured(evidence, scorer, search, mix, images, options)
        forwarded = counted(scorer.images_forwarded, "image") if scorer.images_forwarded else "no image"
        stage.done(f"Scored {counted(course.scored, 'candidate')} and the test split: {forwarded} forwarded")
    if world.main:
        keep(journal, family.config, options, images=scorer.images_forwarded, seconds=clock.seconds["evaluate"])
    scores = tuple(search.scores.get(search.mix((i,))) for i in range(len(family)))
    return Soup(
        family, mix, options, patterns, scores, tuple(search.trace), selection, comparison, best, images,
        scorer.images_forwarded + (given.images_forwarded if adapter else 0), scorer.images_spared,
        (*images.notes, *(note for shift in shifted for note in shift.notes)),
        modes, statistics, clock.seconds, adapter=adapter, evidence=evidence, attempts=tuple(search.attempts),
        ensemble=ensemble, shifts=shifted,
    )  # fmt: skip


def _truncated(averager: Averager, mix: Mix, options: Options, watch: Watch) -> Truncated | None:
    """The soup as an adapter, where it is asked for."""
    if options.as_adapter is None:
        return None
    from hfsoup.truncation import truncate

    found = truncate(averager, mix, options.as_adapter)
    watch.note(
        f"rank {found.rank} loses {100 * found.error:.3g} % of the average change of weights (Frobenius norm),"
        f" {100 * found.worst:.3g} % in the worst layer, {found.layer}"
    )
    return found


def _course(stage: Stage, scorer: Scorer, family: Family, options: Options, images: Images) -> Course:
    recipe = RECIPES.get(options.chosen_recipe)
    most = recipe.evaluations(len(family), options.rules()) if recipe.evaluations else None
    return Course(
        stage, lambda mix, least: scorer.score(mix, images.selection, least), size=len(family), most=most,
        images=len(images.selection), modes=2 if images.calibration and options.bn == "auto" else 1,
        after=count(options, len(images.test), len(family)),
    )  # fmt: skip


def _images(family: Family, options: Options, watch: Watch) -> Images:
    from hfsoup.calibrate import IMAGES
    from hfsoup.images import load_images
    from hfsoup.models import image_processor

    processor = image_processor(family.processing.processor_folder)
    calibrate = IMAGES if options.align != "none" or _settles(family, options) else 0
    with watch.stage("Preparing images", unit="images") as stage:
        images = load_images(
            options.request(), processor, family.labels, calibrate=calibrate, advance=stage, expect=stage.expect
        )
        selecting, testing = len(images.selection), len(images.test)
        stage.done(f"Prepared {counted(selecting, 'image')} that select and {testing:,} that report")
        return images


def _settles(family: Family, options: Options) -> bool:
    """Whether batch norms get new statistics; those of a fitted network fit already."""
    return family.has_batch_norm and options.bn != "average" and not options.fit


def _settling(images: Images, family: Family, options: Options) -> Images:
    """The images without those that were looked at for an alignment alone."""
    return images if _settles(family, options) else replace(images, calibration=None)


def _aligned(family: Family, options: Options, watch: Watch, images: Images | None, world: World) -> Family:
    from hfsoup.alignment.family import aligned

    with watch.stage("Aligning") as stage:
        return aligned(
            family,
            method=options.align,
            seed=options.seed,
            images=images.calibration if images else None,
            fitted=options.fit,
            device=world.device if images else None,
            advance=stage,
        )


def searched(
    family: Family,
    options: Options,
    watch: Watch,
    score: Callable[[Mix, float | None], Score] | None,
    ensemble: Callable[[tuple[int, ...]], Score] | None = None,
) -> tuple[Search, Mix]:
    """The recipe's walk over a family, and the mix where it ends."""
    names = tuple(map(str, family.ingredients))
    search = Search(names, score, options.rules(), lambda decision: watch.decision(names, decision), ensemble)
    mix = RECIPES.get(options.chosen_recipe).function(search)
    for i in search.left_out:
        watch.note(f"{names[i]} is below --min-score {options.min_score}; left out")
    return search, mix


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
