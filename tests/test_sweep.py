"""The fine-tuning sweep, run as a user runs it."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import (
    AutoImageProcessor,
    AutoModelForImageClassification,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessorPil,
)

from hfsoup.cli.demo.digits import make_digits

ROOT = Path(__file__).parents[1]
STILL = {"learning_rate": 0.0, "num_train_epochs": 1}


def sweep(where: Path, *options: str) -> subprocess.CompletedProcess[str]:
    paths = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    return subprocess.run(
        [
            sys.executable,
            ROOT / "scripts/sweep.py",
            "--start",
            "start",
            "--dataset",
            "data",
            "--batch-size",
            "8",
            *options,
        ],
        cwd=where,
        env={**os.environ, "PYTHONPATH": paths, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A two-layer ViT without a head for digits, forty digits, and a grid of two runs that learn nothing."""
    where = tmp_path_factory.mktemp("sweep")
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    ViTForImageClassification(ViTConfig(image_size=8, patch_size=4, **sizes)).save_pretrained(where / "start")
    ViTImageProcessorPil(size={"height": 8, "width": 8}).save_pretrained(where / "start")
    (where / "start/README.md").write_text("---\nlicense: apache-2.0\n---\n")
    (where / "data").mkdir()
    make_digits()["train"].select(range(40)).to_parquet(where / "data/train-00000-of-00001.parquet")
    other = {**STILL, "seed": 2, "augment": True, "lr_scheduler_type": "constant"}
    (where / "still.json").write_text(json.dumps([{**STILL, "seed": 1}, other]))
    return where


@pytest.fixture(scope="module")
def swept(bench: Path) -> Path:
    """The bench after a sweep of two runs."""
    done = sweep(bench, "--output", "runs/vit-{n}", "--runs", "2", "--epochs", "1", "--validation-split", "train")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("accuracy") == 2
    return bench


def test_a_sweep_writes_models_that_load_with_the_datasets_labels(swept: Path) -> None:
    """Every folder loads by itself, with its processor, and names the digits."""
    for folder in ("runs/vit-0", "runs/vit-1"):
        model = AutoModelForImageClassification.from_pretrained(swept / folder)
        assert model.config.id2label == dict(enumerate(make_digits()["train"].features["label"].names))
        assert AutoImageProcessor.from_pretrained(swept / folder).size["height"] == 8
        assert "license: apache-2.0" in (swept / folder / "README.md").read_text()


def test_runs_of_a_sweep_end_at_different_weights(swept: Path) -> None:
    """Different hyper-parameters give different tensors, the head's among them."""
    first, second = (load_file(swept / f"runs/vit-{n}/model.safetensors") for n in (0, 1))
    assert first.keys() == second.keys()
    assert not torch.equal(first["classifier.weight"], second["classifier.weight"])


def test_runs_begin_with_the_same_head(bench: Path) -> None:
    """Runs that learn nothing end equal, whatever their seeds: they began with the same head."""
    done = sweep(bench, "--output", "still/vit-{n}", "--grid", "still.json")
    assert done.returncode == 0, done.stderr
    first, second, start = (
        load_file(bench / f"{name}/model.safetensors") for name in ("still/vit-0", "still/vit-1", "start")
    )
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert all(torch.equal(first[name], start[name]) for name in first if "classifier" not in name)
    assert first["classifier.weight"].std() > 0


def test_a_second_call_trains_only_what_is_missing(swept: Path) -> None:
    """A finished run is left as it is, to the byte."""
    weights = swept / "runs/vit-0/model.safetensors"
    before = weights.stat().st_mtime_ns
    done = sweep(swept, "--output", "runs/vit-{n}", "--runs", "2", "--epochs", "1")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("already there, skipped") == 2
    assert weights.stat().st_mtime_ns == before


def test_a_wrong_column_is_one_clear_block(bench: Path) -> None:
    """The error names the columns there are and the option that helps; nothing is written."""
    done = sweep(bench, "--output", "bad/vit-{n}", "--label-column", "breed")
    assert done.returncode == 1
    assert done.stderr.startswith(
        "Expected a column 'breed' of type ClassLabel; found image (Image), label (ClassLabel)."
    )
    assert "--label-column label" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (bench / "bad").exists()


@pytest.fixture
def within(bench: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """The sweep in this process, which spares it the imports."""
    spec = importlib.util.spec_from_file_location("sweep_script", ROOT / "scripts/sweep.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    monkeypatch.chdir(bench)

    def run(*options: str) -> None:
        assert module.main(["--start", "start", "--batch-size", "8", *options]) == 0

    return run


def test_frozen_parameters_and_mixed_images(bench: Path, within: Callable[..., None]) -> None:
    """What --freeze names stays as the start has it, all else is trained; mixup trains to other weights."""
    runs = [
        {"learning_rate": 1e-3, "num_train_epochs": 1},
        {"learning_rate": 1e-3, "num_train_epochs": 1, "mixup": 0.4},
    ]
    (bench / "mixed.json").write_text(json.dumps(runs))
    words = ["--dataset", "data", "--grid", "mixed.json", "--output", "mixed/vit-{n}"]
    within(*words, "--freeze", "*.layers.0.*", "*embeddings*")
    plain, mixed, start = (
        load_file(bench / name / "model.safetensors") for name in ("mixed/vit-0", "mixed/vit-1", "start")
    )
    for name in start.keys() - {"classifier.weight", "classifier.bias"}:
        frozen = "layer.0." in name or "embeddings" in name
        assert torch.equal(plain[name], start[name]) == frozen, name
        assert torch.equal(mixed[name], plain[name]) == frozen, name
    assert "`*.layers.0.*`" in (bench / "mixed/vit-0/README.md").read_text()


def test_a_share_of_the_images_is_a_run_on_these_alone(bench: Path, within: Callable[..., None]) -> None:
    """Half of the images, drawn by the seed, train to the same bytes as a dataset that holds just these."""
    half = {"learning_rate": 1e-3, "num_train_epochs": 1, "seed": 3}
    (bench / "half.json").write_text(json.dumps([{**half, "samples": 0.5}]))
    (bench / "whole.json").write_text(json.dumps([half]))
    rows = make_digits()["train"].select(range(40)).shuffle(seed=3).select(range(20))
    (bench / "few").mkdir()
    rows.to_parquet(bench / "few/train-00000-of-00001.parquet")
    for grid, data in (("half", "data"), ("whole", "few")):
        within("--dataset", data, "--grid", f"{grid}.json", "--output", f"share/{grid}")
    found, expected = (load_file(bench / f"share/{grid}/model.safetensors") for grid in ("half", "whole"))
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("wrong", [{"mixup": -1.0}, {"samples": 0.0}, {"samples": 1.5}], ids=str)
def test_values_out_of_range_are_named(bench: Path, wrong: dict[str, float]) -> None:
    """The entry of the grid and the value stand in the error; nothing is trained."""
    (bench / "wrong.json").write_text(json.dumps([STILL, wrong]))
    done = sweep(bench, "--output", "wrong/vit-{n}", "--grid", "wrong.json")
    assert done.returncode == 1
    assert "entry 1" in done.stderr
    assert str(next(iter(wrong.values()))) in done.stderr
    assert not (bench / "wrong").exists()
