"""From a family to a mix that is measured: images, alignment, the search, and the test split at its end."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

from hfsoup.average import Averager
from hfsoup.clock import Clock
from hfsoup.course import Course
from hfsoup.distillation.made import Distilled, beside
from hfsoup.distillation.stage import distilled
from hfsoup.evidence import pictured, witnessed
from hfsoup.further import count, shifts
from hfsoup.human import counted
from hfsoup.options import Options
from hfsoup.recipes import RECIPES
from hfsoup.scores import Comparison, Score
from hfsoup.searching import Search
from hfsoup.soup import Soup
from hfsoup.types import Family, Mix, Truncated
from hfsoup.watch import Stage, Watch
from hfsoup.world import World

if TYPE_CHECKING:
    from hfsoup.evaluation import Scorer
    from hfsoup.images import Images, Split
    from hfsoup.journal import Journal


def measured(
    patterns: tuple[str, ...],
    options: Options,
    watch: Watch,
    clock: Clock,
    world: World,
    averager: Averager,
    images: Images,
) -> Soup:
    """Search with the selection split, then score soup and best ingredient once on the test split."""
    from hfsoup.evaluation import RECALIBRATE
    from hfsoup.journal import Journal
    from hfsoup.pace import journal_path, keep

    family = averager.family
    for note in images.notes if world.main else ():
        watch.note(note)
    recipe = RECIPES.get(options.chosen_recipe)
    with clock("evaluate"), watch.stage("Scoring", unit="images") as stage, ExitStack() as stack:
        journal = Journal(journal_path(), read=options.resume, notify=watch.note)
        scorer = _scorer(averager, options, world, journal, images, stage)
        course = _course(stage, scorer, family, options, images)
        search, mix = searched(
            family, options, watch, course, lambda members: scorer.ensemble(members, images.selection).score
        )
        course.end()
        best = search.ranked[0]
        adapter = world.on_main(lambda: truncated(averager, mix, options, watch))
        with clock("distill"):
            network, begun = distilled(averager, scorer, search, mix, images, options, world, watch, course.tell)
        given, shipped, alone = _as_shipped(scorer, search, mix, adapter, network, options, stack)
        selection = search.score(mix) if given is scorer else given.score(shipped, images.selection)

        def judge(split: Split) -> Comparison:
            return given.compare(shipped, selection.bn, alone, split, recipe.choices)

        comparison, ensemble = judge(images.test), None
        if options.ensemble:
            answers, together = (
                given.answers(shipped, selection.bn, images.test),
                scorer.ensemble(mix.members, images.test),
            )
            ensemble = given.judged(answers, together, images.test, recipe.choices)
        shifted = shifts(options, family, images, world, judge)
        statistics = scorer.statistics(mix) if selection.bn == RECALIBRATE else begun
        modes = scorer.scores(mix, images.selection)
        evidence = witnessed(given, shipped, alone, selection.bn, images.test, search.began)
        evidence = pictured(evidence, scorer, search, mix, images, options)
        forwarded = counted(scorer.images_forwarded, "image") if scorer.images_forwarded else "no image"
        stage.done(f"Scored {counted(course.scored, 'candidate')} and the test split: {forwarded} forwarded")
    clock.seconds["evaluate"] -= clock.seconds["distill"]
    if world.main:
        keep(journal, family.config, options, images=scorer.images_forwarded, seconds=clock.seconds["evaluate"])
    scores = tuple(search.scores.get(search.mix((i,))) for i in range(len(family)))
    return Soup(
        family, mix, options, patterns, scores, tuple(search.trace), selection, comparison, best, images,
        scorer.images_forwarded + (0 if given is scorer else given.images_forwarded), scorer.images_spared,
        (*images.notes, *(note for shift in shifted for note in shift.notes)),
        modes, statistics, clock.seconds, adapter=adapter, evidence=evidence, attempts=tuple(search.attempts),
        ensemble=ensemble, shifts=shifted, distilled=network,
    )  # fmt: skip


def _scorer(
    averager: Averager, options: Options, world: World, journal: Journal, images: Images, stage: Stage
) -> Scorer:
    from hfsoup.evaluation import Scorer
    from hfsoup.metrics import metric

    return Scorer(
        averager,
        metric(options.metric, trust_remote=options.trust_remote_metric),
        world,
        journal,
        batch_size=options.batch_size,
        bn=options.bn,
        calibration=images.calibration,
        race=options.race,
        keep=[images.selection] if RECIPES.get(options.chosen_recipe).logits else [],
        advance=stage,
    )


def _as_shipped(
    scorer: Scorer,
    search: Search,
    mix: Mix,
    adapter: Truncated | None,
    network: Distilled | None,
    options: Options,
    stack: ExitStack,
) -> tuple[Scorer, Mix, Mix]:
    """What scores the soup and its best ingredient, and their mixes.

    What is no average, an adapter or a network that was trained, joins the family as one more member.
    """
    best = search.ranked[0]
    if network:
        whole, shipped = beside(scorer.family, network.ingredient)
    elif adapter:
        from hfsoup.truncation import beside as with_adapter

        whole, shipped = with_adapter(scorer.family, adapter)
    else:
        return scorer, mix, search.mix((best,))
    averager = stack.enter_context(Averager(whole, options.merge, options.stored_dtype, options.settings()))
    return scorer.over(averager), shipped, Mix.of((best,), len(whole))


def truncated(averager: Averager, mix: Mix, options: Options, watch: Watch) -> Truncated | None:
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


def prepared(family: Family, options: Options, watch: Watch) -> Images:
    """The images that select, report, and settle batch norms, ready for the family."""
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


def settling(images: Images, family: Family, options: Options) -> Images:
    """The images without those that were looked at for an alignment alone."""
    return images if _settles(family, options) else replace(images, calibration=None)


def in_one_basis(family: Family, options: Options, watch: Watch, images: Images | None, world: World) -> Family:
    """The family with its ingredients put into the first one's basis."""
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
