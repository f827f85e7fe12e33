"""What a bake takes of disk and memory is told beforehand, the same in a dry run, and is what it then takes."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import threading
from collections import namedtuple
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image
from family import NAMES, Family, disturbed, write_parquet
from huggingface_hub import HfApi, constants
from peft import LoraConfig, get_peft_model
from PIL import Image as Pictures
from shell import bake, refused, run
from transformers import AutoConfig, AutoModelForImageClassification, ViTImageProcessorPil

from hfsoup.localhub import LocalHub
from hfsoup.utils import control_groups

SIDE = 64
LORA = {"r": 4, "target_modules": ["q_proj", "v_proj", "fc1", "fc2"], "modules_to_save": ["classifier"]}
CONFIGS: dict[str, dict[str, Any]] = {
    "vit": {
        "image_size": SIDE,
        "patch_size": 16,
        "hidden_size": 256,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 512,
    },
    "resnet": {"embedding_size": 32, "hidden_sizes": [64, 192], "depths": [2, 2], "layer_type": "basic"},
}
Usage = namedtuple("Usage", ("total", "used", "free"))


@dataclass(frozen=True)
class Shelf:
    """Models and images on the Hub that are large beside what every bake writes anyway."""

    hub: LocalHub
    names: dict[str, list[str]]


@pytest.fixture(scope="module")
def shelf(hub: LocalHub, tmp_path_factory: pytest.TempPathFactory) -> Shelf:
    """Families as big/KIND-n, adapters on big/vit-0 as big/lora-n, and images as big/shapes."""
    api, folder = HfApi(token=hub.add_user("big")), tmp_path_factory.mktemp("big")
    names: dict[str, list[str]] = {}

    def push(kind: str, n: int, path: Path) -> None:
        names.setdefault(kind, []).append(f"big/{kind}-{n}")
        api.create_repo(f"big/{kind}-{n}", exist_ok=True)
        api.upload_folder(repo_id=f"big/{kind}-{n}", folder_path=path)

    labels = {"id2label": dict(enumerate(NAMES)), "label2id": {name: i for i, name in enumerate(NAMES)}}
    processor = ViTImageProcessorPil(size={"height": SIDE, "width": SIDE})
    for kind, config in CONFIGS.items():
        torch.manual_seed(0)
        model = AutoModelForImageClassification.from_config(AutoConfig.for_model(kind, **config, **labels))
        start = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        for n in range(3):
            model.load_state_dict(disturbed(start, 0.02, n))
            model.save_pretrained(folder / f"{kind}-{n}")
            processor.save_pretrained(folder / f"{kind}-{n}")
            push(kind, n, folder / f"{kind}-{n}")
    for n in range(2):
        model = AutoModelForImageClassification.from_pretrained(folder / "vit-0")
        adapted = get_peft_model(model, LoraConfig(**LORA))
        adapted.save_pretrained(folder / f"lora-{n}")
        config_path = folder / f"lora-{n}" / "adapter_config.json"
        config_path.write_text(config_path.read_text().replace(str(folder / "vit-0"), "big/vit-0"))
        push("lora", n, folder / f"lora-{n}")
    random = np.random.default_rng(0)
    features = Features({"image": Image(), "label": ClassLabel(names=list(NAMES))})
    parts = {}
    for name, count in (("train", 90), ("validation", 60), ("test", 72)):
        pictures = [Pictures.fromarray(p) for p in random.integers(0, 255, (count, SIDE, SIDE, 3), dtype=np.uint8)]
        columns = {"image": pictures, "label": [n % len(NAMES) for n in range(count)]}
        parts[name] = Dataset.from_dict(columns, features=features)
    DatasetDict(parts).push_to_hub("big/shapes", token=api.token)
    return Shelf(hub, names)


def measure(*folders: Path) -> int:
    """The bytes of all files in some folders; what is linked counts once."""
    found: dict[tuple[int, int], int] = {}
    for path in (path for folder in folders if folder.is_dir() for path in folder.rglob("*")):
        try:
            info = path.lstat()
        except OSError:
            continue
        if not path.is_symlink() and path.is_file():
            found[info.st_dev, info.st_ino] = info.st_size
    return sum(found.values())


@contextmanager
def watching(look: Callable[[], int]) -> Iterator[list[int]]:
    """The values of `look` while the block lasts, one every few milliseconds."""
    seen, ended = [look()], threading.Event()

    def loop() -> None:
        while not ended.wait(0.005):
            seen.append(look())

    thread = threading.Thread(target=loop)
    thread.start()
    try:
        yield seen
    finally:
        ended.set()
        thread.join()
        seen.append(look())


DATA = ("--dataset", "big/shapes")
UNIFORM = ("--recipe", "uniform", *DATA)
BAKES = {
    "no data": ("vit", ()),
    "greedy": ("vit", DATA),
    "batch norms": ("resnet", UNIFORM),
    "limit": ("resnet", ("--limit", 24, *UNIFORM)),
    "learned": ("vit", ("--recipe", "learned", *DATA)),
    "bfloat16": ("vit", ("--dtype", "bfloat16", *UNIFORM)),
    "adapters": ("lora", UNIFORM),
    "as an adapter": ("lora", ("--as-adapter", 4, *UNIFORM)),
    "fisher": ("vit", ("--merge", "fisher", *UNIFORM)),
    "regmean": ("vit", ("--merge", "regmean", *UNIFORM)),
    "align and fit": ("resnet", ("--align", "activations", "--fit", *UNIFORM)),
    "distill": ("vit", ("--distill", 1, *DATA)),
    "shifts": ("vit", ("--shifts", *UNIFORM)),
    "another dataset": ("vit", ("--eval", "other=big/shapes", "--allow-duplicates", *UNIFORM)),
}
FEW = ("greedy", "batch norms", "as an adapter", "regmean")


@pytest.mark.parametrize(
    "name", [*FEW, *(pytest.param(name, marks=pytest.mark.soak, id=f"{name}, all") for name in BAKES)]
)
def test_a_bake_writes_what_it_said(name: str, shelf: Shelf, alone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From empty caches: the most that lies on the disk during a bake is within 20 % of what a dry run said."""
    kind, words = BAKES[name]
    monkeypatch.setenv("HF_TOKEN", shelf.hub.token)
    monkeypatch.setenv("HFSOUP_CACHE", str(alone / "cache"))
    command = [*shelf.names[kind], *words]
    shutil.rmtree(constants.HF_HUB_CACHE, ignore_errors=True)
    folders = (Path(constants.HF_HOME), alone)
    planned = bake(*command, "--output", "soup", "--dry-run")
    expected = sum(need["bytes"] for need in planned["disk"])
    before = measure(*folders)
    with watching(lambda: measure(*folders)) as seen:
        bake(*command, "--output", "soup")
    written = max(seen) - before
    assert 0.8 * written <= expected <= 1.2 * written, (written, planned["disk"])


@pytest.mark.parametrize("name", ["greedy", "as an adapter"])
def test_a_disk_that_is_a_little_too_small_is_refused_with_the_number_of_the_plan(
    name: str, shelf: Shelf, alone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dry run and bake refuse with one text, before anything is written; images as well as weights are counted."""
    kind, words = BAKES[name]
    monkeypatch.setenv("HF_TOKEN", shelf.hub.token)
    monkeypatch.setenv("HFSOUP_CACHE", str(alone / "cache"))
    shutil.rmtree(constants.HF_HUB_CACHE, ignore_errors=True)
    command = ["bake", *shelf.names[kind], *words, "--output", "soup"]
    needed = sum(need["bytes"] for need in bake(*command[1:], "--dry-run")["disk"])
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**9, 0, needed))
    before = measure(Path(constants.HF_HUB_CACHE), alone)
    blocks = [refused(*command, *more, code=1) for more in ([], ["--dry-run"])]
    assert blocks[0] == blocks[1]
    for purpose in ("ingredients", "the dataset", "prepared images", "the soup"):
        assert f"for {purpose}" in blocks[0]
    assert measure(Path(constants.HF_HUB_CACHE), alone) - before < 30_000
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**9, 0, needed + 10_000_000))
    assert run(*command).code == 0


MEASURE = """
import sys
from pathlib import Path
from hfsoup.cli import main
import accelerate, datasets, hfsoup.baking.pipeline, hfsoup.evaluation.scorer, hfsoup.networks.distillation.family
import hfsoup.networks.importance.family, hfsoup.networks.learned_coefficients
import transformers.models.vit.image_processing_pil_vit, transformers.models.vit.modeling_vit
def read(name):
    return next(int(line.split()[1]) for line in Path("/proc/self/status").read_text().splitlines() if name in line)
Path("/proc/self/clear_refs").write_text("5")
begun = read("VmRSS")
try:
    main()
except SystemExit as end:
    print("took", 1024 * (read("VmHWM") - begun), end.code)
"""
KINDS = {
    "learned": ("--recipe", "learned"),
    "uniform": ("--recipe", "uniform"),
    "distill": ("--distill", 1),
    "regmean": ("--recipe", "uniform", "--merge", "regmean"),
}


def take(*words: object) -> int:
    """The most memory that a bake takes beyond what Python and its libraries have, in a process of its own."""
    command = [sys.executable, "-c", MEASURE, *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = re.search(r"took (\d+) 0", done.stdout)
    assert found, done.stderr
    return int(found[1])


def make_plain(folder: Path, kind: str, side: int, images: Any, **config: Any) -> list[str]:
    """Two models and a folder of images that they take."""
    labels = {"id2label": dict(enumerate(NAMES)), "label2id": {name: i for i, name in enumerate(NAMES)}}
    torch.manual_seed(0)
    model = AutoModelForImageClassification.from_config(AutoConfig.for_model(kind, **config, **labels))
    start = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for n in range(2):
        model.load_state_dict(disturbed(start, 0.01, n))
        model.save_pretrained(folder / f"{n}")
        ViTImageProcessorPil(size={"height": side, "width": side}).save_pretrained(folder / f"{n}")
    return [str(folder / "0"), str(folder / "1"), "--dataset", str(write_parquet(images, folder / "data"))]


@pytest.mark.parametrize(
    "name", [*list(KINDS)[:1], *(pytest.param(k, marks=pytest.mark.soak) for k in list(KINDS)[1:])]
)
def test_a_bake_takes_the_memory_that_it_said(name: str, images: Any, alone: Path) -> None:
    """What a dry run says of larger models is what a bake of them takes more, within a third."""
    need, took = [], []
    for n, width in enumerate((128, 1024)):
        sizes = {"hidden_size": width, "intermediate_size": 2 * width, "num_attention_heads": 4, "num_hidden_layers": 2}
        words = [*make_plain(alone / f"{n}", "vit", 16, images, image_size=16, patch_size=8, **sizes), *KINDS[name]]
        words += ["--batch-size", "4", "--no-resume"]
        need.append(bake(*words, "--dry-run")["memory"]["bytes"])
        took.append(take("bake", *words, "--output", alone / f"soup-{n}"))
    assert (took[1] - took[0]) / (need[1] - need[0]) == pytest.approx(1, abs=0.34), (need, took)


def test_memory_grows_with_the_images_that_are_scored(images: Any, alone: Path) -> None:
    """Six images take the memory of six, not of a batch that they do not fill."""
    shape = {"embedding_size": 64, "hidden_sizes": [64], "depths": [1], "layer_type": "basic"}
    words = [
        "bake",
        *make_plain(alone / "models", "resnet", 192, images, **shape),
        "--recipe",
        "uniform",
        "--bn",
        "average",
    ]
    few, many = (take(*words, "--limit", limit, "--output", alone / f"soup-{limit}") for limit in (6, 60))
    assert many - few > 100_000_000, (few, many)


@pytest.mark.parametrize(("version", "line"), [("v1", "4:memory:/job/step"), ("v2", "0::/job/step")])
def test_a_bake_is_refused_by_what_its_control_group_has_left(
    version: str, line: str, vit: Family, data: Path, alone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The least of all groups that it is in, without files that can be dropped; a dry run says the same."""
    home = alone / "groups" / ("memory" if version == "v1" else "")
    names = ("memory.limit_in_bytes", "memory.usage_in_bytes") if version == "v1" else ("memory.max", "memory.current")
    dropped = "total_inactive_file 40000\n" if version == "v1" else "inactive_file 40000\n"
    for place, limit in (("", str(2**62)), ("job", "1000000"), ("job/step", str(2**62) if version == "v1" else "max")):
        (home / place).mkdir(parents=True, exist_ok=True)
        for name, value in zip((*names, "memory.stat"), (limit, "900000", dropped), strict=True):
            (home / place / name).write_text(value)
    (alone / "own").write_text(f"1:name=systemd:/\n{line}\n")
    monkeypatch.setattr(control_groups, "ROOT", alone / "groups")
    monkeypatch.setattr(control_groups, "OWN", alone / "own")
    command = ["bake", *vit.words, "--dataset", data, "--recipe", "uniform", "--output", "soup"]
    blocks = [refused(*command, *more, code=1) for more in ([], ["--dry-run"])]
    assert blocks[0] == blocks[1]
    assert "for scoring" in blocks[0]
    assert "found 140 kB" in blocks[0]
    assert not Path("soup").exists()
