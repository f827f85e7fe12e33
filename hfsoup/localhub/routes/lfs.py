"""Large files: the LFS batch call, and the signed addresses it hands out."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable
from math import ceil
from pathlib import Path
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from hfsoup.localhub.auth import require_user
from hfsoup.localhub.errors import HttpError
from hfsoup.localhub.file_responses import send_content
from hfsoup.localhub.lfs import CHUNK, parse_oid
from hfsoup.localhub.names import parse_repo_name
from hfsoup.localhub.request import HubRequest, reply
from hfsoup.localhub.routing import Routes
from hfsoup.localhub.store import Repo

routes = Routes()
_JSON = "application/vnd.git-lfs+json"


@routes("POST", "/{web}/info/lfs/objects/batch")
def offer_transfers(request: HubRequest) -> Response:
    """Where to send or fetch objects. One that the repo does not have must be sent, even if another repo has it."""
    asked = request.json()
    if asked.get("hash_algo", "sha256") not in ("sha256", "sha_256"):
        raise HttpError(400, f"Unknown hash_algo {asked['hash_algo']!r}, expected sha256")
    operation, objects = asked.get("operation"), asked.get("objects")
    if operation not in ("upload", "download") or not isinstance(objects, list):
        raise HttpError(400, "Expected an operation, upload or download, and a list of objects")
    repo = request.repo_to_read()
    if operation == "upload":
        require_user(request.user)
    in_parts = operation == "upload" and "multipart" in (asked.get("transfers") or [])
    found = [_offer_transfer(request, repo, item, operation=operation, in_parts=in_parts) for item in objects]
    large = any("header" in item.get("actions", {}).get("upload", {}) for item in found)
    transfer = "multipart" if large else "basic"
    return reply({"transfer": transfer, "objects": found, "hash_algo": "sha256"}, kind=_JSON)


@routes("GET", "/lfs/get/{oid}")
def send_object(request: HubRequest) -> Response:
    """The object, to whoever has the signed address."""
    oid = parse_oid(request.params["oid"])
    request.hub.signer.check("get", oid, request.http.query_params)
    path = request.hub.lfs.path(oid)
    if not path.exists():
        raise HttpError(404, f"No object {oid}")
    return send_content(request, path, {"ETag": f'"{oid}"'})


@routes("PUT", "/lfs/put/{oid}")
async def receive_object(request: HubRequest) -> Response:
    """Receive an object."""
    oid, fields, repo = _check_upload(request, "put")
    with request.hub.lfs.writer(oid, int(fields["size"])) as writer:
        await _receive(request, writer.write)
        await run_in_threadpool(writer.finish, repo)
    return Response(status_code=200)


@routes("PUT", "/lfs/part/{oid}")
async def receive_part(request: HubRequest) -> Response:
    """Receive one part of an object."""
    _, fields, _ = _check_upload(request, "part")
    part = request.hub.lfs.part(fields["upload"], int(fields["number"]))
    incoming = part.with_suffix(f".{secrets.token_hex(4)}")
    digest, most, count = hashlib.sha256(), int(fields["most"]), 0
    with incoming.open("xb") as file:

        def write(chunk: bytes) -> None:
            nonlocal count
            count += len(chunk)
            if count > most:
                raise HttpError(400, f"Expected a part of at most {most} bytes, got more")
            digest.update(chunk)
            file.write(chunk)

        await _receive(request, write)
    incoming.replace(part)
    return Response(status_code=200, headers={"ETag": f'"{digest.hexdigest()}"'})


@routes("POST", "/lfs/join/{oid}")
def join_parts(request: HubRequest) -> Response:
    """All parts are sent: put them together."""
    oid, fields, repo = _check_upload(request, "join")
    request.hub.lfs.join(fields["upload"], int(fields["count"]), oid, int(fields["size"]), repo)
    return reply({})


@routes("POST", "/lfs/verify/{oid}")
def verify_object(request: HubRequest) -> Response:
    """Whether an object arrived."""
    oid, fields, repo = _check_upload(request, "verify")
    if not request.hub.lfs.has(repo, oid) or request.hub.lfs.size(oid) != int(fields["size"]):
        raise HttpError(404, f"No object {oid}")
    return reply({}, kind=_JSON)


def _offer_transfer(request: HubRequest, repo: Repo, item: Any, *, operation: str, in_parts: bool) -> dict[str, Any]:
    if not isinstance(item, dict) or not isinstance(item.get("size"), int) or item["size"] < 0:
        raise HttpError(400, "Expected objects, each with an oid and a size")
    oid, size = parse_oid(item.get("oid")), item["size"]
    present = request.hub.lfs.has(repo.path, oid)
    answer: dict[str, Any] = {"oid": oid, "size": size, "authenticated": True}
    if operation == "download":
        if not present:
            return {**answer, "error": {"code": 404, "message": f"No object {oid} in {repo.name.id}"}}
        return {**answer, "actions": {"download": {"href": request.hub.signer.href(request.base, "get", oid)}}}
    if present:
        return answer
    fields = {"repo": repo.name.key, "size": size}
    href = request.hub.signer.href
    upload = {"href": href(request.base, "put", oid, **fields)}
    if in_parts and size > request.hub.options.part_size:
        upload = _offer_parts(request, oid, fields)
    return {**answer, "actions": {"upload": upload, "verify": {"href": href(request.base, "verify", oid, **fields)}}}


def _offer_parts(request: HubRequest, oid: str, fields: dict[str, Any]) -> dict[str, Any]:
    most = request.hub.options.part_size
    count = ceil(fields["size"] / most)
    href = request.hub.signer.href
    fields = {**fields, "upload": secrets.token_hex(16)}
    header = {"chunk_size": str(most)}
    for number in range(1, count + 1):
        header[f"{number:05d}"] = href(request.base, "part", oid, **fields, number=number, most=most)
    return {"href": href(request.base, "join", oid, **fields, count=count), "header": header}


def _check_upload(request: HubRequest, action: str) -> tuple[str, dict[str, str], Path]:
    """Object, signed fields and place of the repo of a signed address."""
    oid = parse_oid(request.params["oid"])
    fields = request.hub.signer.check(action, oid, request.http.query_params)
    kind, _, repo_id = fields["repo"].partition("/")
    path = request.hub.store.path(parse_repo_name(kind, repo_id))
    if not path.exists():
        raise HttpError(404, f"Repository not found: {repo_id}", code="RepoNotFound")
    return oid, fields, path


async def _receive(request: HubRequest, write: Callable[[bytes], None]) -> None:
    """Write the body in pieces large enough to be worth a thread."""
    pending: list[bytes] = []
    size = 0
    async for chunk in request.http.stream():
        pending.append(chunk)
        size += len(chunk)
        if size >= CHUNK:
            await run_in_threadpool(write, b"".join(pending))
            pending, size = [], 0
    await run_in_threadpool(write, b"".join(pending))
