"""How others find a soup's parts: names pinned to commits, pages on the Hub, the config that bakes it again."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from hfsoup.hub.client import hub_address
from hfsoup.options.config_file import format_config
from hfsoup.utils.text import shorten_names

if TYPE_CHECKING:
    from hfsoup.checkpoints.types import Source
    from hfsoup.options.options import Options
    from hfsoup.provenance.result import BakeResult

REPO_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*(@[\w./-]+)?", re.ASCII)
Names = Sequence[tuple[str, str | None]]


def reproduce_config(soup: BakeResult) -> str:
    """The YAML that `hfsoup bake` takes to bake this soup again."""
    return reproduce_config_of(_names(soup), _select_options(soup), local=_is_local(soup), base=_base(soup))


def reproduce_config_of(
    ingredients: Names, options: Options, *, local: bool, base: tuple[str, str | None] | None = None
) -> str:
    """The same from ids with their commits and from options, `local` where their dataset is on this disk alone."""
    public = _shorten_paths(ingredients, options, local=local, base=base)
    return format_config(_pin(ingredients), public.list_changes())


def reproduce_command(soup: BakeResult) -> str:
    """The shell command that bakes this soup again."""
    names = _names(soup)
    public = _shorten_paths(names, _select_options(soup), local=_is_local(soup), base=_base(soup))
    return public.format_command(_pin(names))


def reproducible_options(options: Options, coefficients: Sequence[float], *, elsewhere: bool) -> Options:
    """The options that bake a soup again: of one that was scored `elsewhere`, where no command goes, its weights."""
    return options.fix_coefficients(coefficients) if elsewhere else options


def _select_options(soup: BakeResult) -> Options:
    elsewhere = soup.images is None and soup.selection is not None
    return reproducible_options(soup.options, soup.mix.coefficients, elsewhere=elsewhere)


def _base(soup: BakeResult) -> tuple[str, str | None] | None:
    base = soup.family.base and soup.family.base.ingredient
    return (base.id, base.source.revision) if base else None


def _names(soup: BakeResult) -> Names:
    return [(i.id, i.source.revision) for i in soup.family.ingredients]


def _is_local(soup: BakeResult) -> bool:
    return soup.images is not None and soup.images.revision is None


def _pin(names: Names) -> list[str]:
    """Ingredients at their commits, local folders by as much of their paths as tells them apart."""
    return [
        f"{name}@{revision}" if revision else short
        for (name, revision), short in zip(names, shorten_names(names), strict=True)
    ]


def _shorten_paths(
    ingredients: Names, options: Options, *, local: bool, base: tuple[str, str | None] | None
) -> Options:
    """The options with the base at its commit, and a local dataset or ingredient by its last name only."""
    # Each ingredient is named, so nothing is left to look for.
    options = replace(options, exclude=None, fine_tunes_of=None)
    if base:
        options = replace(options, base=_pin([base])[0])
    if local and options.dataset:
        options = replace(options, dataset=Path(options.dataset).name)
    if options.labels and Path(options.labels).suffix:
        options = replace(options, labels=Path(options.labels).name)
    if options.eval:
        options = replace(
            options, eval=tuple(f"{n}={_shorten_dataset(place)}" for n, place in options.other_datasets().items())
        )
    on_hub = {name for name, revision in ingredients if revision}
    if options.processor_from and options.processor_from.partition("@")[0] not in on_hub:
        shorts = dict(zip((Path(name) for name, _ in ingredients), shorten_names(ingredients), strict=True))
        given = Path(options.processor_from)
        options = replace(options, processor_from=shorts.get(given, given.name))
    return options


def _shorten_dataset(place: str) -> str:
    """A dataset of the Hub as it is, anything that can only be a path by its last name."""
    return place if REPO_ID.fullmatch(place) else Path(place).name


def hub_url(source: Source) -> str | None:
    """The page of a source's commit on the Hub; None for a local folder."""
    if source.revision is None:
        return None
    place, below = (quote(part, safe="/", errors="replace") for part in (source.repo, source.subfolder))
    return f"{hub_address()}/{place}/tree/{source.revision}" + (f"/{below}" if below else "")
