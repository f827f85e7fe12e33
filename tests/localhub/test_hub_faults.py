"""Faults ordered from a Hub, as its clients meet them."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import pytest
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError

from hfsoup.localhub import LocalHub


@pytest.fixture
def file(api: HfApi, repo: str, site: LocalHub) -> str:
    """Address of a file of 300,000 bytes."""
    api.upload_file(path_or_fileobj=os.urandom(300_000), path_in_repo="w.bin", repo_id=repo)
    return f"{site.url}/{repo}/resolve/main/w.bin"


def test_a_status_for_some_requests(site: LocalHub, file: str) -> None:
    """A rule leaves the first matches alone, strikes so many times, and counts its hits."""
    fault = site.fault("/resolve/", status=503, headers={"Retry-After": "0"}, body=b"no", skip=1, times=2)
    got = [httpx2.get(file) for _ in range(4)]
    assert [item.status_code for item in got] == [200, 503, 503, 200]
    assert (got[1].content, got[1].headers["retry-after"], fault.hits) == (b"no", "0", 2)


def test_a_rule_matches_its_method_and_path_alone(site: LocalHub, file: str) -> None:
    """Other methods and other paths are answered as ever."""
    site.fault("/resolve/", method="HEAD", status=500)
    site.fault("^/elsewhere", status=500)
    assert httpx2.get(file).status_code == 200
    assert httpx2.head(file).status_code == 500


def test_a_connection_cut_after_some_bytes(site: LocalHub, file: str) -> None:
    """Exactly so many bytes arrive, then the connection breaks."""
    site.fault("/resolve/", cut=1000, times=1)
    got: list[bytes] = []
    with httpx2.stream("GET", file) as answer, pytest.raises(httpx2.RemoteProtocolError):
        got.extend(answer.iter_raw())
    assert len(b"".join(got)) == 1000
    assert len(httpx2.get(file).content) == 300_000


def test_a_reply_that_is_lost(site: LocalHub, api: HfApi, repo: str) -> None:
    """The commit happens, and its client never hears of it."""
    head = api.model_info(repo).sha
    site.fault("/commit/", drop=True, times=1)
    with pytest.raises(httpx2.RemoteProtocolError):
        api.upload_file(path_or_fileobj=b"x", path_in_repo="x", repo_id=repo)
    assert api.model_info(repo).sha != head


def test_a_stall_ends_when_faults_are_cleared(site: LocalHub, file: str) -> None:
    """A stalled request times out at its client, and goes on once the rule is dropped."""
    site.fault("/resolve/", stall=60.0)
    with pytest.raises(httpx2.ReadTimeout):
        httpx2.get(file, timeout=0.2)
    site.clear_faults()
    assert httpx2.get(file, timeout=5).status_code == 200


def test_a_body_that_drips(site: LocalHub, file: str) -> None:
    """The body comes a kilobyte at a time, with pauses."""
    site.fault("/resolve/", drip=0.05, times=1)
    began = time.monotonic()
    assert len(httpx2.get(file, headers={"Range": "bytes=0-4095"}).content) == 4096
    assert time.monotonic() - began >= 0.2


def test_a_byte_that_is_wrong(site: LocalHub, file: str) -> None:
    """A body can be replaced under the right headers."""
    right = httpx2.head(file).headers["etag"]
    site.fault("/resolve/", method="GET", body=b"wrong", times=1)
    got = httpx2.get(file)
    assert (got.status_code, got.content, got.headers["etag"]) == (200, b"wrong", right)


def test_clients_retry_what_they_retry(site: LocalHub, api: HfApi, repo: str) -> None:
    """A list survives one 503, a commit does not."""
    site.fault("/tree/", status=503, headers={"Retry-After": "0"}, times=1)
    assert list(api.list_repo_tree(repo))
    site.fault("/commit/", status=503, times=1)
    with pytest.raises(HfHubHTTPError, match="503"):
        api.upload_file(path_or_fileobj=b"x", path_in_repo="x", repo_id=repo)


@pytest.mark.usefixtures("plain_http")
def test_an_interrupted_snapshot_fetches_the_rest_only(
    site: LocalHub, api: HfApi, repo: str, file: str, tmp_path: Path
) -> None:
    """After a failure in the middle, a second run asks only for what is missing."""
    api.upload_file(path_or_fileobj=b"small", path_in_repo="a.txt", repo_id=repo)
    site.fault("/w.bin", method="GET", status=500, times=1)
    with pytest.raises(HfHubHTTPError):
        api.snapshot_download(repo, cache_dir=tmp_path, max_workers=1)
    site.forget_requests()
    api.snapshot_download(repo, cache_dir=tmp_path, max_workers=1)
    assert [seen.path for seen in site.requests if "a.txt" in seen.path] == []


def test_requests_are_listed(site: LocalHub, file: str) -> None:
    """The list tells method, path, query, status, and whether a token was sent."""
    site.forget_requests()
    httpx2.get(f"{file}?download=true")
    httpx2.head(file, headers={"Authorization": f"Bearer {site.token}"})
    path = file.removeprefix(site.url)
    seen = [(item.method, item.path, item.query, item.status, item.authorized) for item in site.requests]
    assert seen == [("GET", path, "download=true", 200, False), ("HEAD", path, "", 200, True)]


def test_a_stalled_request_does_not_hold_up_the_end(tmp_path: Path) -> None:
    """A Hub stops at once although a request is being stalled."""
    with LocalHub(tmp_path) as hub, ThreadPoolExecutor(1) as pool:
        hub.fault("/whoami", stall=60.0)
        stalled = pool.submit(httpx2.get, f"{hub.url}/api/whoami-v2")
        time.sleep(0.2)
        began = time.monotonic()
        hub.stop()
        assert time.monotonic() - began < 2
        assert stalled.result().status_code == 401
