"""Small answers that clients need."""

from __future__ import annotations

from html import escape

from starlette.responses import Response

from hfsoup.localhub.cards import check_card
from hfsoup.localhub.errors import HttpError
from hfsoup.localhub.request import HubRequest, reply
from hfsoup.localhub.routing import Routes

routes = Routes()


@routes("POST", "/api/validate-yaml")
def validate_yaml(request: HubRequest) -> Response:
    """What is wrong with the metadata at the top of a README, as JSON, or as text for clients that accept only that."""
    asked = request.json()
    errors, warnings = check_card(str(asked.get("content") or ""), str(asked.get("repoType") or "model"))
    status = 400 if errors else 200
    if request.http.headers.get("accept") == "text/plain":
        lines = [f"- Error: {text}" for text in errors] + [f"- Warning: {text}" for text in warnings]
        return Response("\n".join(lines), status, media_type="text/plain")
    found = {"errors": errors, "warnings": warnings}
    return reply({key: [{"message": text} for text in texts] for key, texts in found.items()}, status=status)


@routes("GET", "/avatars/{name}")
def avatar(request: HubRequest) -> Response:
    """A picture of a user: the first letter."""
    letter = escape(request.params["name"][:1].upper())
    text = f'<text x="2" y="7" font-size="7">{letter}</text>'
    svg = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 9">{text}</svg>'
    return Response(svg, media_type="image/svg+xml")


@routes("DELETE", "/api/{kind}/{repo}/like")
def unlike(request: HubRequest) -> Response:
    """Nobody likes anything here, so there is nothing to remove."""
    request.repo_to_discuss()
    return reply({"success": True})


@routes("GET", "/api/{kind}/{repo}/likers")
def likers(request: HubRequest) -> Response:
    """Nobody: likes are given on the Hub's pages."""
    request.repo()
    return reply([])


@routes("GET", "/api/users/{user}/likes")
def likes(request: HubRequest) -> Response:
    """What a user likes: nothing."""
    if not request.hub.accounts.is_user(request.params["user"]):
        raise HttpError(404, f"There is no user {request.params['user']}")
    return reply([])


@routes("GET", "/api/agent-harnesses")
def agent_harnesses(request: HubRequest) -> Response:  # noqa: ARG001 (every handler takes a request)
    """Clients read this at every start; there are none."""
    return reply({"standardEnvVars": [], "harnesses": {}})


@routes("HEAD", "/api/telemetry/{path}")
def telemetry(request: HubRequest) -> Response:  # noqa: ARG001 (every handler takes a request)
    """Nothing is recorded."""
    return Response(status_code=200)
