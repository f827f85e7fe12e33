"""`hfsoup check --dataset`: score the ingredients alone, and say whether a soup can win."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from hfsoup.averaging.averager import Averager
from hfsoup.averaging.mix import Mix
from hfsoup.baking.gather import gather_family
from hfsoup.baking.measure import prepare_images
from hfsoup.baking.prefetch import Prefetcher
from hfsoup.baking.requirements import check_request
from hfsoup.baking.scoring import make_scorer, require_precision
from hfsoup.data.tasks import task_of
from hfsoup.reports.measurements import describe_forecast
from hfsoup.utils.distributed import World
from hfsoup.utils.progress import Clock, Watch
from hfsoup.utils.text import format_count

if TYPE_CHECKING:
    from hfsoup.evaluation.measurements import Forecast
    from hfsoup.options.options import Options


def forecast_bake(patterns: tuple[str, ...], options: Options, watch: Watch) -> Forecast | None:
    """Score every ingredient on the selection split, and compare their predictions; no average is made.

    Raises:
        SoupError: as for `bake`.
    """
    from hfsoup.evaluation.forecast import forecast_soup
    from hfsoup.evaluation.journal import Journal, journal_path, record_pace

    own, options, clock = options, replace(options, recipe="uniform", bn="average"), Clock()
    check_request(patterns, options)
    world = World(options.device)
    require_precision(options, world)
    family = gather_family(patterns, options, watch, Clock())
    images = prepare_images(family, options, watch, Prefetcher(world))
    with clock("evaluate"), watch.stage("Scoring", len(family) * len(images.selection), "images") as stage:
        journal = Journal(journal_path(), read=options.resume, notify=watch.note)
        with Averager(family, options.merge, options.stored_dtype, options.merge_parameters()) as averager:
            scorer = make_scorer(averager, options, world, journal, images, stage)
            members = tuple(range(len(family)))
            for i in members:
                scorer.score(Mix.of((i,), len(family)), images.selection)
            stage.done(f"Scored {format_count(len(family), 'ingredient')} on the selection split")
            forecast = forecast_soup(scorer, members, images.selection)
    # A bake has statistics of batch norms to estimate, too.
    settings = (options if family.has_batch_norm else own).pace_settings
    record_pace(journal, family.config, settings, images=scorer.images_forwarded, seconds=clock.seconds["evaluate"])
    if forecast:
        watch.inform(describe_forecast(forecast.numbers, options.metric or task_of(family.config).metrics[0]))
    return forecast
