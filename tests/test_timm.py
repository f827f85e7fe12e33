"""Checkpoints of timm in both layouts, timm's own and that of transformers' wrapper: ingredients like any other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from family import NAMES, Family, copy_model, edit_json, make_images, put_weights, weights
from huggingface_hub import HfApi
from PIL.Image import Image
from shell import bake, refused, run
from timm_models import ARCHITECTURES, MEMBERS, make_timm, without_classes
from transformers import AutoModelForImageClassification, pipeline

import hfsoup
from hfsoup.localhub import LocalHub
from hfsoup.merges import MERGES
from hfsoup.recipes import RECIPES

pytestmark = pytest.mark.timm

USER = "kit"
KINDS = [pytest.param(kind, layout, id=f"{kind}-{layout}") for kind in ARCHITECTURES for layout in ("timm", "wrapper")]


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
    put_weights(older, {f"timm_model.{name}": tensor for name, tensor in weights(older).items()})
    found = bake(native.folders[0], older, wrapped.folders[2], "--recipe", "uniform", "--output", "mixed")
    assert found["soup"]["sha256"] == expected["soup"]["sha256"]
    assert (alone / "mixed" / "config.json").read_bytes() == (alone / "native" / "config.json").read_bytes()
    words = [older, native.folders[0], native.folders[2]]
    assert bake(*words, "--recipe", "uniform", "--output", "first")["soup"]["sha256"] == expected["soup"]["sha256"]
    bake(wrapped.folders[0], native.folders[1], native.folders[2], "--recipe", "uniform", "--output", "wrapped")
    assert json.loads((alone / "wrapped" / "config.json").read_text())["model_type"] == "timm_wrapper"
    assert torch.equal(weights(alone / "wrapped")["fc.weight"], weights(alone / "native")["fc.weight"])


@pytest.mark.parametrize(
    "architecture",
    [
        *("test_byobnet", "test_coatnet", "test_convnext", "test_efficientnet", "test_mambaout", "test_maxvit"),
        *("test_nfnet", "test_resnet", "test_vit", "test_vit3", "swin_tiny_patch4_window7_224", "regnetx_002"),
        *("deit_tiny_distilled_patch16_224", "eva02_tiny_patch14_224", "mobilenetv3_small_050", "ghostnet_050"),
    ],
)
def test_arguments_that_timm_takes_by_default_are_known(architecture: str, tmp_path: Path) -> None:
    """What today's timm writes of a model that got no arguments is equal to the nothing that an older one wrote."""
    import timm
    from timm.models._hub import save_config_for_hf

    from hfsoup.checkpoints.architecture import resolve_timm_arguments
    from hfsoup.checkpoints.timm_config import read_model_config

    with torch.device("meta"):
        model = timm.create_model(architecture, num_classes=6)
    save_config_for_hf(model, tmp_path / "config.json")
    config = read_model_config(tmp_path / "config.json", where="here")
    assert config["model_args"]
    assert resolve_timm_arguments(config) == resolve_timm_arguments({"architecture": architecture})


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


HOSTILE: dict[str, tuple[dict[str, Any], str]] = {
    "architecture": ({"architecture": "no_such_net"}, "found 'no_such_net'"),
    "path": ({"architecture": "local-dir:/etc"}, "expected an architecture of timm"),
    "repository": ({"architecture": "hf-hub:kit/other"}, "expected an architecture of timm"),
    "weights elsewhere": ({"model_args": {"checkpoint_path": "/etc/passwd"}}, "'checkpoint_path'"),
    "pretrained": ({"model_args": {"pretrained": True}}, "'pretrained'"),
    "overlay": (
        {"model_args": {"pretrained_cfg_overlay": {"url": "http://127.0.0.1:9/x"}}},
        "'pretrained_cfg_overlay'",
    ),
    "features": ({"model_args": {"features_only": True}}, "'features_only'"),
    "object": ({"model_args": {"block": {"a": 1}}}, "found 'block'"),
    "text": ({"model_args": {"act_layer": "a/../b"}}, "found 'act_layer'"),
    "nonsense": ({"model_args": {"no_such_argument": 3}}, "no_such_argument"),
    "huge": ({"model_args": {"channels": [8, 8, 16, 16], "stem_width": 99999999}}, "over the limit"),
    "wide": ({"model_args": {"stem_width": 16000}}, "much larger than its files"),
    "classes": ({"model_args": {"num_classes": 5}}, "num_classes is '6' in config.json and '5' in its model_args"),
    "arguments": ({"model_args": [1]}, "expected model_args to be an object"),
    "settings": ({"pretrained_cfg": 3}, "expected pretrained_cfg to be an object"),
    "names": ({"label_names": {"0": "a", "7": "b"}}, "name every row"),
    "too few names": ({"label_names": ["a", "b"]}, "0 to 5"),
}
SETTINGS_HOSTILE: dict[str, tuple[dict[str, Any], str]] = {
    "image": ({"input_size": [3, 99999, 99999]}, "expected input_size"),
    "flat image": ({"input_size": 32}, "expected input_size"),
    "crop": ({"crop_pct": 1e-9}, "expected crop_pct"),
    "mean": ({"mean": "0.5"}, "expected mean"),
    "offset": ({"label_offset": 1}, "label_offset"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_config_that_asks_for_more_than_a_model_is_refused(
    case: str, native: Family, data: Path, alone: Path
) -> None:
    """Whatever config.json says, nothing but an architecture of timm with plain arguments is built."""
    changes, expected = HOSTILE[case]
    folder = copy_model(native.folders[0], alone / "model", **changes)
    assert expected in refused("eval", folder, "--dataset", data, code=1)


@pytest.mark.parametrize("case", SETTINGS_HOSTILE)
def test_image_settings_are_bounded(case: str, native: Family, alone: Path) -> None:
    """Sizes that no image classifier has are refused before an image is made of them."""
    changes, expected = SETTINGS_HOSTILE[case]
    folder = copy_model(native.folders[0], alone / "model")
    edit_json(folder / "config.json", pretrained_cfg={**pretrained(folder), **changes})
    assert expected in refused("bake", folder, native.folders[1], "--recipe", "uniform", code=1)


def test_where_weights_come_from_is_neither_followed_nor_passed_on(
    native: Family, data: Path, alone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Addresses, files and loaders in pretrained_cfg are never looked at, and the soup has none."""
    elsewhere = {
        "url": "http://127.0.0.1:9/weights.pth", "file": "/etc/passwd", "hf_hub_id": "kit/other", "custom_load": True,
        "hf_hub_filename": "other.bin", "source": "url", "state_dict": {"fc.bias": 1}, "no_such_key": 1,
    }  # fmt: skip
    folders = [copy_model(folder, alone / folder.name) for folder in native.folders]
    for folder in folders:
        edit_json(folder / "config.json", pretrained_cfg={**pretrained(folder), **elsewhere})
    called: list[Any] = []
    monkeypatch.setattr("timm.models._builder.load_pretrained", lambda *given, **named: called.append(given))
    monkeypatch.setattr("timm.models._helpers.load_checkpoint", lambda *given, **named: called.append(given))
    expected = bake(*native.words, "--recipe", "uniform", "--dataset", data, "--output", "expected")
    found = bake(*folders, "--recipe", "uniform", "--dataset", data, "--output", "soup")
    assert not called
    assert found["soup"]["sha256"] == expected["soup"]["sha256"]
    assert found["soup"]["test"] == expected["soup"]["test"]
    assert not elsewhere.keys() & pretrained(alone / "soup").keys()
    monkeypatch.undo()
    assert through_timm(f"local-dir:{alone}/soup", make_images()["test"]["image"][:2]).shape == (2, len(NAMES))


def test_the_config_that_timm_wrote_before_2023_is_read(efficient: Family, images: Any, alone: Path) -> None:
    """One level instead of two, and a pickle of the weights; the soup has two, and loads in both libraries."""
    expected = bake(*efficient.words, "--recipe", "uniform", "--output", "expected")
    folders = [copy_model(folder, alone / folder.name) for folder in efficient.folders]
    for folder in folders:
        found = json.loads((folder / "config.json").read_text())
        old = {**found["pretrained_cfg"], "architecture": found["architecture"], "labels": list(NAMES)}
        (folder / "config.json").write_text(json.dumps(old))
        torch.save(weights(folder), folder / "pytorch_model.bin")
        (folder / "model.safetensors").unlink()
    assert bake(*folders, "--recipe", "uniform", "--output", "soup")["soup"]["sha256"] == expected["soup"]["sha256"]
    pictures = images["test"]["image"][:4]
    logits = through_pipeline(alone / "soup", pictures)
    assert (logits - through_timm(f"local-dir:{alone}/soup", pictures)).abs().max() < 1e-4 * logits.std()


def test_classes_without_names_are_those_of_imagenet(alone: Path) -> None:
    """Where timm names no classes and there are as many as ImageNet has, they are named as the pipeline names them."""
    import timm

    from hfsoup.checkpoints.inspection import read_class_names
    from hfsoup.checkpoints.timm_config import read_model_config

    model = timm.create_model("test_efficientnet")
    timm.models.save_for_hf(model, alone / "model", safe_serialization=True)
    edit_json(alone / "model" / "config.json", model_args=None)
    config = read_model_config(alone / "model" / "config.json", where="here")
    named = pipeline("image-classification", str(alone / "model"), device="cpu").model.config.id2label
    assert read_class_names(config, where="here") == tuple(named[i] for i in range(1000))


def test_a_fixed_image_size_is_kept(images: Any, alone: Path) -> None:
    """A ViT whose size stands only in what timm says of its images loads in timm alone; its soup loads in both."""
    family = make_timm("vit", "timm", alone)
    for folder in family.folders:
        arguments = {key: value for key, value in without_classes(folder).items() if key != "img_size"}
        edit_json(folder / "config.json", model_args=arguments)
    bake(*family.words, "--recipe", "uniform", "--output", "soup")
    pictures = images["test"]["image"][:4]
    logits = through_pipeline(alone / "soup", pictures)
    assert (logits - through_timm(f"local-dir:{alone}/soup", pictures)).abs().max() < 1e-4 * logits.std()


def test_checkpoints_of_a_trainer(wrapped: Family, data: Path, alone: Path) -> None:
    """A run's checkpoints have their image settings in config.json and need no file of the run's folder."""
    for n, folder in enumerate(wrapped.folders):
        copy_model(folder, alone / "run" / f"checkpoint-{n + 1}")
    found = bake("run/checkpoint-*", "--recipe", "latest", "--dataset", data, "--output", "soup")
    assert [i["used"] for i in found["ingredients"]] == [True] * MEMBERS
    assert run("verify", "soup").code == 0


def test_distilled_and_aligned(native: Family, data: Path, alone: Path) -> None:
    """A network of timm is distilled as any other; its permutation groups are not known, and that is said."""
    words = [*native.words, "--recipe", "uniform", "--dataset", data]
    found = bake(*words, "--distill", 1, "--output", "soup")
    assert found["soup"]["score"] > 0.3
    through_timm(f"local-dir:{alone}/soup", make_images()["test"]["image"][:1])
    told = refused("bake", *words, "--align", "weights", code=1)
    assert "the permutation groups of 'timm_wrapper' are not known" in told


def test_adapters_on_a_model_of_timm(data: Path, alone: Path) -> None:
    """LoRA by peft on transformers' wrapper of a model in timm's own layout: the soup is in that layout, with the
    classes that the adapters name."""
    from peft import LoraConfig, get_peft_model

    base = native_without_classes(make_timm("vit", "timm", alone / "start").folders[0], alone / "base")
    names = list(reversed(NAMES))
    for seed in range(2):
        torch.manual_seed(seed)
        model = AutoModelForImageClassification.from_pretrained(base)
        lora = LoraConfig(r=2, target_modules=["qkv"], modules_to_save=["head"], init_lora_weights=False)
        adapter = get_peft_model(model, lora)
        adapter.save_pretrained(alone / f"lora-{seed}")
        edit_json(alone / f"lora-{seed}" / "adapter_config.json", base_model_name_or_path=str(base))
        model.config.save_pretrained(alone / f"lora-{seed}")
        edit_json(alone / f"lora-{seed}" / "config.json", label_names=names)
    bake("./lora-0", "./lora-1", "--recipe", "uniform", "--dataset", data, "--limit", 12, "--output", "soup")
    config = json.loads((alone / "soup" / "config.json").read_text())
    assert (config["label_names"], "model_type" in config) == (names, False)
    pictures = make_images()["test"]["image"][:4]
    logits = through_pipeline(alone / "soup", pictures)
    timms = through_timm(f"local-dir:{alone}/soup", pictures).flip(1)
    assert (logits - timms).abs().max() < 1e-4 * logits.std()


def test_classes_in_another_order_are_put_right(native: Family, alone: Path) -> None:
    """Of a checkpoint whose label_names and head stand in another order, the rows go where the first one has them."""
    expected = bake(*native.words, "--recipe", "uniform", "--output", "expected")
    other, order = copy_model(native.folders[1], alone / "other"), [3, 0, 5, 1, 4, 2]
    edit_json(other / "config.json", label_names=[NAMES[i] for i in order])
    put_weights(other, {k: v[order] if k.startswith("fc.") else v for k, v in weights(other).items()})
    found = bake(native.folders[0], other, native.folders[2], "--recipe", "uniform", "--output", "soup")
    assert found["soup"]["sha256"] == expected["soup"]["sha256"]


def test_eval_check_and_dry_run(native: Family, data: Path, alone: Path) -> None:
    """Every command that reads checkpoints reads those of timm, and names their architecture."""
    done = run("eval", native.words[0], "--dataset", data, "--json", "-")
    assert done.code == 0, done.err
    logits = through_pipeline(
        native_without_classes(native.folders[0], alone / "one"), make_images()["test"]["image"][:]
    )
    right = logits.argmax(1) == torch.tensor(make_images()["test"]["label"][:])
    assert done.json["test"] == pytest.approx(float(right.float().mean()))
    assert run("check", *native.words).code == 0
    done = run("bake", *native.words, "--dataset", data, "--dry-run")
    assert done.code == 0, done.err
    said = run("bake", *native.words, "--recipe", "uniform", "--output", "soup").err
    assert "one resnet10t (timm) with 6 classes" in said
    assert "num_classes in model_args, which only timm can load" in said


def native_without_classes(folder: Path, target: Path) -> Path:
    """A copy that transformers can load."""
    return copy_model(folder, target, model_args=without_classes(folder))
