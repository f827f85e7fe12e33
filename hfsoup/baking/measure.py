"""From a family to a soup that is measured: images, alignment, search, test split."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from hfsoup.averaging.averager import Averager
from hfsoup.averaging.mix import Mix
from hfsoup.baking.distill import distill_network
from hfsoup.baking.evidence import with_plot_scores
from hfsoup.baking.requirements import count_evaluations, may_extrapolate, needs_images
from hfsoup.baking.scoring import load_bake_images, make_scorer
from hfsoup.baking.search_progress import SearchProgress
from hfsoup.baking.shifts import score_shifts
from hfsoup.baking.soup import Soup
from hfsoup.baking.workload import count_modes, count_test_images
from hfsoup.checkpoints.types import LowRankAdapter
from hfsoup.data.tasks import task_of
from hfsoup.evaluation.measurements import Evidence
from hfsoup.evaluation.scores import Comparison, Decision, Score, Start, describe_alpha
from hfsoup.ingredients.family import Family
from hfsoup.merges import MERGES
from hfsoup.networks.distillation.result import Distillation, append_member
from hfsoup.options.options import Options
from hfsoup.provenance.result import Composition, Evaluation, Run, SearchResult
from hfsoup.recipes import RECIPES
from hfsoup.recipes._line import extrapolate
from hfsoup.recipes._search import Search
from hfsoup.reports.measurements import describe_forecast, format_score, shorten_score
from hfsoup.utils.distributed import World
from hfsoup.utils.progress import START, Clock, SearchStep, Stage, Watch
from hfsoup.utils.text import format_count, shorten_names

if TYPE_CHECKING:
    from hfsoup.baking.prefetch import Prefetcher
    from hfsoup.data.dataset_split import Split
    from hfsoup.data.images import Images
    from hfsoup.evaluation.journal import Journal
    from hfsoup.evaluation.scorer import Scorer
    from hfsoup.networks.learned_coefficients import Learner


@dataclass(frozen=True)
class Shipped:
    """The soup as it is written and its best ingredient, as mixes of what `scorer` scores.

    `best_bn` is the mode of the batch-norm statistics that the best ingredient scores best with where it selects.
    """

    scorer: Scorer
    soup: Mix
    best: Mix
    best_bn: str


def measure_soup(
    patterns: tuple[str, ...],
    options: Options,
    watch: Watch,
    clock: Clock,
    world: World,
    averager: Averager,
    images: Images,
    journal: Journal,
) -> Soup:
    """Search on the selection split, then score soup and best ingredient once on the test split."""
    from hfsoup.evaluation.journal import record_pace
    from hfsoup.evaluation.scorer import RECALIBRATE

    family = averager.family
    _note_images(images, family, watch, world)
    with clock("evaluate"), watch.stage("Scoring", unit="images") as stage, ExitStack() as stack:
        scorer = make_scorer(averager, options, world, journal, images, stage)
        progress = _make_progress(stage, scorer, family, options, images)
        learner = _make_learner(averager, options, world, journal, images, progress, clock)
        search, mix, numbers = _search_mix(scorer, options, watch, world, images, progress, learner)
        adapter = world.on_main(lambda: truncate_to_adapter(averager, mix, options, watch))
        with clock("distill"):
            network, begun = distill_network(
                averager, scorer, search, mix, images, options, world, watch, progress.show
            )
        shipped = _prepare_shipped(scorer, search, mix, adapter, network, options, stack)
        own = shipped.scorer is scorer
        selection = search.score(mix) if own else shipped.scorer.score(shipped.soup, images.selection)
        evaluation = _evaluate(shipped, selection.bn, scorer, search, mix, images, options, world)
        statistics = scorer.estimate_statistics(mix) if selection.bn == RECALIBRATE else begun
        modes = scorer.scores(mix, images.selection)
        total = scorer.images_forwarded + (learner.images_forwarded if learner else 0)
        candidates = format_count(progress.scored, "candidate")
        stage.done(f"Scored {candidates} and the test split: {format_count(total, 'image')} evaluated")
    clock.seconds["evaluate"] -= clock.seconds["distill"]
    if world.main:
        scoring = clock.seconds["evaluate"] - clock.seconds.get("learn", 0.0)
        record_pace(journal, family.config, options.pace_settings, images=scorer.images_forwarded, seconds=scoring)
    scores = tuple(search.scores.get(search.mix((i,))) for i in range(len(family)))
    notes = (*images.notes, *(note for shift in evaluation.shifts for note in shift.notes))
    forwarded = total + (0 if own else shipped.scorer.images_forwarded)
    return Soup(
        patterns,
        options,
        Composition(family, mix, statistics, adapter, network, options.merge),
        SearchResult(scores, search.ranked[0], tuple(search.trace), tuple(search.attempts), selection, modes),
        images,
        replace(evaluation, numbers={**numbers, **evaluation.numbers}, precision=scorer.precision),
        Run(forwarded, scorer.images_spared, clock.seconds, notes),
    )


def _note_images(images: Images, family: Family, watch: Watch, world: World) -> None:
    """Note what is to be known of the images and of what they are scored as."""
    shown = [*images.notes, *images.selection.pixels.describe_floats(), task_of(family.config).rule]
    for note in filter(None, shown if world.main else ()):
        watch.note(note)


def _search_mix(
    scorer: Scorer,
    options: Options,
    watch: Watch,
    world: World,
    images: Images,
    progress: SearchProgress,
    learner: Learner | None,
) -> tuple[Search, Mix, dict[str, float]]:
    """Run the recipe on the selection split: its search, the mix that it chose, and the numbers of the forecast."""

    def score_ensemble(members: tuple[int, ...]) -> Score:
        return scorer.predict_ensemble(members, images.selection).score

    numbers: dict[str, float] = {}
    forecast = partial(_note_forecast, numbers, scorer, images, options, watch if world.main else None)
    search, mix = run_recipe(scorer.family, options, watch, progress, score_ensemble, learner, forecast)
    progress.finish()
    return search, mix, numbers


def _note_forecast(
    numbers: dict[str, float], scorer: Scorer, images: Images, options: Options, watch: Watch | None, search: Search
) -> None:
    """Add to `numbers` whether a soup can win, by the ingredients' own predictions, and note it."""
    from hfsoup.evaluation.forecast import forecast_soup

    if forecast := forecast_soup(scorer, search.ranked, images.selection):
        numbers.update(forecast.numbers)
        if watch:
            metric = choose_metric(scorer.family, options)
            watch.inform(describe_forecast(forecast.numbers, metric))


def _evaluate(
    shipped: Shipped,
    bn: str,
    scorer: Scorer,
    search: Search,
    mix: Mix,
    images: Images,
    options: Options,
    world: World,
) -> Evaluation:
    """Compare soup and best ingredient on the test split and, if asked for, with the ensemble and on other images."""
    given = shipped.scorer

    def compare(split: Split) -> Comparison:
        return given.compare(shipped.soup, bn, shipped.best, shipped.best_bn, split)

    comparison, ensemble = compare(images.test), None
    if options.ensemble:
        together = scorer.predict_ensemble(mix.members, images.test)
        answers = given.predict(shipped.soup, bn, images.test)
        ensemble = given.compare_predictions(answers, together, images.test)
    shifts = score_shifts(options, scorer.family, images, world, compare)
    soup, best = ((shipped.soup, bn), (shipped.best, shipped.best_bn))
    evidence = Evidence(
        given.predict_classes(*soup, images.test),
        given.predict_classes(*best, images.test),
        (given.calibration(*soup, images.test), given.calibration(*best, images.test)),
        search.starts,
    )
    evidence = with_plot_scores(evidence, scorer, search, mix, images, options)
    return Evaluation(comparison, evidence, ensemble, shifts)


def _make_learner(
    averager: Averager,
    options: Options,
    world: World,
    journal: Journal,
    images: Images,
    progress: SearchProgress,
    clock: Clock,
) -> Learner | None:
    """Make what learns coefficients, if there are images to learn from."""
    if images.learning is None:
        return None
    from hfsoup.evaluation.batch_sizes import USUAL
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
) -> Shipped:
    """The soup as it is written; an adapter or a distilled network is no average, and joins the family as a member."""
    best = search.ranked[0]
    best_bn = search.score(search.mix((best,))).bn
    if network:
        whole, shipped = append_member(scorer.family, network.ingredient)
    elif adapter:
        from hfsoup.averaging.low_rank import append_member as with_adapter

        whole, shipped = with_adapter(scorer.family, adapter)
    else:
        return Shipped(scorer, mix, search.mix((best,)), best_bn)
    averager = stack.enter_context(Averager(whole, options.merge, options.stored_dtype, options.merge_parameters()))
    return Shipped(scorer.with_averager(averager), shipped, Mix.of((best,), len(whole)), best_bn)


def truncate_to_adapter(averager: Averager, mix: Mix, options: Options, watch: Watch) -> LowRankAdapter | None:
    """Truncate the soup to an adapter of low rank, if that is asked for."""
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
    most = count_evaluations(options, len(family), based=family.base is not None)
    learning, split = recipe.epochs * len(images.learning or ()), len(images.test)
    tested = count_test_images(split, members=len(family), shifts=options.shifts, ensemble=options.ensemble)
    return SearchProgress(
        stage, lambda mix, least: scorer.score(mix, images.selection, least), size=len(family), most=most,
        images=len(images.selection), modes=count_modes(options.bn, batch_norm=bool(images.calibration)),
        form=partial(format_score, choose_metric(family, options)), after=learning + tested,
    )  # fmt: skip


def prepare_images(family: Family, options: Options, watch: Watch, prefetcher: Prefetcher) -> Images:
    """Prepare the images for selection, test and batch norms as the family's image processor does."""
    from hfsoup.checkpoints.processor import load_image_processor

    processor = load_image_processor(family.processor_ingredient.processor_folder)
    with watch.stage("Preparing images", unit="images") as stage:
        prefetcher.follow(stage)
        task = task_of(family.config)
        images = load_bake_images(options, processor, family.labels, task, family.has_batch_norm, stage, stage.expect)
        selecting, testing = len(images.selection), len(images.test)
        teaching = f"{len(images.learning):,} for learning, " if images.learning else ""
        stage.done(f"Prepared {teaching}{format_count(selecting, 'image')} for selection, {testing:,} for test")
        return images


def drop_unused_calibration(images: Images, family: Family, options: Options) -> Images:
    """Drop the calibration images if no batch norm needs them: an alignment or a merge has used them by now."""
    return images if family.has_batch_norm and options.recalibrates else replace(images, calibration=None)


def align_ingredients(family: Family, options: Options, watch: Watch, images: Images | None, world: World) -> Family:
    """Align the ingredients to the first one: permute their neurons, which does not change what they compute."""
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
    """Estimate how important each weight of each ingredient is, for merges that ask for it."""
    kind = needs_images(options)
    if kind is None or images is None or images.calibration is None:
        return family
    from hfsoup.networks.importance.family import estimate_family

    total = len(family) * len(images.calibration)
    with watch.stage("Estimating", total, "images") as stage:
        found = estimate_family(
            family, kind, seed=options.seed, images=images.calibration, device=world.device, advance=stage
        )
        count = format_count(len(images.calibration), "image")
        stage.done(f"Estimated the importance of weights for {options.merge} on {count}")
    return found


def choose_metric(family: Family, options: Options) -> str:
    """The name of the metric: the one asked for, else the task's first."""
    return options.metric or task_of(family.config).metrics[0]


def run_recipe(
    family: Family,
    options: Options,
    watch: Watch,
    score: Callable[[Mix, float | None], Score] | None,
    ensemble: Callable[[tuple[int, ...]], Score] | None = None,
    learn: Callable[[tuple[int, ...], bool, bool], Mix] | None = None,
    begin: Callable[[Search], None] = lambda _: None,
) -> tuple[Search, Mix]:
    """Run the recipe, after `begin`; its search with all scores and decisions, and the mix that it chose."""
    shown = shorten_names([(i.id, i.source.revision) for i in family.ingredients])
    names = tuple(str(i) if i.source.revision else name for i, name in zip(family.ingredients, shown, strict=True))
    metric = choose_metric(family, options)
    search = Search(
        names,
        score,
        options.rules(),
        lambda taken: watch.decision(_describe_step(taken, names, metric)),
        ensemble,
        learn,
        lambda start: watch.decision(_describe_start(start, names, metric)),
        merges_single=MERGES.get(options.merge).changes_single,
    )
    begin(search)
    recipe = RECIPES.get(options.chosen_recipe)

    def find(search: Search) -> Mix:
        return search.as_soup(recipe.function(search, **options.recipe_parameters()))

    extrapolates = family.base is not None and may_extrapolate(options)
    mix = extrapolate(search, recipe.name, find) if extrapolates else find(search)
    for i in search.left_out:
        watch.note(f"{names[i]} is below --min-score {options.min_score}; left out")
    return search, mix


def _describe_step(taken: Decision, names: tuple[str, ...], metric: str) -> SearchStep:
    score, shown = taken.score, shorten_score(metric, taken.score)
    name = describe_alpha(taken.alpha or 0.0) if taken.ingredient is None else names[taken.ingredient]
    return SearchStep(taken.step, taken.action, name, score.value, score.at_most, taken.accepted, taken.outcome, shown)


def _describe_start(start: Start, names: tuple[str, ...], metric: str) -> SearchStep:
    """The start of a walk: one ingredient by its name, or how many."""
    members, score = start.mix.members, start.score
    several = f"all {len(names)}" if len(members) == len(names) else f"{len(members)} of {len(names)}"
    name = names[members[0]] if len(members) == 1 else several
    name += f", {start.walk}" if start.walk else ""
    return SearchStep(0, START, name, score.value, score.at_most, True, START, shorten_score(metric, score))
