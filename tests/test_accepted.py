"""Configs and image processors as people have them: what pipeline() takes is taken, and what it refuses is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from family import NAMES, Family, accuracy, copy_model, edit_json, put_weights, weights, write_parquet
from PIL import Image
from shell import bake, refused, run
from transformers import pipeline

from hfsoup.localhub import LocalHub

Change = Callable[[Path], None]
CODE = {"AutoConfig": "evil.Config", "AutoModelForImageClassification": "org/repo--evil.Model"}
PICTURE = Image.effect_noise((37, 53), 90).convert("RGB")


def config(**changes: Any) -> Change:
    """A change of config.json; None takes a key out."""
    return lambda folder: edit_json(folder / "config.json", **changes)


def processor(**changes: Any) -> Change:
    """A change of preprocessor_config.json; None takes a key out."""
    return lambda folder: edit_json(folder / "preprocessor_config.json", **changes)


def null(name: str, *keys: str) -> Change:
    """Keys of a file that are there and say nothing."""

    def change(folder: Path) -> None:
        values = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps({**values, **dict.fromkeys(keys)}))

    return change


TAKEN: dict[str, Change] = {
    "TensorFlow": config(architectures=["TFViTForImageClassification"]),
    "Flax": config(architectures=["FlaxViTForImageClassification"]),
    "custom class": config(architectures=["MyNet"]),
    "the body's class": config(architectures=["ViTModel"]),
    "no class": config(architectures=None),
    "an empty list of classes": config(architectures=[]),
    "a class as text": config(architectures="ViTForImageClassification"),
    "null class": null("config.json", "architectures"),
    "code of its own": config(auto_map=CODE),
    "autoset": config(_attn_implementation_autoset=True),
    "num_labels too": config(num_labels=len(NAMES)),
    "num_labels of old": config(_num_labels=2),
    "label2id contradicts": config(label2id={"apple": 5, "pear": 9}),
    "label2id null": null("config.json", "label2id"),
    "label2id a list": config(label2id=list(NAMES)),
    "class numbers with zeros": config(id2label={f"0{i}": name for i, name in enumerate(NAMES)}),
    "half precision": config(dtype=None, torch_dtype="float16"),
    "a version to come": config(transformers_version="99.0.0.dev0"),
    "dtype null": null("config.json", "dtype", "transformers_version"),
    "what nothing reads": config(wandb={"run": 7}, gradient_checkpointing=True, pooler_act="relu", encoder_stride=4),
    "sides": config(image_size=[16, 16], patch_size=[4, 4]),
    "a float of 32 bits": config(layer_norm_eps=9.999999960041972e-13),
    "derived": config(pooler_output_size=None),
    "pretrained backbone": config(use_pretrained_backbone=True, use_timm_backbone=True, backbone="resnet50"),
    "backbone elsewhere": config(backbone="evil/backbone", use_pretrained_backbone=True),
    "backbone inside": config(backbone_config={"backbone": "evil/backbone", "use_pretrained_backbone": True}),
    "weights elsewhere": config(checkpoint_path="/etc/passwd", use_kernels=True),
    "a pipeline elsewhere": config(custom_pipelines={"x": {"impl": "evil.X", "pt": ["AutoModel"], "type": "image"}}),
    "no type": processor(image_processor_type=None),
    "no type, one size": processor(image_processor_type=None, size=16),
    "null type": null("preprocessor_config.json", "image_processor_type"),
    "a feature extractor": processor(image_processor_type=None, feature_extractor_type="ViTFeatureExtractor", size=16),
    "Fast": processor(image_processor_type="ViTImageProcessorFast", data_format="channels_first", device="cpu"),
    "slow": processor(image_processor_type="ViTImageProcessor", _processor_class="CLIPProcessor"),
    "square by default": processor(default_to_square=True, do_convert_rgb=True, input_data_format=None),
    "another class, same pixels": processor(image_processor_type="DeiTImageProcessor", do_center_crop=False),
    "processor code": processor(auto_map={"AutoImageProcessor": "evil.Evil"}),
}


@pytest.mark.parametrize("name", TAKEN)
def test_what_pipeline_takes_is_no_difference(name: str, vit: Family, alone: Path) -> None:
    """An ingredient that pipeline() takes and that computes the same bakes with the others, first or second."""
    other = copy_model(vit.folders[1], alone / "other")
    TAKEN[name](other)
    answers: list[Any] = [pipeline("image-classification", str(f))(PICTURE)[0] for f in (vit.folders[1], other)]
    assert answers[0]["label"] == answers[1]["label"]
    bake(vit.words[0], vit.words[1], "--output", "plain")
    bake(vit.words[0], other, "--output", "soup")
    bake(other, vit.words[0], "--output", "turned")
    for soup in ("soup", "turned"):
        assert all(tensor.equal(weights(Path("plain"))[n]) for n, tensor in weights(Path(soup)).items())
        assert json.loads((Path(soup) / "config.json").read_text())["architectures"] == ["ViTForImageClassification"]
        answer: Any = pipeline("image-classification", soup)(PICTURE)
        assert {one["label"] for one in answer} <= set(NAMES)


@pytest.mark.parametrize("name", ["custom class", "code of its own", "no type, one size", "processor code"])
def test_it_is_scored_as_transformers_does(name: str, vit: Family, data: Path, images: Any, alone: Path) -> None:
    """The score is that of the model that transformers builds from its own classes."""
    other = copy_model(vit.folders[1], alone / "other")
    TAKEN[name](other)
    found = run("eval", other, "--dataset", data, "--json", "-").json
    assert found["test"] == accuracy(vit.folders[1], images["test"])


def test_classes_that_are_numbers_are_taken_by_number(vit: Family, data: Path, images: Any, alone: Path) -> None:
    """Values of id2label that are numbers name nothing, so the dataset's numbers are the model's, and that is said."""
    folders = [copy_model(folder, alone / folder.name, label2id=None) for folder in vit.folders[:2]]
    for folder in folders:
        edit_json(folder / "config.json", id2label={str(i): i for i in range(len(NAMES))})
    done = run("bake", *folders, "--dataset", data, "--recipe", "uniform", "--output", "soup", "--json", "-")
    assert done.code == 0, done.err
    assert "the dataset's numbers are the model's, which names no classes" in done.err
    assert done.json["ingredients"][0]["score"] == accuracy(folders[0], images["validation"])


@pytest.mark.parametrize("unnamed", [{"5": None}, {"5": " "}], ids=["null", "blank"])
def test_a_class_without_a_name_is_taken(
    unnamed: dict[str, Any], vit: Family, images: Any, tmp_path: Path, alone: Path
) -> None:
    """As in pipeline(), one unnamed class is no obstacle: images of the others are scored, its own cannot be."""
    folders = [copy_model(folder, alone / folder.name) for folder in vit.folders[:2]]
    for folder in folders:
        edit_json(folder / "config.json", id2label={**{str(i): name for i, name in enumerate(NAMES)}, **unnamed})
    named = images.filter(lambda label: label != 5, input_columns="label")
    parquet = write_parquet(named, tmp_path / "named")
    found = bake(*folders, "--recipe", "uniform", "--dataset", parquet, "--output", "soup")
    assert found["soup"]["test"] == accuracy(Path("soup"), named["test"])
    answer: Any = pipeline("image-classification", "soup")(PICTURE)
    assert len(answer) == 5
    block = refused("eval", "soup", "--dataset", write_parquet(images, tmp_path / "all"), code=1)
    assert "class names are missing: 'fig'" in block
    assert "--labels by-number" in block


def test_the_number_of_classes_decides_where_names_are_too_few(
    vit: Family, data: Path, images: Any, alone: Path
) -> None:
    """As in pipeline(), num_labels stands, and names that are not as many name nothing."""
    folder = copy_model(vit.folders[1], alone / "model", num_labels=len(NAMES))
    edit_json(folder / "config.json", id2label={str(i): name for i, name in enumerate(NAMES[:-1])})
    answer: Any = pipeline("image-classification", str(folder))(PICTURE)
    assert answer[0]["label"].startswith("LABEL_")
    done = run("eval", folder, "--dataset", data, "--json", "-")
    assert done.json["test"] == accuracy(folder, images["test"])
    assert "which names no classes" in done.err


def test_a_config_fetches_nothing(vit: Family, signed_in: LocalHub, alone: Path) -> None:
    """No repository that a config names is asked for, and the soup's config names none."""
    folders = [copy_model(folder, alone / folder.name) for folder in vit.folders[:2]]
    for folder in folders:
        edit_json(folder / "config.json", backbone="evil/backbone", use_pretrained_backbone=True, use_kernels=True)
    bake(*folders, "--output", "soup")
    assert not signed_in.requests
    assert {"backbone", "use_pretrained_backbone", "use_kernels"}.isdisjoint(
        json.loads(Path("soup/config.json").read_text())
    )


def test_code_from_elsewhere_is_never_run_and_never_passed_on(vit: Family, alone: Path) -> None:
    """Neither a model's code nor an image processor's is imported; both are named, and the soup asks for neither."""
    other = copy_model(vit.folders[1], alone / "other", auto_map={"AutoModelForImageClassification": "evil.Model"})
    (other / "evil.py").write_text(f"import pathlib\npathlib.Path({str(alone / 'marker')!r}).touch()\n")
    edit_json(other / "preprocessor_config.json", auto_map={"AutoImageProcessor": "evil.Processor"})
    done = run("bake", other, vit.words[0], "--output", "soup")
    assert done.code == 0, done.err
    assert f"{other}: custom code (auto_map) is never run" in done.err
    assert not (alone / "marker").exists()
    assert all("auto_map" not in (Path("soup") / f"{name}config.json").read_text() for name in ("", "preprocessor_"))


REFUSED: dict[str, tuple[Change, list[str]]] = {
    "another resample": (processor(resample=3), ["resample is 3, expected 2"]),
    "another mean": (
        processor(image_mean=[0.4, 0.5, 0.6]),
        ["image_mean is [0.4, 0.5, 0.6], expected [0.5, 0.5, 0.5]"],
    ),
    "another crop": (
        processor(image_processor_type="DeiTImageProcessor", do_center_crop=True, crop_size={"height": 8, "width": 8}),
        ["crop_size is {'height': 8, 'width': 8}, expected None"],
    ),
    "another problem": (
        config(problem_type="multi_label_classification"),
        ["problem_type is 'multi_label_classification', expected 'single_label_classification'"],
    ),
    "a class that nobody has": (processor(image_processor_type="MyImageProcessor"), ["Unrecognized image processor"]),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_computes_something_else_is_a_difference(name: str, vit: Family, alone: Path) -> None:
    """Only what changes pixels or scores is listed, with both values."""
    change, texts = REFUSED[name]
    other = copy_model(vit.folders[1], alone / "other")
    change(other)
    block = refused("bake", vit.words[0], other, code=1)
    assert all(text in block for text in texts), block
    assert "data_format" not in block


def test_problems_that_transformers_infers_are_no_difference(vit: Family, alone: Path) -> None:
    """A head of several classes that names no kind of labels is one for one label an image, one of one output is of a
    regression."""
    other = copy_model(vit.folders[1], alone / "other", problem_type="single_label_classification")
    bake(vit.words[0], other, "--output", "soup")
    for n, problem in enumerate((None, "regression")):
        folder = copy_model(vit.folders[n], alone / f"age-{n}", problem_type=problem)
        edit_json(folder / "config.json", id2label={"0": "age"}, label2id={"age": 0})
        state = weights(folder)
        put_weights(folder, {name: t[:1] if name.startswith("classifier") else t for name, t in state.items()})
    bake("age-0", "age-1", "--output", "ages")


def test_image_processors_that_take_no_image_are_not_the_same(vit: Family, alone: Path) -> None:
    """Two of which neither gives pixels are compared by what they say."""
    pair = [copy_model(folder, alone / folder.name) for folder in vit.folders[:2]]
    for folder, mean in zip(pair, (0.5, 0.4), strict=True):
        processor(image_mean=[mean])(folder)
    assert "image_mean is [0.4], expected [0.5]" in refused("bake", *pair, code=1)


@pytest.mark.parametrize(
    ("change", "texts"),
    [
        (processor(image_processor_type="MyImageProcessor"), ["Unrecognized image processor", "save_pretrained"]),
        (
            processor(image_processor_type="DINOv3ViTImageProcessorFast"),
            ["DINOv3ViTImageProcessor requires the Torchvision library", "pip install torchvision"],
        ),
        (processor(size={"longest_edge": 16}), ["ViTImageProcessorPil fails on an image", "Size must contain"]),
        (
            processor(image_processor_type="ConvNextImageProcessor", size={"height": 16, "width": 16}),
            ["ConvNextImageProcessorPil fails on an image"],
        ),
        (processor(image_mean=[0.5]), ["fails on an image", "mean must have 3 elements"]),
    ],
    ids=["unknown class", "missing library", "unknown size", "size of another class", "one channel"],
)
def test_an_image_processor_that_cannot_be_used_says_why(
    change: Change, texts: list[str], vit: Family, data: Path, alone: Path
) -> None:
    """The reason is transformers' own, with the command that mends it where there is one; no image is blamed."""
    other = copy_model(vit.folders[1], alone / "other")
    change(other)
    block = refused("eval", other, "--dataset", data, code=1)
    assert all(text in block for text in texts), block
    assert "row 0" not in block
