"""Xet, by hf-xet itself: what goes up and comes down that way, and who is offered it."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path

import httpx2
import pytest
from huggingface_hub import HfApi, HfFileSystem
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError

from hfsoup.localhub import LocalHub

DOWNLOAD = (
    "import sys; from huggingface_hub import hf_hub_download as get; print(open(get(*sys.argv[1:]), 'rb').read().hex())"
)


def _transfers(site: LocalHub) -> list[str]:
    """The requests by which content travels."""
    return [f"{s.method} {s.path}" for s in site.requests if s.path.startswith("/lfs/") or "xet-" in s.path]


def test_a_folder_goes_up_and_comes_down_by_xet(site: LocalHub, api: HfApi, repo: str, tmp_path: Path) -> None:
    """No content passes through HTTP, what was uploaded is not stored twice, and large files are what they were."""
    made = {"a.bin": os.urandom(300_000), "sub/b.safetensors": os.urandom(11_000_000), "sub/c.bin": b""}
    for name, content in made.items():
        (tmp_path / "up" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "up" / name).write_bytes(content)
    site.forget_requests()
    before = set((site.folder / "xet" / "uploads").glob("*/*/xet"))
    api.upload_folder(repo_id=repo, folder_path=tmp_path / "up")
    assert _transfers(site) == [f"GET /api/models/{repo}/xet-write-token/main"]
    assert set((site.folder / "xet" / "uploads").glob("*/*/xet")) == before
    site.forget_requests()
    got = Path(api.snapshot_download(repo, cache_dir=tmp_path / "cache"))
    assert {name: (got / name).read_bytes() for name in made} == made
    assert {line.partition(" /")[0] for line in _transfers(site)} == {"GET"}
    assert [s.path for s in site.requests if s.method == "GET" and "/resolve/" in s.path and ".bin" in s.path] == []


def test_processes_download_the_same_file_at_once(site: LocalHub, api: HfApi, repo: str, tmp_path: Path) -> None:
    """Each is given a folder of its own, for hf-xet locks the one that it opens."""
    content = os.urandom(50_000)
    api.upload_file(path_or_fileobj=content, path_in_repo="w.bin", repo_id=repo)
    site.forget_requests()
    running = []
    for n in range(3):
        own = {"HF_ENDPOINT": site.url, "HF_TOKEN": site.token, "HF_HOME": str(tmp_path / str(n))}
        command = [sys.executable, "-c", DOWNLOAD, repo, "w.bin"]
        running.append(subprocess.Popen(command, env={**os.environ, **own}, stdout=subprocess.PIPE, text=True))
    assert [process.communicate()[0].strip() for process in running] == 3 * [content.hex()]
    assert len(_transfers(site)) == 3


@pytest.mark.usefixtures("plain_http")
def test_what_went_up_by_http_comes_down_by_xet(
    site: LocalHub, api: HfApi, repo: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every large file of this Hub can be had both ways."""
    content = os.urandom(50_000)
    api.upload_file(path_or_fileobj=content, path_in_repo="w.bin", repo_id=repo)
    monkeypatch.undo()
    site.forget_requests()
    assert Path(api.hf_hub_download(repo, "w.bin", cache_dir=tmp_path)).read_bytes() == content
    assert len(_transfers(site)) == 1


def test_another_repository_does_not_have_it(site: LocalHub, api: HfApi, bob: HfApi, repo: str) -> None:
    """A folder is lent to those who may read the file, and one to upload to, to those who may write."""
    api.upload_file(path_or_fileobj=b"secret weights", path_in_repo="w.bin", repo_id=repo)
    api.update_repo_settings(repo, visibility="private")
    other = bob.create_repo("bob/other", exist_ok=True).repo_id
    oid = api.get_paths_info(repo, ["w.bin"])[0].lfs.sha256  # type: ignore[union-attr]
    with httpx2.Client(base_url=site.url, headers={"Authorization": f"Bearer {bob.token}"}) as client:
        for path in (f"{repo}/xet-read-token/main?oid={oid}", f"{other}/xet-read-token/main?oid={oid}"):
            assert client.get(f"/api/models/{path}").status_code == 404
        assert client.get(f"/api/models/{other}/xet-write-token/main").status_code == 200
        assert client.get(f"/api/models/{api.create_repo('ann/open').repo_id}/xet-write-token/main").status_code == 403


def test_a_file_that_never_arrived_is_not_committed(site: LocalHub, api: HfApi, repo: str, web: httpx2.Client) -> None:
    """A commit that names a large file nobody uploaded is refused, whatever lies in the folder to upload to."""
    folder = Path(web.get(f"/api/models/{repo}/xet-write-token/main").headers["x-xet-cas-url"].removeprefix("local://"))
    (folder / "xet" / "xorbs" / "shards").mkdir(parents=True)
    (folder / "xet" / "xorbs" / "shards" / "odd.mdb").write_bytes(os.urandom(500))
    lines = b'{"key": "header", "value": {"summary": "x"}}\n{"key": "lfsFile", "value": {"path": "w.bin", "oid": "%s"}}'
    got = web.post(f"/api/models/{repo}/commit/main", content=lines % (b"a" * 64))
    assert (got.status_code, "was not uploaded" in got.json()["error"]) == (400, True)


def test_who_cannot_open_the_folder_is_not_offered_it(site: LocalHub, api: HfApi, repo: str) -> None:
    """A client of another machine, or one that is not huggingface_hub, downloads by HTTP alone."""
    api.upload_file(path_or_fileobj=b"weights", path_in_repo="w.bin", repo_id=repo)
    python = {"User-Agent": "unknown/None; hf_hub/2.4.0"}

    async def head(client: str, headers: dict[str, str]) -> bool:
        transport = httpx2.ASGITransport(site._faults, client=(client, 1234))
        async with httpx2.AsyncClient(transport=transport, base_url=site.url) as web:
            found = await web.head(f"/{repo}/resolve/main/w.bin", headers=headers)
            assert found.status_code == 200
            return "x-xet-hash" in found.headers

    assert asyncio.run(head("127.0.0.1", python))
    assert not asyncio.run(head("192.0.2.7", python))
    assert not asyncio.run(head("127.0.0.1", {"User-Agent": "node"}))


def test_folders_are_lent_for_a_while(site: LocalHub, api: HfApi, repo: str, tmp_path: Path) -> None:
    """The next client clears away what was lent more than an hour ago."""
    api.upload_file(path_or_fileobj=b"weights", path_in_repo="w.bin", repo_id=repo)
    api.hf_hub_download(repo, "w.bin", cache_dir=tmp_path / "one")
    lent = list((site.folder / "xet" / "downloads").iterdir())
    assert lent
    for folder in lent:
        os.utime(folder, (0, time.time() - 4000))
    api.hf_hub_download(repo, "w.bin", cache_dir=tmp_path / "two")
    assert not any(folder.exists() for folder in lent)


def test_a_token_that_may_only_read_uploads_nothing(site: LocalHub, repo: str) -> None:
    """The client reads so before it sends anything."""
    reader = HfApi(endpoint=site.url, token=site.add_user("ann", role="read"))
    with pytest.raises(HfHubHTTPError, match="may only read"):
        reader.upload_file(path_or_fileobj=b"weights", path_in_repo="w.bin", repo_id=repo)


def test_a_listing_is_enough_to_download_by_xet(
    site: LocalHub, api: HfApi, web: httpx2.Client, repo: str, tmp_path: Path
) -> None:
    """A large file is listed with its Xet hash and needs no request of its own; other clients see no hash."""
    made = {f"{n}.bin": os.urandom(50_000) for n in range(3)}
    for name, content in made.items():
        api.upload_file(path_or_fileobj=content, path_in_repo=name, repo_id=repo)
    site.forget_requests()
    got = Path(api.snapshot_download(repo, cache_dir=tmp_path / "cache"))
    assert {name: (got / name).read_bytes() for name in made} == made
    assert [seen.path for seen in site.requests if "resolve" in seen.path and ".bin" in seen.path] == []
    files = HfFileSystem(endpoint=site.url, token=site.token)
    files.get_file(f"{repo}/1.bin", str(tmp_path / "1.bin"))
    assert (tmp_path / "1.bin").read_bytes() == made["1.bin"]
    assert [seen.path for seen in site.requests if seen.method == "GET" and "/resolve/main/1.bin" in seen.path] == []
    listed = web.get(f"/api/models/{repo}/tree/main").json()
    assert len(listed) == 4
    assert not any("xetHash" in item for item in listed)


def test_large_files_are_copied_between_repos(api: HfApi, bob: HfApi, repo: str) -> None:
    """A copy in another repo, of another kind, outlives its source; nobody copies what they may not read."""
    content = os.urandom(50_000)
    api.upload_file(path_or_fileobj=content, path_in_repo="d/w.bin", repo_id=repo)
    api.upload_file(path_or_fileobj=b"text", path_in_repo="d/a.txt", repo_id=repo)
    target = api.create_repo(f"{repo}-copy", repo_type="dataset").repo_id
    api.copy_files(f"hf://{repo}/d/", f"hf://datasets/{target}/e/")
    api.update_repo_settings(repo, visibility="private")
    theirs = bob.create_repo("bob/copies", exist_ok=True).repo_id
    with pytest.raises(RepositoryNotFoundError):
        bob.copy_files(f"hf://{repo}/d/", f"hf://{theirs}/e/")
    api.delete_repo(repo)
    for name, expected in (("e/w.bin", content), ("e/a.txt", b"text")):
        assert Path(api.hf_hub_download(target, name, repo_type="dataset")).read_bytes() == expected


def test_what_is_deleted_for_good_leaves_the_others(site: LocalHub, api: HfApi, repo: str, tmp_path: Path) -> None:
    """A large file that is deleted from the history is in no folder of Xet; the others come that way still."""
    contents = {name: os.urandom(50_000) for name in ("a.bin", "b.bin")}
    for name, content in contents.items():
        api.upload_file(path_or_fileobj=content, path_in_repo=name, repo_id=repo)
    api.permanently_delete_lfs_files(repo, [item for item in api.list_lfs_files(repo) if item.filename == "a.bin"])
    site.forget_requests()
    assert Path(api.hf_hub_download(repo, "b.bin", cache_dir=tmp_path)).read_bytes() == contents["b.bin"]
    assert len(_transfers(site)) == 1
    stored = site.folder.joinpath("repos", "models", f"{repo}.git", "hub-xet").rglob("*")
    assert not any(contents["a.bin"][:1000] in path.read_bytes() for path in stored if path.is_file())
