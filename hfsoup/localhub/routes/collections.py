"""Collections: lists of repos and of other collections."""

from __future__ import annotations

import re
import secrets
from html import escape
from typing import Any

from starlette.responses import Response

from hfsoup.localhub.auth import User, require_owner, require_user
from hfsoup.localhub.errors import HttpError
from hfsoup.localhub.names import KINDS
from hfsoup.localhub.request import HubRequest, reply
from hfsoup.localhub.routing import Routes
from hfsoup.localhub.store import Collection, timestamp

routes = Routes()
_SHOWN_IN_LIST = 4
_LONGEST = {"title": 60, "description": 150, "note": 500}
_THEMES = ("orange", "blue", "green", "purple", "pink", "indigo")
_SORTS = ("lastModified", "trending", "upvotes")


@routes("GET", "/api/collections")
def list_all(request: HubRequest) -> Response:
    """The collections that the caller may see, with their first items."""
    query = request.http.query_params
    request.allow_query("owner", "item", "q", "sort", "limit", "cursor")
    sort = query.get("sort") or "lastModified"
    if sort not in _SORTS:
        raise HttpError(400, f"Invalid sort: {sort!r}, expected one of {', '.join(_SORTS)}")
    owners, items, text = request.values("owner"), request.values("item"), (query.get("q") or "").lower()
    found = [
        item
        for item in request.hub.store.collections()
        if _visible(request.user, item)
        and (not owners or item["owner"] in owners)
        and (not items or any(f"{entry['type']}s/{entry['id']}" in items for entry in item["items"]))
        and text in item["title"].lower()
    ]
    page, headers = request.page(sorted(found, key=lambda item: str(item["lastUpdated"]), reverse=True))
    shown = [_show(request, item) for item in page]
    listed = [{**item, "items": item["items"][:_SHOWN_IN_LIST]} for item in shown]
    return reply([{key: item[key] for key in item if key != "position"} for item in listed], headers=headers)


@routes("POST", "/api/collections")
def create(request: HubRequest) -> Response:
    """A new collection, of the caller or of an organisation; 409 with its slug if there is one of that title."""
    asked, user = request.json(), require_user(request.user)
    owner = str(asked.get("namespace") or user.name)
    require_owner(user, owner)
    made: Collection = {
        "id": secrets.token_hex(12),
        "title": _text(asked, "title"),
        "owner": owner,
        "description": _text(asked, "description", needed=False),
        "private": asked.get("private") is True,
        "theme": _THEMES[0],
        "lastUpdated": timestamp(),
        "items": [],
    }
    with request.hub.store.change_collections() as known:
        for other in known:
            if (other["owner"], other["title"]) == (owner, made["title"]):
                raise HttpError(409, "You already have a collection of this title", body={"slug": _slug(other)})
        first = asked.get("item")
        if isinstance(first, dict):
            made["items"].append(_new_item(request, known, first, ""))
        known.append(made)
    return reply(_show(request, made))


@routes("GET", "/api/collections/{owner}/{slug}")
def details(request: HubRequest) -> Response:
    """One collection with all of its items."""
    return reply(_show(request, find_collection(request, request.hub.store.collections())))


@routes("PATCH", "/api/collections/{owner}/{slug}")
def update(request: HubRequest) -> Response:
    """Change its title, description, visibility, colour or place."""
    asked = request.json()
    with request.hub.store.change_collections() as known:
        found = find_collection(request, known, writing=True)
        for key in ("title", "description"):
            if key in asked:
                found[key] = _text(asked, key, needed=key == "title")
        if asked.get("theme", found["theme"]) not in _THEMES:
            raise HttpError(400, f"Invalid theme: {asked['theme']!r}, expected one of {', '.join(_THEMES)}")
        found["theme"] = asked.get("theme", found["theme"])
        found["private"] = asked.get("private", found["private"]) is True
        found["lastUpdated"] = timestamp()
        if "position" in asked:
            known.remove(found)
            others = [item for item in known if item["owner"] == found["owner"]][_place(asked) :]
            known.insert(known.index(others[0]) if others else len(known), found)
    return reply({"success": True, "data": _show(request, found)})


@routes("DELETE", "/api/collections/{owner}/{slug}")
def delete(request: HubRequest) -> Response:
    """Delete a collection, and nothing that is in it."""
    with request.hub.store.change_collections() as known:
        known.remove(find_collection(request, known, writing=True))
    return reply({"success": True})


@routes("POST", "/api/collections/{owner}/{slug}/items", "/api/collections/{owner}/{slug}/item")
def add_item(request: HubRequest) -> Response:
    """Add something at the end; 404 if there is no such thing, 409 if it is in the collection."""
    asked = request.json()
    with request.hub.store.change_collections() as known:
        found = find_collection(request, known, writing=True)
        item = _new_item(request, known, asked.get("item"), _text(asked, "note", needed=False))
        if any((other["type"], other["id"]) == (item["type"], item["id"]) for other in found["items"]):
            raise HttpError(409, f"{item['id']} is already in this collection")
        found["items"].append(item)
        found["lastUpdated"] = timestamp()
    return reply(_show(request, found))


@routes("PATCH", "/api/collections/{owner}/{slug}/items/{item}")
def update_item(request: HubRequest) -> Response:
    """Change an item's note or place."""
    asked = request.json()
    with request.hub.store.change_collections() as known:
        found = find_collection(request, known, writing=True)
        item = _find_item(request, found)
        if "note" in asked:
            item["note"] = _text(asked, "note", needed=False)
        if "position" in asked:
            found["items"].remove(item)
            found["items"].insert(_place(asked), item)
        found["lastUpdated"] = timestamp()
    return reply({"success": True})


@routes("DELETE", "/api/collections/{owner}/{slug}/items/{item}")
def delete_item(request: HubRequest) -> Response:
    """Take an item out."""
    with request.hub.store.change_collections() as known:
        found = find_collection(request, known, writing=True)
        found["items"].remove(_find_item(request, found))
        found["lastUpdated"] = timestamp()
    return reply({"success": True})


def find_collection(request: HubRequest, known: list[Collection], *, writing: bool = False) -> Collection:
    """The collection of this request: the id at the end of the slug decides, the title before it may be an old one."""
    identifier = request.params["slug"].rpartition("-")[2]
    for item in known:
        if item["id"] == identifier and item["owner"] == request.params["owner"] and _visible(request.user, item):
            if writing:
                require_owner(request.user, item["owner"])
            return item
    raise HttpError(404, f"Collection not found: {request.params['owner']}/{request.params['slug']}")


def _find_item(request: HubRequest, found: Collection) -> dict[str, Any]:
    items: list[dict[str, Any]] = found["items"]
    for item in items:
        if item["_id"] == request.params["item"]:
            return item
    raise HttpError(404, f"No item {request.params['item']} in this collection")


def _new_item(request: HubRequest, known: list[Collection], asked: Any, note: str) -> dict[str, Any]:
    """An item for what is asked, which must be there and visible to the caller."""
    kind, identifier = (asked.get("type"), str(asked.get("id"))) if isinstance(asked, dict) else (None, "")
    if kind == "collection":
        ids = [item["id"] for item in known if _slug(item) == identifier and _visible(request.user, item)]
        found = ids[0] if ids else None
    elif f"{kind}s" in KINDS:
        repo = request.visible_repo(f"{kind}s", identifier)
        found = repo and repo.name.id
    else:
        raise HttpError(400, f"Invalid item type: {kind!r}, expected model, dataset, space or collection")
    if found is None:
        raise HttpError(404, f"There is no {kind} {identifier}")
    return {"_id": secrets.token_hex(12), "type": kind, "id": found, "note": note}


def _show(request: HubRequest, found: Collection) -> dict[str, Any]:
    """A collection as the Hub describes it, without the items that are gone or hidden from the caller."""
    known = request.hub.store.collections()
    items: list[dict[str, Any]] = []
    for item in found["items"]:
        shown = {"_id": item["_id"], "position": len(items), "type": item["type"], "id": item["id"]}
        if item["note"]:
            shown["note"] = {"text": item["note"], "html": escape(item["note"])}
        if item["type"] == "collection":
            others = [other for other in known if other["id"] == item["id"] and _visible(request.user, other)]
            more = {"slug": _slug(others[0]), "title": others[0]["title"]} if others else None
        else:
            repo = request.visible_repo(f"{item['type']}s", item["id"])
            more = {"id": repo.name.id, "author": repo.name.namespace} if repo else None
        if more is not None:
            items.append(shown | more)
    return {
        "slug": _slug(found),
        "title": found["title"],
        "description": found["description"] or None,
        "owner": {"type": "user" if request.hub.accounts.is_user(found["owner"]) else "org", "name": found["owner"]},
        "items": items,
        "lastUpdated": found["lastUpdated"],
        "position": [other["id"] for other in known if other["owner"] == found["owner"]].index(found["id"]),
        "private": found["private"],
        "theme": found["theme"],
        "upvotes": 0,
        "gating": False,
        "shareUrl": f"{request.base}/collections/{_slug(found)}",
    }


def _slug(found: Collection) -> str:
    title = re.sub(r"[^a-z0-9]+", "-", found["title"].lower()).strip("-")
    return f"{found['owner']}/{title}-{found['id']}".replace("/-", "/")


def _visible(user: User | None, found: Collection) -> bool:
    return not found["private"] or (user is not None and user.member_of(found["owner"]))


def _text(asked: dict[str, Any], key: str, *, needed: bool = True) -> str:
    value = asked.get(key) or ""
    if not isinstance(value, str) or len(value) > _LONGEST[key] or (needed and not value.strip()):
        raise HttpError(400, f"Expected a {key} of at most {_LONGEST[key]} characters")
    return value


def _place(asked: dict[str, Any]) -> int:
    value = asked["position"]
    if not isinstance(value, int) or value < 0:
        raise HttpError(400, f"Invalid position: {value!r}, expected a number from 0 on")
    return value
