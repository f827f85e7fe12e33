"""From a family to a mix that is measured: images, alignment, the search, and the test split at its end."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

from hfsoup.average import Averager
from hfsoup.clock import Clock
from hfsoup.course import Course
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
    from hfsoup.learning import Learner


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
        learner = _learner(averager, options, world, journal, images, course, clock)
        search, mix = searched(
            family, options, watch, course, lambda members: scorer.ensemble(members, images.selection).score, learner
        )
        course.end()
        best = search.ranked[0]
        adapter = world.on_main(lambda: truncated(averager, mix, options, watch))
        given, shipped, alone = _as_shipped(scorer, search, mix, adapter, options, stack)
        selection = given.score(shipped, images.selection) if adapter else search.score(mix)

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
        statistics = scorer.statistics(mix) if selection.bn == RECALIBRATE else {}
        modes = scorer.scores(mix, images.selection)
        evidence = witnessed(given, shipped, alone, selection.bn, images.test, search.began)
        evidence = pictured(evidence, scorer, search, mix, images, options)
        total = scorer.images_forwarded + (learner.images_forwarded if learner else 0)
        forwarded = counted(total, "image") if total else "no image"
        stage.done(f"Scored {counted(course.scored, 'candidate')} and the test split: {forwarded} forwarded")
    if world.main:
        scoring = clock.seconds["evaluate"] - clock.seconds.get("learn", 0.0)
        keep(journal, family.config, options, images=scorer.images_forwarded, seconds=scoring)
    scores = tuple(search.scores.get(search.mix((i,))) for i in range(len(family)))
    return Soup(
        family, mix, options, patterns, scores, tuple(search.trace), selection, comparison, best, images,
        total + (given.images_forwarded if adapter else 0), scorer.images_spared,
        (*images.notes, *(note for shift in shifted for note in shift.notes)),
        modes, statistics, clock.seconds, adapter=adapter, evidence=evidence, attempts=tuple(search.attempts),
        ensemble=ensemble, shifts=shifted,
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


def _learner(
    averager: Averager, options: Options, world: World, journal: Journal, images: Images, course: Course, clock: Clock
) -> Learner | None:
    """What learns coefficients, where there are images to learn from."""
    if images.learning is None:
        return None
    from hfsoup.learning import Learner

    return Learner(
        averager, world, journal, images.learning, epochs=RECIPES.get(options.chosen_recipe).learns,
        batch_size=options.batch_size, seed=options.seed, clock=clock, advance=course.beside,
    )  # fmt: skip


def _as_shipped(
    scorer: Scorer, search: Search, mix: Mix, adapter: Truncated | None, options: Options, stack: ExitStack
) -> tuple[Scorer, Mix, Mix]:
    """What scores the soup and its best ingredient, and their mixes: an adapter joins the family as one more member."""
    best = search.ranked[0]
    if adapter is None:
        return scorer, mix, search.mix((best,))
    from hfsoup.truncation import beside

    whole, shipped = beside(scorer.family, adapter)
    return scorer.over(stack.enter_context(Averager(whole, options.merge))), shipped, Mix.of((best,), len(whole))


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
    learning = recipe.learns * len(images.learning or ())
    return Course(
        stage, lambda mix, least: scorer.score(mix, images.selection, least), size=len(family), most=most,
        images=len(images.selection), modes=2 if images.calibration and options.bn == "auto" else 1,
        after=learning + count(options, len(images.test), len(family)),
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
            options.request(), processor, family.labels, calibrate=calibrate, advance=stage, expect=stage.expect,
            learn=RECIPES.get(options.chosen_recipe).learns > 0,
        )  # fmt: skip
        selecting, testing = len(images.selection), len(images.test)
        teaching = f"{len(images.learning):,} to learn from, " if images.learning else ""
        stage.done(f"Prepared {teaching}{counted(selecting, 'image')} that select and {testing:,} that report")
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
    learn: Callable[[tuple[int, ...], bool], Mix] | None = None,
) -> tuple[Search, Mix]:
    """The recipe's walk over a family, and the mix where it ends."""
    names = tuple(map(str, family.ingredients))
    search = Search(names, score, options.rules(), lambda decision: watch.decision(names, decision), ensemble, learn)
    mix = RECIPES.get(options.chosen_recipe).function(search)
    for i in search.left_out:
        watch.note(f"{names[i]} is below --min-score {options.min_score}; left out")
    return search, mix
