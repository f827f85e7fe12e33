"""From a family to a mix that is measured: images, alignment, the search, and the test split at its end."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

from hfsoup.averaging.averager import Averager
from hfsoup.averaging.mix import Mix
from hfsoup.baking.distill import distill_network
from hfsoup.baking.evidence import test_predictions, with_plot_scores
from hfsoup.baking.requirements import needs_images
from hfsoup.baking.scoring import load_bake_images, make_scorer
from hfsoup.baking.search_progress import SearchProgress
from hfsoup.baking.shifts import count_test_images, score_shifts
from hfsoup.baking.soup import Soup
from hfsoup.checkpoints.types import LowRankAdapter
from hfsoup.data.tasks import task_of
from hfsoup.evaluation.scores import Comparison, Decision, Score
from hfsoup.ingredients.family import Family
from hfsoup.networks.distillation.result import Distillation, append_member
from hfsoup.options.options import Options
from hfsoup.provenance.result import Composition, Evaluation, Run, SearchResult
from hfsoup.recipes import RECIPES
from hfsoup.recipes._search import Search
from hfsoup.utils.distributed import World
from hfsoup.utils.progress import Clock, SearchStep, Stage, Watch
from hfsoup.utils.text import format_count, shorten_names

if TYPE_CHECKING:
    from hfsoup.baking.prefetch import Prefetcher
    from hfsoup.data.dataset_split import Split
    from hfsoup.data.images import Images
    from hfsoup.evaluation.journal import Journal
    from hfsoup.evaluation.scorer import Scorer
    from hfsoup.networks.learned_coefficients import Learner


def measure_soup(
    patterns: tuple[str, ...],
    options: Options,
    watch: Watch,
    clock: Clock,
    world: World,
    averager: Averager,
    images: Images,
) -> Soup:
    """Search with the selection split, then score soup and best ingredient once on the test split."""
    from hfsoup.evaluation.journal import Journal, journal_path, record_pace
    from hfsoup.evaluation.scorer import RECALIBRATE

    family = averager.family
    for note in images.notes if world.main else ():
        watch.note(note)
    if world.main and (rule := task_of(family.config).rule):
        watch.note(rule)
    recipe = RECIPES.get(options.chosen_recipe)
    with clock("evaluate"), watch.stage("Scoring", unit="images") as stage, ExitStack() as stack:
        journal = Journal(journal_path(), read=options.resume, notify=watch.note)
        scorer = make_scorer(averager, options, world, journal, images, stage)
        progress = _make_progress(stage, scorer, family, options, images)
        learner = _make_learner(averager, options, world, journal, images, progress, clock)
        search, mix = run_recipe(
            family,
            options,
            watch,
            progress,
            lambda members: scorer.predict_ensemble(members, images.selection).score,
            learner,
        )
        progress.finish()
        best = search.ranked[0]
        adapter = world.on_main(lambda: truncate_to_adapter(averager, mix, options, watch))
        with clock("distill"):
            network, begun = distill_network(
                averager, scorer, search, mix, images, options, world, watch, progress.show
            )
        given, shipped, alone = _prepare_shipped(scorer, search, mix, adapter, network, options, stack)
        selection = search.score(mix) if given is scorer else given.score(shipped, images.selection)

        def judge(split: Split) -> Comparison:
            return given.compare(shipped, selection.bn, alone, split, recipe.choices)

        comparison, ensemble = judge(images.test), None
        if options.ensemble:
            together = scorer.predict_ensemble(mix.members, images.test)
            answers = given.predict(shipped, selection.bn, images.test)
            ensemble = given.compare_predictions(answers, together, images.test, recipe.choices)
        shifted = score_shifts(options, family, images, world, judge)
        statistics = scorer.estimate_statistics(mix) if selection.bn == RECALIBRATE else begun
        modes = scorer.scores(mix, images.selection)
        evidence = test_predictions(given, shipped, alone, selection.bn, images.test, search.starts)
        evidence = with_plot_scores(evidence, scorer, search, mix, images, options)
        total = scorer.images_forwarded + (learner.images_forwarded if learner else 0)
        forwarded = format_count(total, "image") if total else "no image"
        stage.done(f"Scored {format_count(progress.scored, 'candidate')} and the test split: {forwarded} forwarded")
    clock.seconds["evaluate"] -= clock.seconds["distill"]
    if world.main:
        scoring = clock.seconds["evaluate"] - clock.seconds.get("learn", 0.0)
        record_pace(journal, family.config, options.pace_settings, images=scorer.images_forwarded, seconds=scoring)
    scores = tuple(search.scores.get(search.mix((i,))) for i in range(len(family)))
    return Soup(
        patterns,
        options,
        Composition(family, mix, statistics, adapter, network),
        SearchResult(scores, best, tuple(search.trace), tuple(search.attempts), selection, modes),
        images,
        Evaluation(comparison, evidence, ensemble, shifted),
        Run(
            total + (0 if given is scorer else given.images_forwarded),
            scorer.images_spared,
            clock.seconds,
            (*images.notes, *(note for shift in shifted for note in shift.notes)),
        ),
    )


def _make_learner(
    averager: Averager,
    options: Options,
    world: World,
    journal: Journal,
    images: Images,
    progress: SearchProgress,
    clock: Clock,
) -> Learner | None:
    """What learns coefficients, where there are images to learn from."""
    if images.learning is None:
        return None
    from hfsoup.evaluation.batches import USUAL
    from hfsoup.networks.learned_coefficients import Learner

    return Learner(
        averager, world, journal, images.learning, epochs=RECIPES.get(options.chosen_recipe).epochs,
        batch_size=options.batch_size or USUAL, seed=options.seed, clock=clock, advance=progress.add_other_images,
        loss=task_of(averager.family.config).loss,
    )  # fmt: skip


def _prepare_shipped(
    scorer: Scorer,
    search: Search,
    mix: Mix,
    adapter: LowRankAdapter | None,
    network: Distillation | None,
    options: Options,
    stack: ExitStack,
) -> tuple[Scorer, Mix, Mix]:
    """What scores the soup and its best ingredient, and their mixes.

    What is no average, an adapter or a network that was trained, joins the family as one more member.
    """
    best = search.ranked[0]
    if network:
        whole, shipped = append_member(scorer.family, network.ingredient)
    elif adapter:
        from hfsoup.averaging.low_rank import append_member as with_adapter

        whole, shipped = with_adapter(scorer.family, adapter)
    else:
        return scorer, mix, search.mix((best,))
    averager = stack.enter_context(Averager(whole, options.merge, options.stored_dtype, options.merge_parameters()))
    return scorer.with_averager(averager), shipped, Mix.of((best,), len(whole))


def truncate_to_adapter(averager: Averager, mix: Mix, options: Options, watch: Watch) -> LowRankAdapter | None:
    """The soup as an adapter, where it is asked for."""
    if options.as_adapter is None:
        return None
    from hfsoup.averaging.low_rank import truncate

    found = truncate(averager, mix, options.as_adapter)
    watch.note(
        f"rank {found.rank} loses {100 * found.error:.3g} % of the average change of weights (Frobenius norm),"
        f" {100 * found.worst:.3g} % in the worst layer, {found.layer}"
    )
    return found


def _make_progress(stage: Stage, scorer: Scorer, family: Family, options: Options, images: Images) -> SearchProgress:
    recipe = RECIPES.get(options.chosen_recipe)
    most = recipe.count_evaluations(len(family), options.recipe_parameters())
    learning = recipe.epochs * len(images.learning or ())
    return SearchProgress(
        stage, lambda mix, least: scorer.score(mix, images.selection, least), size=len(family), most=most,
        images=len(images.selection), modes=2 if images.calibration and options.bn == "auto" else 1,
        after=learning + count_test_images(options, len(images.test), len(family)),
    )  # fmt: skip


def prepare_images(family: Family, options: Options, watch: Watch, prefetcher: Prefetcher) -> Images:
    """The images that select, report, and settle batch norms, ready for the family."""
    from hfsoup.checkpoints.processor import load_image_processor

    processor = load_image_processor(family.processor_ingredient.processor_folder)
    with watch.stage("Preparing images", unit="images") as stage:
        prefetcher.follow(stage)
        task = task_of(family.config)
        images = load_bake_images(options, processor, family.labels, task, family.has_batch_norm, stage, stage.expect)
        selecting, testing = len(images.selection), len(images.test)
        teaching = f"{len(images.learning):,} to learn from, " if images.learning else ""
        stage.done(f"Prepared {teaching}{format_count(selecting, 'image')} that select and {testing:,} that report")
        return images


def drop_unused_calibration(images: Images, family: Family, options: Options) -> Images:
    """The images without those that were looked at for an alignment or a merge alone."""
    return images if family.has_batch_norm and options.recalibrates else replace(images, calibration=None)


def align_ingredients(family: Family, options: Options, watch: Watch, images: Images | None, world: World) -> Family:
    """The family with its ingredients put into the first one's basis."""
    from hfsoup.networks.alignment.family import align_family

    with watch.stage("Aligning") as stage:
        return align_family(
            family,
            method=options.align,
            seed=options.seed,
            images=images.calibration if images else None,
            fitted=options.fit,
            device=world.device if images else None,
            advance=stage,
        )


def estimate_importance(family: Family, options: Options, watch: Watch, images: Images | None, world: World) -> Family:
    """The family with what the merge asks of its ingredients beyond their weights."""
    kind = needs_images(options)
    if kind is None or images is None or images.calibration is None:
        return family
    from hfsoup.networks.importance.family import estimate_family as estimated

    total = len(family) * len(images.calibration)
    with watch.stage("Estimating", total, "images") as stage:
        found = estimated(
            family, kind, seed=options.seed, images=images.calibration, device=world.device, advance=stage
        )
        stage.done(f"Estimated what {options.merge} needs on {format_count(len(images.calibration), 'image')}")
    return found


def run_recipe(
    family: Family,
    options: Options,
    watch: Watch,
    score: Callable[[Mix, float | None], Score] | None,
    ensemble: Callable[[tuple[int, ...]], Score] | None = None,
    learn: Callable[[tuple[int, ...], bool], Mix] | None = None,
) -> tuple[Search, Mix]:
    """The recipe's walk over a family, and the mix where it ends."""
    shown = shorten_names([(i.id, i.source.revision) for i in family.ingredients])
    names = tuple(str(i) if i.source.revision else name for i, name in zip(family.ingredients, shown, strict=True))
    search = Search(
        names, score, options.rules(), lambda taken: watch.decision(_describe_step(taken, names)), ensemble, learn
    )
    mix = RECIPES.get(options.chosen_recipe).function(search, **options.recipe_parameters())
    for i in search.left_out:
        watch.note(f"{names[i]} is below --min-score {options.min_score}; left out")
    return search, mix


def _describe_step(taken: Decision, names: tuple[str, ...]) -> SearchStep:
    score, name = taken.score, names[taken.ingredient]
    return SearchStep(taken.step, taken.action, name, score.value, score.at_most, taken.accepted, taken.outcome)
