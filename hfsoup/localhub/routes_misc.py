"""Small things clients ask for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.responses import Response

from hfsoup.localhub.call import Call, reply
from hfsoup.localhub.facts import CardError, front_matter
from hfsoup.localhub.refusal import RefusedError
from hfsoup.localhub.routing import Routes

if TYPE_CHECKING:
    from typing import Any

routes = Routes()


@routes("POST", "/api/validate-yaml")
def validate_yaml(call: Call) -> Response:
    """Whether the metadata at the top of a README can be read."""
    errors: list[dict[str, Any]] = []
    try:
        front_matter(str(call.json().get("content") or ""))
    except CardError as error:
        errors.append({"message": str(error)})
    return reply({"errors": errors, "warnings": []}, status=400 if errors else 200)


@routes("GET", "/api/agent-harnesses")
def agent_harnesses(call: Call) -> Response:  # noqa: ARG001 (every handler takes a call)
    """Clients ask at every start; there is nothing to tell."""
    return reply({"standardEnvVars": [], "harnesses": {}})


@routes("HEAD", "/api/telemetry/{path}")
def telemetry(call: Call) -> Response:  # noqa: ARG001 (every handler takes a call)
    """Nothing is recorded."""
    return Response(status_code=200)


@routes("GET", "/api/{kind}/{repo}/xet-write-token/{rev}", "/api/{kind}/{repo}/xet-read-token/{rev}")
def xet_token(call: Call) -> Response:
    """There is no Xet storage here; the answer says what to do about it."""
    call.repo()
    raise RefusedError(404, "This Hub has no Xet storage: set HF_HUB_DISABLE_XET=1 in the client's environment")


@routes("GET", "/")
def home(call: Call) -> Response:
    """What this server is."""
    return reply({"name": "a Hub in a folder", "endpoint": call.base})
