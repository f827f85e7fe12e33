"""The order of the stages."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from hfsoup.averaging.averager import Averager
from hfsoup.baking.distill import load_unlabelled_images
from hfsoup.baking.emissions import EmissionsTracker
from hfsoup.baking.gather import gather_family
from hfsoup.baking.measure import (
    align_ingredients,
    drop_unused_calibration,
    estimate_importance,
    measure_soup,
    prepare_images,
    run_recipe,
    truncate_to_adapter,
)
from hfsoup.baking.prefetch import Prefetcher
from hfsoup.baking.requirements import check_output, check_request
from hfsoup.baking.scoring import require_precision
from hfsoup.baking.soup import Soup
from hfsoup.data.metrics import METRICS
from hfsoup.evaluation.journal import open_journal
from hfsoup.hub.notices import listening
from hfsoup.merges import MERGES
from hfsoup.networks.alignment.tables import TABLES
from hfsoup.networks.importance import KINDS
from hfsoup.options.config_file import is_config, load_config
from hfsoup.options.options import Options, option_fields
from hfsoup.provenance.result import Composition, Run, SearchResult
from hfsoup.recipes import RECIPES
from hfsoup.reports.live_progress import choose_progress
from hfsoup.utils.cache import prune_cache, read_limit
from hfsoup.utils.distributed import World
from hfsoup.utils.errors import UsageError
from hfsoup.utils.progress import Clock, Watch
from hfsoup.utils.text import format_size

if TYPE_CHECKING:
    from typing import Unpack

    from hfsoup.data.images import Images
    from hfsoup.ingredients.family import Family
    from hfsoup.options.bake_options import BakeOptions


def bake(*ingredients: str | PathLike[str], progress: bool | None = None, **options: Unpack[BakeOptions]) -> Soup:
    """Make a soup of `ingredients`: Hub names, globs such as `org/model-*`, with `@REVISION`, or local folders.

    Args:
        ingredients: the checkpoints to average, the first as the reference. A single YAML file is a config of
            ingredients and options.
        progress: show stages, bars and notes: in a notebook as HTML, else on standard error. By default only in a
            notebook or a terminal. Where nothing is shown, the logger `hfsoup` has notes as warnings, and stages and
            steps of the search as information.
        options: those of `hfsoup bake`, with underscores: recipe, merge, dataset, split, output, push …, each with its
            type and a description in `hfsoup.options.bake_options.BakeOptions`.

    Returns:
        The soup. Nothing is written unless `output` is given, and nothing pushed unless `push` is.

    Raises:
        SoupError: something is wrong; the message says what, where, and what to do.

    Example:
        >>> import hfsoup
        >>> soup = hfsoup.bake("org/model-*", recipe="greedy", dataset="org/pets")
        >>> soup
        <Soup: greedy, 2 of 4 ingredients; soup: test accuracy ...
        >>> soup.mix.coefficients
        (0.0, 0.5, 0.5, 0.0)
    """
    if odd := [type(i).__name__ for i in ingredients if not isinstance(i, str | PathLike)]:
        raise UsageError(f"expected names or folders as separate arguments, found a {odd[0]}", hint="bake(*names)")
    patterns = tuple(str(ingredient) for ingredient in ingredients)
    if is_config(patterns):
        return run_bake(*load_config(Path(patterns[0]).expanduser(), options), choose_progress(progress))
    chosen = Options.of(dict(options))
    return run_bake(chosen.choose_patterns(patterns), chosen, choose_progress(progress))


def run_bake(patterns: tuple[str, ...], options: Options, watch: Watch, *, several: bool = True) -> Soup:
    """Resolve, pull, check, search, average, write, push. With `several`, a single ingredient is refused."""
    check_request(patterns, options)
    read_limit(options.cache_limit)
    broken = _note_broken(watch)
    world, clock = World(options.device, alone=options.dataset is None), Clock()
    require_precision(options, world)
    with listening(watch.note), ExitStack() as stack:
        world.on_main(lambda: _claim_output(patterns, options, stack))
        emissions = stack.enter_context(EmissionsTracker(watch, alone=world.count == 1))
        journal = open_journal(read=options.resume, notify=watch.note)
        world.on_main(journal.fetch)
        prefetcher = stack.enter_context(Prefetcher(world))
        family = world.on_each_host(
            lambda: gather_family(patterns, options, watch, clock, prefetcher, several=several),
            lambda found: found.content,
        )
        images = None
        if options.dataset:
            with clock("prepare"):
                images = world.on_each_host(
                    lambda: load_unlabelled_images(
                        prepare_images(family, options, watch, prefetcher), family, options, watch
                    ),
                    lambda found: found.content,
                )
        family = _adapt_family(family, options, watch, clock, world, images)
        averager = stack.enter_context(
            Averager(family, options.merge, options.stored_dtype, options.merge_parameters())
        )
        if images:
            soup = measure_soup(
                patterns, options, watch, clock, world, averager, drop_unused_calibration(images, family, options),
                journal,
            )  # fmt: skip
            forwarded = soup.run.images_forwarded + prefetcher.images_forwarded
            soup = replace(soup, run=replace(soup.run, images_forwarded=forwarded))
        else:
            mix = run_recipe(family, options, watch, None)[1]
            adapter = world.on_main(lambda: truncate_to_adapter(averager, mix, options, watch))
            made_of = Composition(family, mix, adapter=adapter, merge=options.merge)
            unscored = SearchResult((None,) * len(family))
            soup = Soup(patterns, options, made_of, unscored, run=Run(seconds=clock.seconds))
        _note_broken(watch, broken)
        world.on_main(journal.send)
        soup = replace(soup, run=replace(soup.run, emissions=emissions.stop()))
        finished = world.on_main(lambda: _finish(soup, watch, clock))
        if finished.pushed:
            world.on_main(journal.withdraw)
        return finished


def _adapt_family(
    family: Family, options: Options, watch: Watch, clock: Clock, world: World, images: Images | None
) -> Family:
    """Align the ingredients, and estimate the importance of their weights, where that is asked for."""
    if options.align != "none":
        with clock("align"):
            family = world.on_each_host(
                lambda: align_ingredients(family, options, watch, images, world), lambda found: found.content
            )
    if MERGES.get(options.merge).importance:
        with clock("estimate"):
            family = world.on_each_host(
                lambda: estimate_importance(family, options, watch, images, world), lambda found: found.content
            )
    return family


def _note_broken(watch: Watch, noted: Sequence[str] = ()) -> list[str]:
    """Note why plug-ins that were imported by now do not work, unless it is `noted`; all that is noted then."""
    every = [text for registry in (RECIPES, MERGES, METRICS, KINDS, TABLES) for text in registry.broken]
    for text in every:
        if text not in noted:
            watch.note(text)
    return every


def _claim_output(patterns: tuple[str, ...], options: Options, stack: ExitStack) -> None:
    """Lock the output folder, and check that what it holds may be replaced."""
    from hfsoup.averaging.writer import lock_output

    if options.output is not None:
        stack.enter_context(lock_output(Path(options.output)))
    check_output(patterns, options)


def _finish(soup: Soup, watch: Watch, clock: Clock) -> Soup:
    """Write and push the soup, then bring the cache down to its limit, which is no reason to fail any more."""
    done = save_and_push(soup, watch, clock)
    try:
        removed = prune_cache(read_limit(soup.options.cache_limit))
    except OSError as error:
        watch.note(f"hfsoup's cache cannot be brought down to its limit: {error.strerror}")
        return done
    if removed:
        size = format_size(sum(entry.size for entry in removed))
        watch.note(f"removed {size} from hfsoup's cache, what was used longest ago; hfsoup cache shows what is left")
    return done


def save_and_push(soup: Soup, watch: Watch, clock: Clock) -> Soup:
    """Write the folder and push it, if the options say so."""
    options = soup.options
    if options.output:
        with clock("average"), watch.stage("Writing") as stage:
            soup = soup.save(options.output, overwrite=options.overwrite)
            stage.done(f"Wrote {soup.path}")
    if options.push:
        with clock("push"), watch.stage("Pushing") as stage:
            soup = soup.push_to_hub(
                options.push, private=options.private, create_pr=options.create_pr, revision=options.revision,
                collection=options.collection,
            )  # fmt: skip
            stage.done(f"Pushed to {options.push}")
    return soup


bake.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
    [
        inspect.Parameter("ingredients", inspect.Parameter.VAR_POSITIONAL, annotation=str | PathLike[str]),
        inspect.Parameter("progress", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=bool | None),
        *(
            inspect.Parameter(f.name, inspect.Parameter.KEYWORD_ONLY, default=f.default, annotation=f.type)
            for f in option_fields()
        ),
    ],
    return_annotation=Soup,
)
_LINES = (f"    {f.name} ({f.type}): {f.metadata['help']}" for f in option_fields())
# Python 3.13 takes the indentation of the source out by itself.
bake.__doc__ = "\n".join([inspect.cleandoc(str(bake.__doc__)), "", "Options:", *_LINES])
