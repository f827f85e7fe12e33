"""A Collection of the Hub: a soup and its ingredients on one page."""

from __future__ import annotations

from collections.abc import Mapping

from hfsoup.hub.client import expect_answer, hub_api

MAX_TITLE = 60
NOTE = "Ingredient"
"""How the note of an ingredient begins."""


def make_collection(repo: str, ingredients: Mapping[str, str]) -> str:
    """Make or bring up to date the Collection of a soup and its ingredients; the address of its page.

    That of a private repository is private. A Collection of the same title is used again: ingredients of an earlier
    soup leave it, other items stay.

    Args:
        repo: the soup's repository.
        ingredients: what is noted of each ingredient, by the repository.

    Raises:
        HubError: the Hub refuses.
    """
    hub, (namespace, _, name) = hub_api(), repo.rpartition("/")
    notes = {repo: "The soup", **{one: f"{NOTE}, {text}" for one, text in ingredients.items() if one != repo}}
    title = " and its ingredients"
    with expect_answer(repo, access="push"):
        private = bool(hub.model_info(repo).private)
        made = hub.create_collection(
            f"{name[: MAX_TITLE - len(title)]}{title}", namespace=namespace, private=private, exists_ok=True
        )
        for item in made.items:
            if (item.note or "").startswith(NOTE) and item.note != notes.get(item.item_id):
                hub.delete_collection_item(made.slug, item.item_object_id, missing_ok=True)
        for one, note in notes.items():
            hub.add_collection_item(made.slug, one, "model", note=note, exists_ok=True)
    return made.url
