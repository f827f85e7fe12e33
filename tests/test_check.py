"""Which ingredients may be averaged, and what is said of those that may not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import ClassLabel, Dataset, DatasetDict
from family import NAMES, Family, copy_model, edit_json, put_weights, weights
from hypothesis import given
from hypothesis import strategies as st
from shell import bake, refused

from hfsoup.data.class_names import match_classes
from hfsoup.utils.errors import MismatchError


def _rename(folder: Path) -> None:
    state = weights(folder)
    put_weights(folder, {("other.bias" if n == "classifier.bias" else n): t for n, t in state.items()})


def _reshape(folder: Path) -> None:
    state = weights(folder)
    state["vit.layernorm.bias"] = torch.zeros(31)
    put_weights(folder, state)


def _deeper(folder: Path) -> None:
    state = weights(folder)
    last = {name.replace("layer.1.", "layer.2."): t.clone() for name, t in state.items() if "layer.1." in name}
    put_weights(folder, {**state, **last})


def _integers(folder: Path) -> None:
    state = weights(folder)
    state["classifier.weight"] = state["classifier.weight"].long()
    put_weights(folder, state)


def _labels(folder: Path) -> None:
    names = ["cat", *NAMES[1:]]
    edit_json(folder / "config.json", id2label=dict(enumerate(names)), label2id={n: i for i, n in enumerate(names)})


def _no_processor(folder: Path) -> None:
    (folder / "preprocessor_config.json").unlink()


CASES: dict[str, tuple[Callable[[Path], None], list[str]]] = {
    "model type": (lambda f: edit_json(f / "config.json", model_type="deit"), ["model type deit, expected vit"]),
    "heads": (lambda f: edit_json(f / "config.json", num_attention_heads=4), ["num_attention_heads is 4, expected 2"]),
    "activation": (lambda f: edit_json(f / "config.json", hidden_act="relu"), ["hidden_act is 'relu'"]),
    "epsilon": (lambda f: edit_json(f / "config.json", layer_norm_eps=1e-3), ["layer_norm_eps is 0.001"]),
    "name": (_rename, ["tensor classifier.bias is missing", "tensor other.bias is not expected"]),
    "shape": (_reshape, ["tensor vit.layernorm.bias has shape [31], expected [32]"]),
    "a layer more": (_deeper, ["tensor vit.encoder.layer.2.attention.attention.key.bias is not expected"]),
    "integers": (_integers, ["tensor classifier.weight is I64, expected F32"]),
    "labels": (_labels, ["class names are missing", "'apple'", "'cat'"]),
    "image mean": (
        lambda f: edit_json(f / "preprocessor_config.json", image_mean=[0.1, 0.2, 0.3]),
        ["image processing: image_mean is", "0.1, 0.2, 0.3", "0.5, 0.5, 0.5"],
    ),
    "no processor": (_no_processor, ["no preprocessor_config.json, expected one"]),
}


@pytest.mark.parametrize("name", CASES)
def test_a_difference_is_listed(name: str, vit: Family, alone: Path) -> None:
    """Each kind of difference is told with what was expected and found, by ingredient, and nothing is written."""
    change, texts = CASES[name]
    other = copy_model(vit.folders[1], alone / "other")
    change(other)
    block = refused("bake", vit.words[0], other, "--output", "soup", code=1)
    assert all(text in block for text in texts), block
    assert f"{other}: " in block
    assert not Path("soup").exists()


def test_all_differences_of_all_ingredients_stand_in_one_error(vit: Family, resnet: Family, alone: Path) -> None:
    """One run tells of every ingredient that does not fit."""
    others = {name: copy_model(vit.folders[1], alone / name) for name in ("heads", "shape", "labels")}
    for name, folder in others.items():
        CASES[name][0](folder)
    block = refused("bake", vit.words[0], *others.values(), resnet.words[0], "--output", "soup", code=1)
    for name, folder in others.items():
        assert f"{folder}: " in block
        assert CASES[name][1][0] in block
    assert "model type resnet, expected vit" in block


def test_mixed_architectures(vit: Family, resnet: Family, alone: Path) -> None:
    """A ResNet among ViTs is an error that names both types."""
    assert "model type resnet, expected vit" in refused("bake", vit.words[0], resnet.words[0], code=1)


def test_a_default_written_out_is_no_difference(vit: Family, alone: Path) -> None:
    """A config that leaves out what another one spells out says the same."""
    other = copy_model(vit.folders[1], alone / "other")
    edit_json(other / "config.json", layer_norm_eps=None, qkv_bias=None)
    edit_json(other / "preprocessor_config.json", do_rescale=None)
    bake(vit.words[0], other, "--output", "soup")


def test_dropout_and_names_are_no_difference(vit: Family, alone: Path) -> None:
    """What does not change the function may differ between fine-tunings."""
    other = copy_model(vit.folders[1], alone / "other", hidden_dropout_prob=0.3, _name_or_path="elsewhere")
    bake(vit.words[0], other, "--output", "soup")


@pytest.mark.parametrize(
    "labels",
    [{"0": "a", "1": "a"}, {"0": "a", "2": "b"}, {"0": "a", "1": None}, {"zero": "a"}, ["a", "b"]],
    ids=["doubled", "gap", "null", "words", "list"],
)
def test_broken_label_maps_are_refused(labels: Any, vit: Family, alone: Path) -> None:
    """An id2label that does not name every class once is an error that names the file's ingredient."""
    other = copy_model(vit.folders[1], alone / "other")
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**config, "id2label": labels}))
    assert "other" in refused("bake", vit.words[0], other, code=1)


def test_a_config_that_transformers_refuses_is_named(vit: Family, alone: Path) -> None:
    """Its reason stands beside the folder and file that it is of, whether it comes first or second."""
    other = copy_model(vit.folders[1], alone / "other", hidden_act=["gelu"])
    assert f"in:  {other}, config.json" in refused("bake", other, vit.words[0], code=1)
    block = refused("bake", vit.words[0], other, code=1)
    assert f"{other}: transformers refuses this config.json" in block


@pytest.mark.parametrize(
    "text", ["", "{", "[1]", '"text"', "[" * 100_000], ids=["empty", "cut", "list", "text", "deep"]
)
def test_a_broken_config_is_refused(text: str, vit: Family, alone: Path) -> None:
    """config.json that is no JSON object is an error that names it."""
    other = copy_model(vit.folders[1], alone / "other")
    (other / "config.json").write_text(text)
    assert "config.json" in refused("bake", vit.words[0], other, code=1)


def reordered(images: Any, order: list[int], folder: Path) -> Path:
    """The same images and labels with the class list of the dataset in another order."""
    names = [NAMES[i] for i in order]
    parts = DatasetDict()
    for name in ("validation", "test"):
        features = images[name].features.copy()
        features["label"] = ClassLabel(names=names)
        labels = [names.index(NAMES[label]) for label in images[name]["label"][:]]
        parts[name] = Dataset.from_dict({"image": images[name]["image"][:], "label": labels}, features=features)
        folder.mkdir(exist_ok=True)
        parts[name].to_parquet(folder / f"{name}-00000-of-00001.parquet")
    return folder


def test_a_dataset_in_another_class_order_gives_the_same_scores(
    vit: Family, data: Path, images: Any, alone: Path
) -> None:
    """Labels are matched by name between dataset and model."""
    other = reordered(images, [5, 2, 0, 4, 1, 3], alone / "other")
    first, second = (bake(*vit.words, "--dataset", where, "--output", f"s{n}") for n, where in enumerate((data, other)))
    assert [i["score"] for i in second["ingredients"]] == [i["score"] for i in first["ingredients"]]
    assert second["soup"]["test"] == first["soup"]["test"]


@pytest.mark.parametrize(("old", "new"), [("fig", "date"), ("sour_cherry", "APPLE")], ids=["missing", "ambiguous"])
def test_class_names_that_do_not_match_show_both_lists(
    old: str, new: str, vit: Family, images: Any, alone: Path
) -> None:
    """A dataset whose names are not the model's is an error with its names and the model's."""
    parts, folder = {}, alone / "other"
    folder.mkdir()
    for name in ("validation", "test"):
        names = [new if n == old else n for n in NAMES]
        parts[name] = images[name].cast_column("label", ClassLabel(names=names))
        parts[name].to_parquet(folder / f"{name}-00000-of-00001.parquet")
    block = refused("bake", *vit.words, "--dataset", folder, "--output", "soup", code=1)
    assert all(repr(name) in block for name in (*NAMES, new)), block
    assert ("ambiguous" if new == "APPLE" else "missing") in block


def test_case_and_underscores_do_not_matter(vit: Family, images: Any, data: Path, alone: Path) -> None:
    """`Green_Pear` is `green pear`."""
    folder = alone / "other"
    folder.mkdir()
    names = [n.upper().replace(" ", "_") for n in NAMES]
    for name in ("validation", "test"):
        changed = images[name].cast_column("label", ClassLabel(names=names))
        changed.to_parquet(folder / f"{name}-00000-of-00001.parquet")
    found = bake(*vit.words, "--dataset", folder, "--output", "a")
    assert found["soup"]["test"] == bake(*vit.words, "--dataset", data, "--output", "b")["soup"]["test"]


@given(st.lists(st.text("aB_ x", min_size=1, max_size=4), min_size=1, max_size=6), st.randoms())
def test_alignment_is_a_permutation_or_an_error(names: list[str], random: Any) -> None:
    """A shuffled list is matched name by name, unless two names cannot be told apart."""
    shuffled = list(names)
    random.shuffle(shuffled)
    plain = {" ".join(n.casefold().replace("_", " ").split()) for n in names}
    if len(plain) < len(names):
        with pytest.raises(MismatchError, match="ambiguous"):
            match_classes(names, shuffled, where="a", against="b")
        return
    order = match_classes(names, shuffled, where="a", against="b")
    assert sorted(order) == list(range(len(names)))
    assert [shuffled[i] for i in order] == names
