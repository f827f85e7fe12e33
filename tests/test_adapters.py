"""LoRA adapters as ingredients, held against peft's own merge, and soups that are adapters."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from family import Family, accuracy, cast, copy_model, edit_json, put_weights, weights
from huggingface_hub import HfApi
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from shell import bake, refused, run
from transformers import AutoConfig, AutoModelForImageClassification

import hfsoup
from hfsoup.localhub import LocalHub

HEAD = {"modules_to_save": ["classifier"]}
KINDS = {
    "linear": ("vit", {"target_modules": ["q_proj", "v_proj"], **HEAD}),
    "rslora": ("vit", {"target_modules": "all-linear", "use_rslora": True, **HEAD}),
    "patterns": (
        "vit",
        {
            "target_modules": ["q_proj", "fc1", "projection"],
            "rank_pattern": {"fc1": 2},
            "alpha_pattern": {"layers.0.attention.q_proj": 3},
        },
    ),
    "biases": ("vit", {"target_modules": ["q_proj"], "bias": "all", **HEAD}),
    "lora biases": ("vit", {"target_modules": ["q_proj"], "bias": "lora_only"}),
    "convolutions": ("resnet", {"target_modules": ["convolution"], **HEAD}),
    "batch norms": ("resnet", {"target_modules": ["convolution"], "modules_to_save": ["classifier", "normalization"]}),
}


def adapt(base: Path, target: Path, seed: int, name: str | None = None, strength: float = 0.04, **options: Any) -> Path:
    """An adapter on `base`, whose trained tensors are disturbed; `name` is what it calls its base."""
    model = AutoModelForImageClassification.from_pretrained(base)
    adapted = get_peft_model(model, LoraConfig(r=4, lora_alpha=8, **options))
    torch.manual_seed(seed)
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            parameter.data += strength * torch.randn_like(parameter)
    adapted.save_pretrained(target)
    if name:
        edit_json(target / "adapter_config.json", base_model_name_or_path=name)
    return target


def merged(base: Path, adapter: Path) -> dict[str, torch.Tensor]:
    """What peft makes of an adapter, in float64, by the model's own names."""
    model = PeftModel.from_pretrained(AutoModelForImageClassification.from_pretrained(base), adapter)
    return dict(model.double().merge_and_unload().state_dict())


def own(folder: Path) -> dict[str, torch.Tensor]:
    """A model folder by the model's own names."""
    return dict(AutoModelForImageClassification.from_pretrained(folder).state_dict())


def push(api: HfApi, repo: str, folder: Path) -> None:
    api.create_repo(repo, exist_ok=True)
    api.upload_folder(repo_id=repo, folder_path=folder)


@pytest.fixture
def pair(vit: Family, alone: Path) -> list[Path]:
    """Two adapters with heads on the first ViT."""
    return [adapt(vit.folders[0], Path(f"lora-{n}"), n, **KINDS["linear"][1]) for n in range(2)]


@pytest.fixture
def api(signed_in: LocalHub) -> HfApi:
    """The Hub's first user."""
    return HfApi(token=signed_in.token)


@pytest.mark.parametrize("kind", KINDS)
def test_a_soup_of_adapters_is_the_mean_of_what_peft_merges(
    kind: str, alone: Path, request: pytest.FixtureRequest
) -> None:
    """Each ΔW is formed before it is averaged, for every form of LoRA that is supported, within one rounding."""
    name, options = KINDS[kind]
    base = request.getfixturevalue(name).folders[0]
    adapters = [adapt(base, Path(f"lora-{n}"), n, **options) for n in range(2)]
    hfsoup.bake(*map(str, adapters), output="soup")
    first, second = (merged(base, adapter) for adapter in adapters)
    for tensor, found in own(Path("soup")).items():
        mean = (first[tensor].double() + second[tensor].double()) / 2
        torch.testing.assert_close(found.double(), mean, rtol=2e-7, atol=1e-8)
    changed = {n for n in first if not torch.equal(first[n].float(), own(base)[n])}
    assert len(changed) >= 2


def exact_mean(base: Path, adapters: list[Path], name: str) -> tuple[torch.Tensor, torch.Tensor]:
    """W and the mean of scaling·B·A of one layer, in float64."""
    layer = "base_model.model." + name.removesuffix(".weight")
    files = [load_file(adapter / "adapter_model.safetensors") for adapter in adapters]
    deltas = [2 * f[f"{layer}.lora_B.weight"].double() @ f[f"{layer}.lora_A.weight"].double() for f in files]
    return own(base)[name].double(), torch.stack(deltas).mean(0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_adapters_are_averaged_before_they_are_rounded(dtype: torch.dtype, vit: Family, alone: Path) -> None:
    """Whatever the base is stored in, the soup is W + the mean of all ΔW, rounded once: small steps of adapters on a
    half are not lost, and in float32 hardly anything is."""
    base = cast(vit.folders[0], alone / "base", dtype)
    adapters = [adapt(base, Path(f"lora-{n}"), n, strength=0.004, **KINDS["linear"][1]) for n in range(4)]
    bake(*adapters, "--output", "soup")
    bake(*adapters, "--dtype", "float32", "--output", "single")
    for name in (f"vit.layers.{n}.attention.{side}_proj.weight" for n in range(2) for side in "qv"):
        start, mean = exact_mean(base, adapters, name)
        assert own(Path("single"))[name].equal((start + mean).float())
        # torch rounds float64 to float16 by way of float32.
        exact = (start + mean).numpy().astype(np.float16) if dtype == torch.float16 else (start + mean).to(dtype)
        assert own(Path("soup"))[name].equal(torch.as_tensor(exact))
        lost = (own(Path("single"))[name].double() - start - mean).norm() / mean.norm()
        assert lost < 1e-3
    found = weights(Path("soup"))
    assert {tensor.dtype for tensor in found.values()} == {dtype}
    assert json.loads(Path("soup/config.json").read_text())["dtype"] == str(dtype).removeprefix("torch.")
    for soup in ("soup", "single"):
        done = run("verify", soup)
        assert done.code == 0, done.err


def test_a_record_of_adapters_that_were_rounded_first_says_so(vit: Family, alone: Path) -> None:
    """Soups of an earlier version had each adapter rounded before the average: verify says why they differ."""
    base = cast(vit.folders[0], alone / "base", torch.bfloat16)
    adapters = [adapt(base, Path(f"lora-{n}"), n, **KINDS["linear"][1]) for n in range(2)]
    bake(*adapters, "--output", "soup")
    state = weights(Path("soup"))
    name = next(name for name in state if "query.weight" in name)
    put_weights(Path("soup"), {**state, name: state[name] + 1})
    record = json.loads(Path("soup/soup.json").read_text())
    record["files"]["model.safetensors"] = sha256(Path("soup/model.safetensors").read_bytes()).hexdigest()
    Path("soup/soup.json").write_text(json.dumps(record))
    assert "rounded to the base's dtype" not in refused("verify", "soup", code=1)
    for ingredient in record["ingredients"]:
        del ingredient["merged"]
    Path("soup/soup.json").write_text(json.dumps(record))
    assert "its adapters were rounded to the base's dtype before averaging" in refused("verify", "soup", code=1)


@pytest.mark.parametrize("wrap", [lambda n: n, lambda n: f"model.{n}"], ids=["state dict", "wrapped"])
def test_an_adapter_lies_on_a_base_of_any_names(wrap: Callable[[str], str], vit: Family, alone: Path) -> None:
    """A base by the names of its state dict, or from inside a wrapper, gives the merged model of the same base."""
    copy_model(vit.folders[0], alone / "named")
    put_weights(alone / "named", {wrap(name): tensor for name, tensor in own(vit.folders[0]).items()})
    adapters = [adapt(vit.folders[0], Path(f"lora-{n}"), n, **KINDS["linear"][1]) for n in range(2)]
    bake(*adapters, "--output", "plain")
    edit_json(adapters[1] / "adapter_config.json", base_model_name_or_path=str(alone / "named"))
    bake(*adapters, "--output", "soup")
    assert Path("soup/model.safetensors").read_bytes() == Path("plain/model.safetensors").read_bytes()


def test_adapters_are_looked_at_side_by_side(vit: Family, alone: Path) -> None:
    """In a process that has loaded no library yet, no matter how many adapters ask for one at once."""
    adapters = [adapt(vit.folders[0], Path(f"lora-{n}"), n, **KINDS["linear"][1]) for n in range(6)]
    words = [sys.executable, "-m", "hfsoup", "check", *(f"./{adapter}" for adapter in adapters)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_merge_looks_at_what_adapters_make_of_their_base(pair: list[Path], data: Path) -> None:
    """A merge that is told what images say of every ingredient gets it of the merged ones, and can be verified."""
    told = ("--recipe", "uniform", "--dataset", data, "--output")
    bake(*pair, *told, "mean")
    bake(*pair, "--merge", "fisher", *told, "soup")
    mean, soup = weights(Path("mean")), weights(Path("soup"))
    assert not any(soup[name].allclose(tensor, atol=1e-5) for name, tensor in mean.items() if "q_proj.weight" in name)
    assert run("verify", "soup").code == 0


def test_an_adapter_on_the_hub_is_pinned_with_its_base(vit: Family, api: HfApi, alone: Path) -> None:
    """Mixed with a whole model; base and adapters may be pushed to afterwards, and the soup is still verified."""
    push(api, "kit/start", vit.folders[0])
    commit = api.model_info("kit/start").sha
    for n in range(2):
        push(api, f"kit/lora-{n}", adapt(vit.folders[0], Path(f"a{n}"), n, "kit/start", **KINDS["linear"][1]))
    push(api, "kit/start-tuned", vit.folders[1])
    # A folder of the base's name must not take its place.
    shutil.copytree(vit.folders[2], "kit/start")
    checked = run("check", "kit/lora-*", "kit/start-tuned", "--json", "-")
    assert checked.json["verdict"] == "soup"
    assert [row["base_model"] for row in checked.json["ingredients"]] == ["kit/start", "kit/start", None]
    bake("kit/lora-*", "kit/start-tuned", "--output", "soup")
    record = json.loads(Path("soup/soup.json").read_text())["ingredients"][0]
    assert [file["name"] for file in record["files"]] == ["adapter_config.json", "adapter_model.safetensors"]
    assert (record["base"]["id"], record["base"]["revision"]) == ("kit/start", commit)
    assert "- kit/start\n" in Path("soup/README.md").read_text()
    assert "an adapter on [kit/start](" in Path("soup/README.md").read_text()
    push(api, "kit/start", vit.folders[3])
    done = run("verify", "soup")
    assert done.code == 0, done.err


def test_a_base_that_changed_since_is_named(vit: Family, pair: list[Path]) -> None:
    """A local base is known by its hashes."""
    shutil.copytree(vit.folders[0], "start")
    for adapter in pair:
        edit_json(adapter / "adapter_config.json", base_model_name_or_path="./start")
    bake("./lora-0", "./lora-1", "--output", "soup")
    put_weights(Path("start"), weights(vit.folders[1]))
    assert "base ./start of lora-0: its weight files differ from those that were baked" in refused(
        "verify", "soup", code=1
    )


def test_a_damaged_merge_in_the_cache_is_made_again(pair: list[Path]) -> None:
    """What hfsoup keeps is hashed before it is used."""
    from hfsoup.utils.cache import cache_root

    first = bake("./lora-0", "./lora-1", "--output", "one")["soup"]["sha256"]
    for path in (cache_root() / "merged").glob("*/model.safetensors"):
        path.write_bytes(path.read_bytes()[:-4] + b"\0\0\0\0")
    assert bake("./lora-0", "./lora-1", "--output", "two")["soup"]["sha256"] == first


def test_a_head_for_other_classes_needs_their_names(vit: Family, alone: Path) -> None:
    """On a body without a head the classes come from a config.json beside the adapter, and are asked for without."""
    base = Path("body")
    shutil.copytree(vit.folders[0], base)
    edit_json(base / "config.json", architectures=["ViTModel"], id2label=None, label2id=None)
    tensors = weights(base)
    body = {name.removeprefix("vit."): tensor for name, tensor in tensors.items() if name.startswith("vit.")}
    put_weights(base, {**body, "pooler.dense.weight": torch.zeros(32, 32), "pooler.dense.bias": torch.zeros(32)})
    adapter = adapt(vit.folders[0], Path("lora"), 0, str(base.absolute()), **KINDS["linear"][1])
    error = refused("bake", "./lora", vit.words[1], code=1)
    assert "their names are unknown" in error
    assert "config.save_pretrained(ADAPTER)" in error
    shutil.copy(vit.folders[0] / "config.json", adapter)
    bake("./lora", vit.words[1], "--output", "soup")
    found, expected, other = own(Path("soup")), merged(vit.folders[0], adapter), own(vit.folders[1])
    for name, tensor in found.items():
        torch.testing.assert_close(tensor.double(), (expected[name] + other[name].double()) / 2, rtol=2e-7, atol=1e-8)


def test_a_soup_as_an_adapter_is_scored_and_verified_as_it_is_written(
    vit: Family, pair: list[Path], data: Path, images: Any
) -> None:
    """peft loads it on the base; its accuracy is the one reported, and its error the one that is stated."""
    found = bake(
        *(f"./{p}" for p in pair), "--as-adapter", 3, "--dataset", data, "--recipe", "uniform", "--output", "s"
    )
    config = AutoConfig.from_pretrained("s")
    start = AutoModelForImageClassification.from_pretrained(vit.folders[0], config=config)
    PeftModel.from_pretrained(start, "s").merge_and_unload().save_pretrained("whole")
    shutil.copy("s/preprocessor_config.json", "whole")
    assert accuracy(Path("whole"), images["test"]) == found["soup"]["test"]
    base, whole = own(vit.folders[0]), own(Path("whole"))
    means = [merged(vit.folders[0], adapter) for adapter in pair]
    lost = total = 0.0
    for name, tensor in base.items():
        mean = (means[0][name] + means[1][name]) / 2
        if "_proj.weight" in name:
            lost += float((mean - whole[name].double()).square().sum())
            total += float((mean - tensor.double()).square().sum())
        else:
            torch.testing.assert_close(whole[name].double(), mean, rtol=2e-7, atol=1e-8)
    assert found["adapter"]["error"] == pytest.approx((lost / total) ** 0.5, rel=1e-4)
    assert 0.01 < found["adapter"]["error"] < found["adapter"]["worst"] < 1
    card = Path("s/README.md").read_text()
    assert f"{100 * found['adapter']['error']:.3g} % of ΔW" in card
    done = run("verify", "s", "--scores")
    assert done.code == 0, done.err


def test_a_full_rank_adapter_of_convolutions_is_the_average(resnet: Family, alone: Path) -> None:
    """With a rank as large as both together nothing is lost."""
    base = resnet.folders[0]
    for n in range(2):
        adapt(base, Path(f"lora-{n}"), n, **KINDS["convolutions"][1])
    found = bake("./lora-0", "./lora-1", "--as-adapter", 8, "--output", "soup")
    assert found["adapter"]["error"] < 1e-6
    bake("./lora-0", "./lora-1", "--output", "mean")
    loaded = PeftModel.from_pretrained(AutoModelForImageClassification.from_pretrained(base), "soup")
    for name, tensor in loaded.merge_and_unload().state_dict().items():
        torch.testing.assert_close(tensor, own(Path("mean"))[name], rtol=1e-5, atol=1e-6)


def test_a_soup_that_is_an_adapter_needs_adapters_on_one_base(vit: Family, pair: list[Path]) -> None:
    """A whole model, or an adapter of another base, is named."""
    assert vit.words[1] in refused("bake", "./lora-0", vit.words[1], "--as-adapter", 4, code=1)
    adapt(vit.folders[1], Path("other"), 5, **KINDS["linear"][1])
    assert "expected adapters on one base" in refused("bake", "./lora-0", "./other", "--as-adapter", 4, code=1)


def config(**changes: Any) -> Callable[[Path], None]:
    return lambda folder: edit_json(folder / "adapter_config.json", **changes)


def tensors(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], None]:
    def act(folder: Path) -> None:
        found = load_file(folder / "adapter_model.safetensors")
        change(found)
        save_file({k: v.contiguous() for k, v in found.items()}, folder / "adapter_model.safetensors")

    return act


PREFIX = "base_model.model."
LAYER = f"{PREFIX}vit.layers.0.attention.q_proj.lora_"
REFUSED = {
    "another type": (config(peft_type="LOHA"), "not supported: adapters of type 'LOHA'"),
    "dora": (config(use_dora=True), "not supported: 'use_dora'"),
    "a later idea": (config(use_tomorrow={"x": 1}), "not supported: 'use_tomorrow'"),
    "pissa": (config(init_lora_weights="pissa"), "not supported: init_lora_weights 'pissa'"),
    "a slow expression": (config(alpha_pattern={"(a+)+b": 2}), "not supported: the expression '(a+)+b'"),
    "no rank": (config(r=0), "expected a rank from 1"),
    "a huge rank": (config(r=10**12), "expected r to be a number"),
    "another rank": (config(r=8), "expected lora_A and lora_B of shapes [8, 32]"),
    "an endless alpha": (config(lora_alpha=10**400), "expected lora_alpha to be a number"),
    "no base": (config(base_model_name_or_path=7), "expected base_model_name_or_path to name the base"),
    "a glob as base": (config(base_model_name_or_path="kit/vit-*"), "expected the base to be a repository"),
    "an adapter as base": (config(base_model_name_or_path="lora-1"), "an adapter whose base is an adapter"),
    "half a layer": (tensors(lambda t: t.pop(f"{LAYER}A.weight")), "expected lora_A and lora_B, found one of them"),
    "no such layer": (
        tensors(lambda t: t.update({f"{PREFIX}z.lora_{half}.weight": torch.ones(4, 4) for half in "AB"})),
        "the base model has no such tensor",
    ),
    "a foreign name": (tensors(lambda t: t.update({"../x": torch.ones(1)})), "whose name begins with base_model."),
    "a magnitude": (
        tensors(lambda t: t.update({f"{LAYER}magnitude_vector.weight": torch.ones(32)})),
        "not supported: this tensor of an adapter",
    ),
    "an untold module": (
        tensors(lambda t: t.update({f"{PREFIX}vit.layernorm.weight": torch.ones(32)})),
        "not supported: a tensor of no module in modules_to_save",
    ),
    "another shape": (
        tensors(lambda t: t.update({f"{LAYER}B.weight": torch.ones(31, 4)})),
        "expected lora_A and lora_B of shapes [4, 32] and [32, 4]",
    ),
    "no weights": (lambda f: (f / "adapter_model.safetensors").unlink(), "expected adapter_model.safetensors"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_supported_or_not_true_is_refused(case: str, pair: list[Path]) -> None:
    """One clear block for every adapter that cannot be merged exactly, and nothing written."""
    change, said = REFUSED[case]
    change(pair[0])
    assert said in refused("bake", "./lora-0", "--output", "soup", code=1)
    assert not Path("soup").exists()


def test_an_adapter_on_the_hub_names_no_folder(vit: Family, api: HfApi, pair: list[Path]) -> None:
    """A base that is a path is refused even where there is such a folder."""
    push(api, "kit/pathlora", pair[0])
    error = refused("bake", "kit/pathlora", code=1)
    assert "expected the base to be a repository on the Hub" in error
