"""What may be done with a soup: its ingredients' licences, where they agree, and nothing claimed where they do not."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from hfsoup.hub.cards import LICENSE, read_front_matter
from hfsoup.utils.errors import UsageError
from hfsoup.utils.text import one_line

if TYPE_CHECKING:
    from hfsoup.checkpoints.types import Ingredient

LIMIT = 1 << 20


def read_license(ingredient: Ingredient) -> str | None:
    """The licence that an ingredient's card names, on one line, or None where it names none.

    The licence `other` comes with the name that the card gives it, as in `other (my-licence)`.
    """
    path = ingredient.card
    if not path.is_file():
        return None
    with path.open("rb") as file:
        text = file.read(LIMIT).decode("utf-8", "replace")
    try:
        card = read_front_matter(text)
    except ValueError:
        return None
    found, name = card.get("license"), card.get("license_name")
    if isinstance(found, list) and found and all(isinstance(part, str) for part in found):
        found = ", ".join(found[:8])
    if not isinstance(found, str) or not one_line(found):
        return None
    return one_line(f"{found} ({name})" if found == "other" and isinstance(name, str) else found, 80)


def include_bases(ingredients: Sequence[Ingredient]) -> list[Ingredient]:
    """Ingredients, and the bases that adapters among them were merged into, each once."""
    return list(dict.fromkeys([*ingredients, *(i.adapter.base for i in ingredients if i.adapter)]))


def find_common_license(ingredients: Sequence[Ingredient]) -> str | None:
    """The licence that all ingredients and their bases name; None where they differ, or one names none."""
    found = {read_license(ingredient) for ingredient in include_bases(ingredients)}
    licence = found.pop() if len(found) == 1 else None
    return licence if licence and is_identifier(licence) else None


def is_identifier(licence: str) -> bool:
    """Whether a licence is written as the Hub writes them: apache-2.0, cc-by-nc-4.0, other."""
    return re.fullmatch(LICENSE, licence) is not None


def check_licences(ingredients: Sequence[Ingredient], chosen: str | None) -> None:
    """See that a soup of these may be published under one licence, before any work is done.

    Raises:
        UsageError: the ingredients name several licences and none was chosen.
    """
    if chosen is not None:
        return
    named: dict[str, list[str]] = {}
    for ingredient in include_bases(ingredients):
        if licence := read_license(ingredient):
            named.setdefault(licence, []).append(one_line(ingredient))
    if len(named) > 1:
        lines = "".join(f"\n  {licence}: {one_line(', '.join(ids))}" for licence, ids in sorted(named.items()))
        what = f"the ingredients are under {len(named)} licences, and a soup that is pushed needs one:{lines}"
        raise UsageError(what, hint="--license ID, once you know which one allows it")
