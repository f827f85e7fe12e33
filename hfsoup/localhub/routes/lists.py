"""Lists of repos."""

from __future__ import annotations

import re
from typing import Any

from starlette.responses import Response

from hfsoup.localhub.auth import require_user
from hfsoup.localhub.contents import find_commit
from hfsoup.localhub.errors import HttpError, bad_token, require_one_of
from hfsoup.localhub.names import KINDS
from hfsoup.localhub.repo_info import describe_repo, summarize_repo
from hfsoup.localhub.request import HubRequest, is_true, reply
from hfsoup.localhub.routing import Routes
from hfsoup.localhub.store import Repo

routes = Routes()
_QUERY = (
    *("author", "search", "filter", "tags", "gated", "sort", "direction", "limit", "cursor"),
    *("full", "cardData", "config", "expand"),
)
_MODEL_QUERY = ("pipeline_tag", "num_parameters")
_SORTS = ("lastModified", "createdAt", "downloads", "likes", "trendingScore", "id")
_USUAL = (
    *("_id", "id", "modelId", "author", "private", "gated", "disabled", "likes", "downloads", "lastModified"),
    *("createdAt", "trendingScore", "tags", "pipeline_tag", "library_name", "sdk"),
)


@routes("GET", "/api/{kind}")
def list_repos(request: HubRequest) -> Response:
    """The repos of a kind that the caller may see, filtered, sorted, in pages."""
    query, kind = request.http.query_params, request.params["kind"]
    request.allow_query(*_QUERY, *(_MODEL_QUERY if kind == "models" else ()))
    expand = request.expand(kind)
    found = [repo for repo in request.visible_repos(kind) if _fits_name(request, repo)]
    items = [_describe(request, repo, full=is_true(query.get("full"))) for repo in found]
    tags = [tag for name in ("filter", "tags") for value in request.values(name) for tag in value.split(",")]
    task, most, gated = query.get("pipeline_tag"), _parameters(query.get("num_parameters")), query.get("gated")
    items = [
        item
        for item in items
        if set(tags) <= set(item["tags"])
        and task in (None, "", item.get("pipeline_tag"))
        and (gated is None or is_true(gated) == bool(item["gated"]))
        and (most is None or most[0] <= item.get("safetensors", {}).get("total", -1) <= most[1])
    ]
    page, headers = request.page(_sorted(items, query.get("sort"), query.get("direction")))
    if not expand and is_true(query.get("full")):
        return reply(page, headers=headers)
    fields = expand or (*_USUAL, *(name for name in ("cardData", "config") if request.flag(name)))
    return reply([{key: value for key, value in item.items() if key in fields} for item in page], headers=headers)


@routes("GET", "/api/settings/repositories")
def list_own(request: HubRequest) -> Response:
    """The caller's own repos of all kinds."""
    return _settings(request, require_user(request.user).name)


@routes("GET", "/api/organizations/{org}/settings/repositories")
def list_of_organization(request: HubRequest) -> Response:
    """The repos of an organisation the caller belongs to."""
    user = require_user(request.user)
    org = request.params["org"]
    if not user.member_of(org):
        raise HttpError(403, f"You are not a member of the organization {org}")
    return _settings(request, org)


@routes("GET", "/api/whoami-v2")
def describe_caller(request: HubRequest) -> Response:
    """Who the caller is."""
    if request.user is None:
        raise bad_token()
    user = request.user
    more = {"email": None, "isEnterprise": False}
    orgs = [
        {"type": "org", "id": org, "name": org, "fullname": org, "roleInOrg": role, **more}
        for org, role in user.orgs.items()
    ]
    return reply(
        {
            "type": "user",
            "id": user.name,
            "name": user.name,
            "fullname": user.name,
            "avatarUrl": f"{request.base}/avatars/{user.name}.svg",
            "email": f"{user.name}@localhub.invalid",
            "emailVerified": True,
            "isPro": False,
            "orgs": orgs,
            "auth": {"type": "access_token", "accessToken": {"displayName": user.role, "role": user.role}},
        }
    )


def _settings(request: HubRequest, namespace: str) -> Response:
    items = []
    for kind in KINDS:
        for repo in request.visible_repos(kind, namespace):
            known = _describe(request, repo, full=False)
            item = {"id": repo.name.id, "type": repo.name.singular, "updatedAt": known["lastModified"]}
            items.append({**item, "visibility": repo.meta.visibility, "storage": known["usedStorage"]})
    page, headers = request.page(items)
    return reply(page, headers=headers)


def _fits_name(request: HubRequest, repo: Repo) -> bool:
    """Whether it belongs to one of the authors and contains all the search words, in any case."""
    name, authors = repo.name.id.lower(), [author.lower() for author in request.values("author") if author]
    words = [word.lower() for word in request.values("search")]
    return (not authors or repo.name.namespace.lower() in authors) and all(word in name for word in words)


def _parameters(asked: str | None) -> tuple[float, float] | None:
    """The least and the most parameters of a filter such as `min:100M,max:7B`."""
    if not asked:
        return None
    bounds = {"min": 0.0, "max": float("inf")}
    for part in asked.split(","):
        found = re.fullmatch(r"(min|max):(\d+(?:\.\d+)?)([KMBT]?)", part.strip())
        if found is None:
            raise HttpError(400, f"Invalid num_parameters: {asked!r}, expected for example min:100M,max:7B")
        bounds[found[1]] = float(found[2]) * 1000 ** "_KMBT".find(found[3] or "_")
    return bounds["min"], bounds["max"]


def _describe(request: HubRequest, repo: Repo, *, full: bool) -> dict[str, Any]:
    commit = find_commit(repo.git, "main")
    details = describe_repo if full or "siblings" in request.values("expand") else summarize_repo
    return details(repo, commit, request.hub.lfs)


def _sorted(items: list[dict[str, Any]], field: str | None, direction: str | None) -> list[dict[str, Any]]:
    field = field or "trendingScore"
    require_one_of("sort", field, _SORTS)
    return sorted(items, key=lambda item: item[field], reverse=direction != "1")
