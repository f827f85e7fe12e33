"""Xet: the folders that hf-xet downloads large files from and uploads them to."""

from __future__ import annotations

import ipaddress
import time
from pathlib import Path
from urllib.parse import quote

from starlette.responses import Response

from hfsoup.localhub.errors import HttpError
from hfsoup.localhub.lfs import parse_oid
from hfsoup.localhub.request import HubRequest, reply
from hfsoup.localhub.routes.commits import require_right
from hfsoup.localhub.routing import Routes
from hfsoup.localhub.store import Repo
from hfsoup.localhub.xet import LIFETIME, XetStore, cas_url

routes = Routes()
ELSEWHERE = "Xet reaches this Hub from its own machine only: uninstall hf_xet on this one, or push with git"


@routes("GET", "/api/{kind}/{repo}/xet-read-token/{rev}")
def read_token(request: HubRequest) -> Response:
    """A folder to download the large file from whose sha256 the query names."""
    repo, store = request.repo_to_read(), _store(request)
    oid = parse_oid(request.http.query_params.get("oid"))
    if not request.hub.lfs.holds(repo.path, oid) or store.hash(oid) is None:
        raise HttpError(404, f"No object {oid} in {repo.name.id}")
    # A token that is over at once, so that whoever asks again, after a fork perhaps, is given another folder.
    return _token(store.lend(oid), 0)


@routes("GET", "/api/{kind}/{repo}/xet-write-token/{rev}")
def write_token(request: HubRequest) -> Response:
    """A folder to upload large files to, before they are committed."""
    repo = request.repo_to_discuss()
    if not request.flag("create_pr"):
        require_right(request, repo, request.params["rev"])
    return _token(_store(request).expect(repo.meta.identifier), LIFETIME)


def headers(request: HubRequest, repo: Repo, oid: str) -> dict[str, str]:
    """What tells huggingface_hub that a large file can be had by Xet; nothing for clients that cannot open folders."""
    store = request.hub.lfs.xet
    known = store and store.hash(oid)
    if not known or not _is_near(request) or "hf_hub/" not in request.http.headers.get("user-agent", ""):
        return {}
    name, revision = repo.name, quote(request.params["rev"], safe="")
    route = f"{request.base}/api/{name.kind}/{quote(name.id)}/xet-read-token/{revision}?oid={oid}"
    return {"X-Xet-Hash": known, "X-Xet-Refresh-Route": route}


def _store(request: HubRequest) -> XetStore:
    store = request.hub.lfs.xet
    if store is None:
        raise HttpError(404, "This Hub has no Xet storage: pip install hf-xet where it is served")
    if not _is_near(request):
        raise HttpError(404, ELSEWHERE)
    return store


def _is_near(request: HubRequest) -> bool:
    """Whether the client is on this machine, where it can open the folders that it is given."""
    client = request.http.client
    return client is not None and ipaddress.ip_address(client.host).is_loopback


def _token(folder: Path, lifetime: int) -> Response:
    end = int(time.time()) + lifetime
    answer = {"casUrl": cas_url(folder), "accessToken": "local", "exp": end}
    named = {"X-Xet-Cas-Url": answer["casUrl"], "X-Xet-Access-Token": "local", "X-Xet-Token-Expiration": str(end)}
    return reply(answer, headers={name: str(value) for name, value in named.items()})
