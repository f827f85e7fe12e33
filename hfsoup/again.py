"""How others find a soup's parts: names pinned to commits, pages on the Hub, the config that bakes it again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from hfsoup.config import brief
from hfsoup.hub import api

if TYPE_CHECKING:
    from hfsoup.options import Options
    from hfsoup.soup import Soup
    from hfsoup.types import Ingredient, Source


def config(soup: Soup) -> str:
    """The YAML that `hfsoup bake` takes to bake this soup again."""
    ingredients = [(i.id, i.source.revision) for i in soup.family.ingredients]
    return text(ingredients, soup.options, local=soup.images is not None and soup.images.revision is None)


def text(ingredients: Sequence[tuple[str, str | None]], options: Options, *, local: bool) -> str:
    """The same from ids with their commits and from options, `local` where their dataset is on this disk alone."""
    return brief([_pinned(*names) for names in ingredients], _public(options, local=local).changed())


def command(soup: Soup) -> str:
    """The shell command that bakes this soup again."""
    local = soup.images is not None and soup.images.revision is None
    names = [_pinned(i.id, i.source.revision) for i in soup.family.ingredients]
    return _public(soup.options, local=local).command(names)


def _pinned(name: str, revision: str | None) -> str:
    """An ingredient at its commit, a local folder by its last name."""
    return f"{name}@{revision}" if revision else Path(name).name


def _public(options: Options, *, local: bool) -> Options:
    """The options, a local dataset by its last name only."""
    return replace(options, dataset=Path(options.dataset).name) if local and options.dataset else options


def folder(ingredient: Ingredient) -> str:
    """A local folder by its last name only: the rest of the path is the user's own business."""
    return Path(ingredient.id).name


def page(source: Source) -> str | None:
    """The page of a source's commit on the Hub; None for a local folder."""
    place = quote(source.id, safe="/", errors="replace")
    return f"{api().endpoint}/{place}/tree/{source.revision}" if source.revision else None
