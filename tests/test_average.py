"""What the average of files is, to the last bit."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from family import Family, cast, copy_model, logits, permuted, put_weights, weights
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from shell import bake, only, refused
from transformers import AutoModelForImageClassification

from hfsoup.averaging.averager import combine
from hfsoup.merges import MERGES, PLAIN


def expected(folders: list[Path]) -> dict[str, torch.Tensor]:
    """The average in float64 by the rules: means, pooled variances, largest counters."""
    states = [weights(folder) for folder in folders]
    found = {}
    for name, first in states[0].items():
        stack = torch.stack([state[name].double() for state in states])
        if not first.is_floating_point():
            found[name] = stack.amax(0)
        elif name.endswith("running_var"):
            means = torch.stack([state[name.replace("running_var", "running_mean")].double() for state in states])
            found[name] = (stack + means**2).mean(0) - means.mean(0) ** 2
        else:
            found[name] = stack.mean(0)
    return found


def ulps(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """The largest distance in units of the last place of `found`'s type."""
    unit = torch.nextafter(found.abs(), torch.full_like(found, math.inf)).double() - found.abs().double()
    return float(((found.double() - wanted).abs() / unit).max()) if found.numel() else 0.0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_uniform_equals_a_float64_average(family: Family, dtype: torch.dtype, alone: Path) -> None:
    """Every tensor, buffers included, is within one unit in the last place, and of the ingredients' type."""
    folders = [cast(folder, alone / folder.name, dtype) for folder in family.folders]
    bake(*folders, "--output", "soup")
    wanted, found = expected(folders), weights(Path("soup"))
    assert found.keys() == wanted.keys()
    for name, tensor in found.items():
        assert tensor.dtype == (dtype if tensor.is_floating_point() else torch.int64), name
        assert tensor.shape == wanted[name].shape
        assert ulps(tensor, wanted[name]) <= 1 if tensor.is_floating_point() else tensor.equal(wanted[name].long()), (
            name
        )


def test_batch_norm_variance_is_pooled(resnet: Family, alone: Path) -> None:
    """running_var is that of all images together, not the mean of variances."""
    bake(*resnet.words, "--output", "soup")
    found = weights(Path("soup"))
    name = next(n for n in found if n.endswith("running_var"))
    plain = torch.stack([weights(folder)[name] for folder in resnet.folders]).mean(0)
    assert (found[name] > plain).all()
    assert ulps(found[name], expected(list(resnet.folders))[name]) <= 1


def test_counters_are_the_largest(resnet: Family, alone: Path) -> None:
    """num_batches_tracked is an integer and not averaged."""
    bake(*resnet.words, "--output", "soup")
    name = next(n for n in weights(Path("soup")) if n.endswith("num_batches_tracked"))
    assert weights(Path("soup"))[name].item() == max(weights(f)[name].item() for f in resnet.folders)


def test_two_bakes_write_the_same_bytes(family: Family, alone: Path) -> None:
    """Nothing of time, threads or folders is in the weights."""
    first, second = (bake(*family.words, "--output", name)["soup"]["sha256"] for name in ("one", "two"))
    assert first == second
    assert Path("one/model.safetensors").read_bytes() == Path("two/model.safetensors").read_bytes()


def test_a_soup_of_one_is_that_one(family: Family, alone: Path) -> None:
    """The mean of one ingredient out of two changes no bit of any tensor."""
    bake(*only(family.words[0], family.words[1]), "--output", "soup")
    assert all(t.equal(weights(family.folders[0])[n]) for n, t in weights(Path("soup")).items())


def test_dtype_is_written_to_weights_and_config(vit: Family, alone: Path) -> None:
    """--dtype bfloat16 rounds once from the exact mean, and config.json says so."""
    bake(*vit.words, "--dtype", "bfloat16", "--output", "soup")
    wanted = expected(list(vit.folders))
    for name, tensor in weights(Path("soup")).items():
        assert tensor.dtype == torch.bfloat16
        assert ulps(tensor, wanted[name]) <= 0.5 + 1e-9, name
    assert AutoModelForImageClassification.from_pretrained("soup").dtype == torch.bfloat16


def test_float16_that_would_overflow_when_summed(vit: Family, alone: Path) -> None:
    """Large halves are summed in a wider type: the mean is finite."""
    folders = [cast(folder, alone / folder.name, torch.float16) for folder in vit.folders[:2]]
    for folder in folders:
        state = weights(folder)
        state["classifier.bias"] = torch.full_like(state["classifier.bias"], 60000.0)
        put_weights(folder, state)
    bake(*folders, "--output", "soup")
    assert (weights(Path("soup"))["classifier.bias"] == 60000.0).all()


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_is_named(vit: Family, alone: Path, bad: float) -> None:
    """The error names ingredient and tensor, and no folder is left."""
    broken = copy_model(vit.folders[1], alone / "broken")
    state = weights(broken)
    state["vit.layernorm.bias"][3] = bad
    put_weights(broken, state)
    block = refused("bake", vit.words[0], broken, "--output", "soup", code=1)
    assert "broken" in block
    assert "vit.layernorm.bias" in block
    assert [path.name for path in alone.iterdir()] == ["broken"]


def test_an_average_too_large_for_its_type_is_an_error(vit: Family, alone: Path) -> None:
    """--dtype float16 of large float32 weights names the tensor instead of writing infinity."""
    large = copy_model(vit.folders[0], alone / "large")
    state = weights(large)
    state["classifier.bias"] += 1e6
    put_weights(large, state)
    assert "classifier.bias" in refused("bake", large, vit.words[1], "--dtype", "float16", "--output", "soup", code=1)


@pytest.mark.parametrize("kind", ["vit", "resnet", "efficientnet"])
def test_permuted_labels_give_the_same_soup(kind: str, request: pytest.FixtureRequest, alone: Path) -> None:
    """An ingredient whose classes stand in another order is read by name: the bytes do not change."""
    family: Family = request.getfixturevalue(kind)
    other = permuted(family.folders[1], alone / "permuted", [3, 0, 5, 1, 4, 2])
    straight = bake(*family.words[:2], "--output", "straight")
    turned = bake(family.words[0], other, "--output", "turned")
    assert turned["soup"]["sha256"] == straight["soup"]["sha256"]


def shard(folder: Path, target: Path, size: str) -> Path:
    """The same model in several safetensors files."""
    copy_model(folder, target)
    (target / "model.safetensors").unlink()
    AutoModelForImageClassification.from_pretrained(folder).save_pretrained(target, max_shard_size=size)
    assert len(list(target.glob("*.safetensors"))) > 1
    return target


def test_sharded_ingredients_give_the_same_tensors(vit: Family, alone: Path, images: Any) -> None:
    """Shards are read as one model, and a soup is sharded as its first ingredient is."""
    pieces = [shard(folder, alone / folder.name, "30KB") for folder in vit.folders[:2]]
    bake(*pieces, "--output", "sharded")
    bake(*vit.words[:2], "--output", "whole")
    bake(vit.words[0], pieces[1], "--output", "mixed")
    whole = weights(Path("whole"))
    assert weights(Path("sharded")).keys() == whole.keys()
    assert all(t.equal(whole[n]) for n, t in weights(Path("sharded")).items())
    assert len(list(Path("sharded").glob("*.safetensors"))) == len(list(pieces[0].glob("*.safetensors")))
    assert Path("mixed/model.safetensors").read_bytes() == Path("whole/model.safetensors").read_bytes()
    pictures = images["test"]["image"][:4]
    assert logits(Path("sharded"), pictures).equal(logits(Path("whole"), pictures))


def test_pickled_ingredients_are_read(vit: Family, alone: Path) -> None:
    """A .bin of tensors gives the bytes of its safetensors twin."""
    pickled = copy_model(vit.folders[1], alone / "pickled")
    torch.save(weights(pickled), pickled / "pytorch_model.bin")
    (pickled / "model.safetensors").unlink()
    found = bake(vit.words[0], pickled, "--output", "soup")["soup"]["sha256"]
    assert found == bake(*vit.words[:2], "--output", "twin")["soup"]["sha256"]


class _Payload:
    """Runs a command when it is unpickled carelessly."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.marker,)


def test_a_malicious_pickle_is_not_run(vit: Family, alone: Path) -> None:
    """The bake refuses the file by name and the marker that its code would write is not there."""
    bad = copy_model(vit.folders[1], alone / "bad")
    (bad / "model.safetensors").unlink()
    torch.save({"classifier.bias": _Payload(alone / "marker")}, bad / "pytorch_model.bin")
    block = refused("bake", vit.words[0], bad, "--output", "soup", code=1)
    assert "pytorch_model.bin" in block
    assert not (alone / "marker").exists()
    torch.load(bad / "pytorch_model.bin", weights_only=False)
    assert (alone / "marker").exists(), "the payload would have worked"


SHAPES = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5)
FLOATS = st.floats(-1e4, 1e4, width=32)


@st.composite
def stacks(draw: st.DrawFn) -> list[np.ndarray[Any, Any]]:
    """One to six float32 arrays of one shape."""
    shape, count = draw(SHAPES), draw(st.integers(1, 6))
    return [draw(hnp.arrays(np.float32, shape, elements=FLOATS)) for _ in range(count)]


@given(stacks())
def test_the_mean_is_exact_in_float64(tensors: list[np.ndarray[Any, Any]]) -> None:
    """The mean of float32 tensors of any shape agrees with exactly rounded sums."""
    found = MERGES.get("mean").function(tensors, [1 / len(tensors)] * len(tensors), PLAIN)
    for at in np.ndindex(*tensors[0].shape):
        assert found[at] == pytest.approx(math.fsum(float(t[at]) for t in tensors) / len(tensors), abs=1e-10)


@given(stacks(), st.data())
def test_pooled_variance_is_never_negative(tensors: list[np.ndarray[Any, Any]], data: st.DataObject) -> None:
    """Whatever the means are, the pooled variance is at least the smallest of the variances."""
    variances = [np.abs(t) for t in tensors]
    means = [data.draw(hnp.arrays(np.float32, t.shape, elements=FLOATS)) for t in tensors]
    share = [1 / len(tensors)] * len(tensors)
    kept = {"bn.running_mean": means, "bn.running_var": variances}
    found = combine("bn.running_var", kept.__getitem__, share, "mean", floats=True)
    assert (found >= np.minimum.reduce(variances) * (1 - 1e-12)).all()


@given(stacks())
def test_inputs_are_never_written_to(tensors: list[np.ndarray[Any, Any]]) -> None:
    """A merge leaves every tensor it is given as it was."""
    before = [t.copy() for t in tensors]
    MERGES.get("mean").function(tensors, [1 / len(tensors)] * len(tensors), PLAIN)
    assert all(np.array_equal(a, b) for a, b in zip(before, tensors, strict=True))


def test_the_bytes_do_not_depend_on_the_number_of_threads(
    resnet: Family, alone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One thread, two or sixteen write the same file."""
    found = set()
    for threads in (1, 2, 16):
        monkeypatch.setattr("os.cpu_count", lambda threads=threads: threads)
        found.add(bake(*resnet.words, "--output", f"soup-{threads}")["soup"]["sha256"])
    assert len(found) == 1
