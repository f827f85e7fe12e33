"""How others find a soup's parts: names pinned to commits, pages on the Hub, the config that bakes it again."""

from __future__ import annotations

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
    return brief(pinned(soup), public(soup).changed())


def pinned(soup: Soup) -> list[str]:
    """The ingredients at their commits, local folders by their last names."""
    return [f"{i.id}@{i.source.revision}" if i.source.revision else folder(i) for i in soup.family.ingredients]


def public(soup: Soup) -> Options:
    """The options, a local dataset by its last name only."""
    options, images = soup.options, soup.images
    if images is None or images.revision:
        return options
    return replace(options, dataset=Path(images.dataset).name)


def folder(ingredient: Ingredient) -> str:
    """A local folder by its last name only: the rest of the path is the user's own business."""
    return Path(ingredient.id).name


def page(source: Source) -> str | None:
    """The page of a source's commit on the Hub; None for a local folder."""
    place = quote(source.id, safe="/", errors="replace")
    return f"{api().endpoint}/{place}/tree/{source.revision}" if source.revision else None
