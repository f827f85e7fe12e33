"""Gated repos: requests for access, and who has it."""

from __future__ import annotations

from typing import Any

from starlette.responses import Response

from hfsoup.localhub.errors import HttpError
from hfsoup.localhub.request import HubRequest, reply
from hfsoup.localhub.routing import Routes
from hfsoup.localhub.store import Meta

routes = Routes()
_STATUSES = ("pending", "accepted", "rejected")


@routes("GET", "/api/{kind}/{repo}/user-access-request/{status}")
def list_requests(request: HubRequest) -> Response:
    """The requests for access that are pending, accepted or rejected."""
    status = _check_status(request.params["status"])
    page, headers = request.page([item for item in request.repo_to_write().meta.access if item["status"] == status])
    return reply([_describe(item) for item in page], headers=headers)


@routes("POST", "/api/{kind}/{repo}/user-access-request/grant")
def grant_request(request: HubRequest) -> Response:
    """Give access to a user who has not requested it."""
    user = str(request.json().get("user"))
    with request.change(request.repo_to_write()) as repo:
        _require_gate(repo.meta)
        if not request.hub.accounts.is_user(user):
            raise HttpError(404, f"There is no user {user}")
        repo.meta.grant_access(user)
    return reply({})


@routes("POST", "/api/{kind}/{repo}/user-access-request/handle")
def handle_request(request: HubRequest) -> Response:
    """Accept, reject or set back a request, named by its user or its id."""
    asked = request.json()
    status = _check_status(asked.get("status"))
    with request.change(request.repo_to_write()) as repo:
        _require_gate(repo.meta)
        for item in repo.meta.access:
            if asked.get("user") == item["user"] or asked.get("requestId") == item["id"]:
                if item["status"] == status:
                    raise HttpError(404, f"The request of {item['user']} is {status} already")
                item["status"] = status
                return reply({})
    raise HttpError(404, "There is no such request for access")


def _require_gate(meta: Meta) -> None:
    if not meta.gated:
        raise HttpError(400, "This repo is not gated")


def _check_status(value: Any) -> str:
    if value not in _STATUSES:
        raise HttpError(400, f"Unknown status {value!r}, expected one of {', '.join(_STATUSES)}")
    return str(value)


def _describe(item: dict[str, Any]) -> dict[str, Any]:
    user = {"user": item["user"], "fullname": item["user"], "type": "user"}
    return {"requestId": item["id"], "status": item["status"], "timestamp": item["timestamp"], "user": user}
