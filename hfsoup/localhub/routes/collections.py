"""Collections: lists of repos and of other collections."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from typing import Any

from starlette.responses import Response

from hfsoup.localhub.auth import User, require_owner, require_user
from hfsoup.localhub.errors import HttpError, require_one_of
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
def list_collections(request: HubRequest) -> Response:
    """The collections that the caller may see, with their first items."""
    query = request.http.query_params
    request.allow_query("owner", "item", "q", "sort", "limit", "cursor")
    require_one_of("sort", query.get("sort") or "lastModified", _SORTS)
    owners, items, text = request.values("owner"), set(request.values("item")), (query.get("q") or "").lower()
    found = [
        item
        for item in request.hub.store.collections()
        if _can_see(request.user, item)
        and (not owners or item["owner"] in owners)
        and (not items or items & {f"{entry['type']}s/{entry['id']}" for entry in item["items"]})
        and text in item["title"].lower()
    ]
    page, headers = request.page(sorted(found, key=lambda item: str(item["lastUpdated"]), reverse=True))
    listed = [_describe(request, item) for item in page]
    for item in listed:
        item["items"] = item["items"][:_SHOWN_IN_LIST]
        del item["position"]
    return reply(listed, headers=headers)


@routes("POST", "/api/collections")
def create_collection(request: HubRequest) -> Response:
    """A new collection, of the caller or of an organisation; 409 with its slug if there is one of that title."""
    asked, user = request.json(), require_user(request.user)
    owner = str(asked.get("namespace") or user.name)
    require_owner(user, owner)
    made: Collection = {
        "id": secrets.token_hex(12),
        "title": _read_text(asked, "title"),
        "owner": owner,
        "description": _read_text(asked, "description", needed=False),
        "private": asked.get("private") is True,
        "theme": _THEMES[0],
        "lastUpdated": timestamp(),
        "items": [],
    }
    with request.hub.store.change_collections() as known:
        for other in known:
            if (other["owner"], other["title"]) == (owner, made["title"]):
                raise HttpError(409, "You already have a collection of this title", body={"slug": _slug(other)})
        if isinstance(asked.get("item"), dict):
            made["items"].append(_make_item(request, known, asked["item"], ""))
        known.append(made)
    return reply(_describe(request, made))


@routes("GET", "/api/collections/{owner}/{slug}")
def show_collection(request: HubRequest) -> Response:
    """One collection with all of its items."""
    return reply(_describe(request, find_collection(request, request.hub.store.collections())))


@routes("PATCH", "/api/collections/{owner}/{slug}")
def change_collection(request: HubRequest) -> Response:
    """Change its title, description, visibility, colour or place."""
    asked = request.json()
    with _change(request) as (known, found):
        for key in ("title", "description"):
            if key in asked:
                found[key] = _read_text(asked, key, needed=key == "title")
        found["theme"] = require_one_of("theme", asked.get("theme", found["theme"]), _THEMES)
        found["private"] = asked.get("private", found["private"]) is True
        if "position" in asked:
            known.remove(found)
            others = [item for item in known if item["owner"] == found["owner"]][_read_position(asked) :]
            known.insert(known.index(others[0]) if others else len(known), found)
    return reply({"success": True, "data": _describe(request, found)})


@routes("DELETE", "/api/collections/{owner}/{slug}")
def delete_collection(request: HubRequest) -> Response:
    """Delete a collection, and nothing that is in it."""
    with _change(request) as (known, found):
        known.remove(found)
    return reply({"success": True})


@routes("POST", "/api/collections/{owner}/{slug}/items", "/api/collections/{owner}/{slug}/item")
def add_item(request: HubRequest) -> Response:
    """Add something at the end; 404 if there is no such thing, 409 if it is in the collection."""
    asked = request.json()
    with _change(request) as (known, found):
        item = _make_item(request, known, asked.get("item"), _read_text(asked, "note", needed=False))
        if any((other["type"], other["id"]) == (item["type"], item["id"]) for other in found["items"]):
            raise HttpError(409, f"{item['id']} is already in this collection")
        found["items"].append(item)
    return reply(_describe(request, found))


@routes("PATCH", "/api/collections/{owner}/{slug}/items/{item}")
def change_item(request: HubRequest) -> Response:
    """Change an item's note or place."""
    asked = request.json()
    with _change(request) as (_, found):
        item = _find_item(request, found)
        if "note" in asked:
            item["note"] = _read_text(asked, "note", needed=False)
        if "position" in asked:
            found["items"].remove(item)
            found["items"].insert(_read_position(asked), item)
    return reply({"success": True})


@routes("DELETE", "/api/collections/{owner}/{slug}/items/{item}")
def delete_item(request: HubRequest) -> Response:
    """Remove an item."""
    with _change(request) as (_, found):
        found["items"].remove(_find_item(request, found))
    return reply({"success": True})


def find_collection(request: HubRequest, known: list[Collection]) -> Collection:
    """The collection of this request: the id at the end of the slug decides, the title before it may be an old one."""
    identifier = request.params["slug"].rpartition("-")[2]
    for item in known:
        if (item["id"], item["owner"]) == (identifier, request.params["owner"]) and _can_see(request.user, item):
            return item
    raise HttpError(404, f"Collection not found: {request.params['owner']}/{request.params['slug']}")


@contextmanager
def _change(request: HubRequest) -> Iterator[tuple[list[Collection], Collection]]:
    """All collections and that of this request, which the caller may change; written when the block ends."""
    with request.hub.store.change_collections() as known:
        found = find_collection(request, known)
        require_owner(request.user, found["owner"])
        yield known, found
        found["lastUpdated"] = timestamp()


def _find_item(request: HubRequest, found: Collection) -> dict[str, Any]:
    items: list[dict[str, Any]] = found["items"]
    for item in items:
        if item["_id"] == request.params["item"]:
            return item
    raise HttpError(404, f"No item {request.params['item']} in this collection")


def _make_item(request: HubRequest, known: list[Collection], asked: Any, note: str) -> dict[str, Any]:
    """An item for a repo or a collection that exists and that the caller may see."""
    kind, identifier = (asked.get("type"), str(asked.get("id"))) if isinstance(asked, dict) else (None, "")
    if kind == "collection":
        found = next((item["id"] for item in known if _slug(item) == identifier and _can_see(request.user, item)), None)
    elif f"{kind}s" in KINDS:
        repo = request.visible_repo(f"{kind}s", identifier)
        found = repo and repo.name.id
    else:
        raise HttpError(400, f"Invalid item type: {kind!r}, expected model, dataset, space or collection")
    if found is None:
        raise HttpError(404, f"There is no {kind} {identifier}")
    return {"_id": secrets.token_hex(12), "type": kind, "id": found, "note": note}


def _describe(request: HubRequest, found: Collection) -> dict[str, Any]:
    """A collection as the Hub describes it, without the items that are gone or that the caller may not see."""
    known = {item["id"]: item for item in request.hub.store.collections()}
    items: list[dict[str, Any]] = []
    for item in found["items"]:
        described = {"_id": item["_id"], "position": len(items), "type": item["type"], "id": item["id"]}
        if item["note"]:
            described["note"] = {"text": item["note"], "html": escape(item["note"])}
        other = known.get(item["id"]) if item["type"] == "collection" else None
        if other and _can_see(request.user, other):
            items.append({**described, "slug": _slug(other), "title": other["title"]})
        elif item["type"] != "collection" and (repo := request.visible_repo(f"{item['type']}s", item["id"])):
            items.append({**described, "id": repo.name.id, "author": repo.name.namespace})
    owner = found["owner"]
    return {
        "slug": _slug(found),
        "title": found["title"],
        "description": found["description"] or None,
        "owner": {"type": "user" if request.hub.accounts.is_user(owner) else "org", "name": owner},
        "items": items,
        "lastUpdated": found["lastUpdated"],
        "position": [other["id"] for other in known.values() if other["owner"] == owner].index(found["id"]),
        "private": found["private"],
        "theme": found["theme"],
        "upvotes": 0,
        "gating": False,
        "shareUrl": f"{request.base}/collections/{_slug(found)}",
    }


def _slug(found: Collection) -> str:
    title = re.sub(r"[^a-z0-9]+", "-", found["title"].lower()).strip("-")
    return f"{found['owner']}/{title}-{found['id']}".replace("/-", "/")


def _can_see(user: User | None, found: Collection) -> bool:
    return not found["private"] or (user is not None and user.member_of(found["owner"]))


def _read_text(asked: dict[str, Any], key: str, *, needed: bool = True) -> str:
    value = asked.get(key) or ""
    if not isinstance(value, str) or len(value) > _LONGEST[key] or (needed and not value.strip()):
        raise HttpError(400, f"Expected a {key} of at most {_LONGEST[key]} characters")
    return value


def _read_position(asked: dict[str, Any]) -> int:
    value = asked["position"]
    if not isinstance(value, int) or value < 0:
        raise HttpError(400, f"Invalid position: {value!r}, expected a number from 0 on")
    return value
