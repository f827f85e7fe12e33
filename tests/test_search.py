"""`hfsoup.search`: any state dicts, any score; and a published search replayed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from family import Family, weights

import hfsoup

FIGURES = json.loads((Path(__file__).parent / "data" / "greedy-trace-72.json").read_text())


def one_hot(count: int) -> list[dict[str, torch.Tensor]]:
    """State dicts whose average tells who took part."""
    return [{"w": row} for row in torch.eye(count)]


def members(state: Mapping[str, torch.Tensor]) -> tuple[int, ...]:
    return tuple(state["w"].nonzero().flatten().tolist())


def published_scores(names: list[str]) -> dict[frozenset[str], float]:
    """Every score that the published search looked at, by the models in the average."""
    table = {frozenset([i["name"]]): i["selection"] for i in FIGURES["ingredients"]}
    current = frozenset(names[:1])
    table[current] = FIGURES["initial_best_in_trace"]
    for step in FIGURES["steps"]:
        candidate = current | {step["candidate"]}
        table[candidate] = step["score"]
        current = candidate if step["accepted"] else current
    return table


def test_the_published_greedy_search_is_replayed_decision_by_decision() -> None:
    """72 models, 71 decisions and the final five are those that were published for arXiv 2203.05482's setting."""
    names = [i["name"] for i in FIGURES["ingredients"]]
    table = published_scores(names)
    found = hfsoup.search(
        "greedy",
        one_hot(len(names)),
        score=lambda state: table[frozenset(names[i] for i in members(state))],
        accept=FIGURES["rule"],
    )
    trace = [(d.step, names[d.ingredient], d.score.value, d.accepted) for d in found.trace]
    assert trace == [(s["step"], s["candidate"], s["score"], s["accepted"]) for s in FIGURES["steps"]]
    assert [d.step for d in found.trace if d.accepted] == [1, 10, 16, 17]
    assert {name for name, w in zip(names, found.weights, strict=True) if w} == set(FIGURES["final"])
    assert found.weights.count(0.2) == 5
    assert found.state_dict()["w"].sum().item() == pytest.approx(1)


def test_score_is_called_once_for_each_distinct_set() -> None:
    """Passes that meet a set again do not measure it again."""
    asked: list[tuple[int, ...]] = []

    def score(state: dict[str, torch.Tensor]) -> float:
        asked.append(members(state))
        return -float(len(asked[-1]))

    hfsoup.search("greedy", one_hot(4), score=score, passes=3)
    assert len(asked) == len(set(asked)) == 4 + 3


def test_weights_are_in_the_order_given() -> None:
    """The best one alone keeps its place."""
    found = hfsoup.search("greedy", one_hot(3), score=lambda s: 1.0 if members(s) == (2,) else 0.0)
    assert found.weights == (0.0, 0.0, 1.0)
    assert found.score == 1.0


def test_uniform_needs_no_score() -> None:
    """Without a score every ingredient has the same weight and nothing is traced."""
    found = hfsoup.search("uniform", one_hot(4))
    assert (found.weights, found.trace, found.score) == ((0.25,) * 4, (), None)


def test_a_search_without_a_score_is_a_clear_error() -> None:
    """Greedy cannot rank what nothing measures."""
    with pytest.raises(hfsoup.SoupError, match="needs scores"):
        hfsoup.search("greedy", one_hot(2))


def test_paths_and_state_dicts_give_the_same(vit: Family, tmp_path: Path) -> None:
    """safetensors, .bin and .pt files and tensors in memory are the same ingredients."""
    states = [weights(folder) for folder in vit.folders[:3]]
    torch.save(states[1], tmp_path / "b.bin")
    torch.save(states[2], tmp_path / "c.pt")
    paths = [vit.folders[0] / "model.safetensors", tmp_path / "b.bin", str(tmp_path / "c.pt")]
    from_files, in_memory = (hfsoup.search("uniform", given).state_dict() for given in (paths, states))
    assert from_files.keys() == in_memory.keys()
    assert all(t.equal(in_memory[n]) for n, t in from_files.items())


def test_a_lone_state_dict_key_is_followed_on_request(tmp_path: Path) -> None:
    """`unwrap` opens {"state_dict": …}; without it such a file is an error."""
    for n in (0, 1):
        torch.save({"state_dict": {"w": torch.full((2,), float(n))}, "epoch": 3}, tmp_path / f"{n}.th")
    paths = sorted(tmp_path.glob("*.th"))
    assert hfsoup.search("uniform", paths, unwrap=True).state_dict()["w"].tolist() == [0.5, 0.5]
    with pytest.raises(hfsoup.SoupError, match="expected tensors by name"):
        hfsoup.search("uniform", paths)


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ({"v": torch.zeros(2)}, "missing"),
        ({"w": torch.zeros(3)}, "shape"),
        ({"w": torch.zeros(2, dtype=torch.float16)}, "float16"),
    ],
    ids=["name", "shape", "dtype"],
)
def test_state_dicts_that_differ_are_refused(second: Any, message: str) -> None:
    """The error names the ingredient and the tensor."""
    with pytest.raises(hfsoup.SoupError, match=message) as caught:
        hfsoup.search("uniform", [{"w": torch.zeros(2)}, second])
    assert "tensor" in str(caught.value)


def test_unknown_rules_and_recipes_list_the_known() -> None:
    """A typo is answered with what there is."""
    with pytest.raises(hfsoup.SoupError, match="max_ingredients"):
        hfsoup.search("uniform", one_hot(2), max_ingredient=1)
    with pytest.raises(hfsoup.SoupError, match="greedy-random"):
        hfsoup.search("gredy", one_hot(2))
    with pytest.raises(hfsoup.SoupError, match="no ingredients"):
        hfsoup.search("uniform", [])


def test_the_score_may_do_what_it_likes_with_its_state_dict() -> None:
    """What a score writes into a state dict reaches no ingredient and no later average."""

    def score(state: dict[str, torch.Tensor]) -> float:
        value = float(state["w"][0])
        state["w"].fill_(float("nan"))
        return value

    ingredients = one_hot(3)
    found = hfsoup.search("greedy", ingredients, score=score)
    assert found.state_dict()["w"].tolist() == [1.0, 0.0, 0.0]
    assert torch.stack([i["w"] for i in ingredients]).equal(torch.eye(3))


def test_scalars_and_bfloat16_keep_shape_and_type() -> None:
    """A state dict comes back with the shapes and dtypes that went in."""
    states = [{"a": torch.tensor(float(n), dtype=torch.bfloat16), "n": torch.tensor(n)} for n in (1, 2)]
    found = hfsoup.search("uniform", states).state_dict()
    assert found["a"].dtype == torch.bfloat16
    assert (found["a"].shape, found["a"].item(), found["n"].item()) == (torch.Size([]), 1.5, 2)


def test_modules_are_taken_as_they_are() -> None:
    """A module stands for its state dict, as an ingredient and as a base."""
    modules = [torch.nn.Sequential(torch.nn.Conv2d(3, 2, 1), torch.nn.BatchNorm2d(2)) for _ in range(2)]
    found = hfsoup.search("uniform", modules).state_dict()
    states = [module.state_dict() for module in modules]
    assert found.keys() == states[0].keys()
    assert torch.equal(found["0.weight"], (states[0]["0.weight"] + states[1]["0.weight"]) / 2)
    moved = hfsoup.search("uniform", modules, merge="task-arithmetic", base=modules[0], scale=2.0).state_dict()
    assert torch.allclose(moved["0.weight"], states[1]["0.weight"])


@pytest.mark.parametrize("merge", ["mean", "ties"])
@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
def test_complex_weights_are_merged_part_by_part(merge: str, dtype: torch.dtype) -> None:
    """Real and imaginary parts are averaged, and the result is complex again."""
    states = [{"w": torch.randn(3, 2, dtype=dtype)} for _ in range(3)]
    base = {"w": torch.zeros(3, 2, dtype=dtype)}
    found = hfsoup.search("uniform", states, merge=merge, base=base, density=1.0).state_dict()["w"]
    assert found.dtype == dtype
    if merge == "mean":
        assert torch.allclose(found, sum(state["w"] for state in states) / 3)  # type: ignore[arg-type]
    else:
        parts = [{"w": torch.view_as_real(state["w"])} for state in states]
        zeros = {"w": torch.view_as_real(base["w"])}
        expected = hfsoup.search("uniform", parts, merge=merge, base=zeros, density=1.0).state_dict()["w"]
        assert torch.equal(torch.view_as_real(found), expected)


def test_small_floats_are_averaged_and_rounded_once() -> None:
    """A float of eight bits is as good as any other."""
    states = [{"w": torch.tensor([1.0, value]).to(torch.float8_e4m3fn)} for value in (2.0, 3.0)]
    assert hfsoup.search("uniform", states).state_dict()["w"].float().tolist() == [1.0, 2.5]


BROKEN: dict[str, tuple[Any, str, str]] = {
    "NaN": ({"w": torch.tensor([1.0, float("nan")])}, "NaN or infinity", "ingredient 1, tensor w"),
    "infinity": ({"w": torch.tensor([1.0, -float("inf")]).half()}, "NaN or infinity", "ingredient 1, tensor w"),
    "complex NaN": ({"w": torch.tensor([complex(0, float("nan"))])}, "NaN or infinity", "ingredient 1, tensor w"),
    "sparse": ({"w": torch.eye(2).to_sparse()}, "sparse", "ingredient 1, tensor w"),
    "no values": ({"w": torch.empty(2, device="meta")}, "without values", "ingredient 1, tensor w"),
    "quantised": ({"w": torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8)}, "quantised", "tensor w"),
    "numbers": ({0: torch.ones(2)}, "expected the names of tensors as keys, found int", "'0'"),
    "a checkpoint": ({"model": {"w": torch.ones(2)}, "epoch": 3}, "expected a tensor, found dict", "'model'"),
    "a list": ([torch.ones(2)], "found list", "ingredient 1"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_has_no_average_is_refused_by_name(name: str) -> None:
    """NaN, quantised, sparse and empty tensors and other objects are errors that name ingredient and tensor."""
    bad, what, where = BROKEN[name]
    good = {"w": torch.ones(2)}
    with pytest.raises(hfsoup.SoupError) as caught:
        hfsoup.search("uniform", [good, bad])
    assert what in caught.value.what
    assert where in caught.value.where


def test_whole_numbers_are_no_weights() -> None:
    """Of counters the largest stays, tables that are alike stay, and weights of eight bits have no average."""
    states = [
        {"num_batches_tracked": torch.tensor(n), "attention.index": torch.arange(4), "table": torch.arange(3)}
        for n in (5, 9)
    ]
    found = hfsoup.search("uniform", states).state_dict()
    assert found["num_batches_tracked"].item() == 9
    assert found["table"].tolist() == [0, 1, 2]
    weights_of_8_bits = [{"weight": torch.tensor([n, 7], dtype=torch.int8)} for n in (1, 2)]
    with pytest.raises(hfsoup.SoupError, match="int8 that differs") as caught:
        hfsoup.search("uniform", weights_of_8_bits)
    assert caught.value.where == "ingredient 1, tensor weight"
