"""Checkpoints that lie, or are damaged, end in one clear block: nothing run, nothing written, little spent."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from family import NAMES, Family, cast, copy_model, edit_json, put_weights, weights
from hostile import (
    ONE,
    Change,
    config,
    header,
    instead,
    link,
    many_empty,
    measured,
    raw,
    replace_file,
    sharded,
    sparse,
    tensors,
    text_of,
)
from shell import bake, refused

from hfsoup.ingredients.compatibility import check_compatibility
from hfsoup.ingredients.pull import pull_ingredients
from hfsoup.ingredients.resolve import resolve_patterns
from hfsoup.utils.errors import SoupError

FIRST, INDEX = "model-00001-of-00002.safetensors", "model.safetensors.index.json"
TWO = {**ONE, "v": {"dtype": "F32", "shape": [2], "data_offsets": [8, 16]}}


def entry(**changes: Any) -> Change:
    return header({"w": {**ONE["w"], **changes}})


HEADERS: dict[str, tuple[Change, str]] = {
    "zero bytes": (replace_file("model.safetensors", b""), "0 bytes"),
    "length 2^63": (raw(b"{}", length=1 << 63), "a truncated or different file"),
    "length 2^64-1": (raw(b"{}", length=(1 << 64) - 1), "a truncated or different file"),
    "header longer than the file": (raw(b"{}", length=3), "a truncated or different file"),
    "header over the limit": (raw(b" " * (9 << 20)), "over the limit"),
    "no header": (raw(b""), "a truncated or different file"),
    "truncated": (header(ONE, 7), "the tensors end at byte"),
    "trailing bytes": (header(ONE, 9), "the tensors end at byte"),
    "overlap": (header({**TWO, "v": {**TWO["v"], "data_offsets": [4, 12]}}, 12), "expected bytes from"),
    "gap": (header({**TWO, "v": {**TWO["v"], "data_offsets": [12, 20]}}, 20), "expected bytes from"),
    "begins late": (header({"w": {**ONE["w"], "data_offsets": [8, 16]}}, 16), "expected bytes from"),
    "one key twice": (raw(b'{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"w":1}', bytes(8)), "stands twice"),
    "key in an entry twice": (
        raw(b'{"w":{"dtype":"F32","dtype":"F32","shape":[2],"data_offsets":[0,8]}}', bytes(8)), "stands twice",
    ),
    "metadata is no text": (header({**ONE, "__metadata__": {"a": 1}}), "metadata"),
    "metadata is a list": (header({**ONE, "__metadata__": []}), "metadata"),
    "deep": (raw(b"[" * 200_000 + b"]" * 200_000), "too deeply"),
    "no object": (raw(b"[1]"), "not an object"),
    "no UTF-8": (raw(b'{"\xff":1}'), "cannot be read"),
    "UTF-16": (raw(json.dumps(ONE).encode("utf-16"), bytes(8)), "cannot be read"),
    "NaN": (raw(b'{"w":{"dtype":"F32","shape":[NaN],"data_offsets":[0,8]}}', bytes(8)), "no finite number"),
    "infinite": (raw(b'{"w":{"dtype":"F32","shape":[1e999],"data_offsets":[0,8]}}', bytes(8)), "no finite number"),
    "side is a float": (entry(shape=[2.0]), "whole numbers"),
    "side is a bool": (entry(shape=[True, 2]), "whole numbers"),
    "side is minus zero": (raw(b'{"w":{"dtype":"F32","shape":[-0],"data_offsets":[0,0]}}'), "whole numbers"),
    "offset is a bool": (entry(data_offsets=[False, 8]), "whole numbers"),
    "offset is a text": (entry(data_offsets=["0", 8]), "whole numbers"),
    "huge number": (raw(b'{"w":{"dtype":"F32","shape":[' + b"9" * 5000 + b"]}}"), "cannot be read"),
    "long side": (entry(shape=[10**4000]), "is not valid"),
    "negative side": (entry(shape=[-2]), "is not valid"),
    "product overflows": (entry(shape=[1 << 40, 0, 1 << 40]), "is not valid"),
    "negative offset": (entry(data_offsets=[-8, 0]), "do not hold"),
    "backwards": (entry(data_offsets=[8, 0]), "do not hold"),
    "another size": (entry(shape=[3]), "do not hold F32 of shape [3]"),
    "unknown field": (entry(extra=1), "found something else"),
    "entry is a number": (header({"w": 1}), "found something else"),
    "float8": (header({"w": {"dtype": "F8_E4M3", "shape": [8], "data_offsets": [0, 8]}}), "found 'F8_E4M3'"),
    "int4": (header({"w": {"dtype": "I4", "shape": [16], "data_offsets": [0, 8]}}), "found 'I4'"),
    "complex": (header({"w": {"dtype": "C64", "shape": [1], "data_offsets": [0, 8]}}), "found 'C64'"),
    "name that is no Unicode": (raw(b'{"\\ud800":1}'), "not valid Unicode"),
    "name of a novel": (header({"w" * 600: ONE["w"]}), "longer than"),
    "name with escapes": (header({"\x1b[31m\n\0": 1}), "tensor [31m"),
    "LFS pointer": (
        text_of("model.safetensors", "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"),
        "a git-LFS pointer",
    ),
    "no tensors": (header({}, 0), "found none"),
    "a pipe": (instead("model.safetensors", os.mkfifo), "a regular file"),
    "a folder": (instead("model.safetensors", Path.mkdir), "a regular file"),
    "a device": (instead("model.safetensors", lambda p: p.symlink_to("/dev/zero")), "a regular file"),
}  # fmt: skip

INDEXES: dict[str, tuple[Change, str]] = {
    "outside": (sharded(lambda m: {n: f"../{h}" for n, h in m.items()}), "not among the files"),
    "absolute": (sharded(lambda m: {n: f"/tmp/{h}" for n, h in m.items()}), "not among the files"),
    "subfolder": (sharded(lambda m: {n: f"sub/{h}" for n, h in m.items()}), "not among the files"),
    "missing shard": (sharded(lambda m: {**m, "more": "model-00003-of-00003.safetensors"}), "'model-00003-of-00003"),
    "the index itself": (sharded(lambda m: {**m, "more": INDEX}), "not among the files"),
    "tensor elsewhere": (sharded(lambda m: {**m, "classifier.bias": m["classifier.weight"]}), "disagree"),
    "tensor nowhere": (sharded(lambda m: {**m, "more": FIRST}), "tensor more is only in the index"),
    "tensor in both": (sharded(extra="classifier.bias"), "tensor classifier.bias is only in the file"),
    "tensor not listed": (sharded(lambda m: {n: h for n, h in m.items() if n != "classifier.bias"}), "disagree"),
    "no map": (sharded(lambda m: None), "expected an index with a weight_map"),
    "map of numbers": (sharded(lambda m: dict.fromkeys(m, 1)), "expected an index with a weight_map"),
    "map of lists": (sharded(lambda m: {n: [FIRST] for n in m}), "expected an index with a weight_map"),
    "empty map": (sharded(lambda m: {}), "expected an index with a weight_map"),
}

CONFIGS: dict[str, tuple[Change, str]] = {
    "auto_map": (config(model_type="evil", auto_map={"AutoConfig": "evil.Evil"}), "never runs"),
    "auto_map inside": (config(backbone_config={"auto_map": {"AutoConfig": "evil.Evil"}}), "never runs"),
    "kernel from the Hub": (config(_attn_implementation="evil/kernel"), "never downloads or runs"),
    "kernel inside": (config(vision_config={"attn_implementation": "evil/kernel"}), "never downloads or runs"),
    "quantized": (config(quantization_config={"quant_method": "bitsandbytes"}), "is quantized"),
    "processor with code": (
        lambda f: edit_json(
            f / "preprocessor_config.json", image_processor_type="Evil", auto_map={"AutoImageProcessor": "evil.Evil"}
        ),
        "never runs",
    ),
    "a billion classes": (config(id2label=None, label2id=None, num_labels=10**9), "found 1000000000"),
    "as many classes as fit elsewhere": (config(id2label=None, label2id=None, num_labels=32), "the head in the file"),
    "counts disagree": (config(num_labels=5), "config.json names 5 classes, the head in the file has 6 rows"),
    "a class too few": (config(id2label={str(i): n for i, n in enumerate(NAMES[:-1])}), "names 5 classes"),
    "classes as text": (config(num_labels="6"), "found 6"),
    "label of a novel": (config(id2label={**dict(enumerate(NAMES[:-1])), 5: "x" * 1000}), "class 5"),
    "label ids repeat": (config(id2label={"0": "a", "00": "b", "1": "c", "2": "d", "3": "e", "4": "f"}), "each once"),
    "label ids are words": (config(id2label={n: n for n in NAMES}), "each once"),
    "labels as a list": (config(id2label=list(NAMES)), "id2label"),
    "no model type": (config(model_type=None), "model_type"),
    "another kind of model": (
        config(model_type="bert", architectures=["BertModel"]), "expected an image classifier, found 'BertModel'",
    ),
    "architectures as numbers": (config(architectures=[1]), "list of names"),
    "a hundred thousand layers": (config(num_hidden_layers=10**5), "over the limit"),
    "sixteen thousand layers": (config(num_hidden_layers=16_000), "much larger than its files"),
    "wide": (config(hidden_size=16_000, num_attention_heads=2), "much larger than its files"),
    "stages without end": (config(depths=[16_000] * 1000), "over the limit"),
    "wrong type": (config(hidden_act=["gelu"], image_size=999), "transformers refuses"),
    "zero heads": (config(num_attention_heads=0, image_size=999), "transformers cannot build"),
    "a method overwritten": (config(to_dict=999), "may not set"),
    "image of a gigapixel": (
        lambda f: edit_json(f / "preprocessor_config.json", size={"height": 32768, "width": 32768}), "over the limit",
    ),
    "processor NaN": (text_of("preprocessor_config.json", '{"image_mean": [NaN, 0, 0]}'), "no finite number"),
    "deep": (text_of("config.json", '{"a":' * 200_000 + "1" + "}" * 200_000), "too deeply"),
    "rather deep": (text_of("config.json", '{"a":' * 60 + "1" + "}" * 60), "deeper than 32"),
    "large": (text_of("config.json", '{"a":"' + "x" * (5 << 20) + '"}'), "at most"),
    "doubled key": (text_of("config.json", '{"model_type":"vit","model_type":"deit"}'), "stands twice"),
    "list": (text_of("config.json", "[]"), "JSON object"),
    "no Unicode": (text_of("config.json", '{"a": "\\ud800"}'), "expected JSON"),
}  # fmt: skip

LINKS: dict[str, tuple[Change, str]] = {
    **{
        name: (link(name), "a regular file, found a link")
        for name in ("model.safetensors", "config.json", "preprocessor_config.json", "README.md")
    },
    "processor is a pipe": (instead("preprocessor_config.json", os.mkfifo), "a regular file"),
    "processor is a folder": (instead("processor_config.json", Path.mkdir), "a regular file"),
}

TENSORS: dict[str, tuple[Change, str]] = {
    "integer head": (tensors(lambda s: {**s, "classifier.weight": s["classifier.weight"].long()}), "found I64"),
    "no head": (tensors(lambda s: {n: t for n, t in s.items() if "classifier" not in n}), "'classifier.weight'"),
    "two models": (
        tensors(lambda s: {f"{side}.{n}": t.clone() for n, t in s.items() for side in "ab"}), "expected one model",
    ),
    "a tensor twice": (
        tensors(lambda s: {**s, "embeddings.cls_token": 1 + s["vit.embeddings.cls_token"]}), "two tensors of the files",
    ),
    "endless copies": (
        tensors(lambda s: {**s, **{f"copy.{i}.{n}": t[:0].clone() for n, t in s.items() for i in range(30)}}),
        "the files hold 1240",
    ),
    "NaN": (
        tensors(lambda s: {**s, "classifier.bias": s["classifier.bias"] * float("nan")}), "tensor classifier.bias",
    ),
    "infinity": (
        tensors(lambda s: {**s, "classifier.bias": s["classifier.bias"] + float("inf")}), "tensor classifier.bias",
    ),
}  # fmt: skip

ALONE = {
    f"{kind}: {name}": case
    for kind, cases in (
        ("header", HEADERS), ("index", INDEXES), ("config", CONFIGS), ("link", LINKS), ("tensors", TENSORS),
    )
    for name, case in cases.items()
}  # fmt: skip

UNFILLED: dict[str, Change] = {
    "missing": tensors(lambda s: {n: t for n, t in s.items() if n != "vit.layernorm.bias"}),
    "renamed": tensors(lambda s: {n.replace("layernorm", "norm"): t for n, t in s.items()}),
    "a layer too few": config(num_hidden_layers=1),
    "a layer too many": config(num_hidden_layers=3),
}


@pytest.mark.parametrize("name", ALONE)
def test_a_bad_checkpoint_is_refused(name: str, vit: Family, alone: Path) -> None:
    """Alone and beside a good one it ends in a block that names it and says what is wrong; nothing is written."""
    change, text = ALONE[name]
    bad = copy_model(vit.folders[1], alone / "bad")
    change(bad)
    before = sorted(alone.iterdir())
    # What stands in the weights' bytes is found when they are averaged, and one model alone is not.
    words = [bad, vit.words[0]] if name in ("tensors: NaN", "tensors: infinity") else [bad]
    block = refused("bake", *words, code=1)
    assert text in block, block
    assert max(len(block), len(refused("bake", vit.words[0], bad, code=1))) < 3000
    assert sorted(alone.iterdir()) == before


@pytest.mark.parametrize("name", UNFILLED)
def test_a_model_that_its_file_does_not_fill_is_never_scored(name: str, vit: Family, data: Path, alone: Path) -> None:
    """transformers would draw the missing weights at random; that is an error instead."""
    bad = copy_model(vit.folders[1], alone / "bad")
    UNFILLED[name](bad)
    block = refused("eval", bad, "--dataset", data, code=1)
    assert "does not fill the model" in block or "describes" in block, block
    assert block == refused("bake", bad, code=1)


def test_the_model_a_config_describes_is_compared_with_the_file(vit: Family, alone: Path) -> None:
    """Numbers that are small enough to be plausible are found out too."""
    for key, value, text in (("num_hidden_layers", 30, "much larger"), ("hidden_size", 40, "describes shape")):
        bad = copy_model(vit.folders[1], alone / key, **{key: value})
        with pytest.raises(SoupError, match=text):
            check_compatibility(pull_ingredients(resolve_patterns([str(bad)])))
    assert len(check_compatibility(pull_ingredients(resolve_patterns([vit.words[0]])))) == 1


def test_what_is_unusual_but_right_is_accepted(vit: Family, alone: Path) -> None:
    """Empty tensors, odd names, no index metadata, labels named twice in both, a null label map, spaces after JSON."""
    pairs = {
        "empty": tensors(lambda s: {**s, "vit.empty": torch.zeros(0, 3), "vit.new\nline": torch.zeros(1)}),
        "shards": sharded(metadata=None),
        "twice": config(id2label=dict(enumerate(("crane", "crane", *NAMES[2:])))),
        "unnamed": config(id2label=None, label2id=None, num_labels=6),
    }
    for name, change in pairs.items():
        folders = [copy_model(folder, alone / f"{name}-{folder.name}") for folder in vit.folders[:2]]
        for folder in folders:
            change(folder)
        assert bake(*folders, "--output", f"soup-{name}")["soup"]["path"] == f"soup-{name}"


def test_an_index_cannot_reach_outside(vit: Family, alone: Path) -> None:
    """A shard beside the folder is not read, even where its tensors would fit."""
    bad = copy_model(vit.folders[1], alone / "bad")
    sharded(lambda m: {n: f"../{h}" for n, h in m.items()})(bad)
    for shard in bad.glob("model-*.safetensors"):
        (alone / shard.name).write_bytes(shard.read_bytes())
    assert "not among the files" in refused("bake", bad, code=1)


def test_halves_that_overflow_as_a_sum_are_averaged(vit: Family, alone: Path) -> None:
    """60,000 and 60,000 in float16 average to 60,000."""
    folders = [cast(folder, alone / folder.name, torch.float16) for folder in vit.folders[:2]]
    for folder in folders:
        put_weights(folder, {**weights(folder), "classifier.bias": torch.full((6,), 60_000, dtype=torch.float16)})
    bake(*folders, "--output", "soup")
    assert weights(alone / "soup")["classifier.bias"].tolist() == [60_000] * 6


@pytest.mark.parametrize("scope", ["preprocessor_config.json", "processor_config.json"])
def test_image_processing_is_compared_where_transformers_reads_it(scope: str, vit: Family, alone: Path) -> None:
    """An image_processor inside processor_config.json goes before preprocessor_config.json, and is compared."""
    bad = copy_model(vit.folders[1], alone / "bad")
    values = {**json.loads((bad / "preprocessor_config.json").read_text()), "image_mean": [0.1, 0.2, 0.3]}
    (bad / scope).write_text(json.dumps({"image_processor": values} if scope.startswith("processor") else values))
    assert "image_mean" in refused("bake", vit.words[0], bad, code=1)


def test_a_file_the_hub_does_not_list_is_not_used(on_hub: Any, vit: Family, alone: Path) -> None:
    """A file slipped into the cache beside those of the commit ends the bake."""
    stray = pull_ingredients(resolve_patterns(["kit/vit-1"]))[0].folder / "processor_config.json"
    stray.write_text("{}")
    try:
        assert "the Hub does not list it" in refused("bake", "kit/vit-1", vit.words[1], code=1)
    finally:
        stray.unlink()


BOMBS: dict[str, Change] = {
    "900,000 empty tensors": raw(many_empty(900_000)),
    "as many as the limit lets through": raw(many_empty(145_000)),
    "lists in a header": raw(b'{"a":[' + b"[]," * 2_700_000 + b"0]}"),
    "numbers in a header": raw(b'{"a":[' + b"0," * 4_100_000 + b"0]}"),
    "lists in a config": text_of("config.json", '{"a":[' + "[]," * 1_390_000 + "0]}"),
    "a sparse header": sparse(1 << 40),
    "an index of 200 MB": lambda f: (sharded()(f), os.truncate(f / INDEX, 200 << 20)),
    "a billion classes": config(id2label=None, label2id=None, num_labels=10**9),
    "a hundred thousand layers": config(num_hidden_layers=10**5),
    "sixteen thousand layers": config(num_hidden_layers=16_000),
}  # fmt: skip


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_costs_little(name: str, vit: Family, alone: Path) -> None:
    """Each ends in an error within ten seconds and two gigabytes, Python and its libraries included."""
    bad = copy_model(vit.folders[1], alone / "bad")
    BOMBS[name](bad)
    cost = measured("bake", bad, "--output", "soup", cwd=alone)
    assert (cost.code, "error:" in cost.err, "Traceback" in cost.err) == (1, True, False), cost
    assert cost.seconds < 10, cost
    assert cost.megabytes < 2048, cost
