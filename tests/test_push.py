"""What a push does to a repository, and what it refuses to do."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from family import Family
from huggingface_hub import HfApi, ModelCard, parse_eval_result_entries
from huggingface_hub.errors import RepositoryNotFoundError
from shell import bake, refused, run

from hfsoup.localhub import LocalHub
from hfsoup.utils.text import quoted


@pytest.fixture
def api(signed_in: LocalHub) -> HfApi:
    """The Hub's client with the user's token."""
    return HfApi()


@pytest.fixture
def target(api: HfApi) -> Iterator[str]:
    """A repository name that is free, and free again after the test."""
    yield "kit/target"
    api.delete_repo("kit/target", missing_ok=True)


def test_private(vit: Family, target: str, api: HfApi, alone: Path) -> None:
    """--private makes a repository that the anonymous cannot see."""
    bake(*vit.words, "--output", "soup", "--push", target, "--private")
    assert api.model_info(target).private
    with pytest.raises(RepositoryNotFoundError):
        HfApi(token=False).model_info(target)


def test_private_on_a_public_repository_is_refused(vit: Family, target: str, api: HfApi, alone: Path) -> None:
    """A repository that is public already is not pushed to as if it were private."""
    api.create_repo(target)
    head = api.model_info(target).sha
    block = refused("bake", *vit.words, "--output", "soup", "--push", target, "--private", code=1)
    assert "already public" in block
    assert api.model_info(target).sha == head


def test_create_pr(vit: Family, target: str, api: HfApi, alone: Path) -> None:
    """--create-pr leaves main alone and opens a pull request, whose address is told."""
    api.create_repo(target)
    head = api.model_info(target).sha
    found = bake(*vit.words, "--output", "soup", "--push", target, "--create-pr")
    assert api.model_info(target).sha == head
    (request,) = api.get_repo_discussions(target)
    assert request.is_pull_request
    assert found["pushed"]["url"].endswith(f"/{target}/discussions/{request.num}")
    assert "soup.json" in api.list_repo_files(target, revision=request.git_reference)


def test_revision(vit: Family, target: str, api: HfApi, alone: Path) -> None:
    """--revision makes the branch and pushes there; main does not move."""
    api.create_repo(target)
    head = api.model_info(target).sha
    found = bake(*vit.words, "--output", "soup", "--push", target, "--revision", "tasty")
    assert api.model_info(target).sha == head
    assert api.model_info(target, revision="tasty").sha == found["pushed"]["commit"]


def test_a_later_push_replaces_the_weights_of_an_earlier_one(vit: Family, target: str, api: HfApi, alone: Path) -> None:
    """Weight files that the new soup does not have go in the same commit; other files stay."""
    api.create_repo(target)
    for name in ("pytorch_model.bin", "model-00001-of-00002.safetensors", "notes.txt"):
        api.upload_file(repo_id=target, path_or_fileobj=b"old", path_in_repo=name)
    before = len(api.list_repo_commits(target))
    bake(*vit.words, "--output", "soup", "--push", target)
    assert len(api.list_repo_commits(target)) == before + 1
    files = set(api.list_repo_files(target))
    assert {"notes.txt", "model.safetensors", "soup.json", "README.md"} <= files
    assert not files & {"pytorch_model.bin", "model-00001-of-00002.safetensors"}


def test_a_folder_is_pushed_by_itself(vit: Family, target: str, api: HfApi, alone: Path) -> None:
    """`hfsoup push` does what --push does, to the byte: its card has the repository's name. The folder stays."""
    bake(*vit.words, "--output", "soup", "--push", target)
    whole = {path.name: path.read_bytes() for path in Path("soup").iterdir()}
    api.delete_repo(target)
    bake(*vit.words, "--output", "other")
    before = {path.name: path.read_bytes() for path in Path("other").iterdir()}
    done = run("push", "other", target, "--json", "-")
    assert done.code == 0, done.err
    assert list(done.json) == ["repo", "commit", "url"]
    again = Path(api.snapshot_download(target))
    assert {name: (again / name).read_bytes() for name in whole} == whole
    assert f'pipeline("image-classification", "{target}")' in done.err
    assert {path.name: path.read_bytes() for path in Path("other").iterdir()} == before
    assert run("verify", target, "--allow-local-paths").code == 0
    assert run("verify", "other").code == 0


def test_what_lies_in_folders_of_a_soup_is_pushed_too(vit: Family, target: str, api: HfApi, alone: Path) -> None:
    """Evaluation results and exports below the folder go with it; what git or a download keeps there does not."""
    bake(*vit.words, "--output", "soup")
    own = (".eval_results/imagenet.yaml", "onnx/model.onnx", "figures/more/deep.txt")
    for name in (*own, ".git/config", ".cache/huggingface/x.lock", "onnx/.DS_Store"):
        Path("soup", name).parent.mkdir(parents=True, exist_ok=True)
        Path("soup", name).write_text(name)
    assert run("push", "soup", target).code == 0
    there = set(api.list_repo_files(target))
    top = {path.name for path in Path("soup").iterdir() if path.is_file()}
    assert there == {*top, *own, ".gitattributes"}


def test_a_signed_folder_is_pushed_as_it_was_signed(vit: Family, target: str, api: HfApi, alone: Path) -> None:
    """Its card is not changed, which is said."""
    bake(*vit.words, "--output", "soup")
    Path("soup/model.sig").write_text("{}")
    done = run("push", "soup", target)
    assert "model.sig signs a card that says PATH/TO/THIS/FOLDER" in done.err
    assert Path(api.hf_hub_download(target, "README.md")).read_bytes() == Path("soup/README.md").read_bytes()


def test_paths_of_this_disk_are_pointed_out(
    vit: Family, target: str, api: HfApi, alone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever publishes where ingredients lie is told, and how not to; names alone are nobody's secret."""
    soup = alone / "soup"
    monkeypatch.chdir(vit.folders[0].parent)
    bake(*(f"./{folder.name}" for folder in vit.folders[:2]), "--output", soup)
    assert "the paths of this machine" not in run("push", soup, target).err
    bake(*vit.words[:2], "--output", soup, "--overwrite")
    done = run("push", soup, target)
    assert f"soup.json shows others the paths of this machine, such as {quoted(vit.words[0])}" in done.err
    assert "the paths of this machine" in run("bake", *vit.words[:2], "--output", alone / "other", "--push", target).err


def test_a_folder_that_is_no_model_is_not_pushed(api: HfApi, target: str, alone: Path) -> None:
    """Without config.json nothing is uploaded and no repository made."""
    Path("empty").mkdir()
    for name, found in (("empty", "no config.json"), ("nowhere", "no such folder")):
        assert f"found {found}" in refused("push", name, target, code=1)
    assert not api.repo_exists(target)


def test_no_token_is_told_before_any_work(vit: Family, data: Path, hub: LocalHub, alone: Path) -> None:
    """--push without a token ends at once: nothing is scored and nothing written."""
    block = refused("bake", *vit.words, "--dataset", data, "--push", "kit/target", "--output", "soup", code=1)
    assert "needs a token" in block
    assert "hf auth login" in block
    assert not Path("soup").exists()


def test_a_wrong_token_is_told_before_any_work(vit: Family, hub: LocalHub, alone: Path, monkeypatch: Any) -> None:
    """A token that the Hub does not know is refused by a first request, and not printed."""
    monkeypatch.setenv("HF_TOKEN", "hf_wrong0000000000")
    block = refused("bake", *vit.words, "--push", "kit/target", "--output", "soup", code=1)
    assert "does not accept your token" in block
    assert "hf_wrong" not in block
    assert not Path("soup").exists()


def test_somebody_elses_namespace(vit: Family, api: HfApi, alone: Path) -> None:
    """No right to write is told before any work."""
    block = refused("bake", *vit.words, "--push", "stranger/soup", "--output", "soup", code=1)
    assert "may not push" in block
    assert not Path("soup").exists()


@pytest.mark.parametrize("name", ["a/b/c", "kit/..", "-x", "kit/a b"])
def test_a_name_that_is_none(name: str, vit: Family, api: HfApi, alone: Path) -> None:
    """What cannot be a repository is refused before any work."""
    block = refused("bake", *vit.words, f"--push={name}", "--output", "soup", code=1)
    assert "not a repository name" in block
    assert not Path("soup").exists()


def test_a_push_in_between_is_not_overwritten(
    vit: Family, target: str, signed_in: LocalHub, api: HfApi, alone: Path, monkeypatch: Any
) -> None:
    """Somebody else's commit after ours began is kept: the push ends with an error that says so."""
    api.create_repo(target)
    create = HfApi.create_commit

    def late(self: HfApi, repo_id: str, *args: Any, **options: Any) -> Any:
        if options.get("parent_commit"):
            monkeypatch.setattr(HfApi, "create_commit", create)
            api.upload_file(repo_id=target, path_or_fileobj=b"theirs", path_in_repo="theirs.txt")
        return create(self, repo_id, *args, **options)

    monkeypatch.setattr(HfApi, "create_commit", late)
    block = refused("bake", *vit.words, "--push", target, "--output", "soup", code=1)
    assert "changed in the meantime" in block
    files = api.list_repo_files(target)
    assert "theirs.txt" in files
    assert "model.safetensors" not in files


@pytest.mark.parametrize("status", [403, 429, 500])
def test_a_refused_commit_is_all_or_nothing(
    status: int, vit: Family, target: str, signed_in: LocalHub, api: HfApi, alone: Path
) -> None:
    """If the commit is refused the repository is as it was, the folder is kept, and the error is one block."""
    api.create_repo(target)
    head = api.model_info(target).sha
    signed_in.fault(r"/commit/", method="POST", status=status, headers={"Retry-After": "0"})
    try:
        refused("bake", *vit.words, "--push", target, "--output", "soup", code=1)
    finally:
        signed_in.clear_faults()
    assert api.model_info(target).sha == head
    assert Path("soup/model.safetensors").exists()


def test_a_soup_in_memory_is_pushed(vit: Family, target: str, api: HfApi, alone: Path) -> None:
    """push_to_hub needs no folder of the user's, and the record names the ingredients."""
    import hfsoup

    soup = hfsoup.bake(*vit.words).push_to_hub(target, private=True)
    assert soup.pushed is not None
    assert soup.path is None
    assert list(alone.iterdir()) == []
    record = json.loads(Path(api.hf_hub_download(target, "soup.json")).read_text())
    assert [i["id"] for i in record["ingredients"]] == vit.words


SCORED = ("kit/vit-*", "--dataset", "kit/shapes", "--accept", ">")


def test_a_pushed_soup_has_the_result_that_the_hub_lists(
    on_hub: LocalHub, target: str, api: HfApi, alone: Path
) -> None:
    """The client reads score, interval, dataset, its commit, task, date, source, and the models it is merged from."""
    found = bake(*SCORED, "--output", "soup", "--push", target)
    (entry,) = api.model_info(target, expand=["evalResults"]).eval_results or []
    record = json.loads(Path("soup/soup.json").read_text())
    assert (entry.dataset_id, entry.task_id, entry.value) == ("kit/shapes", "default", found["soup"]["test"])
    assert entry.dataset_revision == record["dataset"]["revision"]
    assert entry.date == datetime.now(UTC).date().isoformat()
    assert entry.source_url == f"{on_hub.url}/{target}/blob/main/soup.json"
    low, high = found["soup"]["ci95"]
    assert entry.notes is not None
    assert entry.notes.startswith("accuracy on the split test")
    assert entry.notes.endswith(f"72 images, 95 % interval {low:.4f} to {high:.4f}")
    file = Path(api.hf_hub_download(target, ".eval_results/hfsoup-shapes.yaml"))
    assert parse_eval_result_entries(yaml.safe_load(file.read_text())) == [entry]
    card = ModelCard.load(target)
    (listed,) = card.data.eval_results
    assert (listed.metric_value, listed.dataset_revision) == (entry.value, entry.dataset_revision)
    bases = api.model_info(target, expand=["baseModels"]).base_models
    assert card.data.base_model == [base["id"] for base in bases["models"]] == sorted(
        i["id"] for i in found["ingredients"] if i["used"]
    )  # fmt: skip
    done = run("verify", target)
    assert done.code == 0
    assert "not verified" not in done.err


def test_the_command_line_of_the_hub_shows_result_and_base_models(
    on_hub: LocalHub, target: str, api: HfApi, alone: Path
) -> None:
    """`hf models info` prints them as it got them."""
    found = bake(*SCORED, "--push", target)
    words = ["models", "info", target, "--expand", "evalResults,baseModels,model-index", "--format", "json"]
    done = subprocess.run([Path(sys.executable).parent / "hf", *words], capture_output=True, text=True, check=True)
    shown = json.loads(done.stdout)
    assert f'"value": {found["soup"]["test"]}' in json.dumps(shown["eval_results"])
    assert [base["id"] for base in shown["base_models"]["models"]] == ModelCard.load(target).data.base_model


def test_a_result_has_the_task_of_the_dataset(on_hub: LocalHub, target: str, api: HfApi, alone: Path) -> None:
    """A dataset that declares tasks names the one of the split that was scored."""
    tasks = "name: Shapes\ntasks:\n- {id: easy, split: validation}\n- {id: hard, config: default, split: test}\n"
    api.upload_file(path_or_fileobj=tasks.encode(), path_in_repo="eval.yaml", repo_id="kit/shapes", repo_type="dataset")
    try:
        bake(*SCORED, "--push", target)
    finally:
        api.delete_file("eval.yaml", "kit/shapes", repo_type="dataset")
    (entry,) = api.model_info(target, expand=["evalResults"]).eval_results or []
    assert entry.task_id == "hard"


def test_a_result_that_was_changed_is_found(on_hub: LocalHub, target: str, api: HfApi, alone: Path) -> None:
    """verify compares it with soup.json."""
    bake(*SCORED, "--push", target)
    name = ".eval_results/hfsoup-shapes.yaml"
    (entry,) = yaml.safe_load(Path(api.hf_hub_download(target, name)).read_text())
    text = yaml.safe_dump([{**entry, "value": 0.99}])
    api.upload_file(path_or_fileobj=text.encode(), path_in_repo=name, repo_id=target)
    block = refused("verify", target, code=1)
    assert f"{name}: value is 0.99" in block


def test_a_result_of_an_earlier_soup_goes(on_hub: LocalHub, vit: Family, target: str, api: HfApi, alone: Path) -> None:
    """The next soup's commit deletes what hfsoup wrote; results of others stay."""
    bake(*SCORED, "--push", target)
    api.upload_file(path_or_fileobj=b"[]", path_in_repo=".eval_results/pets.yaml", repo_id=target)
    bake(*vit.words, "--push", target)
    assert [name for name in api.list_repo_files(target) if "eval_results" in name] == [".eval_results/pets.yaml"]


def test_a_card_names_the_repository_that_it_is_in(on_hub: LocalHub, target: str, api: HfApi, alone: Path) -> None:
    """Title, example, model-index and dark pictures do, of a folder, and of one that was pushed elsewhere before."""
    bake(*SCORED, "--figures", "--output", "soup", "--push", "kit/e1_0")
    try:
        assert run("push", "soup", target).code == 0
        first, second = (Path(api.hf_hub_download(repo, "README.md")).read_text() for repo in ("kit/e1_0", target))
    finally:
        api.delete_repo("kit/e1_0")
    assert "\n# e1\\_0: model soup of " in first
    assert ModelCard(first).data.model_name == "e1_0"
    assert "\n# target: model soup of " in second
    assert 'classify = pipeline("image-classification", "kit/target")' in second
    assert ModelCard(second).data.model_name == "target"
    assert f'srcset="{on_hub.url}/kit/target/resolve/main/figures/scores-dark.png"' in second
    assert "e1_0" not in second.replace("\\", "")
    assert run("verify", target).code == 0
    again = alone / "again"
    assert run("bake", *SCORED, "--figures", "--output", again).code == 0
    assert run("push", again, target).code == 0
    assert Path(api.hf_hub_download(target, "README.md")).read_text() == second


def test_secrets_and_hidden_files_are_not_pushed(vit: Family, target: str, api: HfApi, alone: Path) -> None:
    """Hidden files stay here; so does a private key, which is said."""
    bake(*vit.words, "--output", "soup")
    key = "-----BEGIN EC PRIVATE KEY-----\nx\n-----END EC PRIVATE KEY-----\n"
    hidden = (".env", ".venv/bin/x", ".vscode/settings.json", "onnx/.cache/x", "__pycache__/x.pyc", "id_ed25519")
    for name, text in {**dict.fromkeys(hidden, "SECRET=1"), "key.pem": key, "key.pub": "public"}.items():
        Path("soup", name).parent.mkdir(parents=True, exist_ok=True)
        Path("soup", name).write_text(text)
    done = run("push", "soup", target)
    assert "not pushed, because it holds a private key: 'key.pem'" in done.err
    there = set(api.list_repo_files(target))
    assert not there & {*hidden, "key.pem"}
    assert {"key.pub", "soup.json"} <= there


def test_a_collection_holds_the_soup_and_its_ingredients(
    on_hub: LocalHub, target: str, api: HfApi, alone: Path
) -> None:
    """--collection makes one, and brings it up to date when the soup is another; what a user added stays."""
    found = bake(*SCORED, "--push", target, "--collection")
    address = found["pushed"]["collection"]
    slug = address.split("/collections/")[1]
    used = {i["id"]: f"Ingredient, weight {i['weight']:.4g}" for i in found["ingredients"] if i["used"]}
    assert {i.item_id: i.note for i in api.get_collection(slug).items} == {target: "The soup", **used}
    api.add_collection_item(slug, "kit/shapes", "dataset")
    done = run("bake", "kit/vit-1", "kit/vit-10", "--output", "other")
    assert done.code == 0, done.err
    done = run("push", "other", target, "--collection", "--json", "-")
    assert done.json["collection"] == address
    assert {i.item_id for i in api.get_collection(slug).items} == {target, "kit/vit-1", "kit/vit-10", "kit/shapes"}
    assert api.get_collection(slug).title == "target and its ingredients"


def test_a_collection_is_as_private_as_its_soup(
    target: str, on_hub: LocalHub, api: HfApi, alone: Path, signed_in: LocalHub
) -> None:
    """Of a soup that was pushed privately before, too."""
    for earlier in api.list_collections(owner=target.partition("/")[0]):
        api.delete_collection(earlier.slug)
    bake(*SCORED, "--push", target, "--private", "--output", "soup")
    done = run("push", "soup", target, "--collection", "--json", "-")
    slug = done.json["collection"].split("/collections/")[1]
    assert api.get_collection(slug).private
    api.delete_collection(slug)


def test_a_refused_collection_is_told_after_the_push(
    vit: Family, target: str, signed_in: LocalHub, api: HfApi, alone: Path
) -> None:
    """The soup is there, and the error names the command that makes the Collection."""
    bake(*vit.words, "--output", "soup")
    signed_in.fault(r"/api/collections", method="POST", status=403)
    try:
        block = refused("push", "soup", target, "--collection", code=1)
    finally:
        signed_in.clear_faults()
    assert "the soup is pushed, and its Collection could not be made" in block
    assert f"hfsoup push soup {target} --collection" in block
    assert "soup.json" in api.list_repo_files(target)
