"""Every merge: against other implementations, with every recipe, with a base, and baked again to the same bytes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from family import NAMES, Family, accuracy, copy_model, permuted, put_weights, weights
from huggingface_hub import HfApi
from oracles import DATA, DENSITY, ORACLES, OUTLIERS, SCALE, SHAPES, given, told
from shell import bake, refused, run
from transformers import ViTForImageClassification, ViTModel

import hfsoup
from hfsoup.localhub import LocalHub
from hfsoup.merges import MERGES
from hfsoup.recipes import RECIPES

ALL = sorted(entry.name for entry in MERGES)
ROOTED = sorted(entry.name for entry in MERGES if entry.needs_base)
LOOKING = {entry.name: entry.importance for entry in MERGES if entry.importance}
MATRIX = "vit.encoder.layer.0.output.dense.weight"
WITHOUT_DATA = {"uniform": (), "latest": ("--last", 2, "--decay", 0.5), "weighted": ("--weights", "0.5,0.3,0.2")}
KEPT = sum(a * b for a, b in ((4, 6), (3, 5)))
RECORDED: dict[str, dict[str, list[float]]] = json.loads(DATA.read_text())


def merged(merge: str, count: int = 3, names: tuple[str, ...] = ("large", "small"), **told: Any) -> Any:
    """The merge of the small input, as hfsoup does it."""
    base, members = given(count)
    chosen = [{name: m[name] for name in names} for m in members]
    told = {**important(merge, count), **told}
    return hfsoup.search("uniform", chosen, merge=merge, base=base, **told).state_dict()


def important(merge: str, count: int) -> dict[str, Any]:
    """What a merge is told of the small input, where it asks for it."""
    return {"importance": told(LOOKING[merge], count)} if merge in LOOKING else {}


def apart(merge: str, **told: Any) -> Any:
    """Each tensor of the small input merged by itself."""
    return {k: v for name in ("large", "small") for k, v in merged(merge, names=(name,), **told).items()}


def leveled(fishers: list[dict[str, torch.Tensor]]) -> list[dict[str, torch.Tensor]]:
    """Each divided by its norm over all tensors, with a little added to everything: fusion-bench's own change."""
    norms = [torch.cat([t.ravel() for t in f.values()]).norm() for f in fishers]
    return [{k: (t + 1e-6) / (n + 1e-6) for k, t in f.items()} for f, n in zip(fishers, norms, strict=True)]


# mergekit's λ multiplies the sum of three task vectors, hfsoup's their mean.
OURS = {
    "mergekit linear": lambda: merged("mean"),
    "mergekit slerp": lambda: merged("slerp", 2),
    "mergekit karcher": lambda: merged("karcher"),
    "mergekit task_arithmetic": lambda: merged("task-arithmetic", scale=3 * SCALE),
    "mergekit ties": lambda: apart("ties", density=DENSITY),
    "mergekit breadcrumbs": lambda: merged("breadcrumbs", density=DENSITY, outliers=OUTLIERS, scale=3 * SCALE),
    "mergekit model_stock": lambda: merged("model-stock"),
    # One element more than its share: that many are at or above the magnitude that it trims at.
    "fusion-bench ties": lambda: merged("ties", density=(int(DENSITY * KEPT) + 1.5) / KEPT),
    "fusion-bench slerp": lambda: merged("slerp", 2),
    "fusion-bench fisher": lambda: merged("fisher"),
    "fusion-bench fisher, as it is": lambda: merged("fisher", importance=leveled(told("fisher"))),
    "fusion-bench regmean": lambda: merged("regmean"),
}


@pytest.mark.parametrize("name", sorted(OURS))
def test_a_merge_is_what_others_take_it_for(name: str) -> None:
    """The numbers are those that mergekit 0.1.5 and fusion-bench 0.2.33 gave for the same input."""
    found = OURS[name]()
    for tensor, values in RECORDED[name].items():
        torch.testing.assert_close(found[tensor].ravel(), torch.tensor(values, dtype=torch.float64), atol=1e-6, rtol=0)


@pytest.mark.oracles
@pytest.mark.parametrize("name", sorted(OURS))
def test_the_recorded_numbers_are_the_oracles_own(name: str) -> None:
    """The installed mergekit and fusion-bench still give what was recorded of them."""
    for tensor, values in ORACLES[name]().items():
        recorded = torch.tensor(RECORDED[name][tensor], dtype=torch.float64)
        torch.testing.assert_close(values.double().ravel(), recorded, atol=1e-9, rtol=0)


def test_ties_trims_the_whole_ingredient_and_mergekit_each_tensor() -> None:
    """Where one tensor changed much less than the others, ties leaves it at the base; mergekit moves it."""
    base, found = given()[0], merged("ties", density=DENSITY)
    assert found["small"].equal(base["small"])
    assert not found["large"].equal(base["large"])
    assert not torch.tensor(RECORDED["mergekit ties"]["small"]).allclose(base["small"].float().ravel())


def test_fisher_takes_each_fisher_as_it_is_and_fusion_bench_levels_them() -> None:
    """As in the paper an ingredient counts by its Fisher as it is; fusion-bench divides each by its norm by default."""
    ours, theirs = merged("fisher"), RECORDED["fusion-bench fisher, as it is"]
    apart = [(ours[name].ravel() - torch.tensor(theirs[name], dtype=torch.float64)).abs().max() for name in SHAPES]
    assert min(apart) > 1e-4


@pytest.mark.parametrize("merge", sorted(LOOKING))
def test_the_recipe_s_weights_count_beside_what_is_told(merge: str) -> None:
    """An ingredient of twice the weight is as two of it."""
    members, told_of = given(2)[1], told(LOOKING[merge], 2)
    twice = hfsoup.search("uniform", [members[0], *members], merge=merge, importance=[told_of[0], *told_of])
    found = hfsoup.search("weighted", members, weights=(2.0, 1.0), merge=merge, importance=told_of)
    for name, tensor in twice.state_dict().items():
        torch.testing.assert_close(found.state_dict()[name], tensor)


def test_where_nothing_counts_fisher_is_the_mean() -> None:
    """A weight on which no ingredient depends is averaged, and so is a tensor of which nothing is known."""
    members, fishers = given()[1], told("fisher")
    for fisher in fishers:
        fisher["large"][0] = 0
        del fisher["small"]
    found, mean = merged("fisher", importance=fishers), merged("mean")
    torch.testing.assert_close(found["large"][0], mean["large"][0])
    assert found["small"].equal(mean["small"])
    assert not found["large"][1:].allclose(mean["large"][1:])
    assert members[0]["large"].isfinite().all()


def test_inputs_that_are_always_zero_have_the_mean_of_their_weights() -> None:
    """RegMean's system would be singular there; the other columns are what they are without those."""
    members, grams = given()[1], told("gram")
    for gram in grams:
        gram["large"][:, 5] = gram["large"][5] = 0
    found, mean = merged("regmean", importance=grams)["large"], merged("mean")["large"]
    torch.testing.assert_close(found[:, 5], mean[:, 5])
    few = [{"w": m["large"][:, :5]} for m in members]
    without = hfsoup.search("uniform", few, merge="regmean", importance=[{"w": g["large"][:5, :5]} for g in grams])
    torch.testing.assert_close(found[:, :5], without.state_dict()["w"])


def dropped(state: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Base, task vector and dare's own task vector of one ingredient beside one that changed nothing."""
    found = hfsoup.search("uniform", [state, {"w": torch.zeros_like(state["w"])}], merge="dare", scale=2.0, **BASED)
    return state["w"], found.state_dict()["w"], state["w"] != 0


BASED: dict[str, Any] = {"density": 0.25, "base": {"w": torch.zeros(100, 100, dtype=torch.float64)}}


def test_dare_divides_by_the_density_and_mergekit_keeps_the_sum_of_magnitudes() -> None:
    """What is kept is τ/d, about d of all; so the sum of magnitudes is only about that of τ."""
    torch.manual_seed(0)
    task, found, _ = dropped({"w": torch.randn(100, 100, dtype=torch.float64)})
    kept = found != 0
    torch.testing.assert_close(found[kept], 4 * task[kept])
    assert kept.double().mean() == pytest.approx(0.25, abs=0.02)
    assert found.abs().sum() != pytest.approx(task.abs().sum().item(), rel=1e-4)


@pytest.mark.oracles
def test_mergekits_dare_keeps_the_sum_of_magnitudes() -> None:
    """The difference is there: mergekit rescales what it keeps to the sum that was."""
    from mergekit.merge_methods.api import merge_tensors

    torch.manual_seed(0)
    task = torch.randn(100, 100, dtype=torch.float64)
    told = {"weight": 1.0, "density": 0.25}
    found = merge_tensors([torch.zeros_like(task), task], "dare_linear", parameters=told, base_index=0)
    assert found.abs().sum().item() == pytest.approx(task.abs().sum().item())


def test_dare_draws_for_an_ingredient_and_a_tensor_alike_in_every_mix() -> None:
    """The seed decides, and an ingredient that joins changes nothing in what another one drops."""
    torch.manual_seed(0)
    task, nothing = torch.randn(100, 100, dtype=torch.float64), torch.zeros(100, 100, dtype=torch.float64)
    states = [{"w": task}, {"w": nothing}, {"w": nothing.clone()}]
    two, three = (hfsoup.search("uniform", states[:n], merge="dare", **BASED).state_dict()["w"] for n in (2, 3))
    other = hfsoup.search("uniform", states, merge="dare", seed=1, **BASED).state_dict()["w"]
    assert (two != 0).equal(three != 0)
    assert not (other != 0).equal(three != 0)


@pytest.mark.parametrize("merge", ALL)
@pytest.mark.parametrize("recipe", sorted(entry.name for entry in RECIPES if not entry.logits and not entry.epochs))
def test_every_recipe_goes_with_every_merge(recipe: str, merge: str) -> None:
    """The state dict found scores what was reported, is finite, and nothing that was given has changed."""
    base, members = given(4)
    before = [{k: v.clone() for k, v in state.items()} for state in (base, *members)]

    def score(state: dict[str, torch.Tensor]) -> float:
        return -float((state["large"] - base["large"] - 0.1).norm())

    found = hfsoup.search(recipe, members, score=score, merge=merge, base=base, **important(merge, 4))
    assert all(tensor.isfinite().all() for tensor in found.state_dict().values())
    assert found.score == score(found.state_dict())
    assert all(a[k].equal(b[k]) for a, b in zip(before, (base, *members), strict=True) for k in a)


@pytest.mark.parametrize("merge", [entry.name for entry in MERGES if not entry.changes_single])
def test_one_ingredient_alone_stays_as_it_is(merge: str) -> None:
    """Whatever a merge trims or drops, a single member is not merged with anything."""
    assert merged(merge, 1)["large"].equal(given(1)[1][0]["large"])


def changed_by(shape: tuple[int, ...], count: int = 1) -> torch.Tensor:
    """What monosoup makes of a task vector with the singular values 8, 1.5 and 0.5, the same of each ingredient."""
    task = torch.diag(torch.tensor([8.0, 1.5, 0.5], dtype=torch.float64)).reshape(shape)
    base = torch.full(shape, 0.5, dtype=torch.float64)
    found = hfsoup.search("uniform", [{"w": base + task}] * count, merge="monosoup", base={"w": base}).state_dict()
    return found["w"] - base


@pytest.mark.parametrize(("shape", "count"), [((3, 3), 1), ((3, 3, 1, 1), 1), ((3, 1, 3), 2)])
def test_monosoup_is_the_paper_s_formula(shape: tuple[int, ...], count: int) -> None:
    """By hand: exp H = 1.8, so two values are high; 1 − P = 1/266, ρ = 1/256. Kernels are matrices, several a mean."""
    low = 1 / 256 + 255 / 256 * (1 / 266) ** 0.5
    expected = torch.diag(torch.tensor([8 * (1 - low), 1.5 * (1 - low), 0.5 * low], dtype=torch.float64))
    torch.testing.assert_close(changed_by(shape, count).reshape(3, 3), expected)


def test_monosoup_leaves_what_is_no_matrix() -> None:
    """A bias, and a row of values, whose one direction is all there is."""
    for shape in ((9,), (1, 9)):
        task = torch.arange(9, dtype=torch.float64).reshape(shape)
        found = hfsoup.search("uniform", [{"w": task + 1}], merge="monosoup", base={"w": torch.ones(shape)})
        torch.testing.assert_close(found.state_dict()["w"], task + 1)


def test_monosoup_of_one_checkpoint_is_compared_with_it_and_verified(rooted: Any, data: Path, alone: Path) -> None:
    """One ingredient and its base make a soup, which is scored as it is written; bytes and scores come out again."""
    (one, *_), base = rooted
    found = bake(one, "--merge", "monosoup", "--base", base, "--dataset", data, "--output", "soup")
    told = ("--recipe", "uniform", "--dataset", data, "--output", "both")
    scored = bake("soup", one, "--include-soups", *told)
    assert found["soup"]["score"] == scored["ingredients"][0]["score"]
    assert found["best_ingredient"]["score"] == scored["ingredients"][1]["score"]
    assert not weights(Path("soup"))[MATRIX].equal(weights(Path(one))[MATRIX])
    assert "are those of one fine-tuned checkpoint, changed by `monosoup`" in Path("soup/README.md").read_text()
    done = run("verify", "soup", "--scores")
    assert done.code == 0, done.err


def test_one_checkpoint_needs_a_merge_that_changes_it_and_a_base(rooted: Any, alone: Path) -> None:
    """Others refuse it, and monosoup asks for the base."""
    (one, *_), base = rooted
    assert "expected two ingredients or more" in refused("bake", one, "--merge", "ties", "--base", base, code=2)
    assert "--base" in refused("bake", one, "--merge", "monosoup", code=2)


def test_among_several_one_that_is_kept_alone_stays_as_it_is(rooted: Any, data: Path, alone: Path) -> None:
    """A search that ends at one ingredient ships that ingredient, whatever the merge would make of it."""
    words, base = rooted
    told = ("--merge", "monosoup", "--base", base, "--max-ingredients", 1, "--dataset", data)
    found = bake(*words, "--recipe", "greedy", *told, "--output", "soup")
    kept = next(folder for folder, i in zip(words, found["ingredients"], strict=True) if i["used"])
    assert weights(Path("soup"))[MATRIX].equal(weights(Path(kept))[MATRIX])


@pytest.mark.parametrize("merge", ["task-arithmetic", "ties", "dare", "breadcrumbs"])
@pytest.mark.parametrize("scale", [0.3, 1.0, 1.5])
def test_a_scale_is_relative_to_the_mean_however_many_there_are(merge: str, scale: float) -> None:
    """Two equal task vectors and five are one soup: θ0 + λτ, where nothing is dropped."""
    base, members = given(1)
    told = {"merge": merge, "base": base, "scale": scale, "density": 1.0, "outliers": 0.0}
    for count in (2, 5):
        found = hfsoup.search("uniform", members * count, **told).state_dict()
        for name, start in base.items():
            torch.testing.assert_close(found[name], start + scale * (members[0][name] - start))


def test_task_arithmetic_at_1_is_the_mean() -> None:
    """And without a scale."""
    for options in ({}, {"scale": 1.0}):
        for name, tensor in merged("mean").items():
            torch.testing.assert_close(merged("task-arithmetic", **options)[name], tensor)


@pytest.mark.parametrize(
    ("merge", "then"), [("task-arithmetic", 0.5), ("dare", 0.5), ("breadcrumbs", 0.5), ("ties", 1.5)]
)
def test_a_record_of_a_scaled_sum_is_still_verified(merge: str, then: float, rooted: Any, alone: Path) -> None:
    """Records without a format had λ multiply the sum of the three, but for ties the mean, as it does today."""
    words, base = rooted
    bake(*words, "--merge", merge, "--base", base, "--scale", 1.5, "--output", "soup")
    path = Path("soup/soup.json")
    record = json.loads(path.read_text())
    assert record.pop("format") == 2
    record["options"]["scale"] = then
    record["config"] = record["config"].replace("scale: 1.5\n", f"scale: {then}\n")
    path.write_text(json.dumps(record))
    done = run("verify", "soup")
    assert done.code == 0, done.err
    path.write_text(json.dumps({**record, "format": 2}))
    assert run("verify", "soup").code == (0 if merge == "ties" else 1)


@pytest.mark.parametrize("merge", ROOTED)
def test_ingredients_that_are_the_base_give_the_base(merge: str) -> None:
    """No change is no change, however it is scaled."""
    base, _ = given()
    found = hfsoup.search("uniform", [base, base, base], merge=merge, base=base, scale=3.0).state_dict()
    torch.testing.assert_close(found["large"], base["large"], atol=1e-12, rtol=0)


@pytest.fixture(scope="module")
def rooted(vit: Family) -> Any:
    """Three ViTs, and a fourth as their base."""
    return [*vit.words[:3]], vit.folders[3]


def other_classes(folder: Path, target: Path) -> Path:
    """A copy for as many classes of other names."""
    names = {str(n): f"thing {n}" for n in range(len(NAMES))}
    return copy_model(folder, target, id2label=names, label2id={})


@pytest.mark.parametrize("merge", ALL)
@pytest.mark.parametrize("recipe", sorted(WITHOUT_DATA))
def test_pairs_without_data_are_verified(rooted: Any, alone: Path, data: Path, recipe: str, merge: str) -> None:
    """Each is baked, recorded, and baked again to the same bytes; with images only where the merge looks at them."""
    words, base = rooted
    given_base = ("--base", base) if merge in ROOTED else ()
    more = (*given_base, *(("--dataset", data) if merge in LOOKING else ()))
    found = bake(*words, "--recipe", recipe, *WITHOUT_DATA[recipe], "--merge", merge, *more, "--output", "soup")
    assert ("base" in found) == bool(given_base)
    done = run("verify", "soup")
    assert done.code == 0, done.err


@pytest.mark.parametrize(
    ("recipe", "merge"),
    [
        ("greedy", "ties"),
        ("pruned", "dare"),
        ("wise-ft", "mean"),
        ("wise-ft", "model-stock"),
        ("wise-ft", "fisher"),
        ("greedy", "regmean"),
    ],
)
def test_pairs_with_data_are_verified(rooted: Any, alone: Path, data: Path, recipe: str, merge: str) -> None:
    """Scores and bytes come out again, and a second bake takes every score from the journal."""
    words, base = rooted
    given_base = ("--base", base) if merge in ROOTED or recipe == "wise-ft" else ()
    told = (*words, "--recipe", recipe, "--merge", merge, *given_base, "--dataset", data)
    found = bake(*told, "--output", "soup")
    done = run("verify", "soup", "--scores")
    assert done.code == 0, done.err
    again = bake(*told, "--output", "again")
    assert again["images_forwarded"] == 0
    assert again["soup"]["sha256"] == found["soup"]["sha256"]


def test_what_the_merge_is_told_is_part_of_a_score_s_key(vit: Family, alone: Path, data: Path) -> None:
    """Another density, seed or base is measured anew; what was measured with the same is not."""
    words = (*vit.words[:2], "--recipe", "uniform", "--dataset", data, "--merge", "dare")
    told = [("--base", vit.folders[3]), ("--base", vit.folders[2])]
    told += [(*told[0], *more) for more in (("--density", 0.25), ("--seed", 1), ("--scale", 0.25))]
    for n, more in enumerate(told):
        found = bake(*words, *more, "--output", f"soup-{n}")
        assert found["images_forwarded"] > 0, more
    assert bake(*words, *told[0], "--output", "again")["images_forwarded"] == 0


def test_an_ingredient_alone_is_scored_once_whatever_the_merge(vit: Family, alone: Path, data: Path) -> None:
    """Bakes that differ in scale, density, base or merge forward what is new: a soup on both splits, no ingredient."""
    words = (*vit.words[:3], "--recipe", "uniform", "--dataset", data)
    ties, base = ("--merge", "ties", "--base"), vit.folders[3]
    told: list[tuple[object, ...]] = [(*ties, base, "--scale", scale) for scale in (0.5, 1.0, 1.5)]
    told += [(*ties, base, "--density", 0.5), (*ties, vit.folders[2]), ("--merge", "slerp"), ()]
    found = [bake(*words, *more, "--output", f"soup-{n}")["images_forwarded"] for n, more in enumerate(told)]
    assert found[1:] == [60 + 72] * (len(told) - 1)
    assert found[0] == 3 * 60 + (60 + 72) + 72


def test_a_mean_is_scored_once_with_a_base_or_without(vit: Family, alone: Path, data: Path) -> None:
    """A base that has no part in a mix is no part of its key: auto finds the scores of greedy and pruned."""
    words = (*vit.words[:3], "--dataset", data)
    plain = bake(*words, "--recipe", "auto", "--no-race", "--output", "plain")
    found = bake(*words, "--recipe", "auto", "--base", vit.folders[3], "--no-race", "--output", "auto")
    kept = found["soup"]["sha256"] == plain["soup"]["sha256"]
    assert found["images_forwarded"] == 5 * 60 + (0 if kept else 72)


def test_a_head_that_is_kept_is_kept_whatever_the_merge(rooted: Any, alone: Path) -> None:
    """With backbone-only the first one's head is in the soup, and the base has no part in it."""
    words, base = rooted
    other = other_classes(Path(words[1]), alone / "other")
    for merge in ("dare", "slerp"):
        more = ("--base", base) if merge in ROOTED else ()
        bake(words[0], other, "--on-mismatch", "backbone-only", "--merge", merge, *more, "--output", merge)
        kept = weights(Path(words[0]))
        soup = weights(Path(merge))
        assert soup["classifier.weight"].equal(kept["classifier.weight"])
        assert not soup["vit.embeddings.position_embeddings"].equal(kept["vit.embeddings.position_embeddings"])
        assert run("verify", merge).code == 0


def test_the_bytes_do_not_depend_on_blocks_or_threads(
    rooted: Any, alone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One thread or sixteen, large blocks or small ones: dare and ties write the same file."""
    for merge in ("ties", "dare"):
        found = set()
        for threads, block in ((1, 1 << 16), (16, 64)):
            monkeypatch.setattr("os.cpu_count", lambda threads=threads: threads)
            monkeypatch.setattr("hfsoup.averaging.averager.BLOCK", block)
            words = (*rooted[0], "--merge", merge, "--base", rooted[1], "--output", f"{merge}-{threads}")
            found.add(bake(*words)["soup"]["sha256"])
        assert len(found) == 1, merge


def test_wise_ft_is_the_best_of_ten_steps(vit: Family, alone: Path, data: Path, images: Any) -> None:
    """It stays away from a base that knows nothing; with a better one the soup is the interpolation that it says."""
    tuned, good = vit.folders[2], vit.folders[0]
    lost = shutil.copytree(good, alone / "lost")
    put_weights(lost, {k: torch.zeros_like(v) for k, v in weights(good).items()})
    words = (tuned, "--recipe", "wise-ft", "--dataset", data)
    assert bake(*words, "--base", lost, "--output", "one")["base"]["weight"] < 0.5
    found = bake(*words, "--base", good, "--output", "two")
    share = found["base"]["weight"]
    assert share > 0
    for name, tensor in weights(Path("two")).items():
        expected = (1 - share) * weights(tuned)[name].double() + share * weights(good)[name].double()
        torch.testing.assert_close(tensor, expected.float())
    assert found["soup"]["score"] == pytest.approx(accuracy(Path("two"), images["validation"]))
    assert f"weighs {share:g} beside" in Path("two/README.md").read_text()


def headless(folder: Path, target: Path) -> Path:
    """The same model without its head, as pre-trained ones are saved: names without `vit.`."""
    ViTModel.from_pretrained(folder, add_pooling_layer=False).save_pretrained(target)
    assert "embeddings.cls_token" in weights(target)
    return target


def test_a_base_without_the_head_leaves_the_head_averaged(rooted: Any, alone: Path) -> None:
    """Its names lack the first word; a note and the card say what was averaged, and the body is merged as ever."""
    words, base = rooted
    bare = headless(base, alone / "bare")
    done = run("bake", *words, "--merge", "task-arithmetic", "--scale", "0.5", "--base", bare, "--output", "soup")
    assert done.code == 0, done.err
    assert "has no 'classifier.bias', 'classifier.weight'" in done.err
    assert "classifier.weight" in Path("soup/README.md").read_text()
    bake(*words, "--merge", "task-arithmetic", "--scale", "0.5", "--base", base, "--output", "whole")
    bake(*words, "--output", "mean")
    soup, whole, mean = (weights(Path(name)) for name in ("soup", "whole", "mean"))
    for name, tensor in soup.items():
        assert tensor.equal((mean if name.startswith("classifier") else whole)[name]), name
    assert run("verify", "soup").code == 0


def test_a_base_with_other_classes_has_another_head(rooted: Any, alone: Path) -> None:
    """The head counts only for the same classes, and by name where they stand in another order."""
    words, base = rooted
    told = (*words, "--merge", "ties", "--density", "1", "--base")
    turned = permuted(base, alone / "turned", [3, 0, 5, 1, 4, 2])
    straight = bake(*told, base, "--output", "a")["soup"]["sha256"]
    assert bake(*told, turned, "--output", "b")["soup"]["sha256"] == straight
    done = run("bake", *told, other_classes(base, alone / "other"), "--output", "c")
    assert "has no 'classifier.bias', 'classifier.weight'" in done.err
    assert not weights(Path("c"))["classifier.weight"].equal(weights(Path("a"))["classifier.weight"])


def test_statistics_of_batch_norms_are_pooled_whatever_the_merge(resnet: Family, alone: Path) -> None:
    """Running means and variances are those of the mean, and only wise-ft gives the base a part in them."""
    words = resnet.words[:3]
    bake(*words, "--output", "mean")
    bake(*words, "--merge", "task-arithmetic", "--scale", "2", "--base", resnet.folders[3], "--output", "soup")
    mean, soup = weights(Path("mean")), weights(Path("soup"))
    assert all(soup[name].equal(mean[name]) for name in soup if "running_" in name or "num_" in name)
    assert not any(soup[name].equal(mean[name]) for name in soup if "convolution" in name)


def test_the_base_is_found_on_the_cards(on_hub: LocalHub, signed_in: LocalHub, vit: Family, alone: Path) -> None:
    """Where all cards name one base it is taken, pinned and recorded; where they do not, the error says so."""
    api = HfApi(token=on_hub.token)
    copies = []
    for n in range(2):
        copies.append(shutil.copytree(vit.folders[n], alone / f"tuned-{n}"))
        (copies[n] / "README.md").write_text("---\nbase_model: kit/vit-10\n---\n")
    done = run("bake", *copies, "--merge", "ties", "--output", "soup", "--json", "-")
    assert done.code == 0, done.err
    commit = api.model_info("kit/vit-10").sha
    assert done.json["base"] == {"id": "kit/vit-10", "revision": commit, "weight": 0.0}
    assert "from the ingredients' cards" in done.err
    record = json.loads(Path("soup/soup.json").read_text())
    assert record["base"]["revision"] == commit
    assert run("verify", "soup").code == 0
    (copies[1] / "README.md").write_text("---\nbase_model: kit/vit-1\n---\n")
    assert "kit/vit-1" in refused("bake", *copies, "--merge", "ties", "--output", "x", code=2)
    for hostile in ("/etc", "../tuned-1", "tuned-0/model.safetensors", "[a, b]", "{a: b}"):
        for copy in copies:
            (copy / "README.md").write_text(f"---\nbase_model: {hostile}\n---\n")
        assert "--base" in refused("bake", *copies, "--merge", "ties", "--output", "x", code=2)


def test_a_base_that_cannot_be_one_is_refused(rooted: Any, resnet: Family, alone: Path) -> None:
    """Another architecture, several models, none, or one that nothing uses; numbers out of their range too."""
    words, base = rooted
    ties = (*words, "--merge", "ties")
    assert "model type vit, found resnet" in refused("bake", *ties, "--base", resnet.folders[0], code=1)
    assert "expected one base, found 4" in refused("bake", *ties, "--base", resnet.glob, code=2)
    assert "--base" in refused("bake", *ties, code=2)
    assert "neither recipe nor merge" in refused("bake", *words, "--base", base, code=2)
    assert "density" in refused("bake", *ties, "--base", base, "--density", "0", code=2)
    assert "outliers" in refused("bake", *ties, "--base", base, "--outliers", "1", code=2)
    with pytest.raises(hfsoup.SoupError, match="base=STATE_DICT"):
        hfsoup.search("uniform", [{}], merge="ties")


def test_a_base_that_changed_since_or_is_broken_is_named(rooted: Any, alone: Path) -> None:
    """verify holds the base to its hashes, and NaN in it is an error that names it."""
    words, base = rooted
    own = shutil.copytree(base, alone / "own")
    bake(*words, "--merge", "ties", "--base", own, "--output", "soup")
    state = weights(own)
    state["vit.layernorm.bias"][0] = float("nan")
    put_weights(own, state)
    assert "differ from those that were baked" in refused("verify", "soup", code=1)
    block = refused("bake", *words, "--merge", "task-arithmetic", "--base", own, "--output", "x", code=1)
    assert "own" in block
    assert "vit.layernorm.bias" in block


def test_a_merged_soup_is_a_model(rooted: Any, alone: Path) -> None:
    """transformers loads what was written, every tensor of it."""
    bake(*rooted[0], "--merge", "model-stock", "--base", rooted[1], "--output", "soup")
    _, info = ViTForImageClassification.from_pretrained("soup", output_loading_info=True)
    assert not info["missing_keys"]


def test_a_base_that_nothing_started_from_is_refused(vit: Family, alone: Path) -> None:
    """One from another start is refused by its weights, one far from the ingredients noted, and the true one not."""
    state = weights(vit.folders[2])
    torch.manual_seed(7)
    drawn = {
        name: torch.randn_like(tensor) * tensor.std() if tensor.ndim > 1 else tensor for name, tensor in state.items()
    }
    for name, share in (("other", 1.0), ("far", 0.7)):
        copy_model(vit.folders[2], alone / name)
        put_weights(alone / name, {n: share * drawn[n] + (1 - share) * tensor for n, tensor in state.items()})
    words = [*vit.words[:2], "--merge", "ties", "--output", "soup", "--base"]
    block = refused("bake", *words, alone / "other", code=1)
    assert "were not fine-tuned from this base" in block
    assert "--base" in block
    assert "is far from the ingredients: the cosine" in run("bake", *words, alone / "far").err
    assert "far from" not in run("bake", *words, vit.words[2], "--overwrite").err
