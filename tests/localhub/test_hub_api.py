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
@pytest.mark.usefixtures("plain_http")
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


def test_lists_by_gate_and_size(api: HfApi, site: LocalHub, tmp_path: Path) -> None:
    """Lists know whether a repo is gated, how many parameters it has, several words and several authors."""
    import numpy as np

    site.add_user("ann", orgs=["gates"])
    for name, size in (("small-cat", 10), ("large-cat", 1200)):
        api.create_repo(f"gates/{name}")
        save_file({"a": np.ones(size, np.float32)}, tmp_path / "model.safetensors")
        api.upload_folder(repo_id=f"gates/{name}", folder_path=tmp_path)
    api.update_repo_settings("gates/large-cat", gated="auto")

    def ids(**query: object) -> list[str]:
        return [model.id for model in api.list_models(author="GATES", **query)]  # type: ignore[arg-type]

    assert ids(gated=True) == ["gates/large-cat"]
    assert ids(gated=False) == ["gates/small-cat"]
    assert ids(num_parameters="min:1K") == ["gates/large-cat"]
    assert ids(num_parameters="max:0.5K") == ["gates/small-cat"]
    assert ids(search="cat small") == []
    assert [space.id for space in api.list_spaces(author="gates", search=["ca", "x"])] == []
    found = api.list_models(author="gates", expand=["safetensors", "gated"], search="small")
    assert [(item.safetensors and item.safetensors.total, item.gated, item.tags) for item in found] == [
        (10, False, None)
    ]


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


def test_a_name_in_another_case(api: HfApi, repo: str) -> None:
    """A mistyped case finds the repo, to read, write, delete and clone; it cannot be taken by a second one."""
    upper = repo.upper()
    api.upload_file(path_or_fileobj=os.urandom(50), path_in_repo="w.bin", repo_id=upper)
    assert api.model_info(upper).id == repo
    assert api.file_exists(repo, "w.bin")
    assert len(Path(api.hf_hub_download(upper, "w.bin")).read_bytes()) == 50
    with pytest.raises(HfHubHTTPError, match="409"):
        api.create_repo(f"ann/{repo.partition('/')[2].upper()}")
    api.delete_repo(upper.replace("ANN", "ann"))
    assert not api.repo_exists(repo)


def test_a_folder_is_deleted_by_its_name(api: HfApi, repo: str) -> None:
    """A deletion that does not say whether it means a file or a folder takes what is there, and nothing beside it."""
    names = ("1/a", "1/b/c", "11", "2")
    api.create_commit(repo, [CommitOperationAdd(name, b"x") for name in names], commit_message="one")
    api.create_commit(repo, [CommitOperationDelete("1", is_folder=False)], commit_message="two")
    assert sorted(api.list_repo_files(repo)) == [".gitattributes", "11", "2"]
    with pytest.raises(EntryNotFoundError):
        api.delete_folder("2", repo)
    api.delete_folder("/", repo)
    assert api.list_repo_files(repo) == []


def test_history_is_squashed(api: HfApi, repo: str) -> None:
    """The newest commit of a branch, a pull request or a conversion becomes its only one; a tag has none to squash."""
    api.create_branch(repo, branch="refs/convert/parquet")
    made = api.create_pull_request(repo, "draft")
    for revision in ("main", "refs/convert/parquet", made.git_reference):
        for content in (b"1", b"2"):
            api.upload_file(path_or_fileobj=content, path_in_repo="x.bin", repo_id=repo, revision=revision)
        api.super_squash_history(repo, branch=revision)
        commits = api.list_repo_commits(repo, revision=revision)
        assert [item.title for item in commits] == [f"Super-squash branch '{revision}' using huggingface_hub"]
        assert Path(api.hf_hub_download(repo, "x.bin", revision=revision)).read_bytes() == b"2"
    api.upload_file(path_or_fileobj=b"y", path_in_repo="y", repo_id=repo, revision=made.git_reference)
    assert "+++ b/y" in (api.get_discussion_details(repo, made.num).diff or "")
    api.create_tag(repo, tag="v1")
    with pytest.raises(BadRequestError):
        api.super_squash_history(repo, branch="v1")
    with pytest.raises(RevisionNotFoundError):
        api.super_squash_history(repo, branch="absent")
    assert [ref.name for ref in api.list_repo_refs(repo).converts] == ["parquet"]


def test_large_files_are_listed_and_removed_for_good(api: HfApi, repo: str, site: LocalHub) -> None:
    """All large files of any branch are listed; a removed one leaves every commit and the disk, others stay."""
    for name, branch in (("d/a.bin", "main"), ("b.bin", "main"), ("c.bin", "dev")):
        if branch == "dev":
            api.create_branch(repo, branch="dev")
        api.upload_file(path_or_fileobj=os.urandom(99), path_in_repo=name, repo_id=repo, revision=branch)
    api.upload_file(path_or_fileobj=b"text", path_in_repo="d/t.txt", repo_id=repo)
    api.delete_file("b.bin", repo)
    found = {item.filename: item for item in api.list_lfs_files(repo)}
    assert {name: (item.ref, item.size) for name, item in found.items()} == {
        "d/a.bin": ("main", 99),
        "b.bin": ("main", 99),
        "c.bin": ("dev", 99),
    }
    api.permanently_delete_lfs_files(repo, [found["d/a.bin"], found["b.bin"]])
    assert [item.filename for item in api.list_lfs_files(repo)] == ["c.bin"]
    assert sorted(api.list_repo_files(repo)) == [".gitattributes", "d/t.txt"]
    assert sorted(api.list_repo_files(repo, revision="dev")) == [".gitattributes", "c.bin"]
    assert len(Path(api.hf_hub_download(repo, "c.bin", revision="dev")).read_bytes()) == 99
    assert [path for path in site.folder.rglob(found["b.bin"].file_oid) if path.stat().st_size] == []


def test_a_reference_in_the_way_of_another(web: httpx2.Client, repo: str) -> None:
    """Git has no branch or tag `x/y` beside `x`: 409, and the first stays."""
    for kind, rest in (("branch/{}", {}), ("tag/main", {"tag": "{}"})):
        answers = [
            web.post(f"/api/models/{repo}/{kind.format(name.replace('/', '%2F'))}", json=dict.fromkeys(rest, name))
            for name in ("x", "x/y")
        ]
        assert [answer.status_code for answer in answers] == [200, 409]
    refs = web.get(f"/api/models/{repo}/refs").json()
    assert [[ref["name"] for ref in refs[group]] for group in ("branches", "tags")] == [["main", "x"], ["x"]]


def test_a_repo_is_duplicated(api: HfApi, bob: HfApi, repo: str) -> None:
    """A copy holds the files and branches and belongs to who asked for it; pull requests stay behind."""
    content = os.urandom(500)
    api.upload_file(path_or_fileobj=content, path_in_repo="w.bin", repo_id=repo)
    api.upload_file(path_or_fileobj=b"x", path_in_repo="x", repo_id=repo, create_pr=True)
    copy = bob.duplicate_repo(repo, f"bob/{repo.partition('/')[2]}", private=True).repo_id
    api.delete_repo(repo)
    assert Path(bob.hf_hub_download(copy, "w.bin")).read_bytes() == content
    assert bob.model_info(copy).private
    assert (
        bob.list_repo_refs(copy, include_pull_requests=True).pull_requests,
        list(bob.get_repo_discussions(copy)),
    ) == (
        [],
        [],
    )


def test_files_that_come_with_a_new_repo(web: httpx2.Client, api: HfApi) -> None:
    """The JavaScript client sends files along when it makes a repo: they are in its first commit."""
    files = [
        {"path": "d/x.txt", "encoding": "base64", "content": "aGVsbG8="},
        {"path": "README.md", "encoding": "utf-8", "content": "---\nlicense: mit\n---\n"},
    ]
    files.append({"path": "w.safetensors", "encoding": "base64", "content": "d2VpZ2h0cw=="})
    made = web.post("/api/repos/create", json={"name": "filled", "files": files}).json()["id"]
    assert Path(api.hf_hub_download(made, "w.safetensors")).read_text() == "weights"
    assert [item.size for item in api.list_lfs_files(made)] == [7]
    assert Path(api.hf_hub_download(made, "d/x.txt")).read_text() == "hello"
    assert (api.model_info(made).card_data or {})["license"] == "mit"
    assert len(api.list_repo_commits(made)) == 1
    bad = [{"path": "../x", "content": ""}]
    assert web.post("/api/repos/create", json={"name": "bad", "files": bad}).status_code == 422
    assert not api.repo_exists("ann/bad")


def test_a_space_starts_with_a_card(api: HfApi, web: httpx2.Client) -> None:
    """The README of a new space names its sdk, and the sdk of its info is that of the README."""
    made = api.create_repo("lab/app", repo_type="space", space_sdk="gradio").repo_id
    assert "sdk: gradio" in Path(api.hf_hub_download(made, "README.md", repo_type="space")).read_text()
    card = b"---\nsdk: static\n---\n"
    api.upload_file(path_or_fileobj=card, path_in_repo="README.md", repo_id=made, repo_type="space")
    assert api.space_info(made).sdk == "static"
    asked = {"name": "other", "organization": "lab", "type": "space", "sdk": "cobol"}
    assert web.post("/api/repos/create", json=asked).status_code == 400


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


@pytest.mark.parametrize(
    ("card", "said"),
    [
        ("license: MIT", '"license" must be one of'),
        ("license: [mit, mine]", '"license" must be one of'),
        ("model-index: foo", '"model-index" must be an array'),
        ("model-index: [{name: a, results: [{metrics: []}]}]", 'results[0].task" is required'),
        (
            "model-index: [{name: a, results: [{task: {type: t}, metrics: [{type: m}]}]}]",
            'metrics[0].value" is required',
        ),
        ("tags: one", '"tags" must be an array'),
        ("base_model: [1]", '"base_model" must be a string'),
        ("base_model_relation: cousin", '"base_model_relation" must be one of'),
        ("language: EN", '"language" must only contain lowercase'),
        ("[a, b]", "expected keys and values"),
    ],
)
def test_cards_that_the_hub_refuses(web: httpx2.Client, card: str, said: str) -> None:
    """What is wrong with a card is named, as JSON and as text."""
    asked = {"content": f"\n---\n{card}\n---\ntext", "repoType": "model"}
    got = web.post("/api/validate-yaml", json=asked)
    assert (got.status_code, [said in item["message"] for item in got.json()["errors"]]) == (400, [True])
    text = web.post("/api/validate-yaml", json=asked, headers={"Accept": "text/plain"}).text
    assert text.startswith("- Error: ")
    assert said in text


def test_cards_are_checked(api: HfApi, repo: str, monkeypatch: pytest.MonkeyPatch, site: LocalHub) -> None:
    """Metadata that is not YAML is refused before it is pushed."""
    with pytest.raises((ValueError, BadRequestError)):
        api.upload_file(path_or_fileobj=b"---\na: [\n---\n", path_in_repo="README.md", repo_id=repo)
    with pytest.warns(UserWarning, match="empty or missing yaml metadata"):
        api.upload_file(path_or_fileobj=b"no metadata", path_in_repo="README.md", repo_id=repo)
    api.upload_file(path_or_fileobj=b"---\nlicense: mit\n---\n", path_in_repo="README.md", repo_id=repo)
    assert ModelCard.load(api.hf_hub_download(repo, "README.md")).data.license == "mit"
