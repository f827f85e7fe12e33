"""Which of an ingredient's weight files is read, and what is said of folders and files that are no model yet."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from family import Family, cast, copy_model, edit_json, put_weights, weights
from huggingface_hub import HfApi, save_torch_state_dict
from safetensors.torch import save_file
from shell import bake, refused, run

from hfsoup.localhub import LocalHub

State = dict[str, torch.Tensor]
EMA = "state_dict_ema"


def averaged(folder: Path) -> State:
    """The state of a model that is not the one in its file."""
    return {name: tensor + 1 if tensor.is_floating_point() else tensor for name, tensor in weights(folder).items()}


def half(folder: Path) -> None:
    save_file({n: t.half() for n, t in averaged(folder).items()}, folder / "model.fp16.safetensors", {"format": "pt"})


def pickled(folder: Path) -> None:
    torch.save(averaged(folder), folder / "model_ema.bin")


def sharded(folder: Path) -> None:
    save_torch_state_dict(averaged(folder), folder, filename_pattern="ema{suffix}.safetensors", max_shard_size=20_000)


def trained(folder: Path) -> None:
    """What a training script saves with torch.save."""
    state = {"state_dict": weights(folder), EMA: averaged(folder), "epoch": 3, "optimizer": {"lr": [0.1]}}
    torch.save(state, folder / "checkpoint.pth")


def nested(folder: Path) -> None:
    """A copy beside the model, in one file of plain tensors."""
    state = {**weights(folder), **{f"{EMA}.{name}": tensor for name, tensor in averaged(folder).items()}}
    put_weights(folder, state)


CHOSEN: dict[str, tuple[Callable[[Path], None], list[str]]] = {
    "half": (half, ["--weights-file", "model.fp16.safetensors"]),
    "pickled": (pickled, ["--weights-file", "model_ema.bin"]),
    "sharded": (sharded, ["--weights-file", "ema.safetensors"]),
    "under a key": (trained, ["--weights-file", "checkpoint.pth", "--state-dict-key", EMA]),
    "beside the model": (nested, ["--state-dict-key", EMA]),
}


@pytest.mark.parametrize("case", CHOSEN)
def test_another_state_is_read_on_request(case: str, vit: Family, data: Path, alone: Path) -> None:
    """The soup is that of the state that is named, in bake, eval, check and verify; without the flags it is not."""
    change, flags = CHOSEN[case]
    folders = [copy_model(folder, alone / folder.name) for folder in vit.folders[:2]]
    for folder in folders:
        change(folder)
    bake(*folders, *flags, "--output", "soup")
    for n in range(2):
        expected = copy_model(vit.folders[n], alone / f"plain-{n}")
        put_weights(expected, averaged(vit.folders[n]))
        if case == "half":
            cast(expected, alone / f"cast-{n}", torch.float16)
    plain = [alone / f"{'cast' if case == 'half' else 'plain'}-{n}" for n in range(2)]
    bake(*plain, "--output", "plain")
    found, wanted = weights(Path("soup")), weights(Path("plain"))
    assert found.keys() == wanted.keys()
    assert all(tensor.equal(wanted[name]) for name, tensor in found.items())
    record = json.loads(Path("soup/soup.json").read_text())
    assert [record["options"][name] for name in ("weights_file", "state_dict_key")] == [
        flags[flags.index(flag) + 1] if flag in flags else None for flag in ("--weights-file", "--state-dict-key")
    ]
    done = run("verify", "soup")
    assert done.code == 0, done.err
    assert run("check", *folders, *flags, "--json", "-").json["verdict"] == "soup"
    words = ("--dataset", data, "--json", "-")
    other = run("eval", vit.folders[0], *words).json["score"]
    assert run("eval", plain[0], *words).json["score"] == run("eval", folders[0], *flags, *words).json["score"] != other
    if case != "sharded":
        assert run("eval", folders[0], *words).json["score"] == other
    (alone / "soup/README.md").read_text().index(" ".join(flags))


def test_the_file_is_all_that_is_pulled(vit: Family, signed_in: LocalHub, alone: Path) -> None:
    """Of a repository on the Hub, whose plan counts it, and whose header is read without the weights."""
    api = HfApi(token=signed_in.token)
    folder = copy_model(vit.folders[0], alone / "model")
    half(folder)
    for name in ("kit/two-files-1", "kit/two-files-2"):
        api.create_repo(name)
        api.upload_folder(repo_id=name, folder_path=folder)
    flags = ("--weights-file", "model.fp16.safetensors")
    planned = run("bake", "kit/two-files-*", *flags, "--dry-run", "--json", "-").json
    assert planned["to_pull"] < 2 * (folder / "model.safetensors").stat().st_size
    assert run("check", "kit/two-files-*", *flags, "--json", "-").json["ingredients"][0]["dtype"] == ["F16"]
    signed_in.forget_requests()
    bake("kit/two-files-*", *flags, "--output", "soup")
    assert not any("model.safetensors" in request for request in map(str, signed_in.requests))
    assert {tensor.dtype for tensor in weights(Path("soup")).values()} == {torch.float16}


REFUSED: dict[str, tuple[list[str], int, str]] = {
    "no such file": (["--weights-file", "model.fp32.safetensors"], 1, "expected model.fp32.safetensors, found"),
    "a path": (["--weights-file", "../model.safetensors"], 2, "must be the name of a .safetensors"),
    "no weights": (["--weights-file", "config.json"], 2, "must be the name of a .safetensors"),
    "no such key": (["--weights-file", "checkpoint.pth", "--state-dict-key", "ema"], 1, "'state_dict_ema'"),
    "a key of no tensors": (["--weights-file", "checkpoint.pth", "--state-dict-key", "optimizer"], 1, "found list"),
    "a key of none": (["--state-dict-key", "ema"], 1, "whose names begin with 'ema.'"),
    "no key": (["--weights-file", "checkpoint.pth"], 1, "--state-dict-key state_dict"),
    "an empty key": (["--state-dict-key", ""], 2, "must be the name of a key"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_there_cannot_be_chosen(case: str, vit: Family, alone: Path) -> None:
    """The error says what is there."""
    flags, code, told = REFUSED[case]
    folder = copy_model(vit.folders[0], alone / "model")
    trained(folder)
    assert told in refused("bake", folder, *flags, code=code)


def touch(*names: str) -> Callable[[Path], None]:
    def act(folder: Path) -> None:
        (folder / "model.safetensors").unlink()
        for name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(b"")

    return act


def coded(folder: Path) -> None:
    state = weights(folder)
    put_weights(folder, {**state, "classifier.weight": state["classifier.weight"].to(torch.int8)})


def emptied(folder: Path) -> None:
    put_weights(folder, {name: tensor[:0] for name, tensor in weights(folder).items()})


ADVICE: dict[str, tuple[Callable[[Path], Any], list[str]]] = {
    "bitsandbytes": (
        lambda f: edit_json(f / "config.json", quantization_config={"quant_method": "bitsandbytes"}),
        ["quantized ('bitsandbytes')", ".dequantize()"],
    ),
    "codes": (coded, ["found I8", ".dequantize()"]),
    "DeepSpeed": (touch("zero_to_fp32.py", "global_step9/mp_rank_00_model_states.pt"), ["python zero_to_fp32.py"]),
    "ZeRO-3": (emptied, ["python zero_to_fp32.py"]),
    "FSDP": (
        touch("pytorch_model_fsdp_0/__0_0.distcp"), ["accelerate merge-weights FOLDER/pytorch_model_fsdp_0 FOLDER"],
    ),
    "FSDP, a whole state": (touch("pytorch_model_fsdp.bin"), ["try: --weights-file pytorch_model_fsdp.bin"]),
    "DCP": (touch("model/__0_0.distcp"), ["accelerate merge-weights FOLDER/model FOLDER"]),
    "DeepSpeed by accelerate": (touch("pytorch_model/mp_rank_00_model_states.pt"), ["python zero_to_fp32.py"]),
    "Lightning": (touch("last.ckpt"), ["'last.ckpt', 'preprocessor_config.json'\n", "--weights-file last.ckpt"]),
    "a variant": (
        lambda f: (f / "model.safetensors").rename(f / "model.fp16.safetensors"), ["--weights-file model.fp16"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", ADVICE)
def test_what_is_no_model_yet_is_told_how_to_become_one(case: str, vit: Family, alone: Path) -> None:
    """Quantized checkpoints and states of training end with the next command to type."""
    change, told = ADVICE[case]
    folder = copy_model(vit.folders[0], alone / "model")
    change(folder)
    block = refused("bake", folder, code=1)
    assert all(text in block for text in told), block


SHARDED: dict[str, tuple[list[str], str]] = {
    "FSDP": (
        ["optimizer_0/__0_0.distcp", "pytorch_model_fsdp_0/__0_0.distcp", "trainer_state.json", "scheduler.pt"],
        "accelerate merge-weights {}/pytorch_model_fsdp_0 {}; copy config.json and the processor into {}\n",
    ),
    "DeepSpeed": (
        ["global_step5/zero_pp_rank_0_mp_rank_00_optim_states.pt", "latest", "zero_to_fp32.py", "trainer_state.json"],
        "python zero_to_fp32.py . MODEL, in {}; copy config.json and the processor into MODEL\n",
    ),
}  # fmt: skip


@pytest.mark.parametrize("place", ["hub", "local"])
@pytest.mark.parametrize("case", SHARDED)
def test_sharded_states_in_subfolders_are_told_how_to_become_models(
    case: str, place: str, vit: Family, signed_in: LocalHub, alone: Path
) -> None:
    """A run's folder, its checkpoint without a config, and a glob of them name the state and the command for it."""
    names, command = SHARDED[case]
    folder = copy_model(vit.folders[0], alone / "run")
    (folder / "model.safetensors").unlink()
    for name in names:
        (folder / "checkpoint-5" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "checkpoint-5" / name).touch()
    run_name = "./run"
    if place == "hub":
        run_name = f"kit/sharded-{case.lower()}"
        api = HfApi(token=signed_in.token)
        api.create_repo(run_name, exist_ok=True)
        api.upload_folder(repo_id=run_name, folder_path=folder)
    below = "that folder" if case == "DeepSpeed" else "FOLDER"
    for pattern, target in ((run_name, "FOLDER/checkpoint-5"), (f"{run_name}/checkpoint-5", below)):
        block = run("bake", pattern).err
        assert f"found the training state of {case}: " in block, block
        assert command.format(target, target, target) in block, block
    assert f"found the training state of {case}: " in run("bake", f"{run_name}/checkpoint-*").err


OFFERED = {
    "usual": ("model.safetensors", "model.fp16.safetensors", "--weights-file model.safetensors, or leave it out"),
    "nearest": ("model.fp16.safetensors", "model.fp61.safetensors", "--weights-file model.fp16.safetensors"),
    "nearest of two": (
        "model.safetensors model.fp16.safetensors",
        "model.fp61.safetensors",
        "--weights-file model.fp16.safetensors, or leave it out",
    ),
    "pickle": ("pytorch_model.bin", "model_ema.bin", "--weights-file pytorch_model.bin, or leave it out"),
}


@pytest.mark.parametrize("case", OFFERED)
def test_a_file_that_no_ingredient_has(case: str, vit: Family, alone: Path) -> None:
    """The weights that are there are what to type, for one ingredient and for all of a glob."""
    there, asked, offer = OFFERED[case]
    for n in range(2):
        copy_model(vit.folders[n], alone / f"m-{n}")
        content = (alone / f"m-{n}/model.safetensors").read_bytes()
        (alone / f"m-{n}/model.safetensors").unlink()
        for name in there.split():
            (alone / f"m-{n}/{name}").write_bytes(content)
    for words in (["./m-*"], ["./m-0", vit.words[0]]):
        block = refused("bake", *words, "--weights-file", asked, "--output", "soup", code=1)
        assert f"expected {asked}, found" in block
        if len(words) == 1:
            assert block.splitlines()[-1] == f"  try: {offer}"
    if case == "usual":
        bake("./m-*", *offer.split(",")[0].split(), "--output", "soup")


def test_shards_are_read_without_naming_a_file(vit: Family, alone: Path) -> None:
    """Where the weights stand in shards, no single one of them is offered."""

    from transformers import AutoModelForImageClassification

    for n in range(2):
        copy_model(vit.folders[n], alone / f"m-{n}")
        (alone / f"m-{n}/model.safetensors").unlink()
        model = AutoModelForImageClassification.from_pretrained(vit.folders[n], dtype=torch.float32)
        model.save_pretrained(alone / f"m-{n}", max_shard_size="20KB")
    words = ("bake", "./m-*", "--output", "soup")
    assert refused(*words, "--weights-file", "model.bin", code=1).endswith("try: leave out --weights-file\n")
    bake(*words[1:])
