"""What a name, a glob, a revision and a folder stand for."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from family import Family, copy_model
from huggingface_hub import HfApi, hf_hub_download, snapshot_download
from hypothesis import given
from hypothesis import strategies as st
from shell import bake, only, refused, run

from hfsoup.ingredients.local_folders import natural_key
from hfsoup.localhub import LocalHub


def ids(found: dict[str, Any]) -> list[str]:
    return [i["id"] for i in found["ingredients"]]


@pytest.fixture(scope="module")
def run_repo(on_hub: LocalHub, vit: Family) -> dict[str, str]:
    """kit/run, with the branches step-2 and step-10 and the tag best; name to commit."""
    api = HfApi(token=on_hub.token)
    api.create_repo("kit/run")
    commits = {"main": api.upload_folder(repo_id="kit/run", folder_path=vit.folders[0]).oid}
    for name, folder in zip(("step-2", "step-10"), vit.folders[1:], strict=False):
        api.create_branch("kit/run", branch=name)
        commits[name] = api.upload_folder(repo_id="kit/run", folder_path=folder, revision=name).oid
    api.create_tag("kit/run", tag="best", revision="step-10")
    return commits


def test_a_branch_a_tag_and_a_commit(run_repo: dict[str, str], alone: Path) -> None:
    """Each kind of revision is pinned to its commit."""
    short = run_repo["main"]
    found = bake("kit/run@step-2", "kit/run@best", f"kit/run@{short}", "--output", "soup")
    assert [i["revision"] for i in found["ingredients"]] == [run_repo["step-2"], run_repo["step-10"], short]


def test_a_glob_of_revisions(run_repo: dict[str, str], alone: Path) -> None:
    """org/run@step-* takes the branches that match, in natural order."""
    found = bake("kit/run@step-*", "--output", "soup")
    assert [i["revision"] for i in found["ingredients"]] == [run_repo["step-2"], run_repo["step-10"]]


def test_two_names_of_one_commit_are_one_ingredient(run_repo: dict[str, str], alone: Path) -> None:
    """A double is named and dropped, also where a tag and a branch are the same commit."""
    done = run("bake", "kit/run@step-10", "kit/run@best", "kit/run@main", "--output", "soup", "--json", "-")
    assert [i["revision"] for i in done.json["ingredients"]] == [run_repo["step-10"], run_repo["main"]]
    assert "named twice" in done.err


def test_a_folder_named_twice_is_dropped(vit: Family, alone: Path) -> None:
    """The same folder by two paths counts once."""
    done = run("bake", *vit.words[:2], f"{vit.folders[0]}/../vit-1", "--output", "soup", "--json", "-")
    assert len(done.json["ingredients"]) == 2
    assert "named twice" in done.err


def test_the_order_given_is_kept(on_hub: LocalHub, alone: Path) -> None:
    """Names come in the order they are typed in."""
    assert ids(bake("kit/vit-3", "kit/vit-10", "kit/vit-1", "--output", "s")) == [
        "kit/vit-3",
        "kit/vit-10",
        "kit/vit-1",
    ]


def test_a_glob_of_folders_in_natural_order(vit: Family, alone: Path) -> None:
    """vit-2 before vit-10; files and folders that are no models are passed over."""
    (vit.folders[0].parent / "vit-notes").mkdir(exist_ok=True)
    assert [Path(i).name for i in ids(bake(vit.glob, "--output", "soup"))] == ["vit-1", "vit-2", "vit-3", "vit-10"]


def test_a_relative_glob_is_local(vit: Family, alone: Path) -> None:
    """./models/vit-* never asks the Hub."""
    for folder in vit.folders[:2]:
        shutil.copytree(folder, alone / "models" / folder.name)
    assert len(ids(bake("./models/vit-*", "--output", "soup"))) == 2
    assert len(ids(bake("models/vit-*", "--output", "soup2"))) == 2


def test_a_glob_leaves_soups_out(vit: Family, alone: Path) -> None:
    """A baked folder is no ingredient of the next bake, and the user is told; --include-soups takes it in."""
    for folder in vit.folders[:2]:
        shutil.copytree(folder, alone / folder.name)
    bake("./vit-*", "--output", "vit-soup")
    done = run("bake", "./vit-*", "--output", "again", "--json", "-")
    assert len(done.json["ingredients"]) == 2
    assert "vit-soup is a soup itself; left out" in done.err
    assert len(ids(bake("./vit-*", "--include-soups", "--output", "third"))) == 3


def test_a_soup_by_its_name_is_taken(vit: Family, alone: Path) -> None:
    """Only globs leave soups out."""
    bake(*vit.words[:2], "--output", "soup")
    assert len(ids(bake("./soup", vit.words[2], "--output", "next"))) == 2


@pytest.fixture
def pushed_soup(on_hub: LocalHub, signed_in: LocalHub, alone: Path) -> Any:
    """A soup on the Hub whose name the glob of its ingredients matches."""
    bake("kit/vit-1", "kit/vit-2", "--output", "first", "--push", "kit/vit-soup")
    yield
    HfApi(token=on_hub.token).delete_repo("kit/vit-soup")


def test_a_copy_of_one_ingredient_is_left_out_like_a_soup(on_hub: LocalHub, signed_in: LocalHub, alone: Path) -> None:
    """What hfsoup pushed of one ingredient is no soup by its tags, and no further ingredient of a glob either."""
    bake("kit/vit-1", "kit/vit-2", "--recipe", "latest", "--last", 1, "--output", "copy", "--push", "kit/vit-copy")
    api = HfApi(token=on_hub.token)
    assert not {"model-soup", "merge"} & set(api.model_info("kit/vit-copy").tags or ())
    assert "kit/vit-copy" not in ids(bake("kit/vit-*", "--output", "a"))
    api.delete_repo("kit/vit-copy")


def test_a_glob_on_the_hub_leaves_soups_and_the_target_out(pushed_soup: None, alone: Path) -> None:
    """The soup pushed before is left out with a note, as soup or as target, and taken in only on request."""
    done = run("bake", "kit/vit-*", "--output", "a", "--json", "-")
    assert "kit/vit-soup" not in ids(done.json)
    assert "kit/vit-soup is a soup itself; left out" in done.err
    again = run("bake", "kit/vit-*", "--include-soups", "--push", "kit/vit-soup", "--output", "b", "--json", "-")
    assert "kit/vit-soup" not in ids(again.json)
    assert "kit/vit-soup is where the soup is pushed; left out" in again.err
    assert "kit/vit-soup" in ids(bake("kit/vit-*", "--include-soups", "--output", "c"))


def test_a_private_repo_needs_its_token(on_hub: LocalHub, vit: Family, alone: Path, monkeypatch: Any) -> None:
    """A private ingredient is pulled with the token, and without one it is as if it was not there."""
    api = HfApi(token=on_hub.token)
    api.create_repo("kit/secret", private=True)
    api.upload_folder(repo_id="kit/secret", folder_path=vit.folders[0])
    assert "no such repository, or it is private" in refused("bake", "kit/secret", code=1)
    monkeypatch.setenv("HF_TOKEN", on_hub.token)
    assert ids(bake("kit/secret", "kit/vit-1", "--output", "soup")) == ["kit/secret", "kit/vit-1"]


def test_a_branch_moved_after_the_listing_changes_nothing(
    on_hub: LocalHub, vit: Family, alone: Path, monkeypatch: Any
) -> None:
    """The commit that was resolved is the one that is pulled, whatever is pushed meanwhile."""
    from hfsoup.baking import gather as gathering

    api = HfApi(token=on_hub.token)
    api.create_repo("kit/moving")
    before = api.upload_folder(repo_id="kit/moving", folder_path=vit.folders[0]).oid
    pull = gathering.pull_ingredients

    def late(*args: Any, **options: Any) -> Any:
        api.upload_folder(repo_id="kit/moving", folder_path=vit.folders[1])
        return pull(*args, **options)

    monkeypatch.setattr(gathering, "pull_ingredients", late)
    found = bake(*only("kit/moving", vit.words[1]), "--output", "soup")
    assert found["ingredients"][1]["revision"] == before
    assert Path("soup/model.safetensors").read_bytes() == (vit.folders[0] / "model.safetensors").read_bytes()


def test_a_damaged_cache_is_not_used(on_hub: LocalHub, vit: Family, alone: Path) -> None:
    """A cached weight file with one flipped bit is told, fetched again, and does not reach the soup."""
    bake(*only("kit/vit-1", vit.words[1]), "--output", "soup")
    cached = Path(hf_hub_download("kit/vit-1", "model.safetensors")).resolve()
    content = bytearray(cached.read_bytes())
    content[-1] ^= 1
    cached.write_bytes(content)
    done = run("bake", *only("kit/vit-1", vit.words[1]), "--output", "again")
    assert done.code == 0, done.err
    assert "is not the file that the Hub lists" in done.err
    assert Path("again/model.safetensors").read_bytes() == (vit.folders[0] / "model.safetensors").read_bytes()


@pytest.mark.usefixtures("plain_http")
def test_damage_on_the_way_is_refused(on_hub: LocalHub, vit: Family, alone: Path) -> None:
    """Bytes that the Hub sends and its listing does not describe are refused by repository and file."""
    api = HfApi(token=on_hub.token)
    api.create_repo("kit/damaged")
    api.upload_folder(repo_id="kit/damaged", folder_path=vit.folders[0])
    content = bytearray((vit.folders[0] / "model.safetensors").read_bytes())
    content[-1] ^= 1
    on_hub.fault(r"/kit/damaged/resolve/.*/model\.safetensors", method="GET", body=bytes(content))
    try:
        block = refused("bake", *only("kit/damaged", vit.words[1]), "--output", "soup", code=1)
    finally:
        on_hub.clear_faults()
    assert "kit/damaged" in block
    assert "model.safetensors" in block
    assert not Path("soup").exists()


@given(st.lists(st.integers(0, 10**6), min_size=1))
def test_natural_order_is_that_of_the_numbers(numbers: list[int]) -> None:
    """Names that differ in one number are sorted by it."""
    assert sorted((f"org/m-{n}-x" for n in numbers), key=natural_key) == [f"org/m-{n}-x" for n in sorted(numbers)]


@given(st.lists(st.text(max_size=8), max_size=6))
def test_natural_order_takes_any_text(texts: list[str]) -> None:
    """Any names can be compared with each other."""
    keys = [natural_key(text) for text in sorted(texts, key=natural_key)]
    assert keys == sorted(keys)


def test_a_copy_elsewhere_is_not_a_double(vit: Family, alone: Path) -> None:
    """Two folders with the same content are two ingredients: only the place counts."""
    twin = copy_model(vit.folders[0], alone / "twin")
    assert len(ids(bake(vit.words[0], twin, "--output", "soup"))) == 2


def test_a_snapshot_of_the_cache_is_a_local_ingredient(on_hub: LocalHub, vit: Family, data: Path, alone: Path) -> None:
    """What snapshot_download() gives, links into the cache, bakes, scores and verifies as the repository does."""
    folders = [snapshot_download(f"kit/vit-{n}") for n in (1, 2)]
    assert (Path(folders[0]) / "model.safetensors").is_symlink()
    words = ("--dataset", data, "--recipe", "uniform")
    found = bake(*folders, *words, "--output", "soup")
    assert ids(found) == folders
    assert found["soup"]["sha256"] == bake("kit/vit-1", "kit/vit-2", *words, "--output", "same")["soup"]["sha256"]
    assert run("verify", "soup", "--scores").code == 0
    assert run("check", *folders).code == 0


# Weights are in the part of the cache that its repositories share, so that none is another one's.
@pytest.mark.parametrize(
    ("place", "name"),
    [
        (place, name)
        for place in ("elsewhere", "another repository", "a folder that looks like a cache")
        for name in ("config.json", "model.safetensors", "preprocessor_config.json")
        if (place, name) != ("another repository", "model.safetensors")
    ],
)
def test_a_link_out_of_the_repository_is_not_followed(
    place: str, name: str, on_hub: LocalHub, vit: Family, alone: Path
) -> None:
    """Neither to a file of this machine nor to a blob of another repository."""
    cache = alone / "cache"
    folder = Path(snapshot_download("kit/vit-1", cache_dir=cache))
    target = vit.folders[1] / name
    if place == "another repository":
        target = (Path(snapshot_download("kit/vit-2", cache_dir=cache)) / name).resolve()
    elif place != "elsewhere":
        target = alone / "blobs" / "ab" / name
        target.parent.mkdir(parents=True)
        shutil.copyfile(vit.folders[1] / name, target)
    (folder / name).unlink()
    (folder / name).symlink_to(target)
    assert "found a link" in refused("bake", folder, vit.words[2], code=1)
