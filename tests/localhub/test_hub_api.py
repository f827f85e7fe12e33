"""What huggingface_hub's own client can do against the Hub in a folder."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import httpx2
import pytest
from huggingface_hub import (
    _CACHED_NO_EXIST,
    CommitOperationAdd,
    CommitOperationCopy,
    CommitOperationDelete,
    HfApi,
    HfFileSystem,
    ModelCard,
    try_to_load_from_cache,
)
from huggingface_hub.errors import (
    BadRequestError,
    EntryNotFoundError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from safetensors.numpy import save_file

from hfsoup.localhub import LocalHub


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model folder with a file larger than ten megabytes that no pattern marks as large."""
    import numpy as np

    made = tmp_path / "model"
    (made / "sub dir").mkdir(parents=True)
    save_file({"a": np.ones((3, 5), np.float32), "b": np.ones(7, np.float16)}, made / "model.safetensors")
    (made / "config.json").write_text('{"model_type": "vit", "architectures": ["ViTForImageClassification"]}')
    (made / "sub dir" / "big [1].txt").write_bytes(os.urandom(10_500_000))
    (made / "README.md").write_text("---\nlicense: mit\ntags: [model-soup]\nbase_model: ann/base\n---\nhello")
    return made


@pytest.mark.parametrize("mode", [{}, {"part_size": 1 << 20}, {"page_size": 2}, {"cdn": True}], ids=str)
def test_a_folder_comes_back_as_it_went(folder: Path, tmp_path: Path, mode: dict[str, int]) -> None:
    """An uploaded folder downloads byte for byte, in one piece or in parts, in pages, and from a second origin."""
    with LocalHub(tmp_path / "hub", **mode) as hub:  # type: ignore[arg-type]
        api = HfApi(endpoint=hub.url, token=hub.token)
        api.create_repo("user/m", private=True)
        api.upload_folder(repo_id="user/m", folder_path=folder)
        got = Path(api.snapshot_download("user/m", cache_dir=tmp_path / "cache"))
        assert not api.verify_repo_checksums("user/m", cache_dir=tmp_path / "cache").mismatches
        parts = [seen for seen in hub.requests if seen.path.startswith("/lfs/part")]
        assert len(parts) == (11 if "part_size" in mode else 0)
        assert any(seen.status == 302 for seen in hub.requests) == ("cdn" in mode)
    for path in folder.rglob("*.*"):
        assert (got / path.relative_to(folder)).read_bytes() == path.read_bytes()


def test_info_tells_what_the_files_say(api: HfApi, repo: str, folder: Path) -> None:
    """Task, library, tags, parameters and large files are read out of the files."""
    api.upload_folder(repo_id=repo, folder_path=folder)
    info = api.model_info(repo, files_metadata=True)
    assert (info.pipeline_tag, info.library_name) == ("image-classification", "transformers")
    assert {"model-soup", "license:mit", "base_model:ann/base", "safetensors"} <= set(info.tags or ())
    assert info.safetensors is not None
    assert info.safetensors.parameters == {"F32": 15, "F16": 7}
    large = {item.rfilename: item.lfs for item in info.siblings or () if item.lfs}
    assert set(large) == {"model.safetensors", "sub dir/big [1].txt"}
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    assert large["model.safetensors"]["sha256"] == digest
    assert api.model_info(repo, expand=["sha"]).sha == info.sha


def test_what_is_unchanged_is_not_sent_again(api: HfApi, repo: str, folder: Path, site: LocalHub) -> None:
    """A second upload of the same folder sends no content and makes no commit."""
    first = api.upload_folder(repo_id=repo, folder_path=folder).oid
    site.forget_requests()
    api.upload_folder(repo_id=repo, folder_path=folder)
    assert api.model_info(repo).sha == first
    assert not [seen for seen in site.requests if seen.method == "PUT"]


def test_a_repo_can_be_made_once(api: HfApi) -> None:
    """Creating twice is an error, unless `exist_ok`; deleting what is gone is one, unless `missing_ok`."""
    url = api.create_repo("lab/once")
    assert api.create_repo("lab/once", exist_ok=True) == url
    with pytest.raises(HfHubHTTPError, match="409"):
        api.create_repo("lab/once")
    api.delete_repo("lab/once")
    with pytest.raises(RepositoryNotFoundError):
        api.delete_repo("lab/once")
    api.delete_repo("lab/once", missing_ok=True)
    assert not api.repo_exists("lab/once")


def test_kinds_do_not_mix(api: HfApi) -> None:
    """A dataset, a model and a space may share a name."""
    for kind in ("model", "dataset", "space"):
        api.create_repo("lab/same", repo_type=kind, space_sdk="static" if kind == "space" else None)
        api.upload_file(path_or_fileobj=kind.encode(), path_in_repo="k", repo_id="lab/same", repo_type=kind)
    for kind in ("model", "dataset", "space"):
        assert Path(api.hf_hub_download("lab/same", "k", repo_type=kind)).read_text() == kind


def test_lists(api: HfApi, site: LocalHub) -> None:
    """Lists know author, search, tags, task, sorting and limits."""
    site.add_user("ann", orgs=["zoo"])
    for name, task in (("cat-1", "image-classification"), ("cat-2", "image-classification"), ("dog", "fill-mask")):
        api.create_repo(f"zoo/{name}")
        card = f"---\npipeline_tag: {task}\ntags: [{name}]\n---\n"
        api.upload_file(path_or_fileobj=card.encode(), path_in_repo="README.md", repo_id=f"zoo/{name}")

    def ids(**query: object) -> list[str]:
        return [model.id for model in api.list_models(author="zoo", **query)]  # type: ignore[arg-type]

    assert sorted(ids()) == ["zoo/cat-1", "zoo/cat-2", "zoo/dog"]
    assert sorted(ids(search="CAT")) == ["zoo/cat-1", "zoo/cat-2"]
    assert ids(filter="dog") == ["zoo/dog"]
    assert ids(filter=["dog", "fill-mask"]) == ["zoo/dog"]
    assert ids(pipeline_tag="fill-mask") == ["zoo/dog"]
    assert ids(sort="created_at") == ["zoo/dog", "zoo/cat-2", "zoo/cat-1"]
    assert len(ids(limit=2)) == 2
    full = next(iter(api.list_models(author="zoo", search="dog", full=True, cardData=True)))
    assert full.siblings
    assert full.card_data


def test_branches_and_tags(api: HfApi, repo: str) -> None:
    """Branches and tags with slashes can be made, written to, read and deleted; doubles are refused."""
    base = api.model_info(repo).sha
    api.create_branch(repo, branch="dev/x")
    api.create_tag(repo, tag="v1.0", tag_message="first")
    with pytest.raises(HfHubHTTPError, match="409"):
        api.create_tag(repo, tag="v1.0")
    api.upload_file(path_or_fileobj=b"x", path_in_repo="x", repo_id=repo, revision="dev/x")
    assert api.file_exists(repo, "x", revision="dev/x")
    assert not api.file_exists(repo, "x", revision="v1.0")
    refs = api.list_repo_refs(repo)
    assert sorted(ref.name for ref in refs.branches) == ["dev/x", "main"]
    assert [(ref.name, ref.target_commit) for ref in refs.tags] == [("v1.0", base)]
    api.delete_branch(repo, branch="dev/x")
    api.delete_tag(repo, tag="v1.0")
    with pytest.raises(RevisionNotFoundError):
        api.model_info(repo, revision="dev/x")
    with pytest.raises(HfHubHTTPError):
        api.upload_file(path_or_fileobj=b"x", path_in_repo="x", repo_id=repo, revision="nowhere")


def test_one_commit_may_do_everything(api: HfApi, repo: str) -> None:
    """Adding, copying and deleting files and folders in one commit; history lists it first."""
    weights = os.urandom(2000)
    api.create_commit(
        repo,
        [CommitOperationAdd("a/w.bin", weights), CommitOperationAdd("a/t", b"t"), CommitOperationAdd("old", b"o")],
        commit_message="one",
    )
    made = api.create_commit(
        repo,
        [
            CommitOperationCopy("a/w.bin", "b/w.bin"),
            CommitOperationDelete("a/"),
            CommitOperationDelete("old"),
            CommitOperationAdd("new", b"n"),
        ],
        commit_message="two",
        commit_description="more",
    )
    assert sorted(api.list_repo_files(repo)) == [".gitattributes", "b/w.bin", "new"]
    assert Path(api.hf_hub_download(repo, "b/w.bin")).read_bytes() == weights
    history = api.list_repo_commits(repo)
    assert [(item.title, item.message) for item in history[:2]] == [("two", "more"), ("one", "")]
    assert history[0].commit_id == made.oid
    entry = api.get_paths_info(repo, ["b/w.bin", "absent"], expand=True)
    assert [item.last_commit and item.last_commit.title for item in entry] == ["two"]  # type: ignore[union-attr]


def test_deleting_what_is_not_there(api: HfApi, repo: str) -> None:
    """Deleting an absent file says so and changes nothing."""
    head = api.model_info(repo).sha
    with pytest.raises(EntryNotFoundError):
        api.delete_file("absent", repo)
    assert api.model_info(repo).sha == head


def test_a_stale_parent_is_refused(api: HfApi, repo: str) -> None:
    """A commit that names another parent than the newest commit is refused with 412."""
    head = api.model_info(repo).sha
    api.upload_file(path_or_fileobj=b"1", path_in_repo="x", repo_id=repo, parent_commit=head)
    with pytest.raises(HfHubHTTPError, match="412"):
        api.upload_file(path_or_fileobj=b"2", path_in_repo="x", repo_id=repo, parent_commit=head)


def test_absence_is_remembered(api: HfApi, repo: str) -> None:
    """The client's cache learns that a file is absent, for the answer carries the commit it is absent from."""
    assert try_to_load_from_cache(repo, "absent") is None
    with pytest.raises(EntryNotFoundError):
        api.hf_hub_download(repo, "absent")
    assert try_to_load_from_cache(repo, "absent") is _CACHED_NO_EXIST


def test_the_old_name_leads_to_the_new(api: HfApi, repo: str) -> None:
    """A moved repo answers under both names; a new repo may take the old one."""
    api.upload_file(path_or_fileobj=b"x", path_in_repo="x", repo_id=repo)
    api.move_repo(repo, f"{repo}-new")
    assert api.model_info(repo).id == f"{repo}-new"
    assert Path(api.hf_hub_download(repo, "x")).read_text() == "x"
    api.create_repo(repo)
    assert api.model_info(repo).id == repo
    with pytest.raises(HfHubHTTPError):
        api.move_repo(repo, f"{repo}-new")


def test_deleting_frees_what_no_other_repo_holds(api: HfApi, repo: str, site: LocalHub) -> None:
    """A large file goes with the last repo that holds it."""
    content = os.urandom(3000)
    stored = site.folder / "lfs" / (oid := hashlib.sha256(content).hexdigest())[:2] / oid[2:4] / oid
    api.create_repo(f"{repo}-2")
    for name in (repo, f"{repo}-2"):
        api.upload_file(path_or_fileobj=content, path_in_repo="w.bin", repo_id=name)
    api.delete_repo(repo)
    assert stored.exists()
    api.delete_repo(f"{repo}-2")
    assert not stored.exists()


def test_files_through_the_filesystem(api: HfApi, repo: str, site: LocalHub) -> None:
    """HfFileSystem globs, reads ranges and writes."""
    fs = HfFileSystem(endpoint=site.url, token=site.token, use_listings_cache=False)
    with fs.open(f"{repo}/d/w.bin", "wb") as file:
        file.write(b"0123456789")
    assert fs.glob(f"{repo}/**/*.bin") == [f"{repo}/d/w.bin"]
    with fs.open(f"{repo}/d/w.bin", "rb") as file:
        file.seek(4)
        assert file.read(3) == b"456"


def test_large_files_no_pattern_covers_are_named(api: HfApi, repo: str, web: httpx2.Client, folder: Path) -> None:
    """What became a pointer for its size alone is added to .gitattributes, or git would check out the pointer."""
    api.upload_folder(repo_id=repo, folder_path=folder)
    assert '"/sub dir/big \\\\[1].txt" filter=lfs' in web.get(f"/{repo}/raw/main/.gitattributes").text
    assert web.get(f"/{repo}/raw/main/sub dir/big [1].txt").text.startswith("version https://git-lfs")


def test_ignored_files_stay_at_home(api: HfApi, repo: str, tmp_path: Path) -> None:
    """An uploaded .gitignore keeps out what it names."""
    for name in (".gitignore", "kept.txt", "left.log"):
        (tmp_path / name).write_text("*.log\n")
    api.upload_folder(repo_id=repo, folder_path=tmp_path)
    assert sorted(api.list_repo_files(repo)) == [".gitattributes", ".gitignore", "kept.txt"]


def test_cards_are_checked(api: HfApi, repo: str, monkeypatch: pytest.MonkeyPatch, site: LocalHub) -> None:
    """Metadata that is not YAML is refused before it is pushed."""
    with pytest.raises((ValueError, BadRequestError)):
        api.upload_file(path_or_fileobj=b"---\na: [\n---\n", path_in_repo="README.md", repo_id=repo)
    api.upload_file(path_or_fileobj=b"---\nlicense: mit\n---\n", path_in_repo="README.md", repo_id=repo)
    assert ModelCard.load(api.hf_hub_download(repo, "README.md")).data.license == "mit"
