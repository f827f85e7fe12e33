"""Checkpoints whose files give tensors other names than the library would, and those that do not fill their model."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from architectures import CONFIGS, SERVED
from family import NAMES, Family, copy_model, edit_json, put_weights, weights
from huggingface_hub import HfApi
from shell import bake, refused, run
from transformers import AutoConfig, AutoModelForImageClassification

from hfsoup.checkpoints.architecture import describe_architecture, find_model_class
from hfsoup.checkpoints.tensor_matching import match_tensors
from hfsoup.localhub import LocalHub

State = dict[str, torch.Tensor]
MERGES = ("task-arithmetic", "ties", "dare", "breadcrumbs", "model-stock")
LAYER = "vit.encoder.layer.0."


def own_names(folder: Path, target: Path) -> Path:
    """The same model by the names of its state dict, as safetensors' save_model and accelerate write it."""
    copy_model(folder, target)
    put_weights(target, AutoModelForImageClassification.from_pretrained(folder).state_dict())
    assert weights(target).keys() != weights(folder).keys()
    return target


def renamed(folder: Path, target: Path, change: Callable[[State], State]) -> Path:
    """A copy of a model with other tensors in its file."""
    copy_model(folder, target)
    put_weights(target, {name: tensor.clone() for name, tensor in change(weights(folder)).items()})
    return target


def under(prefix: str) -> Callable[[State], State]:
    return lambda state: {prefix + name: tensor for name, tensor in state.items()}


def within(part: str, word: str = "") -> Callable[[State], State]:
    """`word` put before `part` in every name."""
    return lambda state: {name.replace(part, f"{word}.{part}"): tensor for name, tensor in state.items()}


def soup_bytes(folder: str | Path) -> bytes:
    return (Path(folder) / "model.safetensors").read_bytes()


@pytest.fixture
def plain(vit: Family, alone: Path) -> bytes:
    """The soup of the first two ViTs as they are."""
    bake(*vit.words[:2], "--output", "plain")
    return soup_bytes("plain")


@pytest.fixture
def other_set(vit: Family, alone: Path) -> list[Path]:
    """The ViTs by the names of their state dicts."""
    return [own_names(folder, alone / f"own-{folder.name}") for folder in vit.folders]


def test_ingredients_of_both_name_sets_are_averaged(
    vit: Family, other_set: list[Path], plain: bytes, alone: Path
) -> None:
    """The soup is the plain mean, in the names of the first one's files, and says the same under both."""
    bake(vit.words[0], other_set[1], "--output", "mixed")
    assert soup_bytes("mixed") == plain
    bake(other_set[0], vit.words[1], "--output", "turned")
    assert weights(Path("turned")).keys() == weights(other_set[0]).keys()
    models = [AutoModelForImageClassification.from_pretrained(name) for name in ("plain", "turned")]
    first, second = (model.state_dict() for model in models)
    assert all(tensor.equal(second[name]) for name, tensor in first.items())
    for soup in ("mixed", "turned"):
        done = run("verify", soup)
        assert done.code == 0, done.err


@pytest.mark.parametrize("merge", MERGES)
def test_a_base_of_either_name_set_gives_the_same_bytes(
    merge: str, vit: Family, other_set: list[Path], alone: Path
) -> None:
    """Nothing of the base is lacking, and merges that look at its task vectors see the same."""
    words = [*vit.words[:2], "--merge", merge]
    bake(*words, "--base", vit.words[2], "--output", "plain")
    done = run("bake", *words, "--base", other_set[2], "--output", "soup")
    assert done.code == 0, done.err
    assert "has no" not in done.err
    assert soup_bytes("soup") == soup_bytes("plain")
    bake(vit.words[0], other_set[1], "--merge", merge, "--base", other_set[2], "--output", "mixed")
    assert soup_bytes("mixed") == soup_bytes("plain")


def test_both_name_sets_are_scored_and_compared_alike(
    vit: Family, other_set: list[Path], data: Path, alone: Path
) -> None:
    """Scores, cosines and the search of a bake do not depend on names."""
    words = ("--recipe", "greedy", "--dataset", data)
    first = bake(*vit.words[:3], *words, "--output", "plain")
    found = bake(vit.words[0], *other_set[1:3], *words, "--output", "mixed")
    assert soup_bytes("mixed") == soup_bytes("plain")
    assert [i["score"] for i in found["ingredients"]] == [i["score"] for i in first["ingredients"]]
    cosines = [run("check", *which, "--weights", "--json", "-").json["cosine"] for which in (vit.words, other_set)]
    assert (
        cosines[0]
        == cosines[1]
        == run("check", vit.words[0], *other_set[1:], "--weights", "--json", "-").json["cosine"]
    )


@pytest.mark.parametrize("kind", SERVED)
def test_either_name_set_fills_the_model(kind: str, tmp_path: Path) -> None:
    """What save_pretrained writes and what a state dict holds are each brought to all of the model's own names."""
    config = AutoConfig.for_model(kind, **CONFIGS[kind], num_labels=len(NAMES))
    model = find_model_class(config)(config)
    model.save_pretrained(tmp_path)
    values = json.loads((tmp_path / "config.json").read_text())
    for state in (weights(tmp_path), model.state_dict()):
        shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
        owns = describe_architecture(values, len(NAMES), shapes).map_names(shapes)
        assert set(owns.values()) == model.state_dict().keys()
        assert all(shapes[name] == tuple(model.state_dict()[own].shape) for name, own in owns.items())


WRAPPED: dict[str, tuple[Callable[[State], State], str]] = {
    **{
        prefix: (under(prefix), prefix)
        for prefix in (
            "model.", "net.", "backbone.", "module.", "_orig_mod.", "model._orig_mod.", "_forward_module.", "ema.",
            "_forward_module.model.", "module._orig_mod.", "state_dict.model.", "classifier.", "my_net.",
        )
    },
    "layers checkpointed": (within("attention.attention", "_checkpoint_wrapped_module"), "_checkpoint_wrapped_module."),
    "layers compiled": (within("layernorm_before", "_orig_mod"), "_orig_mod."),
    "blocks of FSDP": (
        lambda s: under("_fsdp_wrapped_module.")(within("layer.0", "_fsdp_wrapped_module")(s)),
        "_fsdp_wrapped_module.",
    ),
    "a part in all": (lambda s: {n.replace(".", ".inner.", 1): t for n, t in s.items()}, "inner."),
    "beside a copy": (lambda s: {**under("model.")(s), **under("ema.")({n: t + 1 for n, t in s.items()})}, "model."),
    "beside a loss": (lambda s: {**under("model.")(s), "criterion.weight": torch.ones(6)}, "model."),
}  # fmt: skip


@pytest.mark.parametrize("case", WRAPPED)
def test_a_wrapper_is_taken_off(case: str, vit: Family, plain: bytes, alone: Path) -> None:
    """Weights saved from inside a wrapper make the soup of the model itself, whoever of the ingredients is wrapped, and
    the user is told."""
    change, taken = WRAPPED[case]
    wrapped = [renamed(folder, alone / f"wrapped-{folder.name}", change) for folder in vit.folders[:2]]
    for name, order in (("all", wrapped), ("second", [vit.folders[0], wrapped[1]])):
        done = run("bake", *order, "--output", name)
        assert done.code == 0, done.err
        assert done.err.count(f"'{taken}', added by a wrapper, is removed") == 1
        found, expected = weights(Path(name)), weights(Path("plain"))
        assert found.keys() == expected.keys()
        assert all(tensor.equal(expected[name]) for name, tensor in found.items())
    assert soup_bytes("second") == plain
    assert run("verify", "all").code == 0


def test_a_soup_of_wrapped_weights_answers_alike_everywhere(vit: Family, alone: Path) -> None:
    """A pipeline loads it without a word about weights, and two processes get the same numbers."""
    wrapped = [renamed(folder, alone / folder.name, under("model.")) for folder in vit.folders[:2]]
    bake(*wrapped, "--output", "soup")
    script = """import transformers, PIL.Image
transformers.logging.disable_progress_bar()
classify = transformers.pipeline("image-classification", "soup")
print(classify(PIL.Image.new("RGB", (16, 16), (200, 30, 90))))"""
    done = [subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True) for _ in "ab"]
    assert done[0].stdout == done[1].stdout != ""
    assert not any(word in one.stderr for one in done for word in ("MISSING", "UNEXPECTED", "newly"))


@pytest.mark.parametrize("copies", ["ema.", "model_ema.module.", "optimizer.state.", "ema_model._orig_mod."])
def test_copies_beside_the_model_never_enter_the_soup(copies: str, vit: Family, plain: bytes, alone: Path) -> None:
    """What the model does not have is left out, and said."""
    folders = [
        renamed(folder, alone / folder.name, lambda s: {**s, **under(copies)({n: t + 1 for n, t in s.items()})})
        for folder in vit.folders[:2]
    ]
    done = run("bake", *folders, "--output", "soup")
    assert done.err.count("note the classifier does not have") == 1
    assert copies in done.err
    assert "80 in all" not in done.err
    assert soup_bytes("soup") == plain


def head_of_two(state: State) -> State:
    return {name.replace("classifier.", "classifier.1."): tensor for name, tensor in state.items()}


def by_two_names(state: State) -> State:
    """One tensor under the name that save_pretrained gives it and under the model's own."""
    return {**state, "vit.layers.0.layernorm_before.weight": state[f"{LAYER}layernorm_before.weight"] + 1}


LOST: dict[str, tuple[Callable[[State], State], dict[str, Any], str]] = {
    "a head in a Sequential": (head_of_two, {}, "'classifier.1."),
    "a head in a Sequential, wrapped": (lambda s: under("model.")(head_of_two(s)), {}, "'classifier.weight'"),
    "a head named otherwise": (
        lambda s: {n.replace("classifier", "head"): t for n, t in s.items()}, {}, "'classifier.weight'",
    ),
    "a layer lost": (lambda s: {n: t for n, t in s.items() if LAYER not in n}, {}, "16 of 40 tensors are missing"),
    "a wrapped layer lost": (
        lambda s: under("model.")({n: t for n, t in s.items() if LAYER not in n}), {}, "16 of 40 tensors are missing",
    ),
    "one tensor lost": (lambda s: {n: t for n, t in s.items() if n != "vit.layernorm.weight"}, {}, "1 of 40 tensors"),
    "a layer more in the config": (lambda s: s, {"num_hidden_layers": 3}, "16 of 56 tensors are missing"),
    "a layer less in the config": (lambda s: s, {"num_hidden_layers": 1}, "describes a smaller model"),
    "a body in a Sequential": (
        lambda s: {n.replace("vit.", "vit.1."): t for n, t in s.items()}, {}, "38 of 40 tensors are missing",
    ),
    "all under a number": (under("model.1."), {}, "40 of 40 tensors are missing"),
    "two models": (
        lambda s: {**under("model.")(s), **under("net.")({n: t + 1 for n, t in s.items()})}, {},
        "expected one model in this file, found several, under 'model.', 'net.'",
    ),
    "a tensor by two names": (by_two_names, {}, "two tensors of the files fill vit.layers.0.layernorm_before.weight"),
    "a tensor by two names, wrapped": (lambda s: under("model.")(by_two_names(s)), {}, "40 of 40 tensors are missing"),
}  # fmt: skip


@pytest.mark.parametrize("case", LOST)
def test_a_model_that_is_not_filled_is_refused(case: str, vit: Family, alone: Path) -> None:
    """Bake and check name what is missing, though all ingredients lack it, and nothing is written."""
    change, config, told = LOST[case]
    folders = [renamed(folder, alone / folder.name, change) for folder in vit.folders[:2]]
    for folder in folders:
        edit_json(folder / "config.json", **config)
    block = refused("bake", *folders, "--output", "soup", code=1)
    assert told in block, block
    assert block == refused("check", *folders, code=1)
    assert not Path("soup").exists()


def test_names_of_nothing_are_looked_at_once(vit: Family) -> None:
    """No part of a name is tried as a wrapper that too few tensors have: many names cost one look each."""
    config = json.loads((vit.folders[0] / "config.json").read_text())
    shapes = {name: tuple(tensor.shape) for name, tensor in weights(vit.folders[0]).items()}
    found, looked = describe_architecture(config, len(NAMES), shapes), list[str]()

    def rename(name: str) -> tuple[tuple[str, ...], bool]:
        looked.append(name)
        return found.rename(name)

    names = [f"a{n}.b{n}.c{n}.d{n}.weight" for n in range(300)]
    assert match_tensors(replace(found, rename=rename), names, where="here").unused == tuple(names)
    assert looked == names


def test_headers_alone_tell_names_and_gaps(vit: Family, signed_in: LocalHub, alone: Path) -> None:
    """A check of repositories on the Hub takes off wrappers and names what is missing without pulling a weight."""
    api = HfApi(token=signed_in.token)
    lost = lambda s: under("model.")(head_of_two(s))  # noqa: E731
    for name, change in (("wrapped-1", under("model.")), ("wrapped-2", under("net.")), ("unfilled", lost)):
        folder = renamed(vit.folders[0], alone / name, change)
        api.create_repo(f"kit/{name}")
        api.upload_folder(repo_id=f"kit/{name}", folder_path=folder)
    done = run("check", "kit/wrapped-*", "--json", "-")
    assert done.json["verdict"] == "soup"
    assert sum("is removed from the tensor names" in reason for reason in done.json["reasons"]) == 2
    assert "'classifier.weight'" in refused("check", "kit/unfilled", "kit/wrapped-1", code=1)


def test_a_checkpoint_that_is_not_filled_is_skipped_on_request(vit: Family, plain: bytes, alone: Path) -> None:
    """skip-ingredient leaves it out with the reason, wherever it stands."""
    lost = renamed(vit.folders[2], alone / "lost", head_of_two)
    for n, order in enumerate(([lost, *vit.folders[:2]], [*vit.folders[:2], lost])):
        done = run("bake", *order, "--on-mismatch", "skip-ingredient", "--output", f"soup-{n}")
        assert done.code == 0, done.err
        assert f"{lost} does not fit and is left out" in done.err
        assert soup_bytes(f"soup-{n}") == plain


def test_counters_that_some_lack_do_not_count(resnet: Family, alone: Path) -> None:
    """Old files have no num_batches_tracked; nothing needs it, so it is no difference."""
    old = renamed(resnet.folders[1], alone / "old", lambda s: {n: t for n, t in s.items() if "tracked" not in n})
    bake(*resnet.words[:2], "--output", "plain")
    for name, order in (("soup", (resnet.words[0], old)), ("turned", (old, resnet.words[0]))):
        bake(*order, "--output", name)
        found, expected = weights(Path(name)), weights(Path("plain"))
        assert found.keys() == {name for name in expected if "tracked" not in name}
        assert all(tensor.equal(expected[name]) for name, tensor in found.items())


def test_tensors_that_loading_splits_are_averaged_in_one_form_only(alone: Path) -> None:
    """Where one file holds what another has in parts, that is a refusal with the way out; alike they are averaged."""
    config = AutoConfig.for_model("dinov2", **CONFIGS["dinov2"], use_swiglu_ffn=True, num_labels=len(NAMES))
    model = AutoModelForImageClassification.from_config(config)
    saved = []
    for n in range(2):
        torch.manual_seed(n)
        for parameter in model.parameters():
            parameter.data += 0.01 * torch.randn_like(parameter)
        saved.append(alone / f"run-{n}")
        model.save_pretrained(saved[-1])
        transformers.ViTImageProcessorPil().save_pretrained(saved[-1])
    bake(*saved, "--output", "soup")
    loaded, info = AutoModelForImageClassification.from_pretrained("soup", output_loading_info=True)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")), info
    states = [AutoModelForImageClassification.from_pretrained(folder).state_dict() for folder in saved]
    for name, tensor in loaded.state_dict().items():
        torch.testing.assert_close(tensor, (states[0][name] + states[1][name]) / 2, rtol=1e-6, atol=1e-7)
    split = own_names(saved[1], alone / "split")
    assert "save_pretrained" in refused("bake", saved[0], split, code=1)


def test_a_model_is_built_once(vit: Family, alone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a check learns of an architecture is kept: the next one of such checkpoints loads no library of models, and
    says the same, also where what was kept was damaged."""
    monkeypatch.setenv("HFSOUP_CACHE", str(alone / "cache"))
    script = """import sys
from hfsoup.ingredients.diagnose import diagnose
found = diagnose(tuple(sys.argv[1:]))
print(found.verdict, *found.reasons, sep="|")
print("torch" in sys.modules or "transformers" in sys.modules)"""

    def check() -> list[str]:
        words = [sys.executable, "-c", script, *vit.words]
        return subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines()

    first, second = check(), check()
    assert first[0] == second[0]
    assert [first[1], second[1]] == ["True", "False"]
    for path in (alone / "cache").rglob("architecture.json"):
        path.write_text(path.read_text().replace("vit", "bit"))
    assert check() == first
