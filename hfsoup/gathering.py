"""Everything before the first score: what is asked for, and the ingredients on this disk."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hfsoup.base import with_base
from hfsoup.check import check, remarks
from hfsoup.clock import Clock
from hfsoup.distillation.made import wanted
from hfsoup.errors import MismatchError, SoupError, UsageError
from hfsoup.figures import may_draw
from hfsoup.finding import find_ingredients, require_several
from hfsoup.human import counted, size
from hfsoup.labelfile import read_mapping
from hfsoup.licences import check_licences
from hfsoup.local import require_data
from hfsoup.merges import MERGES
from hfsoup.names import listed
from hfsoup.options import Options
from hfsoup.outline import outlined, peek_config
from hfsoup.preflight import concerns
from hfsoup.pull import pull, with_bases
from hfsoup.recipes import RECIPES, Recipe
from hfsoup.refusals import flags, refuse_idle
from hfsoup.registry import OWN, Entry, Registry
from hfsoup.request import BY_NAME, BY_NUMBER, at_revision
from hfsoup.room import afford, held, hold, missing, needs
from hfsoup.single import class_names
from hfsoup.tasks import require_classifier, require_metric, task_of
from hfsoup.tensorfile import FLOATS
from hfsoup.timm_config import model_name
from hfsoup.types import Family, Ingredient, Source
from hfsoup.watch import Watch

if TYPE_CHECKING:
    from hfsoup.ahead import Ahead
    from hfsoup.survey import Survey

CALIBRATION = 2048
"""At most so many images are looked at for batch norms, alignments and merges."""


def asked(patterns: tuple[str, ...], options: Options) -> Entry[Recipe]:
    """The recipe that is asked for, where all is there that it needs.

    Raises:
        UsageError: there is no such recipe or merge, it lacks data or a package, an option has no effect, or there are
            no ingredients.
    """
    recipe = RECIPES.get(options.chosen_recipe)
    refuse_idle(options)
    for registry, name in ((RECIPES, recipe.name), (MERGES, options.merge)):
        _refuse_unread(registry, name, options)
    if recipe.needs_data and not options.dataset:
        raise UsageError(f"the recipe {recipe.name} needs data to search with", hint="--dataset ORG/NAME")
    recipe.require()
    needs_base(options)
    needs_images(options)
    for dataset in filter(None, (options.dataset, *options.others().values())):
        require_data(at_revision(dataset)[0])
    if options.labels not in (None, BY_NAME, BY_NUMBER):
        read_mapping(str(options.labels))
    if options.figures:
        may_draw()
    if not patterns:
        raise UsageError("no ingredients", hint='hfsoup bake "org/model-*"')
    return recipe


def _refuse_unread(registry: Registry[Any], name: str, options: Options) -> None:
    """Refuse what others of hfsoup's own look at, and this one does not; nobody knows what a plug-in looks at."""
    readers = {option: each.name for each in registry.own() for option in each.reads}
    chosen, asked = registry.get(name), options.changed()
    idle = [option for option in asked if option in readers and option not in chosen.reads]
    if idle and chosen.origin == OWN:
        what = f"the {registry.kind} {name} does not look at {flags(idle)}"
        raise UsageError(what, hint=f"--{registry.kind} {readers[idle[0]]}")


def gather(
    patterns: tuple[str, ...],
    options: Options,
    watch: Watch,
    clock: Clock,
    ahead: Ahead | None = None,
    *,
    several: bool = True,
) -> Family:
    """Everything before the first score: which ingredients there are, on this disk and fit to be averaged.

    Where they are to be combined, `several` refuses one that is alone; otherwise there must be one.
    """
    with clock("pull"):
        sources = resolve(patterns, options, watch)
        if not several:
            _require_one(sources)
        elif not sources[0].folder:
            # Nothing is pulled for it; what is wrong with a folder is worth more than that it is alone.
            require_several(sources, RECIPES.get(options.chosen_recipe).needs_base)
        afford(needs(sources, options))
        if members := learners(options, len(sources)):
            hold(members, outlined(sources[0].base or sources[0]).elements)
        look_at_dataset(options, sources[0], watch)
        if ahead:
            ahead.begin(sources[0], options, missing(sources))
        ingredients = _pulled(sources, watch, ahead)
    with clock("check"), watch.stage("Checking") as stage:
        family = _checked(sources, ingredients, options, watch, several)
        stage.done(f"Checked: one {model_name(family.config)} with {counted(len(family.labels), 'class', 'es')}")
    if whose := needs_base(options):
        with clock("pull"), watch.stage("Pulling the base") as stage:
            family = with_base(family, options.base, why=whose, notify=watch.note)
            stage.done(f"Pulled the base of {whose}")
    if options.push:
        base = (family.base.ingredient,) if family.base else ()
        check_licences((*family.ingredients, *base), options.license)
    if options.dataset and options.align == "none" and len(family) > 1:
        with clock("check"), watch.stage("Comparing weights") as stage:
            for concern in concerns(family):
                watch.note(concern)
            stage.done("Compared the weights")
    return family


def _require_one(sources: Sequence[Source]) -> None:
    """Refuse several models where the score of one is asked for.

    Raises:
        UsageError: there are several.
    """
    if len(sources) > 1:
        names = listed([str(source) for source in sources], 4)
        hint = f"hfsoup eval {shlex.quote(sources[0].id)} --dataset …, one by one; or hfsoup bake, which scores each"
        raise UsageError(f"expected one model, found {len(sources)}", where=names, hint=hint)


def resolve(patterns: tuple[str, ...], options: Options, watch: Watch, *, keep: bool = True) -> tuple[Source, ...]:
    """The ingredients that are asked for, pinned, of a soup that may be pushed where it is to go.

    Args:
        patterns: as for `bake`.
        options: what is to be baked.
        watch: told of the stage.
        keep: keep what is read of them in the cache.
    """
    from hfsoup.push import may_push

    if options.push:
        may_push(options.push, create_pr=options.create_pr)
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
        stage.done(f"Resolved {counted(len(sources), 'ingredient')}")
    return sources


def _checked(
    sources: Sequence[Source], ingredients: tuple[Ingredient, ...], options: Options, watch: Watch, several: bool
) -> Family:
    """The ingredients as one family, of which these options can make a soup."""
    family = check(
        ingredients, on_mismatch=options.on_mismatch, processor_from=options.processor_from, labels=options.labels
    )
    for remark in remarks(family):
        watch.note(remark)
    if several:
        require_several(sources, RECIPES.get(options.chosen_recipe).needs_base)
    if several and len(family) < 2 <= len(ingredients):
        hint = "hfsoup check tells how they differ; --exclude GLOB names what to leave out"
        raise MismatchError("no two of the ingredients fit together", hint=hint)
    if options.dataset:
        task = require_classifier(family.config, len(family.labels), where=str(family.reference))
        require_metric(options.metric, task, trust_remote=options.trust_remote_metric)
    if options.as_adapter:
        from hfsoup.truncation import may_be_adapter

        may_be_adapter(family, options.bn if options.dataset else "average")
    if members := learners(options, len(family)):
        hold(members, sum(prod(spec.shape) for spec in family.tensors if spec.dtype in FLOATS))
    return family


def look_at_dataset(options: Options, first: Source, watch: Watch) -> Survey | None:
    """See that these models can be scored on the dataset, by its listing and headers, before anything is pulled.

    Args:
        options: what is to be baked; without a dataset there is nothing to look at.
        first: an ingredient, whose classes are compared with the dataset's unless it may be left out; those of an
            adapter show when it is pulled.
        watch: told of the stage.

    Raises:
        SoupError: the models are of regression.
        UsageError: there is no such dataset, split, column or metric.
        MismatchError: its classes are not the model's.
    """
    if options.dataset is None:
        return None
    from hfsoup.metrics import metric
    from hfsoup.shifts import look_at_other
    from hfsoup.survey import survey

    config, classes = peek_config(first.base or first), None
    task = task_of(config)
    if not first.base:
        classes = class_names(config, where=f"{first}, config.json")
        task = require_classifier(config, len(classes), where=str(first))
    if options.on_mismatch == "skip-ingredient":
        classes = None
    metric(options.metric, task, trust_remote=options.trust_remote_metric)
    with watch.stage("Looking at the dataset") as stage:
        found = survey(options.request(task), classes, most=max(CALIBRATION, wanted(options)))
        for request in options.other_requests(task).values():
            look_at_other(request)
        stage.done(f"Looked at {options.dataset}")
    return found


def learners(options: Options, ingredients: int) -> int:
    """How many ingredients a recipe holds at once to learn from; 0 of one that does not learn."""
    return min(ingredients, options.max_ingredients or ingredients) if RECIPES.get(options.chosen_recipe).learns else 0


def _pulled(sources: tuple[Source, ...], watch: Watch, ahead: Ahead | None) -> tuple[Ingredient, ...]:
    """The sources on this disk, with a line that says what of them was here."""
    every = with_bases(sources)
    holdings = [held(source) for source in every if not source.folder]
    total, there = sum(size for size, _ in holdings), sum(size == cached for size, cached in holdings)
    with watch.stage("Pulling", total, "B" if total else "") as stage:
        ingredients = pull(sources, advance=stage, notify=watch.note, follower=ahead)
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


def looks_at_more(options: Options, batch_norm: bool) -> bool:
    """Whether a bake looks at images beyond those it scores: for batch norms, an alignment, or a merge that asks."""
    return options.align != "none" or (batch_norm and options.settles) or needs_images(options) is not None


def needs_images(options: Options) -> str | None:
    """The kind of importance that the merge asks of every ingredient, which is estimated on images.

    Raises:
        UsageError: there are no images, or nothing is merged.
    """
    merge = MERGES.get(options.merge)
    if merge.importance and not options.dataset:
        what = f"the merge {merge.name} looks at what each weight does on images, without labels"
        raise UsageError(what, hint="--dataset ORG/NAME")
    if merge.importance and options.fit:
        raise UsageError(f"a fit leaves {merge.name} nothing to merge", hint="--merge mean")
    return merge.importance or None


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


def free(folder: Path) -> Path:
    """`folder`, or the first of `folder-2`, `folder-3` … that is not there yet."""
    n, found = 2, folder
    while found.exists():
        n, found = n + 1, folder.with_name(f"{folder.name}-{n}")
    return found
