"""Checkpoints of timm in both layouts, timm's own and that of transformers' wrapper: ingredients like any other."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import USER
from family import NAMES, Family, copy_model, disturbed, edit_json, fit_head, make_images, weights
from huggingface_hub import HfApi
from PIL.Image import Image
from shell import bake, refused, run
from transformers import pipeline

import hfsoup
from hfsoup.localhub import LocalHub
from hfsoup.merges import MERGES
from hfsoup.recipes import RECIPES

pytestmark = pytest.mark.timm

SIDE = 32
SETTINGS = {"input_size": (3, SIDE, SIDE), "crop_pct": 0.9, "mean": (0.5, 0.4, 0.5), "std": (0.5, 0.5, 0.4)}
ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "resnet": ("resnet10t", {"channels": [8, 8, 16, 16], "stem_width": 8}),
    "vit": ("test_vit", {"img_size": SIDE, "patch_size": 8}),
    "efficientnet": ("test_efficientnet", {}),
}
KINDS = [pytest.param(kind, layout, id=f"{kind}-{layout}") for kind in ARCHITECTURES for layout in ("timm", "wrapper")]
MEMBERS = 3


def make_timm(kind: str, layout: str, folder: Path) -> Family:
    """Runs that began as one model of timm, saved as timm or as transformers' wrapper saves."""
    import timm
    from timm.data import create_transform, resolve_model_data_config

    name, arguments = ARCHITECTURES[kind]
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=len(NAMES), **arguments).eval()
    model.pretrained_cfg.update(SETTINGS)
    transform, train = create_transform(**resolve_model_data_config(model)), make_images()["train"]
    fit_head(model, torch.stack([transform(image) for image in train["image"]]), torch.tensor(train["label"][:]))
    start = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    folders = []
    for seed in range(MEMBERS):
        model.load_state_dict(disturbed(start, 0.04 + 0.02 * seed, seed))
        folders.append(folder / f"{kind}-{seed}")
        save(model, folders[-1], layout)
    return Family(kind, tuple(folders))


def save(model: Any, folder: Path, layout: str) -> None:
    """A model as timm or transformers leaves it on a disk."""
    from timm.models import save_for_hf
    from transformers import AutoModelForImageClassification

    labels = {"label_names": list(NAMES)}
    save_for_hf(model, folder, model_config=labels, data_config=SETTINGS, safe_serialization=True)
    if layout == "wrapper":
        edit_json(folder / "config.json", model_args=without_classes(folder))
        wrapped = AutoModelForImageClassification.from_pretrained(folder)
        shutil.rmtree(folder)
        wrapped.save_pretrained(folder)


def without_classes(folder: Path) -> dict[str, Any]:
    """The arguments of a model in timm's layout without the number of classes, with which transformers fails."""
    arguments = json.loads((folder / "config.json").read_text())["model_args"]
    return {key: value for key, value in arguments.items() if key != "num_classes"}


@pytest.fixture(scope="session")
def native(tmp_path_factory: pytest.TempPathFactory) -> Family:
    """ResNets as timm saves them."""
    return make_timm("resnet", "timm", tmp_path_factory.mktemp("native"))


@pytest.fixture(scope="session")
def wrapped(tmp_path_factory: pytest.TempPathFactory) -> Family:
    """The same ResNets as transformers saves them."""
    return make_timm("resnet", "wrapper", tmp_path_factory.mktemp("wrapped"))


def through_pipeline(folder: Path | str, images: list[Image]) -> torch.Tensor:
    """Logits, images × classes, that transformers' pipeline gives."""
    classify = pipeline("image-classification", str(folder), device="cpu", function_to_apply="none", top_k=len(NAMES))
    rows = [{found["label"]: found["score"] for found in classify(image)} for image in images]
    return torch.tensor([[row[name] for name in NAMES] for row in rows])


@torch.no_grad()
def through_timm(name: str, images: list[Image]) -> torch.Tensor:
    """Logits, images × classes, that timm's own model gives for what its own transforms make of the images."""
    import timm
    from timm.data import create_transform, resolve_model_data_config

    model = timm.create_model(name, pretrained=True).eval()
    transform = create_transform(**resolve_model_data_config(model))
    found: torch.Tensor = model(torch.stack([transform(image) for image in images]))
    return found


@pytest.mark.parametrize(("kind", "layout"), KINDS)
def test_a_soup_keeps_the_layout_and_loads_in_both_libraries(
    kind: str, layout: str, data: Path, images: Any, tmp_path: Path
) -> None:
    """The mean of the weights, under the names and in the config of the ingredients; pipeline() and timm agree on every
    image, and hfsoup's score is theirs."""
    family = make_timm(kind, layout, tmp_path)
    soup = hfsoup.bake(*family.words, recipe="uniform", dataset=str(data), bn="average", output=str(tmp_path / "soup"))
    assert soup.path is not None
    here, config = weights(soup.path), json.loads((soup.path / "config.json").read_text())
    states = [weights(folder) for folder in family.folders]
    assert here.keys() == states[0].keys()
    for name, tensor in here.items():
        if tensor.is_floating_point() and not name.endswith("running_var"):
            mean = torch.stack([state[name] for state in states]).double().mean(0)
            assert torch.allclose(tensor.double(), mean, rtol=0, atol=1e-6 * float(mean.abs().max())), name
    assert ("model_type" in config) == (layout == "wrapper")
    assert config["label_names"] == list(NAMES)
    pictures, labels = images["test"]["image"][:], torch.tensor(images["test"]["label"][:])
    found, timms = through_pipeline(soup.path, pictures), through_timm(f"local-dir:{soup.path}", pictures)
    assert (found - timms).abs().max() < 1e-4 * found.std()
    assert soup.test is not None
    assert soup.test == pytest.approx(float((found.argmax(1) == labels).float().mean()))
    assert soup.test > 0.5


@pytest.mark.parametrize("recipe", [entry.name for entry in RECIPES])
def test_every_recipe(recipe: str, native: Family, data: Path, alone: Path) -> None:
    """A recipe takes checkpoints of timm as it takes others."""
    extra = ["--base", native.folders[0]] if recipe == "wise-ft" else []
    found = bake(*native.words, "--recipe", recipe, "--dataset", data, "--limit", 24, *extra)
    assert found["soup"]["score"] > 0.4


@pytest.mark.parametrize("merge", [entry.name for entry in MERGES])
def test_every_merge(merge: str, native: Family, data: Path, alone: Path) -> None:
    """A merge takes checkpoints of timm as it takes others, with timm's own start as the base."""
    extra = ["--base", native.folders[0]] if MERGES.get(merge).needs_base else []
    found = bake(*native.words[1:], "--recipe", "uniform", "--merge", merge, "--dataset", data, "--limit", 24, *extra)
    assert found["soup"]["score"] > 0.4


@pytest.mark.parametrize("bn", ["auto", "average", "recalibrate"])
def test_every_batch_norm_mode_is_verified(bn: str, native: Family, data: Path, alone: Path) -> None:
    """A soup of timm's ResNets in any mode is baked again to the same bytes."""
    bake(*native.words, "--recipe", "greedy", "--dataset", data, "--bn", bn, "--output", "soup")
    done = run("verify", "soup")
    assert done.code == 0, done.err


def test_the_hub_gives_the_soup_to_both_libraries(
    native: Family, signed_in: LocalHub, images: Any, alone: Path
) -> None:
    """A pushed soup is of the library timm for the Hub, and loads by its name in pipeline() and in timm."""
    api, names = HfApi(token=signed_in.token), []
    for folder in native.folders:
        names.append(f"{USER}/timm-{folder.name}")
        api.create_repo(names[-1], exist_ok=True)
        api.upload_folder(repo_id=names[-1], folder_path=folder)
    bake(f"{USER}/timm-resnet-*", "--recipe", "uniform", "--push", f"{USER}/timm-soup", "--output", "soup")
    card = api.model_info(f"{USER}/timm-soup").card_data
    assert card is not None
    assert card.library_name == "timm"
    assert {"timm", "transformers", "model-soup"} <= set(card.tags or ())
    pictures = images["test"]["image"][:8]
    found, timms = through_pipeline(f"{USER}/timm-soup", pictures), through_timm(f"hf-hub:{USER}/timm-soup", pictures)
    assert (found - timms).abs().max() < 1e-4 * found.std()
    text = (alone / "soup" / "README.md").read_text()
    assert f'timm.create_model("hf-hub:{USER}/timm-soup", pretrained=True)' in text
    assert "PATH/TO" not in text


def test_the_snippet_on_the_card_runs(native: Family, images: Any, alone: Path) -> None:
    """What the card says of timm alone gives pipeline's scores."""
    bake(*native.words, "--recipe", "uniform", "--output", "soup")
    text = (alone / "soup" / "README.md").read_text()
    code = next(part for part in text.split("```python\n")[1:] if part.startswith("import timm")).split("```")[0]
    picture = images["test"][0]["image"]
    picture.save("image.png")
    given: dict[str, Any] = {}
    exec(code.replace("PATH/TO/THIS/FOLDER", "soup"), given)
    expected = through_pipeline(alone / "soup", [picture]).softmax(dim=1)
    assert torch.allclose(given["scores"], expected, atol=1e-5)


def test_both_layouts_and_older_files_are_one_family(native: Family, wrapped: Family, alone: Path) -> None:
    """transformers' names and configs are those of timm once read, and so are files of a timm that wrote no arguments
    that it takes by default; the soup is the same, in the layout of the first."""
    expected = bake(*native.words, "--recipe", "uniform", "--output", "native")
    older = copy_model(native.folders[1], alone / "older")
    edit_json(older / "config.json", model_args={"channels": [8, 8, 16, 16], "stem_width": 8}, global_pool=None)
    found = bake(native.folders[0], older, wrapped.folders[2], "--recipe", "uniform", "--output", "mixed")
    assert found["soup"]["sha256"] == expected["soup"]["sha256"]
    assert (alone / "mixed" / "config.json").read_bytes() == (alone / "native" / "config.json").read_bytes()
    bake(wrapped.folders[0], native.folders[1], native.folders[2], "--recipe", "uniform", "--output", "wrapped")
    assert json.loads((alone / "wrapped" / "config.json").read_text())["model_type"] == "timm_wrapper"
    assert torch.equal(weights(alone / "wrapped")["fc.weight"], weights(alone / "native")["fc.weight"])


def test_another_architecture_or_argument_is_named(native: Family, alone: Path) -> None:
    """Models of timm that compute something else are refused with the argument that differs."""
    other = copy_model(native.folders[1], alone / "other")
    edit_json(other / "config.json", model_args={**without_classes(other), "global_pool": "max"})
    told = refused("bake", native.folders[0], other, code=1)
    assert "global_pool is 'max', expected 'avg'" in told
    other = copy_model(native.folders[1], alone / "renamed", architecture="resnet10")
    assert "architecture" in refused("bake", native.folders[0], other, code=1)
    other = copy_model(native.folders[1], alone / "cropped")
    edit_json(other / "config.json", pretrained_cfg={**pretrained(other), "crop_pct": 0.5})
    told = refused("bake", native.folders[0], other, code=1)
    assert "crop_pct is 0.5, expected 0.9" in told
    bake(native.folders[0], other, "--recipe", "uniform", "--processor-from", other, "--output", "soup")
    assert pretrained(alone / "soup")["crop_pct"] == 0.5


def pretrained(folder: Path) -> dict[str, Any]:
    """What a config says of images and weights."""
    found: dict[str, Any] = json.loads((folder / "config.json").read_text())["pretrained_cfg"]
    return found
