"""Lists of repos."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hfsoup.localhub.auth import need_user
from hfsoup.localhub.call import Call, is_true, reply, sees
from hfsoup.localhub.facts import describe, summary
from hfsoup.localhub.names import KINDS
from hfsoup.localhub.reading import find_commit
from hfsoup.localhub.refusal import MovedError, RefusedError, bad_token
from hfsoup.localhub.routing import Routes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from starlette.responses import Response

    from hfsoup.localhub.store import Repo

routes = Routes()
_SORTS = ("lastModified", "createdAt", "downloads", "likes", "trendingScore", "id")
_PLAIN = (
    "_id",
    "id",
    "modelId",
    "author",
    "private",
    "gated",
    "disabled",
    "likes",
    "downloads",
    "lastModified",
    "createdAt",
)
_USUAL = (*_PLAIN, "trendingScore", "tags", "pipeline_tag", "library_name", "sdk")


@routes("GET", "/api/{kind}")
def repos(call: Call) -> Response:
    """The repos of a kind that the caller may see, filtered, sorted, in pages."""
    query = call.request.query_params
    found = [
        repo
        for repo in _visible(call, call.params["kind"])
        if _named_like(repo, query.get("author"), query.get("search"))
    ]
    items = [_describe(call, repo, full=is_true(query.get("full"))) for repo in found]
    wanted = [*call.values("filter"), *call.values("tags")]
    tags = [tag for value in wanted for tag in value.split(",")]
    task = query.get("pipeline_tag")
    items = [item for item in items if set(tags) <= set(item["tags"]) and task in (None, "", item.get("pipeline_tag"))]
    page, headers = call.page(_sorted(items, query.get("sort"), query.get("direction")))
    fields = _fields(call)
    if not call.values("expand") and is_true(query.get("full")):
        return reply(page, headers=headers)
    return reply([{key: value for key, value in item.items() if key in fields} for item in page], headers=headers)


@routes("GET", "/api/settings/repositories")
def own(call: Call) -> Response:
    """The caller's own repos of all kinds."""
    return _settings(call, need_user(call.user).name)


@routes("GET", "/api/organizations/{org}/settings/repositories")
def of_organization(call: Call) -> Response:
    """The repos of an organisation the caller belongs to."""
    user = need_user(call.user)
    org = call.params["org"]
    if not user.owns(org):
        raise RefusedError(403, f"You are not a member of the organization {org}")
    return _settings(call, org)


@routes("GET", "/api/whoami-v2")
def whoami(call: Call) -> Response:
    """Who the caller is."""
    if call.user is None:
        raise bad_token()
    user = call.user
    orgs = [
        {
            "type": "org",
            "id": org,
            "name": org,
            "fullname": org,
            "email": None,
            "roleInOrg": "write",
            "isEnterprise": False,
        }
        for org in user.orgs
    ]
    return reply(
        {
            "type": "user",
            "id": user.name,
            "name": user.name,
            "fullname": user.name,
            "email": f"{user.name}@localhub.invalid",
            "emailVerified": True,
            "isPro": False,
            "orgs": orgs,
            "auth": {"type": "access_token", "accessToken": {"displayName": user.role, "role": user.role}},
        }
    )


def _settings(call: Call, namespace: str) -> Response:
    items = []
    for kind in KINDS:
        for repo in _visible(call, kind):
            if repo.name.namespace == namespace:
                known = _describe(call, repo, full=False)
                item = {"id": repo.name.id, "type": repo.name.singular, "updatedAt": known["lastModified"]}
                items.append({**item, "visibility": repo.meta.visibility, "storage": known["usedStorage"]})
    page, headers = call.page(items)
    return reply(page, headers=headers)


def _visible(call: Call, kind: str) -> Iterator[Repo]:
    store = call.parts.store
    for name in store.names(kind):
        try:
            repo = store.open(name)
        except MovedError:
            continue
        if repo is not None and sees(call.user, repo):
            yield repo


def _named_like(repo: Repo, author: str | None, search: str | None) -> bool:
    return (not author or repo.name.namespace == author) and (not search or search.lower() in repo.name.id.lower())


def _describe(call: Call, repo: Repo, *, full: bool) -> dict[str, Any]:
    commit = find_commit(repo.git, "main")
    tell = describe if full or "siblings" in call.values("expand") else summary
    return tell(repo, commit, call.parts.lfs)


def _sorted(items: list[dict[str, Any]], field: str | None, direction: str | None) -> list[dict[str, Any]]:
    field = field or "trendingScore"
    if field not in _SORTS:
        raise RefusedError(400, f"Invalid sort: {field!r}, expected one of {', '.join(_SORTS)}")
    return sorted(items, key=lambda item: item[field], reverse=direction != "1")


def _fields(call: Call) -> tuple[str, ...]:
    asked = call.values("expand")
    if asked:
        return ("_id", "id", *asked)
    more = [name for name in ("cardData", "config") if call.flag(name)]
    return (*_USUAL, *more)
