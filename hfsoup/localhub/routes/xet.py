"""Xet: the folders that hf-xet downloads large files from and uploads them to."""

from __future__ import annotations

import time
from pathlib import Path

from starlette.responses import Response

from hfsoup.localhub.errors import HttpError
from hfsoup.localhub.request import HubRequest, reply
from hfsoup.localhub.routing import Routes
from hfsoup.localhub.xet import LIFETIME, XetStore, cas_url

routes = Routes()
ELSEWHERE = "Xet reaches this Hub from its own machine only: uninstall hf_xet on this one, or push with git"


@routes("GET", "/api/{kind}/{repo}/xet-read-token/{rev}")
def lend_downloads(request: HubRequest) -> Response:
    """A folder to download the large files of a repo from."""
    repo = request.repo_to_read()
    folder = _find_store(request).lend(repo.path)
    if folder is None:
        raise HttpError(404, f"{repo.name.id} has no large files")
    # A token that is over at once, so that a client which asks again, after a fork perhaps, gets another folder.
    return _reply_token(folder, 0)


@routes("GET", "/api/{kind}/{repo}/xet-write-token/{rev}")
def lend_uploads(request: HubRequest) -> Response:
    """A folder to upload large files to, before they are committed."""
    return _reply_token(_find_store(request).receive(request.repo_to_commit().meta.identifier), LIFETIME)


def _find_store(request: HubRequest) -> XetStore:
    store = request.hub.lfs.xet
    if store is None:
        raise HttpError(404, "This Hub has no Xet storage: pip install hf-xet where it is served")
    if not request.is_local:
        raise HttpError(404, ELSEWHERE)
    return store


def _reply_token(folder: Path, lifetime: int) -> Response:
    end = int(time.time()) + lifetime
    headers = {"X-Xet-Cas-Url": cas_url(folder), "X-Xet-Access-Token": "local", "X-Xet-Token-Expiration": str(end)}
    return reply({"casUrl": cas_url(folder), "accessToken": "local", "exp": end}, headers=headers)
