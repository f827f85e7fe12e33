"""The order of the stages."""

from __future__ import annotations

import inspect
from contextlib import ExitStack
from dataclasses import fields, replace
from os import PathLike
from pathlib import Path
from typing import Any

from hfsoup.averaging.averager import Averager
from hfsoup.baking.distill import with_unlabelled
from hfsoup.baking.gather import gather
from hfsoup.baking.measure import in_one_basis, measured, prepared, searched, settling, truncated, weighed
from hfsoup.baking.prefetch import Ahead
from hfsoup.baking.requirements import asked, own
from hfsoup.baking.soup import Soup
from hfsoup.hub.notices import listening
from hfsoup.merges import MERGES
from hfsoup.options.config_file import is_config, load
from hfsoup.options.options import Options
from hfsoup.recipes import RECIPES
from hfsoup.reports.live_progress import follow_bake
from hfsoup.utils.distributed import World
from hfsoup.utils.errors import UsageError
from hfsoup.utils.progress import Clock, Watch


def bake(*ingredients: str | PathLike[str], **options: Any) -> Soup:
    """Make a soup of `ingredients`: Hub names, globs such as `org/model-*`, with `@REVISION`, or local folders.

    Args:
        ingredients: what to make it of; order is kept. A single YAML file is a config of ingredients and options.
        options: those of `hfsoup bake`, with underscores: recipe, merge, dataset, split, output, push …

    Returns:
        The soup. Nothing is written unless `output` is given, and nothing pushed unless `push` is.

    Raises:
        SoupError: something is wrong that the message says how to mend.
    """
    if odd := [type(i).__name__ for i in ingredients if not isinstance(i, str | PathLike)]:
        raise UsageError(f"expected names or folders one after another, found a {odd[0]}", hint="bake(*names)")
    patterns = tuple(str(ingredient) for ingredient in ingredients)
    if is_config(patterns):
        return run(*load(Path(patterns[0]).expanduser(), options), follow_bake())
    chosen = Options.of(options)
    return run(chosen.patterns(patterns), chosen, follow_bake())


def run(patterns: tuple[str, ...], options: Options, watch: Watch, *, several: bool = True) -> Soup:
    """Resolve, pull, check, search, test, write, push; `several` refuses one ingredient alone."""
    asked(patterns, options)
    for text in (*RECIPES.broken, *MERGES.broken):
        watch.note(text)
    world, clock = World(options.device, alone=options.dataset is None), Clock()
    with listening(watch.note), ExitStack() as stack:
        world.on_main(lambda: _claim(patterns, options, stack))
        ahead = stack.enter_context(Ahead(world))
        family = world.on_main(lambda: gather(patterns, options, watch, clock, ahead, several=several))
        images = None
        if options.dataset:
            with clock("prepare"):
                images = world.on_main(
                    lambda: with_unlabelled(prepared(family, options, watch, ahead), family, options, watch)
                )
        if options.align != "none":
            with clock("align"):
                family = world.on_main(lambda: in_one_basis(family, options, watch, images, world))
        if MERGES.get(options.merge).importance:
            with clock("estimate"):
                family = world.on_main(lambda: weighed(family, options, watch, images, world))
        averager = stack.enter_context(Averager(family, options.merge, options.stored_dtype, options.settings()))
        if images:
            soup = measured(patterns, options, watch, clock, world, averager, settling(images, family, options))
            soup = replace(soup, images_forwarded=soup.images_forwarded + ahead.images_forwarded)
        else:
            mix = searched(family, options, watch, None)[1]
            adapter = world.on_main(lambda: truncated(averager, mix, options, watch))
            soup = Soup(family, mix, options, patterns, (None,) * len(family), seconds=clock.seconds, adapter=adapter)
        return world.on_main(lambda: deliver(soup, watch, clock))


def _claim(patterns: tuple[str, ...], options: Options, stack: ExitStack) -> None:
    """Hold the output folder from the start; what stands there already must be this bake's own work, or may go."""
    from hfsoup.averaging.writer import lock_output

    if options.output is not None:
        stack.enter_context(lock_output(Path(options.output)))
    own(patterns, options)


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


bake.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
    [
        inspect.Parameter("ingredients", inspect.Parameter.VAR_POSITIONAL, annotation=str | PathLike[str]),
        *(
            inspect.Parameter(f.name, inspect.Parameter.KEYWORD_ONLY, default=f.default, annotation=f.type)
            for f in fields(Options)
        ),
    ],
    return_annotation=Soup,
)
