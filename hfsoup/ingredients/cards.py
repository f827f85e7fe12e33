"""What the cards of ingredients say: licence, base model, tags."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hfsoup.checkpoints.timm_config import read_model_config
from hfsoup.hub.cards import LICENSE, LICENSES, read_front_matter
from hfsoup.utils.errors import UsageError
from hfsoup.utils.text import join_names, one_line, quoted

if TYPE_CHECKING:
    from hfsoup.checkpoints.types import Ingredient

LIMIT = 1 << 20
"""Bytes of a card that are read."""
BASE_HINT = "--base ORG/NAME|FOLDER"
REPO = re.compile(r"[A-Za-z0-9][\w.\-]*/[\w.\-]+")


def read_card(ingredient: Ingredient) -> dict[str, Any]:
    """The front matter of an ingredient's card; empty where there is no card, or no valid YAML in it."""
    if not ingredient.card.is_file():
        return {}
    with ingredient.card.open("rb") as file:
        text = file.read(LIMIT).decode("utf-8", "replace")
    try:
        return read_front_matter(text)
    except ValueError:
        return {}


def read_license(ingredient: Ingredient) -> str | None:
    """The licence in an ingredient's card on one line, with its name where it is `other`; None without one."""
    card = read_card(ingredient)
    found, name = card.get("license"), card.get("license_name")
    if isinstance(found, list) and found and all(isinstance(part, str) for part in found):
        found = ", ".join(found[:8])
    if not isinstance(found, str) or not one_line(found):
        return None
    return one_line(f"{found} ({name})" if found == "other" and isinstance(name, str) else found, 80)


def include_bases(ingredients: Sequence[Ingredient]) -> list[Ingredient]:
    """Ingredients and the bases of the adapters among them, each once."""
    return list(dict.fromkeys([*ingredients, *(i.adapter.base for i in ingredients if i.adapter)]))


def find_common_license(ingredients: Sequence[Ingredient]) -> str | None:
    """The licence that all ingredients and their bases name; None where they differ, or one names none."""
    found = {read_license(ingredient) for ingredient in include_bases(ingredients)}
    licence = found.pop() if len(found) == 1 else None
    return licence if licence and is_identifier(licence) else None


def is_identifier(licence: str) -> bool:
    """Whether a licence is an identifier of the Hub, such as apache-2.0, cc-by-nc-4.0 or other."""
    return re.fullmatch(LICENSE, licence) is not None


def describe_unknown_license(license_id: str | None) -> str | None:
    """A note about a licence that is not in the Hub's list, with the nearest one that is; None for one that is."""
    if license_id is None or license_id in LICENSES:
        return None
    near = get_close_matches(license_id, LICENSES, 1)
    nearest = f"; the nearest is {near[0]}" if near else ""
    return f"the Hub may refuse the licence {license_id!r}, which is not in its list{nearest}"


def check_licences(ingredients: Sequence[Ingredient], chosen: str | None) -> None:
    """Refuse a push whose licence is open, before any work is done.

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


def read_common_base(ingredients: Sequence[Ingredient], why: str) -> str:
    """The repository that the cards of all ingredients name as their base model, or else their configs.

    Args:
        ingredients: what has cards.
        why: what needs a base, for the error.

    Raises:
        UsageError: they name none or several, or the name could be a local folder.
    """
    ids = {ingredient.id for ingredient in ingredients}
    found = {_read_base_name(ingredient, ids) for ingredient in ingredients}
    if len(found) > 1 or None in found:
        named = sorted(name for name in found if name)
        cards = f"their cards name {join_names(named, 4)}" if named else "their cards name none"
        cards = f"{cards}, and some none" if named and None in found else cards
        raise UsageError(f"{why} needs the model that the ingredients started from; {cards}", hint=BASE_HINT)
    name = str(found.pop())
    if not REPO.fullmatch(name) or Path(name).exists():
        what = f"the ingredients' cards name {quoted(name)} as their base, which may be a folder"
        raise UsageError(what, hint=BASE_HINT)
    return name


def _read_base_name(ingredient: Ingredient, ids: Collection[str]) -> str | None:
    """The one base model in an ingredient's card, or the repository that its config says it was loaded from.

    A config that names an ingredient, one of `ids`, says that it was saved again.
    """
    found = read_card(ingredient).get("base_model")
    if isinstance(found, list) and len(found) == 1:
        found = found[0]
    if found is None and (path := ingredient.folder / "config.json").is_file():
        loaded = read_model_config(path, where=f"{ingredient}, config.json").get("_name_or_path")
        found = loaded if isinstance(loaded, str) and REPO.fullmatch(loaded) and loaded not in ids else None
        found = None if found and Path(found).exists() else found
    return found if isinstance(found, str) else None
