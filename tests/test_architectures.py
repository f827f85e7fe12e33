"""Every image-classification architecture of the installed transformers: soups of small models of each."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
import torch
import transformers
from architectures import CONFIGS, EXCEPTIONS, REQUIRED, SERVED, side
from family import NAMES, Family, copy_model, edit_json, put_weights, weights
from huggingface_hub.errors import StrictDataclassError
from pages import text_of
from PIL.Image import Image
from shell import refused
from transformers import AutoConfig, AutoModelForImageClassification, ViTImageProcessorPil, pipeline
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES as MAPPING

import hfsoup
from hfsoup.ingredients.differences import compare_configs
from hfsoup.utils.errors import LOADING_ERRORS

if TYPE_CHECKING:
    from hfsoup.checkpoints.inspection import Checkpoint

ORDER = [3, 0, 5, 1, 4, 2]
BATCH = 8
CLASSES = [
    pytest.param(kind, name, id=name, marks=pytest.mark.timm if kind == "timm_wrapper" else ())
    for kind, names in MAPPING.items()
    for name in ((names,) if isinstance(names, str) else names)
    if kind not in EXCEPTIONS or (kind in REQUIRED and find_spec(REQUIRED[kind]))
]
State = dict[str, torch.Tensor]


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here may ask a Hub."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def processor(kind: str) -> Any:
    """The architecture's own image processor where it takes more than pixels, otherwise a plain one."""
    size = {"height": side(kind), "width": side(kind)}
    if kind == "imagegpt":
        corners = [[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)]
        return transformers.ImageGPTImageProcessorPil(clusters=corners, size=size)
    if kind == "siglip2":
        return transformers.Siglip2ImageProcessorPil(
            patch_size=CONFIGS[kind]["vision_config"]["patch_size"], max_num_patches=6
        )
    return ViTImageProcessorPil(size=size)


@torch.no_grad()
def noisy(model: Any, state: State, strength: float, seed: int) -> State:
    """Weights moved by noise in proportion to their spread, batch-norm statistics too, counters counted on."""
    generator, trained = torch.Generator().manual_seed(seed), dict(model.named_parameters())
    found = {}
    for name, tensor in state.items():
        if name.endswith("num_batches_tracked"):
            found[name] = tensor + 7 * seed
        elif name.endswith("running_var"):
            found[name] = tensor * (strength * torch.randn(tensor.shape, generator=generator)).exp()
        elif name in trained or name.endswith("running_mean"):
            scale = tensor[0].numel() ** -0.5 if tensor.ndim > 1 else 0.3
            found[name] = tensor + strength * scale * torch.randn(tensor.shape, generator=generator)
        else:
            found[name] = tensor
    return found


def build(kind: str, name: str, folder: Path) -> tuple[Any, list[Path], list[State]]:
    """A small random model, the folders of three disturbed copies, and their weights by the model's names."""
    labels = {"id2label": dict(enumerate(NAMES)), "label2id": {name: i for i, name in enumerate(NAMES)}}
    config = AutoConfig.for_model(kind, **CONFIGS[kind], **labels, num_labels=len(NAMES))
    torch.manual_seed(0)
    model = getattr(transformers, name)(config).eval()
    start = noisy(model, {k: v.clone() for k, v in model.state_dict().items()}, 1.0, 0)
    folders, states = [], []
    for seed in (1, 2, 3):
        states.append(noisy(model, start, 0.1, seed))
        model.load_state_dict(states[-1])
        folders.append(folder / f"run-{seed}")
        model.save_pretrained(folders[-1])
        processor(kind).save_pretrained(folders[-1])
    return model, folders, states


def averaged(states: list[State], coefficients: tuple[float, ...]) -> State:
    """The float64 average of state dicts: means, pooled variances, the largest counters."""
    used = [(s, c) for s, c in zip(states, coefficients, strict=True) if c]
    found = {}
    for name, tensor in used[0][0].items():
        if not tensor.is_floating_point():
            found[name] = torch.stack([s[name] for s, _ in used]).amax(0)
            continue
        found[name] = sum((c * s[name].double() for s, c in used), torch.zeros(()))
        if name.endswith("running_var"):
            mean = name.removesuffix("var") + "mean"
            centre = sum((c * s[mean].double() for s, c in used), torch.zeros(()))
            found[name] = found[name] + sum((c * (s[mean].double() - centre) ** 2 for s, c in used), torch.zeros(()))
    return found


def filled(model: Any, state: State) -> Any:
    """The model with these weights."""
    model.load_state_dict(state)
    return model


@torch.no_grad()
def forward(model: Any, given: Any) -> torch.Tensor:
    """Logits, images × classes, with inputs in the model's own type."""
    dtype = next(model.parameters()).dtype
    found = model(**{k: v.to(dtype) if v.is_floating_point() else v for k, v in given.items()})
    logits: torch.Tensor = found.logits if "logits" in found else found.last_hidden_state
    return logits.double()


def through_pipeline(folder: Path, images: list[Image]) -> torch.Tensor:
    """Logits from a pipeline on a folder, by the class names that it gives."""
    classify = pipeline("image-classification", str(folder), function_to_apply="none", top_k=len(NAMES))
    rows = [{found["label"]: found["score"] for found in classify(image)} for image in images]
    return torch.tensor([[row[name] for name in NAMES] for row in rows], dtype=torch.float64)


def with_classes_reordered(folder: Path, target: Path, heads: dict[str, int]) -> Path:
    """The same function with its classes in another order; `heads` gives the axis that runs over the classes."""
    names = [NAMES[i] for i in ORDER]
    target.mkdir()
    for file in folder.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    if "label_names" in json.loads((target / "config.json").read_text()):
        edit_json(target / "config.json", label_names=names)
    else:
        edit_json(target / "config.json", id2label=dict(enumerate(names)), label2id={n: i for i, n in enumerate(names)})
    index = torch.tensor(ORDER)
    put_weights(target, {k: v.index_select(heads[k], index) if k in heads else v for k, v in weights(folder).items()})
    return target


def heads(folder: Path, kind: str, name: str) -> dict[str, int]:
    """The tensors of a file that are larger where the same model has one class more, with the axis that is."""
    config = AutoConfig.for_model(kind, **CONFIGS[kind], num_labels=len(NAMES) + 1)
    getattr(transformers, name)(config).save_pretrained(folder.parent / "larger")
    here, larger = weights(folder), weights(folder.parent / "larger")
    pairs = {k: list(zip(v.shape, larger[k].shape, strict=True)) for k, v in here.items()}
    return {k: axis for k, sides in pairs.items() for axis, (a, b) in enumerate(sides) if a != b}


@pytest.mark.parametrize(("kind", "name"), CLASSES)
def test_a_soup_is_the_float64_average(kind: str, name: str, data: Path, images: Any, tmp_path: Path) -> None:
    """Uniform and greedy soups of any classifier load without complaint and give the exact average's logits, whatever
    order an ingredient's classes stand in."""
    model, folders, states = build(kind, name, tmp_path)
    words = [str(folder) for folder in folders]
    uniform = hfsoup.bake(*words, recipe="uniform", output=str(tmp_path / "uniform"))
    greedy = hfsoup.bake(
        *words, recipe="greedy", dataset=str(data), limit=BATCH, batch_size=BATCH, bn="average",
        output=str(tmp_path / "greedy"),
    )  # fmt: skip
    assert len(greedy.trace) == len(folders) - 1
    pictures = images["test"][:4]["image"]
    given, exact = processor(kind)(images=pictures, return_tensors="pt"), model.double()
    for soup in (uniform, greedy):
        assert soup.path is not None
        loaded, info = AutoModelForImageClassification.from_pretrained(soup.path, output_loading_info=True)
        assert type(loaded).__name__ == name
        assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")), info
        wanted = forward(filled(exact, averaged(states, soup.mix.coefficients)), given)
        spread = wanted.std()
        found = forward(loaded.eval(), given)
        assert (found - wanted).abs().max() < 1e-4 * spread
        apart = max(float((forward(filled(exact, state), given) - wanted).abs().max()) for state in states)
        assert apart > 1e-2 * spread
        # transformers' pipeline asks for logits, which this one's output does not have.
        if kind != "pp_lcnet":
            assert (through_pipeline(soup.path, pictures[:2]) - wanted[:2]).abs().max() < 1e-4 * spread
    axes = heads(folders[1], kind, name)
    other = with_classes_reordered(folders[1], tmp_path / "reordered", axes)
    again = hfsoup.bake(words[0], str(other), words[2], recipe="uniform", output=str(tmp_path / "again"))
    assert again.family.orders[1] is not None
    assert again.sha256 == uniform.sha256


def other_values(value: Any) -> list[Any]:
    """Values of the same kind that a config might have instead."""
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        return [value + 1, 2 * value, max(value // 2, 1)]
    if isinstance(value, float):
        return [2 * value + 0.1]
    active = isinstance(value, str) and value in transformers.activations.ACT2FN
    return ["gelu" if value == "relu" else "relu"] if active else []


def changed_configs(values: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Configs with another number, switch or activation in one place, and the name of the place."""
    for key, value in values.items():
        if key.startswith("_") or key in ("num_labels", "model_type", "dtype", "text_config"):
            continue
        if isinstance(value, dict):
            yield from ((f"{key}.{name}", {**values, key: below}) for name, below in changed_configs(value))
        elif isinstance(value, list):
            # Of a list the last number alone: one of several stages.
            yield from ((key, {**values, key: [*value[:-1], new]}) for old in value[-1:] for new in other_values(old))
        else:
            yield from ((key, {**values, key: new}) for new in other_values(value))


@pytest.mark.parametrize("kind", SERVED)
def test_what_changes_logits_is_a_difference(kind: str, images: Any, alone: Path) -> None:
    """A value of a config with which the same weights give other logits cannot be baked with the value it had."""
    name = MAPPING[kind] if isinstance(MAPPING[kind], str) else MAPPING[kind][0]
    model, (folder, *_), (state, *_) = build(kind, name, alone)
    given = processor(kind)(images=images["test"][:2]["image"], return_tensors="pt")
    wanted = forward(filled(model, state), given)
    values = {**json.loads(model.config.to_json_string(use_diff=False)), "architectures": [name]}
    other, seen = copy_model(folder, alone / "other"), set[str]()
    for place, config in changed_configs(values):
        if place in seen:
            continue
        try:
            again = type(model)(type(model.config).from_dict(copy.deepcopy(config))).eval()
            found = forward(filled(again, state), given)
        except (*LOADING_ERRORS, StrictDataclassError):
            continue
        if found.shape == wanted.shape and (found - wanted).abs().max() > 1e-6 * wanted.std():
            (other / "config.json").write_text(json.dumps(config))
            assert f"config {place} is" in refused("bake", folder, other, code=1), config
            seen.add(place)
    # Of these two, what can be changed and still takes the weights changes nothing.
    assert seen or kind in ("levit", "pvt")


@pytest.mark.parametrize("kind", SERVED)
def test_a_config_that_was_saved_again_is_no_difference(kind: str, tmp_path: Path) -> None:
    """Whatever transformers adds to it on the way."""
    AutoConfig.for_model(kind, **CONFIGS[kind], num_labels=len(NAMES)).save_pretrained(tmp_path / "0")
    for n in range(2):
        AutoConfig.from_pretrained(tmp_path / str(n)).save_pretrained(tmp_path / str(n + 1))
    saved = [json.loads((tmp_path / str(n) / "config.json").read_text()) for n in range(3)]
    first, *others = (cast("Checkpoint", SimpleNamespace(config=config, labels=NAMES)) for config in saved)
    for other in others:
        assert list(compare_configs(first, other)) == []


def test_renamed_tensors_are_compared_too(vit: Family, data: Path, alone: Path) -> None:
    """A config that does not fit its files is told by a tensor's name in the file, which is not the model's own."""
    folder = copy_model(vit.folders[0], alone / "model", intermediate_size=40)
    told = refused("bake", folder, vit.folders[1], "--recipe", "greedy", "--dataset", data, code=1)
    assert "intermediate_size" in told
    told = refused("bake", folder, "--recipe", "greedy", "--dataset", data, code=1)
    (name,) = (word for word in told.split() if word.startswith("vit."))
    assert name in weights(folder)
    assert "config.json describes shape [40" in told


def test_every_architecture_has_a_small_model() -> None:
    """The configs are those of the classifiers that transformers has, and no others."""
    assert set(CONFIGS) == set(MAPPING)


@pytest.mark.parametrize("kind", sorted({*EXCEPTIONS, *REQUIRED}))
def test_what_cannot_be_served_is_a_clear_error(kind: str, vit: Family, data: Path, alone: Path) -> None:
    """A checkpoint of an architecture that cannot be scored ends with one block that says why, not with a traceback."""
    if kind in REQUIRED and find_spec(REQUIRED[kind]):
        pytest.skip(f"{REQUIRED[kind]} is installed, so this architecture is served")
    names = {"id2label": dict(enumerate(NAMES)), "label2id": {name: i for i, name in enumerate(NAMES)}}
    folder = copy_model(vit.folders[0], alone / "model")
    (folder / "config.json").write_text(json.dumps({**CONFIGS[kind], **names, "model_type": kind}))
    told = refused("bake", folder, "--recipe", "greedy", "--dataset", data, code=1)
    assert kind in told or "pip install 'hfsoup[timm]'" in told
    assert REQUIRED.get(kind, "no head with a row for each class") in told


@pytest.mark.skipif(find_spec("timm") is not None, reason="timm is installed")
def test_a_missing_package_is_named_with_its_install_line(vit: Family, alone: Path) -> None:
    """Where all that a glob matches needs timm, the error's one hint installs it."""
    for folder in vit.folders:
        values = {"architecture": "resnet18", "num_classes": 6, "pretrained_cfg": {}}
        (copy_model(folder, alone / folder.name) / "config.json").write_text(json.dumps(values))
    for command in ("bake", "check"):
        told = refused(command, "./vit-*", code=1)
        assert told.endswith("try: pip install 'hfsoup[timm]'\n")


@pytest.mark.parametrize("kind", sorted(EXCEPTIONS))
def test_the_page_names_what_cannot_be_served(kind: str) -> None:
    """Its table has a row of the type and the reason."""
    assert f"| `{kind}` | {EXCEPTIONS[kind]} |" in text_of("checkpoints.md")
