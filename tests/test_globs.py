"""Globs, collections and searches of the Hub that find more than image classifiers, and names that are none."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from family import Family, edit_json
from huggingface_hub import HfApi
from hypothesis import given
from hypothesis import strategies as st
from misbehave import fault, forget, hurry
from shell import bake, only, refused, run

import hfsoup
from hfsoup.hub.addresses import parse_model_address
from hfsoup.localhub import LocalHub
from hfsoup.utils.errors import UsageError

LORA = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj"]}
FOREIGN = {
    "adapter": {"adapter_config.json": json.dumps({**LORA, "base_model_name_or_path": "zoo/gone"})},
    "bert": {"config.json": '{"model_type": "bert", "architectures": ["BertForMaskedLM"]}', "model.safetensors": "x"},
    "empty": {},
    "fastai": {"README.md": "A learner.", "model.pkl": "x"},
    "keras": {"README.md": "Keras.", "saved_model.pb": "x", "keras_metadata.pb": "x"},
    "onnx": {"config.json": '{"model_type": "vit"}', "model.onnx": "x"},
    "pictures": {"README.md": "Data.", "train-00000-of-00001.parquet": "x"},
    "readme": {"README.md": "Nothing yet."},
    "remote": {"config.json": '{"model_type": "x", "auto_map": {"AutoModel": "m.M"}}', "model.safetensors": "x"},
    "text-lora": {"adapter_config.json": json.dumps({**LORA, "base_model_name_or_path": "zoo/m-bert"})},
}
REASONS = {
    "adapter": "its base is not accessible: there is no such repository",
    "bert": "expected an image classifier, found 'BertForMaskedLM'",
    "disabled": "the Hub has disabled this repository",
    "empty": "expected config.json, found nothing",
    "fastai": "'model.pkl' (a fastai learner)",
    "gated": "this repository is gated",
    "keras": "'saved_model.pb' (a Keras or TensorFlow model)",
    "onnx": "'model.onnx' (an ONNX model)",
    "pictures": "'train-00000-of-00001.parquet' (a dataset)",
    "readme": "'README.md' (a card alone)",
    "remote": "needs code or files from elsewhere",
    "text-lora": "bert has no image classifier",
}


@pytest.fixture(scope="module")
def zoo(hub: LocalHub, vit: Family) -> Iterator[HfApi]:
    """zoo/m-1 and zoo/m-2, two ViTs of one base, among ten foreign repositories, a gated and a disabled one."""
    api = HfApi(token=hub.add_user("kit", ["zoo"]))
    for n in (1, 2):
        api.create_repo(f"zoo/m-{n}")
        api.upload_folder(repo_id=f"zoo/m-{n}", folder_path=vit.folders[n - 1])
        card = b"---\nbase_model: zoo/base\nlicense: mit\n---\nA fine-tuned model.\n"
        api.upload_file(path_or_fileobj=card, path_in_repo="README.md", repo_id=f"zoo/m-{n}")
    for name, files in FOREIGN.items():
        api.create_repo(f"zoo/m-{name}")
        for path, text in files.items():
            api.upload_file(path_or_fileobj=text.encode(), path_in_repo=path, repo_id=f"zoo/m-{name}")
        if "adapter_config.json" in files:
            api.upload_file(path_or_fileobj=b"x", path_in_repo="adapter_model.safetensors", repo_id=f"zoo/m-{name}")
    for name in ("gated", "disabled"):
        api.create_repo(f"zoo/m-{name}")
        api.upload_folder(repo_id=f"zoo/m-{name}", folder_path=vit.folders[2])
    api.update_repo_settings("zoo/m-gated", gated="manual")
    hub.disable("zoo/m-disabled")
    yield api
    for model in list(api.list_models(author="zoo")):
        if model.id != "zoo/m-disabled":
            api.delete_repo(model.id)


@pytest.fixture
def visitor(zoo: HfApi, hub: LocalHub, monkeypatch: pytest.MonkeyPatch, alone: Path) -> LocalHub:
    """The Hub as somebody sees it who has no access to the gated repository."""
    monkeypatch.setenv("HF_TOKEN", hub.add_user("visitor"))
    hub.forget_requests()
    return hub


def ids(found: dict[str, Any]) -> list[str]:
    return [i["id"] for i in found["ingredients"]]


@pytest.mark.parametrize("more", [[], ["--dry-run"]], ids=["bake", "dry-run"])
def test_all_that_cannot_be_ingredients_are_named_before_any_weight_is_pulled(more: list[str], visitor: Any) -> None:
    """One error names every foreign repository with its reason and the two ways on; check says the same."""
    block = refused("bake", "zoo/m-*", "--output", "soup", *more, code=1)
    assert "12 of 14 matches cannot be ingredients" in block
    lines = {line.strip().partition(":")[0].partition("@")[0]: line for line in block.splitlines()}
    for name, reason in REASONS.items():
        assert reason in lines[f"zoo/m-{name}"], block
    assert "--exclude GLOB" in block.splitlines()[-1]
    assert "--on-mismatch skip-ingredient" in block.splitlines()[-1]
    assert not [r for r in visitor.requests if r.path.endswith(".safetensors") and r.status == 200]
    assert "12 of 14" in refused("check", "zoo/m-*", code=1)


def test_what_cannot_be_an_ingredient_is_left_out_on_request(visitor: Any) -> None:
    """--on-mismatch skip-ingredient bakes the others, with a note for each that is left out."""
    done = run("bake", "zoo/m-*", "--on-mismatch", "skip-ingredient", "--output", "soup", "--json", "-")
    assert done.code == 0, done.err
    assert ids(done.json) == ["zoo/m-1", "zoo/m-2"]
    for name, reason in REASONS.items():
        (line,) = (
            line for line in done.err.splitlines() if line.startswith((f"note zoo/m-{name}@", f"note zoo/m-{name} "))
        )
        assert "cannot be an ingredient and is left out" in line
        assert reason in line
    assert run("verify", "soup").code == 0


def test_names_are_excluded_by_globs(visitor: Any, vit: Family) -> None:
    """--exclude may be repeated, takes ends of names and folders' names, is recorded, and bakes again without it."""
    words = ["--exclude", "m-[a-z]*", "--exclude", "zoo/none-*", "--exclude", "vit-10"]
    done = run("bake", "zoo/m-*", vit.glob, *words, "--output", "soup", "--json", "-")
    assert done.code == 0, done.err
    assert [Path(i).name for i in ids(done.json)] == ["m-1", "m-2", "vit-1", "vit-2", "vit-3"]
    assert "zoo/m-keras matches --exclude m-[a-z]*; left out" in done.err
    assert "--exclude zoo/none-* matches none of the ingredients" in done.err
    record = json.loads(Path("soup/soup.json").read_text())
    assert record["options"]["exclude"] == ["m-[a-z]*", "zoo/none-*", "vit-10"]
    assert "exclude" not in record["config"]
    assert "all ingredients are left out" in refused("bake", "zoo/m-[12]", "--exclude", "zoo/*", code=2)


def test_one_that_is_left_over_makes_no_soup(visitor: Any) -> None:
    """A glob of which one ingredient remains is refused, before anything is pulled."""
    block = refused("bake", "zoo/m-[12]", "--exclude", "m-2", "--output", "soup", code=2)
    assert "expected two ingredients or more, found one" in block
    assert not [r for r in visitor.requests if r.path.endswith(".safetensors") and r.status == 200]


def test_a_hub_that_fails_leaves_none_out(visitor: LocalHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the Hub does not answer for says nothing of the ingredient: skip-ingredient does not skip it."""
    hurry(monkeypatch)
    forget("zoo/m-1")
    with fault(visitor, "/zoo/m-1/resolve/.*/config.json", status=500):
        words = ("zoo/m-*", "--on-mismatch", "skip-ingredient", "--output", "soup")
        assert "the Hub answered 500" in refused("bake", *words, code=1)


def test_a_single_name_is_refused_as_itself(visitor: Any) -> None:
    """One foreign repository that was named keeps its own error, where it is and what to do."""
    block = refused("bake", "zoo/m-onnx", "zoo/m-1", code=1)
    assert block.startswith("error: expected model.safetensors or pytorch_model.bin, found 'config.json', 'model.onnx'")
    assert "in:  zoo/m-onnx@" in block
    assert "it was exported from" in block


def test_two_checkpoints_that_do_not_fit_make_no_soup(visitor: Any, vit: Family, resnet: Family) -> None:
    """Where skip-ingredient leaves one, nothing is baked."""
    words = [vit.words[0], resnet.words[0], "--on-mismatch", "skip-ingredient", "--output", "soup"]
    assert "no two of the ingredients fit together" in refused("bake", *words, code=1)


@pytest.fixture(scope="module")
def seeds(hub: LocalHub, vit: Family, tmp_path_factory: pytest.TempPathFactory) -> Iterator[HfApi]:
    """kit/seeds with seed-0, seed-1 and no model at its top, and kit/topped with another model there."""
    api = HfApi(token=hub.token)
    folder = tmp_path_factory.mktemp("seeds")
    for n in range(2):
        shutil.copytree(vit.folders[n], folder / f"seed-{n}")
    api.create_repo("kit/seeds")
    api.upload_folder(repo_id="kit/seeds", folder_path=folder)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_text("no weights")
    edit_json(folder / "seed-0" / "preprocessor_config.json", size={"height": 24, "width": 24})
    edit_json(folder / "seed-1" / "preprocessor_config.json", size={"height": 24, "width": 24})
    shutil.copyfile(vit.folders[0] / "preprocessor_config.json", folder / "preprocessor_config.json")
    api.create_repo("kit/topped")
    api.upload_folder(repo_id="kit/topped", folder_path=folder)
    yield api
    for name in ("seeds", "topped"):
        api.delete_repo(f"kit/{name}")


def test_a_dry_run_reads_subfolders(seeds: HfApi, data: Path, alone: Path) -> None:
    """Each subfolder is planned by its own config and processor, with or without another model at the top."""
    plain = bake("kit/seeds/seed-*", "--dataset", data, "--dry-run")
    assert ids(plain) == ["kit/seeds/seed-0", "kit/seeds/seed-1"]
    topped = bake("kit/topped/seed-*", "--dataset", data, "--dry-run")
    sizes = [{need["for"]: need["bytes"] for need in found["disk"]} for found in (plain, topped)]
    assert sizes[1]["prepared images"] - sizes[0]["prepared images"] == (60 + 72) * 3 * (24**2 - 16**2)
    assert bake("kit/seeds/seed-*", "--output", "soup")["soup"]["sha256"]
    assert "all ingredients are left out" in refused("bake", "kit/seeds/seed-*", "--exclude", "kit/seeds", code=2)
    found = bake("kit/topped/seed-*", "--output", "other")
    assert ids(found) == ["kit/topped/seed-0", "kit/topped/seed-1"]


def test_a_pasted_address_is_the_name_that_it_leads_to(seeds: HfApi, hub: LocalHub, alone: Path) -> None:
    """The address of a page, with revision, subfolder or file, of the Hub or of the one that HF_ENDPOINT names."""
    commit = seeds.model_info("kit/seeds").sha
    words = (
        f"{hub.url}/kit/seeds/tree/{commit}/seed-0",
        "https://huggingface.co/kit/seeds/blob/main/seed-1/config.json",
    )
    found = bake(*words, "--output", "soup")
    assert ids(found) == ["kit/seeds/seed-0", "kit/seeds/seed-1"]
    assert {i["revision"] for i in found["ingredients"]} == {commit}
    assert ids(bake("hf.co/kit/seeds/tree/main/seed-*", "--output", "b")) == ids(found)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("https://huggingface.co/org/name", "org/name"),
        ("HTTPS://HuggingFace.co/org/name/", "org/name"),
        ("huggingface.co/org/name?library=transformers#usage", "org/name"),
        ("hf.co/org/vit-*", "org/vit-*"),
        ("hf.co/org/vit-?", "org/vit-?"),
        ("https://huggingface.co/org/name/tree/v1.0", "org/name@v1.0"),
        ("https://huggingface.co/org/name/tree/refs%2Fpr%2F3/sub", "org/name/sub@refs/pr/3"),
        ("https://huggingface.co/org/name/tree/refs/pr/3", "org/name@refs/pr/3"),
        ("https://huggingface.co/org/name/commit/0123abc", "org/name@0123abc"),
        ("https://huggingface.co/org/name/resolve/main/a/b/model.safetensors?download=true", "org/name/a/b@main"),
        ("https://huggingface.co/org/name/discussions/7", "org/name"),
        ("https://huggingface.co/collections/org/my-slug-65a0", "collections/org/my-slug-65a0"),
        ("hf://org/name@main/sub", "org/name/sub@main"),
        ("org/name", "org/name"),
        ("./hf.co/org", "./hf.co/org"),
    ],
)
def test_addresses(text: str, name: str) -> None:
    """Every page of a repository stands for it, with the revision and folder that the page shows."""
    assert parse_model_address(text) == name


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("https://huggingface.co/datasets/org/pets", "found the address of a dataset"),
        ("https://huggingface.co/spaces/org/demo", "found the address of a Space"),
        ("https://example.com/org/name", "expected an address of the Hub"),
        ("https://huggingface.co/org", "this address names no model"),
        ("https://huggingface.co/collections/org", "expected a collection's address"),
    ],
)
def test_addresses_of_something_else(text: str, what: str, alone: Path) -> None:
    """They are refused without a request."""
    assert what in refused("bake", text, code=2)


@given(st.text(max_size=30))
def test_any_text_is_a_name_or_refused(text: str) -> None:
    """No text pasted behind an address is an error of Python's."""
    for start in ("", "hf.co/", "https://huggingface.co/", "hf://", "https://"):
        try:
            parse_model_address(start + text)
        except UsageError:
            pass


def test_a_collection_gives_its_models_in_its_order(visitor: LocalHub, zoo: HfApi, vit: Family) -> None:
    """Datasets and soups in it are left out with a note; an unknown one is an error that says so."""
    zoo.create_repo("zoo/pets", repo_type="dataset")
    zoo.create_repo("zoo/a-soup")
    zoo.upload_folder(repo_id="zoo/a-soup", folder_path=vit.folders[2], ignore_patterns="README.md")
    card = b"---\ntags: [model-soup]\n---\nA soup.\n"
    zoo.upload_file(path_or_fileobj=card, path_in_repo="README.md", repo_id="zoo/a-soup")
    made = zoo.create_collection("Pets", namespace="zoo", exists_ok=True)
    for name, kind in (("zoo/m-2", "model"), ("zoo/pets", "dataset"), ("zoo/a-soup", "model"), ("zoo/m-1", "model")):
        zoo.add_collection_item(made.slug, name, kind)
    for text in (
        f"collections/{made.slug}",
        f"{visitor.url}/collections/{made.slug}",
        f"hf.co/collections/{made.slug}",
    ):
        done = run("bake", text, "--output", "soup", "--overwrite", "--json", "-")
        assert done.code == 0, done.err
        assert ids(done.json) == ["zoo/m-2", "zoo/m-1"]
    assert "also holds 1 'dataset'; left out" in done.err
    assert "zoo/a-soup is a soup itself; left out" in done.err
    assert "there is no such collection" in refused("bake", "collections/zoo/none-0123456789abcdef01234567", code=2)
    zoo.delete_collection(made.slug)
    zoo.delete_repo("zoo/a-soup")
    zoo.delete_repo("zoo/pets", repo_type="dataset")


def test_the_fine_tunes_of_a_base(visitor: LocalHub) -> None:
    """--fine-tunes-of finds them, alone or among the matches of a glob, from Python too, and is recorded."""
    found = bake("--fine-tunes-of", "zoo/base", "--output", "soup")
    assert ids(found) == ["zoo/m-1", "zoo/m-2"]
    assert json.loads(Path("soup/soup.json").read_text())["options"]["fine_tunes_of"] == "zoo/base"
    assert ids(bake("zoo/m-*", "--fine-tunes-of", "hf.co/zoo/base", "--output", "b")) == ids(found)
    assert [i.id for i in hfsoup.bake("*/m-*", fine_tunes_of="zoo/base").family.ingredients] == ids(found)
    Path("soup.yaml").write_text("fine_tunes_of: zoo/base\n")
    assert ids(bake("soup.yaml", "--output", "c")) == ids(found)
    assert "no model on the Hub names zoo/x" in refused("bake", "--fine-tunes-of", "zoo/x", code=2)
    assert run("check", "--fine-tunes-of", "zoo/base").code == 0


@pytest.fixture
def clutter(vit: Family, alone: Path) -> Path:
    """A folder with models, a Trainer's state without one, files, and nothing else."""
    for n in range(2):
        shutil.copytree(vit.folders[n], alone / "runs" / f"vit-{n}")
    (alone / "state").mkdir()
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json"):
        (alone / "state" / name).write_text("x")
    (alone / "soup.yaml").write_text("ingredients: [runs/vit-0]\n")
    return alone


@pytest.mark.parametrize(
    ("words", "texts"),
    [
        (["state"], ["found no config.json", "'optimizer.pt'", "(a Trainer's state)", "save_pretrained"]),
        (["missing.yaml"], ["there is no config file 'missing.yaml'", "hfsoup init"]),
        (["runs/vit-0", "soup.yaml"], ["expected a config file to be the only argument", "hfsoup bake soup.yaml"]),
        (
            ["runs/vit-9"],
            ["nothing matches 'runs/vit-9'", "which holds 'vit-0', 'vit-1'", "try: runs/vit-", "hf.co/runs"],
        ),
        (["run"], ["nothing matches 'run'", "try: runs"]),
        (["runs"], ["found no config.json", "try: 'runs/*'"]),
        (["./runs/none-*"], ["nothing matches", "try: ls runs"]),
        (["nothing"], ["there is no such folder here", "which holds 'runs', 'state'\n", "try: ls ."]),
        (["runs/vti-*"], ["nothing matches 'runs/vti-*'\n  try: 'runs/vit-*'\n"]),
        (["."], ["found no config.json", "try: 'runs/*'\n"]),
        (["~/no-such-run"], ["nothing matches '/", "/no-such-run'"]),
        (["runs/vit-0/model.safetensors"], ["found a file in one", "try: runs/vit-0"]),
        (["runs/vit-0/sub/deep"], ["nothing matches"]),
    ],
    ids=lambda value: value[0] if isinstance(value[0], str) and "/" not in value[0] else "",
)
def test_a_local_mistake_is_a_local_error(
    words: list[str], texts: list[str], clutter: Path, signed_in: LocalHub
) -> None:
    """It says what lies there and what to type, and the Hub hears nothing of it."""
    block = refused("bake", *words, "--output", "soup", code=2)
    for text in texts:
        assert text in block
    assert signed_in.requests == []


def test_models_beside_other_folders_are_suggested_without_those(clutter: Path, data: Path) -> None:
    """Of a project's folder those with checkpoints are named, by the glob that matches them alone."""
    for n in range(2):
        (clutter / "runs" / f"vit-{n}").rename(clutter / f"vit-{n}")
    assert refused("bake", ".", "--output", "soup", code=2).endswith("  try: 'vit-*'\n")
    (clutter / "vit-notes").mkdir()
    assert refused("bake", ".", "--output", "soup", code=2).endswith("  try: vit-0 vit-1\n")


@pytest.mark.parametrize("command", ["verify", "report"])
def test_a_mistyped_soup_is_a_local_error(command: str, clutter: Path, signed_in: LocalHub) -> None:
    """The closest folder is suggested, a soup too, before the Hub is asked; so it is where none is close."""
    (clutter / "runs" / "vit-0").rename(clutter / "soup")
    (clutter / "soup" / "soup.json").write_text("{}")
    assert refused(command, "soupp", code=2).endswith("  try: soup\n")
    assert "there is no such folder here, and a model on the Hub is ORG/NAME" in refused(command, "x", code=2)
    assert signed_in.requests == []


def test_a_mistyped_dataset_is_looked_for_here_too(
    clutter: Path, signed_in: LocalHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that the Hub does not know, or that cannot be asked after, is said to be no folder, with the closest."""
    (clutter / "cifar10").mkdir()
    words = ("bake", "runs/*", "--recipe", "greedy", "--dataset", "cifar-10", "--output", "soup")
    block = refused(*words, code=1)
    assert "there is no such repository" in block
    assert "; no folder of that name is here either\n" in block
    assert block.endswith("  try: --dataset cifar10\n")
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    hurry(monkeypatch)
    block = refused(*words, code=1)
    assert "nothing listens" in block
    assert block.endswith("  try: --dataset cifar10\n")
    assert "; no folder of that name is here either\n" in refused("bake", "runz/a", "runs/vit-0", code=1)


def test_a_checkpoint_that_lost_its_weights_is_not_passed_over(clutter: Path, vit: Family) -> None:
    """A glob of folders takes no notice of logs, and does of a checkpoint with its optimizer alone."""
    (clutter / "runs" / "logs").mkdir()
    assert len(ids(bake("runs/*", "--output", "soup"))) == 2
    shutil.move("state", "runs/vit-2")
    assert "runs/vit-2" in refused("bake", "runs/*", "--output", "again", code=1)
    assert len(ids(bake("runs/*", "--exclude", "vit-2", "--output", "third"))) == 2


def test_a_tilde_is_the_users_folder(clutter: Path, vit: Family, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the command line after an equals sign, in Python and in a file: nothing makes a folder named ~."""
    home = clutter / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    shutil.copytree(data, home / "data")
    assert run("bake", *vit.words[:2], "--output=~/a", "--json=~/a.json", "--save-config=~/a.yaml").code == 0
    soup = hfsoup.bake(*vit.words[:2], output="~/b", dataset="~/data", base=None)
    soup.save("~/c")
    (home / "d.yaml").write_text(f"ingredients: {json.dumps(vit.words[:2])}\noutput: ~/d\n")
    hfsoup.bake("~/d.yaml")
    shutil.copytree(vit.folders[0], home / "run-0")
    shutil.copytree(vit.folders[1], home / "run-1")
    assert len(hfsoup.bake("~/run-*").family) == 2
    assert len(hfsoup.bake("~/run-*", vit.words[2], exclude=["~/run-1"]).family) == 2
    assert {p.name for p in home.iterdir()} >= {"a", "a.json", "a.yaml", "b", "c", "d"}
    assert not Path("~").exists()
    assert run("verify", "~/a").code == 0
    assert run("report", "~/b", "--output=~/b.html", "--no-images").code == 0
    assert (home / "b.html").is_file()


def test_a_recipe_that_mixes_in_the_base_takes_one_ingredient(vit: Family, data: Path, alone: Path) -> None:
    """WiSE-FT is of one fine-tuned model and its start: two models."""
    found = bake(vit.words[0], "--recipe", "wise-ft", "--base", vit.words[1], "--dataset", data, "--output", "soup")
    assert len(found["ingredients"]) == 1
    assert "two ingredients or more" in refused("bake", vit.words[0], "--output", "other", code=2)
    assert bake(*only(vit.words[0], vit.words[1]), "--output", "third")["soup"]["sha256"]


def test_checkpoints_of_one_name_are_told_apart(vit: Family, data: Path, alone: Path) -> None:
    """Screen, card and report call them by their runs too, and the card's own line bakes them again."""
    for n, run_name in enumerate(("a", "b", "b")):
        shutil.copytree(vit.folders[n], alone / "deep" / "runs" / run_name / f"checkpoint-{100 * (1 + n // 2)}")
    words = [f"deep/runs/{name}" for name in ("a/checkpoint-100", "b/checkpoint-100", "b/checkpoint-200")]
    done = run("bake", *words, "--dataset", data, "--recipe", "pruned", "--output", "soup")
    assert done.code == 0, done.err
    card = Path("soup/README.md").read_text()
    assert run("report", "soup", "-o", "page.html", "--no-images").code == 0
    for text in (card, Path("page.html").read_text(), done.err):
        for name in ("a/checkpoint-100", "b/checkpoint-100", "b/checkpoint-200"):
            assert name in text
    assert "deep/runs" not in card
    (line,) = (line for line in card.splitlines() if line.startswith("hfsoup bake "))
    shutil.copytree(data, alone / "deep" / "runs" / data.name)
    os.chdir(alone / "deep" / "runs")
    assert run(*shlex.split(line)[1:], "--output", "again").code == 0
    again = Path("again/model.safetensors").read_bytes()
    os.chdir(alone)
    assert again == Path("soup/model.safetensors").read_bytes()


def test_what_a_search_drops_is_dropped_or_stays(vit: Family, data: Path, alone: Path) -> None:
    """A line reads forward: what became of the ingredient, and the score that this led to, or its candidate's."""
    done = run("bake", *vit.words, "--dataset", data, "--recipe", "pruned", "--output", "soup", "--json", "-")
    drops = [step for step in done.json["trace"] if step["action"] == "drop"]
    lines = [" ".join(line.split()) for line in done.err.splitlines()]
    start = next(n for n, line in enumerate(lines) if line.startswith("start "))
    assert re.fullmatch(r"start \d+\.\d\d % all 4", lines[start])
    assert len(drops) > 0
    for step, line in zip(drops, lines[start + 1 :], strict=False):
        name, score = Path(step["ingredient"]).name, f"{100 * step['score']:.2f} %"
        bound = "≤ " if step["at_most"] else ""
        became = f"dropped {name} → {score}" if step["accepted"] else f"stays {name} ({bound}{score})"
        assert line == f"{step['step']} {became}"
    card = Path("soup/README.md").read_text()
    assert ("| dropped |" in card) == any(step["accepted"] for step in drops)
    assert ("| stays |" in card) == any(not step["accepted"] for step in drops)
