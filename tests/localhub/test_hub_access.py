"""Who may see, read and write what; and what a hostile request gets."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from pathlib import Path

import httpx2
import pytest
from huggingface_hub import HfApi
from huggingface_hub.errors import (
    DisabledRepoError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    RepositoryNotFoundError,
)
from huggingface_hub.utils import validate_repo_id

from hfsoup.localhub import LocalHub
from hfsoup.localhub.names import valid_part
from hfsoup.utils.errors import SoupError


def test_private_repos_do_not_exist_for_others(api: HfApi, bob: HfApi, nobody: HfApi, repo: str) -> None:
    """A private repo looks missing to other users and to nobody, also in lists, and comes back when made public."""
    api.update_repo_settings(repo, visibility="private")
    for other in (bob, nobody):
        assert not other.repo_exists(repo)
        with pytest.raises(RepositoryNotFoundError):
            other.hf_hub_download(repo, ".gitattributes", force_download=False)
        assert repo not in [model.id for model in other.list_models(author="ann")]
    assert repo in [model.id for model in api.list_models(author="ann")]
    api.update_repo_settings(repo, visibility="public")
    assert nobody.repo_exists(repo)


def test_gated_repos_show_their_card_and_keep_their_files(
    api: HfApi, bob: HfApi, nobody: HfApi, repo: str, site: LocalHub
) -> None:
    """Info is open to all, files only to owners and to those who were granted access."""
    api.update_repo_settings(repo, gated="manual")
    assert nobody.model_info(repo).gated == "manual"
    for other in (bob, nobody):
        with pytest.raises(GatedRepoError):
            other.hf_hub_download(repo, ".gitattributes")
        with pytest.raises(GatedRepoError):
            other.auth_check(repo)
    site.grant(repo, "bob")
    bob.auth_check(repo)
    assert Path(bob.hf_hub_download(repo, ".gitattributes")).exists()
    with pytest.raises(SoupError, match="no repo"):
        site.grant("ann/absent", "bob")


def test_a_gated_repo_says_so_without_a_body(api: HfApi, bob: HfApi, repo: str, site: LocalHub) -> None:
    """The answer to HEAD, which has no body, tells in a header why a file is refused and where to ask."""
    api.update_repo_settings(repo, gated="auto")
    with pytest.raises(GatedRepoError, match="is restricted and you are not in the authorized list") as caught:
        bob.get_hf_file_metadata(url=f"{site.url}/{repo}/resolve/main/.gitattributes")
    assert f"{site.url}/{repo}" in str(caught.value)


def test_access_is_granted_rejected_and_taken_back(api: HfApi, bob: HfApi, repo: str) -> None:
    """The owner of a gated repo grants access, sets a request back, rejects and accepts it, each once."""
    with pytest.raises(HfHubHTTPError, match="not gated"):
        api.grant_access(repo, "bob")
    api.update_repo_settings(repo, gated="manual")
    with pytest.raises(HfHubHTTPError, match="404"):
        api.grant_access(repo, "carol")
    with pytest.raises(HfHubHTTPError, match="403"):
        bob.grant_access(repo, "bob")
    api.grant_access(repo, "bob")
    assert [item.username for item in api.list_accepted_access_requests(repo)] == ["bob"]
    bob.auth_check(repo)
    with pytest.raises(HfHubHTTPError, match="409"):
        api.grant_access(repo, "bob")
    api.cancel_access_request(repo, "bob")
    waiting = list(api.list_pending_access_requests(repo))
    with pytest.raises(GatedRepoError):
        bob.auth_check(repo)
    api.reject_access_request(repo, "bob", rejection_reason="no")
    assert [item.request_id for item in api.list_rejected_access_requests(repo)] == [waiting[0].request_id]
    with pytest.raises(HfHubHTTPError, match="404"):
        api.reject_access_request(repo, "bob", rejection_reason="no")
    api.accept_access_request(repo, request_id=waiting[0].request_id)
    bob.auth_check(repo)


def test_a_disabled_repo(api: HfApi, repo: str, site: LocalHub) -> None:
    """A disabled repo is refused with the client's own exception for it."""
    site.disable(repo)
    with pytest.raises(DisabledRepoError):
        api.model_info(repo)


def test_only_owners_write(api: HfApi, bob: HfApi, nobody: HfApi, repo: str, site: LocalHub) -> None:
    """Other users, nobody, and tokens that may only read cannot create, commit, change settings or delete."""
    reader = HfApi(endpoint=site.url, token=site.add_user("ann", role="read"))
    head = api.model_info(repo).sha
    for other, status in ((bob, "403"), (nobody, "401"), (reader, "403")):
        with pytest.raises(HfHubHTTPError, match=status):
            other.upload_file(path_or_fileobj=b"x", path_in_repo="x", repo_id=repo)
        with pytest.raises(HfHubHTTPError, match=status):
            other.create_repo("ann/stolen")
        with pytest.raises(HfHubHTTPError, match=status):
            other.delete_repo(repo)
        with pytest.raises(HfHubHTTPError, match=status):
            other.update_repo_settings(repo, visibility="private")
        with pytest.raises(HfHubHTTPError, match=status):
            other.create_branch(repo, branch="b")
    assert api.model_info(repo).sha == head


def test_members_write_to_their_organisation(api: HfApi, bob: HfApi) -> None:
    """An organisation is open to those it lists, and to no one else."""
    api.create_repo("lab/shared", exist_ok=True)
    with pytest.raises(HfHubHTTPError, match="403"):
        bob.create_repo("lab/other")


def test_a_wrong_token_is_said_to_be_wrong(site: LocalHub, repo: str) -> None:
    """Even for what anyone may see, an unknown token is an error."""
    with pytest.raises(HfHubHTTPError, match="Invalid credentials"):
        HfApi(endpoint=site.url, token="hf_wrong").model_info(repo)
    assert httpx2.get(f"{site.url}/api/whoami-v2").status_code == 401


def test_knowing_a_hash_gives_nothing(api: HfApi, bob: HfApi, repo: str, site: LocalHub) -> None:
    """The content of a private repo cannot be reached from another repo by its sha256."""
    content = os.urandom(5000)
    oid = hashlib.sha256(content).hexdigest()
    api.update_repo_settings(repo, visibility="private")
    api.upload_file(path_or_fileobj=content, path_in_repo="w.bin", repo_id=repo)
    mine = bob.create_repo(f"bob/{oid[:8]}").repo_id
    auth = {"Authorization": f"Bearer {bob.token}"}
    ask = {"operation": "download", "objects": [{"oid": oid, "size": 5000}]}
    batch = httpx2.post(f"{site.url}/{mine}.git/info/lfs/objects/batch", json=ask, headers=auth).json()
    assert batch["objects"][0]["error"]["code"] == 404
    lines = [
        {"key": "header", "value": {"summary": "s"}},
        {"key": "lfsFile", "value": {"path": "w.bin", "algo": "sha256", "oid": oid}},
    ]
    body = "\n".join(map(json.dumps, lines))
    assert httpx2.post(f"{site.url}/api/models/{mine}/commit/main", content=body, headers=auth).status_code == 400
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize 5000\n".encode()
    lines[1] = {"key": "file", "value": {"path": "w.bin", "content": pointer.decode(), "encoding": "utf-8"}}
    body = "\n".join(map(json.dumps, lines))
    assert httpx2.post(f"{site.url}/api/models/{mine}/commit/main", content=body, headers=auth).status_code == 200
    assert httpx2.get(f"{site.url}/{mine}/resolve/main/w.bin", headers=auth).status_code == 404


def test_signed_addresses_hold_for_one_thing(web: httpx2.Client, repo: str) -> None:
    """An upload address cannot be used for other content, another object, or after a change to it."""
    content = b"right"
    oid = hashlib.sha256(content).hexdigest()
    ask = {"operation": "upload", "objects": [{"oid": oid, "size": 5}]}
    href = web.post(f"/{repo}.git/info/lfs/objects/batch", json=ask).json()["objects"][0]["actions"]["upload"]["href"]
    assert httpx2.put(href, content=b"wrong").status_code == 400
    assert httpx2.put(href, content=b"right, and more").status_code == 400
    assert httpx2.put(href.replace("size=5", "size=6"), content=b"right!").status_code == 403
    assert httpx2.put(href.replace(oid, hashlib.sha256(b"wrong").hexdigest()), content=b"wrong").status_code == 403
    assert httpx2.put(href.replace("/put/", "/get/"), content=b"").status_code in (403, 404, 405)
    assert httpx2.put(href.partition("?")[0], content=content).status_code == 403
    assert httpx2.put(href, content=content).status_code == 200


@pytest.mark.parametrize("path", ["../x", "a/../../x", "/x", "a//b", ".git/config", "a/.GIT/x", "a\\b", "a\n", "", "."])
def test_paths_that_leave_the_repo_are_refused(web: httpx2.Client, repo: str, path: str) -> None:
    """No commit can hold a path that would be written outside a checkout."""
    lines = [
        {"key": "header", "value": {"summary": "s"}},
        {"key": "file", "value": {"path": path, "content": "", "encoding": "utf-8"}},
    ]
    got = web.post(f"/api/models/{repo}/commit/main", content="\n".join(map(json.dumps, lines)))
    assert got.status_code == 422


@pytest.mark.parametrize("name", ["../up", "a/../../b", "..", "a.git", "a--b", "-a", "x" * 97, "a b", "", "é", "a/b/c"])
def test_bad_repo_names_are_refused(web: httpx2.Client, name: str, site: LocalHub) -> None:
    """No repo can be made, or looked for, outside the folder of repos."""
    before = sorted(site.folder.rglob("*.git"))
    assert web.post("/api/repos/create", json={"name": name, "organization": "ann"}).status_code in (400, 403)
    assert sorted(site.folder.rglob("*.git")) == before


@pytest.mark.parametrize("name", ["a", "A.b_c-1", "a..b", "a.", ".a", "_a", "a_", "a-", "a.git", "a--b", "é", "a" * 96])
def test_names_follow_the_hub(name: str) -> None:
    """What huggingface_hub calls a valid name is one here."""
    try:
        validate_repo_id(f"ns/{name}")
    except HFValidationError:
        assert not valid_part(name)
    else:
        assert valid_part(name)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/models/..%2F..%2Fetc/passwd"),
        ("GET", "/..%2f..%2fhub.json/x/resolve/main/y"),
        ("GET", "/ann/%2e%2e/resolve/main/hub.json"),
        ("GET", "/lfs/get/..%2f..%2fhub.json"),
        ("GET", "/ann/x/info/refs?service=git-upload-pack"),
        ("GET", "/%00/a/resolve/main/b"),
        ("GET", "/api/models?limit=x"),
        ("GET", "/api/models?sort=secret"),
        ("POST", "/api/repos/create"),
        ("PUT", "/lfs/put/xyz"),
        ("POST", "/nothing/here/at/all"),
    ],
)
def test_nonsense_gets_a_clear_refusal(web: httpx2.Client, method: str, path: str) -> None:
    """Requests that make no sense end in a JSON error of the 4xx kind, not in a crash."""
    got = web.request(method, path)
    assert 400 <= got.status_code < 500
    assert got.json()["error"]


def test_accounts_are_kept_from_others(site: LocalHub, tmp_path: Path) -> None:
    """hub.json can be read by its owner alone; the log holds neither tokens nor signatures."""
    assert stat.S_IMODE((site.folder / "hub.json").stat().st_mode) == 0o600
    log = tmp_path / "requests.jsonl"
    with LocalHub(tmp_path / "hub", log=log) as hub:
        api = HfApi(endpoint=hub.url, token=hub.token)
        api.create_repo("user/m")
        api.upload_file(path_or_fileobj=b"x", path_in_repo="x.bin", repo_id="user/m")
        token = hub.token
    text = log.read_text()
    assert [json.loads(line)["status"] for line in text.splitlines()].count(200) >= 4
    assert '"authorized": true' in text
    assert token not in text
    assert "sig=" not in text
