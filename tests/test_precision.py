"""What scores are computed in: float32 whatever weights are stored in, or what --precision says."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from family import Family, copy_model
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from shell import bake, only, refused, run
from transformers import ViTForImageClassification

from hfsoup.evaluation.loader import load_ahead
from hfsoup.evaluation.racing import count_batches_to_look
from hfsoup.evaluation.scores import Precision

CPU = torch.device("cpu")


def converted(family: Family, folder: Path, *dtypes: torch.dtype) -> list[str]:
    """Copies of the ingredients whose weights went through these types."""
    for source in family.folders:
        copy = copy_model(source, folder / source.name)
        tensors = load_file(copy / "model.safetensors")
        for dtype in dtypes:
            tensors = {name: t.to(dtype) if t.is_floating_point() else t for name, t in tensors.items()}
        save_file(tensors, copy / "model.safetensors", {"format": "pt"})
    return [str(folder / source.name) for source in family.folders]


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[tuple[torch.dtype, bool]]:
    """Of every forward pass the type of its first weights, and whether it is under autocast."""
    seen, forward = list[tuple[torch.dtype, bool]](), ViTForImageClassification.forward

    def watched(self: Any, pixel_values: torch.Tensor, **rest: Any) -> Any:
        seen.append((next(self.parameters()).dtype, torch.is_autocast_enabled("cpu")))
        return forward(self, pixel_values=pixel_values, **rest)

    monkeypatch.setattr(ViTForImageClassification, "forward", watched)
    return seen


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_of_few_bits_score_what_their_values_score_in_float32(
    dtype: torch.dtype, normed: Family, with_train: Path, alone: Path
) -> None:
    """To the last bit, new batch-norm statistics too, which are rounded as in the file."""
    name = str(dtype).removeprefix("torch.")
    words = ("--dataset", with_train, "--recipe", "uniform", "--bn", "recalibrate")
    narrow = bake(*converted(normed, alone / "narrow", dtype), *words, "--output", "a")
    wide = bake(*converted(normed, alone / "wide", dtype, torch.float32), *words, "--dtype", name, "--output", "b")
    assert narrow["soup"] == {**wide["soup"], "path": narrow["soup"]["path"]}
    assert narrow["best_ingredient"]["test"] == wide["best_ingredient"]["test"]
    # The written soup, whose file has rounded statistics, scores the same.
    again = bake(*only("a", alone / "narrow" / normed.folders[0].name), *words[:2], "--bn", "average", "--output", "c")
    assert again["soup"]["ece"] == narrow["soup"]["ece"]


def test_the_precision_is_recorded_and_a_score_of_another_one_is_not_reused(
    vit: Family, data: Path, alone: Path, passes: list[Any]
) -> None:
    """In soup.json and the card; the soup's bytes do not depend on it."""
    words = (*vit.words[:2], "--dataset", data, "--recipe", "uniform")
    plain = bake(*words, "--output", "plain")
    assert set(passes) == {(torch.float32, False)}
    passes.clear()
    half = bake(*words, "--precision", "bf16", "--output", "half")
    assert set(passes) == {(torch.float32, True)}
    assert half["images_forwarded"] == plain["images_forwarded"]
    assert half["soup"]["sha256"] == plain["soup"]["sha256"]
    for folder, name in (("plain", "float32"), ("half", "bf16")):
        record = json.loads(Path(folder, "soup.json").read_text())
        assert record["dataset"]["precision"] == {"selection": name, "test": name}
        assert f"Scores were computed in {name}." in Path(folder, "README.md").read_text()
    assert "--precision bf16" in Path("half/README.md").read_text()
    assert run("verify", "half", "--scores").code == 0


def test_candidates_may_be_scored_in_bf16_and_the_test_split_is_in_float32(
    vit: Family, data: Path, alone: Path, passes: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on CUDA: after the search no pass is under autocast."""
    mixed = Precision("bf16", "float32")
    monkeypatch.setattr("hfsoup.evaluation.precision.choose_precision", lambda *_: mixed)
    bake(*vit.words, "--dataset", data, "--recipe", "greedy", "--output", "mixed", "--batch-size", 72)
    under = [autocast for _, autocast in passes]
    assert under[0]
    assert under == sorted(under, reverse=True)
    assert under.count(False) == 2
    record = json.loads(Path("mixed/soup.json").read_text())["dataset"]
    assert record["precision"] == {"selection": "bf16", "test": "float32"}
    assert "Candidates were scored in bf16, the test split in float32." in Path("mixed/README.md").read_text()


def test_a_record_without_a_precision_is_measured_in_the_type_that_is_stored(
    vit: Family, data: Path, alone: Path, passes: list[Any]
) -> None:
    """As it was when it was made; one with a precision is measured in that."""
    words = converted(vit, alone / "narrow", torch.float16)
    bake(*words, "--dataset", data, "--recipe", "uniform", "--output", "soup")
    assert {dtype for dtype, _ in passes} == {torch.float32}
    passes.clear()
    assert run("verify", "soup", "--scores").code == 0
    assert {dtype for dtype, _ in passes} == {torch.float32}
    passes.clear()
    path = Path("soup/soup.json")
    record = json.loads(path.read_text())
    del record["dataset"]["precision"], record["options"]["precision"]
    path.write_text(json.dumps(record))
    run("verify", "soup", "--scores")
    assert {dtype for dtype, _ in passes} == {torch.float16}


def test_a_record_names_a_known_arithmetic(vit: Family, data: Path, alone: Path) -> None:
    """Any other word is damage."""
    bake(*vit.words[:2], "--dataset", data, "--recipe", "uniform", "--output", "soup")
    path = Path("soup/soup.json")
    record = json.loads(path.read_text())
    record["dataset"]["precision"]["test"] = "float8"
    path.write_text(json.dumps(record))
    assert "soup.json is damaged: dataset.precision.test" in refused("verify", "soup", "--scores", code=1)


def test_a_precision_that_the_device_lacks_is_refused_before_anything_is_read(vit: Family, data: Path) -> None:
    """TF32 is CUDA's; other words are none."""
    words = ("bake", "no/such-model", "no/other", "--dataset", data, "--precision")
    block = refused(*words, "tf32", "--device", "cpu", code=2)
    assert "expected a CUDA device with TF32" in block
    assert "try: --precision float32\n" in block
    assert "float32, tf32, bf16, fp16" in refused(*words, "float8", code=2)


def test_a_batch_size_that_was_found_is_kept(
    vit: Family, data: Path, alone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a device and an architecture: more memory does not change it, less does only while it lasts."""
    room, tried, forward = [20], Counter[int](), ViTForImageClassification.forward

    def tight(self: Any, pixel_values: torch.Tensor, **rest: Any) -> Any:
        tried[len(pixel_values)] += 1
        if len(pixel_values) > room[0]:
            raise torch.OutOfMemoryError("out of memory")
        return forward(self, pixel_values=pixel_values, **rest)

    monkeypatch.setenv("HFSOUP_CACHE", str(alone / "cache"))
    monkeypatch.setattr(ViTForImageClassification, "forward", tight)
    monkeypatch.setattr("hfsoup.evaluation.batches.MOST", {"cpu": 64})
    words = (*vit.words[:2], "--dataset", data, "--recipe", "uniform", "--no-resume", "--output", "soup", "--overwrite")
    sizes = []
    for images in (20, 64, 8, 64):
        room[0] = images
        tried.clear()
        bake(*words)
        sizes.append(set(tried))
    assert sizes == [{64, 32, 16, 1}, {16, 1}, {16, 8, 1}, {16, 1}]


class Rows:
    """Stands for a file of images whose third batch cannot be read."""

    def load(self, rows: Any, device: torch.device) -> torch.Tensor:
        """The rows themselves."""
        if 2 in rows:
            raise ZeroDivisionError
        return torch.from_numpy(rows).to(device)


def test_an_error_while_batches_are_read_ahead_is_raised_in_its_turn() -> None:
    """After the batches before it."""
    batches = [np.array([n]) for n in range(4)]
    loaded: Any = load_ahead(Rows(), batches, CPU)  # type: ignore[arg-type]
    assert [int(next(loaded)), int(next(loaded))] == [0, 1]
    with pytest.raises(ZeroDivisionError):
        next(loaded)


def test_nothing_is_read_ahead_once_no_more_is_wanted() -> None:
    """The thread ends."""
    before = threading.active_count()
    batches = [np.array([0])] * 50
    with closing(load_ahead(Rows(), batches, CPU)) as loaded:  # type: ignore[arg-type]
        next(loaded)
        assert threading.active_count() > before
    deadline = time.monotonic() + 10
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() == before


@given(st.lists(st.booleans(), min_size=1, max_size=200), st.integers(0, 40), st.integers(1, 9), st.integers(1, 9))
def test_errors_are_counted_before_a_verdict_is_missed(right: list[bool], allowed: int, step: int, most: int) -> None:
    """A look at the first batch that decides, however many batches lie between two looks."""
    looks, at, wrong = [], 0, 0
    while at < len(right) and wrong <= allowed:
        at += step * count_batches_to_look(wrong, allowed, step, most)
        wrong = right[:at].count(False)
        looks.append(at)
    if wrong > allowed:
        assert right[: looks[-1] - step].count(False) <= allowed


def test_a_precision_of_nothing_is_refused(vit: Family, alone: Path) -> None:
    """Without a dataset nothing is scored."""
    assert "expected a dataset with --precision" in refused("bake", *vit.words, "--precision", "bf16", code=2)
