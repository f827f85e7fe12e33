"""What the Hub in a folder answers on the wire, where huggingface_hub's client does not show it."""

from __future__ import annotations

import httpx2
import pytest
from huggingface_hub import HfApi


@pytest.mark.parametrize(
    ("asked", "status", "content", "span"),
    [
        ("bytes=0-0", 206, b"0", "bytes 0-0/10"),
        ("bytes=4-", 206, b"456789", "bytes 4-9/10"),
        ("bytes=-3", 206, b"789", "bytes 7-9/10"),
        ("bytes=2-99", 206, b"23456789", "bytes 2-9/10"),
        ("bytes=10-", 416, b"", "bytes */10"),
        ("rows=1-2", 200, b"0123456789", None),
    ],
)
@pytest.mark.parametrize("name", ["w.bin", "w.txt"])
def test_ranges(
    api: HfApi, repo: str, web: httpx2.Client, name: str, asked: str, status: int, content: bytes, span: str | None
) -> None:
    """Parts of large and small files are served as RFC 9110 says."""
    api.upload_file(path_or_fileobj=b"0123456789", path_in_repo=name, repo_id=repo)
    got = web.get(f"/{repo}/resolve/main/{name}", headers={"Range": asked})
    assert (got.status_code, got.content, got.headers.get("content-range")) == (status, content, span)


def test_a_range_of_what_changed_is_the_whole(api: HfApi, repo: str, web: httpx2.Client) -> None:
    """A download that goes on with another version of the file gets all of the new one."""
    api.upload_file(path_or_fileobj=b"0123456789", path_in_repo="w.bin", repo_id=repo)
    address, part = f"/{repo}/resolve/main/w.bin", {"Range": "bytes=4-"}
    etag = web.head(address).headers["etag"]
    assert web.get(address, headers={**part, "If-Range": etag}).content == b"456789"
    api.upload_file(path_or_fileobj=b"abcdefghij", path_in_repo="w.bin", repo_id=repo)
    got = web.get(address, headers={**part, "If-Range": etag})
    assert (got.status_code, got.content) == (200, b"abcdefghij")


def test_whoami_has_a_picture(web: httpx2.Client) -> None:
    """The avatar that an app in development shows is there."""
    assert web.get(web.get("/api/whoami-v2").json()["avatarUrl"]).headers["content-type"] == "image/svg+xml"


def test_every_way_to_name_a_revision(api: HfApi, repo: str, web: httpx2.Client) -> None:
    """HEAD, a shortened commit, a full ref and a pull request, quoted or bare, all resolve."""
    made = api.upload_file(path_or_fileobj=b"x", path_in_repo="d/x", repo_id=repo, create_pr=True)
    main = api.model_info(repo).sha or ""
    for revision, commit in (
        ("HEAD", main),
        (main[:7], main),
        ("refs%2Fheads%2Fmain", main),
        ("refs%2Fpr%2F1", made.oid),
        ("refs/pr/1", made.oid),
    ):
        got = web.head(f"/{repo}/resolve/{revision}/.gitattributes")
        assert (got.status_code, got.headers["x-repo-commit"]) == (200, commit)
    assert web.get(f"/api/models/{repo}/tree/refs%2Fpr%2F1/d").json()[0]["path"] == "d/x"


def test_head_is_answered_wherever_get_is(api: HfApi, repo: str, web: httpx2.Client) -> None:
    """HEAD has the status and the length of GET, and no body."""
    api.upload_file(path_or_fileobj=b"0123456789", path_in_repo="d/w.bin", repo_id=repo)
    for path in (
        "/",
        "/api/models",
        f"/api/models/{repo}",
        f"/api/models/{repo}/tree/main",
        f"/api/models/{repo}/refs",
        f"/api/models/{repo}/commits/main",
        f"/api/models/{repo}/discussions",
        f"/{repo}/resolve/main/d/w.bin",
        f"/{repo}/raw/main/d/w.bin",
        "/api/collections",
        "/api/whoami-v2",
        f"/{repo}/resolve/main/absent",
        f"/{repo}.git/info/refs?service=git-upload-pack",
    ):
        got, head = web.get(path), web.head(path)
        assert (head.status_code, head.content) == (got.status_code, b""), path
        assert head.headers.get("content-length") == got.headers.get("content-length"), path


def test_a_request_keeps_its_id(web: httpx2.Client) -> None:
    """The id that a client gives its request comes back, so that both logs can be compared; else there is a new one."""
    assert web.get("/", headers={"x-request-id": "mine"}).headers["x-request-id"] == "mine"
    assert web.get("/").headers["x-request-id"] != web.get("/").headers["x-request-id"]


def test_what_a_list_does_not_know_it_refuses(api: HfApi, repo: str, web: httpx2.Client) -> None:
    """A filter, a field or a number that is not known is an error that names the known ones, never ignored."""
    for path, named in (
        ("/api/models?inference=warm", "pipeline_tag"),
        ("/api/datasets?pipeline_tag=x", "author"),
        ("/api/models?expand[]=downlods", "downloadsAllTime"),
        ("/api/datasets?expand=sdk", "cardData"),
        (f"/api/models/{repo}?expand=secret", "safetensors"),
        (f"/api/models/{repo}?securitystatus=1", "securityStatus"),
        ("/api/models?num_parameters=big", "min:100M"),
        ("/api/models?sort=size", "lastModified"),
    ):
        got = web.get(path)
        assert (got.status_code, named in got.json()["error"]) == (400, True), path


def test_own_repos_are_listed_with_their_size(api: HfApi, repo: str, web: httpx2.Client) -> None:
    """The settings pages list the repos of a user, private ones too, and of an organisation."""
    api.create_repo("lab/hidden", private=True, exist_ok=True)
    api.upload_file(path_or_fileobj=b"0123456789", path_in_repo="w.bin", repo_id=repo)
    own = {item["id"]: item for item in web.get("/api/settings/repositories").json()}
    assert (own[repo]["type"], own[repo]["storage"]) == ("model", 10)
    of_lab = web.get("/api/organizations/lab/settings/repositories").json()
    assert {"lab/hidden": "private"}.items() <= {item["id"]: item["visibility"] for item in of_lab}.items()
