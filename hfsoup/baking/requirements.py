"""Checks of a request before anything is read, and what its recipe and merge need."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from hfsoup.data.label_mapping import BY_NAME, BY_NUMBER, read_mapping
from hfsoup.data.request import split_revision
from hfsoup.ingredients.local_folders import require_data
from hfsoup.merges import MERGES, MergeEntry
from hfsoup.options.options import Options, format_flags, refuse_ineffective
from hfsoup.recipes import RECIPES, RecipeEntry
from hfsoup.recipes._line import STEPS
from hfsoup.reports.figures import require_matplotlib
from hfsoup.utils.errors import SoupError, UsageError
from hfsoup.utils.extras import require_extra
from hfsoup.utils.registry import Registry

CALIBRATION = 2048
"""The most images that batch norms, alignments and merges look at."""


def check_request(patterns: tuple[str, ...], options: Options) -> RecipeEntry:
    """Check that recipe and merge have what they need, and that every option has an effect; the recipe.

    Raises:
        UsageError: there is no such recipe or merge, it lacks data or a package, an option has no effect, or there are
            no ingredients.
    """
    recipe, _ = options.find_methods()
    refuse_ineffective(options)
    for registry, name in ((RECIPES, recipe.name), (MERGES, options.merge)):
        _refuse_ineffective(registry, name, options)
    if recipe.needs_data and not options.dataset:
        raise UsageError(f"the recipe {recipe.name} needs data to search with", hint="--dataset ORG/NAME")
    recipe.require_package()
    needs_base(options)
    needs_images(options)
    for dataset in filter(None, (options.dataset, *options.other_datasets().values())):
        require_data(split_revision(dataset)[0])
    if options.labels not in (None, BY_NAME, BY_NUMBER):
        read_mapping(str(options.labels))
    if options.figures:
        require_matplotlib()
    if options.align != "none":
        require_extra("align", "scipy", "--align")
    if not patterns:
        raise UsageError("no ingredients", hint='hfsoup bake "org/model-*"')
    return recipe


def _refuse_ineffective(registry: Registry[Any], name: str, options: Options) -> None:
    """Refuse options that only other recipes or merges use; the seed is of more than these."""
    users = {p.name: entry.name for entry in registry.list_built_in() for p in entry.parameters if p.name != "seed"}
    own = {p.name for p in registry.get(name).parameters}
    idle = [option for option in options.list_changes() if option in users and option not in own]
    if idle:
        what = f"the {registry.kind} {name} does not use {format_flags(idle)}"
        raise UsageError(what, hint=f"--{registry.kind} {users[idle[0]]}")


def count_members_in_memory(options: Options, ingredients: int) -> int:
    """How many ingredients a recipe holds at once to learn from; 0 of one that does not learn."""
    return min(ingredients, options.max_ingredients or ingredients) if RECIPES.get(options.chosen_recipe).epochs else 0


def needs_base(options: Options) -> str | None:
    """What needs the base model of the ingredients: a recipe, a merge, or extrapolation; None if nothing does.

    Raises:
        UsageError: a base is given that nothing uses.
    """
    chosen: dict[str, RecipeEntry | MergeEntry] = {
        "the recipe": RECIPES.get(options.chosen_recipe),
        "the merge": MERGES.get(options.merge),
    }
    whose = next((f"{kind} {entry.name}" for kind, entry in chosen.items() if entry.needs_base), None)
    if whose is None and may_extrapolate(options) and (options.extrapolate or options.base):
        whose = "extrapolation"
    if options.base and whose is None:
        names = ", ".join(entry.name for entry in (*RECIPES, *MERGES) if entry.needs_base)
        raise UsageError("neither recipe nor merge uses a base", hint=f"--extrapolate, or one that does: {names}")
    if whose and options.align != "none":
        raise UsageError(f"{whose} needs a base, and --align does not align it")
    return whose


def may_extrapolate(options: Options) -> bool:
    """Whether a soup is drawn past the mean if a base is found: on request, or because the recipe does."""
    if options.extrapolate is not None:
        return options.extrapolate
    return RECIPES.get(options.chosen_recipe).extrapolates and options.dataset is not None and options.align == "none"


def one_is_enough(options: Options) -> bool:
    """Whether one ingredient is enough: its base has a share in what is scored, or the merge changes it by its base."""
    mixed = RECIPES.get(options.chosen_recipe).needs_base or MERGES.get(options.merge).changes_single
    return mixed or bool(options.extrapolate)


def count_evaluations(options: Options, ingredients: int, *, based: bool) -> int | None:
    """The most mixes that a bake scores on the selection split, `based` on a base or not; None where unknown."""
    found = RECIPES.get(options.chosen_recipe).count_evaluations(ingredients, options.recipe_parameters())
    return found if found is None else found + (STEPS if based and may_extrapolate(options) else 0)


def needs_calibration(options: Options, batch_norm: bool) -> bool:
    """Whether batch norms, an alignment or the merge need images besides those that are scored."""
    return options.align != "none" or (batch_norm and options.recalibrates) or needs_images(options) is not None


def needs_images(options: Options) -> str | None:
    """The kind of importance estimate that the merge needs of every ingredient, from images; None if it needs none.

    Raises:
        UsageError: there is no dataset, or --fit leaves nothing to merge.
    """
    merge = MERGES.get(options.merge)
    if merge.importance and not options.dataset:
        what = f"the merge {merge.name} needs images, whose labels it does not read"
        raise UsageError(what, hint="--dataset ORG/NAME")
    if merge.importance and options.fit:
        raise UsageError(f"--fit leaves {merge.name} nothing to merge", hint="--merge mean")
    return merge.importance or None


def check_output(patterns: tuple[str, ...], options: Options) -> None:
    """Refuse an output folder that exists, unless this very bake wrote it or it may be overwritten."""
    from hfsoup.provenance.manifest import is_same_bake

    if options.output is None:
        return
    target = Path(options.output)
    if os.path.lexists(target) and not options.overwrite and not is_same_bake(target, patterns, options):
        raise SoupError(
            "the output folder exists already", where=options.output, hint="--overwrite, or another --output"
        )


def find_free_folder(folder: Path) -> Path:
    """`folder`, or the first of `folder-2`, `folder-3` … that does not exist."""
    n, found = 2, folder
    while found.exists():
        n, found = n + 1, folder.with_name(f"{folder.name}-{n}")
    return found
