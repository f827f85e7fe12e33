"""Ingredients that are not all alike: float types, files, extra tensors, heads, image processors."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch
from architectures import CONFIGS, SERVED
from family import Family, accuracy, cast, copy_model, edit_json, put_weights, weights
from huggingface_hub import save_torch_state_dict
from shell import bake, refused, run

from hfsoup.checkpoints.architecture import build_config, find_model_class

State = dict[str, torch.Tensor]
HEAD = ("classifier.weight", "classifier.bias")
POOLER = "vit.pooler.dense.weight"
FEWER = ("fig", "apple", "date")


def mean(*states: State) -> State:
    """The float64 mean of the first one's tensors."""
    return {name: sum(s[name].double() for s in states) / len(states) for name in states[0]}  # type: ignore[misc]


def same(found: State, expected: State, dtype: torch.dtype) -> bool:
    """Whether a soup holds just these tensors, rounded once."""
    typed = all(tensor.dtype == dtype for tensor in found.values())
    return typed and found.keys() == expected.keys() and all(found[n].equal(t.to(dtype)) for n, t in expected.items())


def with_pooler(folder: Path, target: Path) -> Path:
    """A copy whose file holds a pooler too, which no classifier has."""
    copy_model(folder, target)
    put_weights(target, {**weights(folder), POOLER: torch.ones(32, 32)})
    return target


def with_classes(folder: Path, target: Path, names: tuple[str, ...]) -> Path:
    """A copy with a head for other classes."""
    copy_model(folder, target, id2label=dict(enumerate(names)), label2id={n: i for i, n in enumerate(names)})
    state = weights(folder)
    put_weights(target, {**state, **{name: -state[name][: len(names)] for name in HEAD}})
    return target


def told(folder: str) -> str:
    """The card of a soup."""
    return (Path(folder) / "README.md").read_text()


def verified(folder: str, *words: str) -> None:
    done = run("verify", folder, *words)
    assert done.code == 0, done.err


@pytest.mark.parametrize(
    ("types", "expected"),
    [
        ((torch.float16, torch.float32), torch.float32),
        ((torch.bfloat16, torch.float16), torch.float32),
        ((torch.bfloat16, torch.bfloat16), torch.bfloat16),
    ],
    ids=["half and single", "both halves", "alike"],
)
def test_float_types_mix(types: Any, expected: torch.dtype, vit: Family, alone: Path) -> None:
    """The soup has the widest type, whatever the order, and the exact mean of what the files hold."""
    folders = [cast(folder, alone / f"m{n}", t) for n, (folder, t) in enumerate(zip(vit.folders, types, strict=False))]
    for name, order in (("a", folders), ("b", folders[::-1])):
        bake(*order, "--output", name)
        assert same(weights(Path(name)), mean(*map(weights, folders)), expected)
        assert json.loads((Path(name) / "config.json").read_text())["dtype"] == str(expected).removeprefix("torch.")
        verified(name)
    assert ("are stored in" in told("a")) == (types[0] != types[1])


def test_a_score_is_for_the_bytes_that_would_be_written(vit: Family, data: Path, images: Any, alone: Path) -> None:
    """A half among singles is scored as the single it would be, anew, though its score as a half was paid for."""
    half = cast(vit.folders[1], alone / "half", torch.float16)
    words = ("--dataset", data, "--json", "-")
    assert run("eval", half, *words).json["images_forwarded"] == 60 + 72
    assert run("eval", half, *words).json["images_forwarded"] == 0
    found = bake(half, vit.words[0], "--dataset", data, "--max-ingredients", "1", "--output", "soup")
    assert found["images_forwarded"] == 2 * 60 + 72
    assert {tensor.dtype for tensor in weights(Path("soup")).values()} == {torch.float32}
    assert found["soup"]["test"] == accuracy(Path("soup"), images["test"])


def test_shards_pickles_and_single_files_mix(vit: Family, alone: Path) -> None:
    """However the tensors lie in files, the soup is the same, in the first one's files."""
    sharded, pickled = (copy_model(vit.folders[n], alone / f"m{n}") for n in (1, 2))
    for folder in (sharded, pickled):
        (folder / "model.safetensors").unlink()
    save_torch_state_dict(weights(vit.folders[1]), sharded, max_shard_size=20_000)
    torch.save(weights(vit.folders[2]), pickled / "pytorch_model.bin")
    bake(*vit.words[:3], "--output", "plain")
    for n, order in enumerate(([vit.folders[0], sharded, pickled], [sharded, vit.folders[0], pickled])):
        bake(*order, "--output", f"s{n}")
        found, expected = weights(Path(f"s{n}")), weights(Path("plain"))
        assert all(found[name].equal(tensor) for name, tensor in expected.items())
        verified(f"s{n}")
    assert len(list(Path("s0").glob("*.safetensors"))) == 1
    assert len(list(Path("s1").glob("*.safetensors"))) > 1


@pytest.mark.parametrize("carriers", [(0,), (1,), (0, 1)], ids=["first", "second", "all"])
def test_tensors_the_classifier_does_not_have_are_left_out(
    carriers: tuple[int, ...], vit: Family, data: Path, alone: Path
) -> None:
    """A pooler is named and dropped, whoever carries it, scored or not."""
    folders = [with_pooler(vit.folders[n], alone / f"m{n}") if n in carriers else vit.folders[n] for n in (0, 1)]
    bake(*vit.words[:2], "--output", "plain")
    for name, options in (("soup", []), ("measured", ["--recipe", "uniform", "--dataset", data])):
        done = run("bake", *folders, *options, "--output", name)
        assert done.err.count("note the classifier does not have") == 1
        assert POOLER in done.err
        assert (Path(name) / "model.safetensors").read_bytes() == (Path("plain") / "model.safetensors").read_bytes()
        assert "vit.pooler.dense.weight" in told(name)
        verified(name)


def test_a_tensor_that_the_model_needs_may_not_be_lacking(vit: Family, alone: Path) -> None:
    """Leaving out is for what nothing needs."""
    lacking = copy_model(vit.folders[1], alone / "lacking")
    put_weights(lacking, {n: t for n, t in weights(lacking).items() if n != "vit.layernorm.bias"})
    assert "vit.layernorm.bias is missing" in refused("bake", vit.words[0], lacking, code=1)
    assert "1 of 40 tensors are missing, 'vit.layernorm.bias'" in refused("bake", lacking, vit.words[0], code=1)


def test_no_classifier_has_two_names_for_one_tensor() -> None:
    """Nothing in transformers ties the tensors of an image classifier, so a soup need not keep any tied."""
    for kind in SERVED:
        config = build_config({"model_type": kind, **CONFIGS[kind]})
        with torch.device("meta"):
            model = find_model_class(config)(config)
        tensors = model.state_dict(keep_vars=True).values()
        assert len({id(tensor) for tensor in tensors}) == len(tensors), kind


def test_the_odd_ones_are_skipped(vit: Family, resnet: Family, data: Path, alone: Path) -> None:
    """skip-ingredient keeps the most that fit together, even if the first does not, and says who is out and why."""
    other = copy_model(vit.folders[3], alone / "other", layer_norm_eps=1e-3)
    words = [resnet.words[0], *vit.words[:2], other, "--recipe", "uniform", "--on-mismatch", "skip-ingredient"]
    done = run("bake", *words, "--output", "soup", "--dataset", data, "--json", "-")
    assert done.code == 0, done.err
    assert [i["id"] for i in done.json["ingredients"]] == vit.words[:2]
    assert f"{resnet.words[0]} does not fit and is left out: compared with {vit.words[0]}: model type" in done.err
    assert f"{other} does not fit and is left out" in done.err
    assert same(weights(Path("soup")), mean(*map(weights, vit.folders[:2])), torch.float32)
    assert "left out: resnet-1, other" in told("soup")
    assert str(alone) not in told("soup")
    verified("soup", "--scores")
    assert "--on-mismatch skip-ingredient" in refused("bake", *words[:4], code=1)


def test_only_backbones_are_averaged(vit: Family, alone: Path) -> None:
    """backbone-only keeps the first one's head, whatever classes the others have, and the card says whose it is."""
    first, other = vit.folders[0], with_classes(vit.folders[1], alone / "other", FEWER)
    assert "--on-mismatch backbone-only" in refused("bake", first, other, code=1)
    bake(first, other, "--on-mismatch", "backbone-only", "--output", "soup")
    states = [{n: t for n, t in weights(folder).items() if n not in HEAD} for folder in (first, other)]
    head = {name: weights(first)[name].double() for name in HEAD}
    assert same(weights(Path("soup")), {**mean(*states), **head}, torch.float32)
    assert "The head is that of vit-1" in told("soup")
    verified("soup")
    deeper = copy_model(other, alone / "deeper", layer_norm_eps=1e-3)
    assert "layer_norm_eps" in refused("bake", first, deeper, "--on-mismatch", "backbone-only", code=1)


def test_an_ingredient_alone_is_scored_with_the_head_that_is_kept(
    vit: Family, data: Path, images: Any, alone: Path
) -> None:
    """Also where its score with its own head was paid for."""
    first, second = vit.folders[:2]
    third = with_classes(vit.folders[2], alone / "third", FEWER)
    headed = copy_model(first, alone / "headed")
    put_weights(headed, {**weights(second), **{name: weights(first)[name] for name in HEAD}})
    run("eval", second, "--dataset", data)
    words = (first, second, third, "--on-mismatch", "backbone-only", "--dataset", data)
    found = bake(*words, "--output", "soup")
    assert found["ingredients"][1]["score"] == accuracy(headed, images["validation"])
    assert found["soup"]["test"] == accuracy(Path("soup"), images["test"])
    verified("soup", "--scores")


def test_the_image_processor_of_one_is_taken(vit: Family, data: Path, images: Any, alone: Path) -> None:
    """A difference is an error with both values, which --processor-from settles, for scores and for the soup."""
    other = copy_model(vit.folders[1], alone / "other")
    edit_json(other / "preprocessor_config.json", image_mean=[0.4, 0.4, 0.4])
    words = [vit.folders[0], other, "--recipe", "uniform", "--dataset", data]
    block = refused("bake", *words, code=1)
    assert all(text in block for text in ("0.4, 0.4, 0.4", "0.5, 0.5, 0.5", "--processor-from")), block
    found = bake(*words, "--processor-from", other, "--output", "soup")
    assert (Path("soup") / "preprocessor_config.json").read_bytes() == (other / "preprocessor_config.json").read_bytes()
    assert found["soup"]["test"] == accuracy(Path("soup"), images["test"])
    assert "Image processor: that of other" in told("soup")
    assert str(alone) not in told("soup")
    verified("soup", "--scores")
    assert "to name one of the ingredients" in refused("bake", *words, "--processor-from", "org/none", code=2)


def test_the_card_and_the_record_say_what_resized_the_images(vit: Family, data: Path, alone: Path) -> None:
    """The library that prepared the images stands in both with its version."""
    bake(*vit.words[:2], "--dataset", data, "--output", "soup")
    backend = json.loads(Path("soup/soup.json").read_text())["dataset"]["backend"]
    assert backend == f"pillow {version('pillow')}"
    assert backend in told("soup")
