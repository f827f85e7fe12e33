"""What images tell of an ingredient's weights: what is estimated, and bakes whose merge asks for it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from family import CONFIGS, NAMES, Family, cast, copy_model, logits, permuted, put_weights, weights
from shell import bake, refused, run
from test_alignment import shuffled
from test_merges import LOOKING, other_classes
from threadpoolctl import threadpool_limits
from transformers import AutoConfig, AutoModelForImageClassification, ViTImageProcessorPil

import hfsoup

SHOWN = "60 images of *validation*, without their labels"


def small() -> torch.nn.Sequential:
    """A sure classifier of four classes, with a layer that nothing reaches."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(12, 6), torch.nn.Tanh(), torch.nn.Linear(6, 4)
    ).train()
    with torch.no_grad():
        model[3].weight.mul_(6)
    return model


def test_the_fisher_is_the_expectation_over_the_model_s_own_classes() -> None:
    """Within its standard error of the sum over every image and class, however many images share a pass."""
    model, images = small(), torch.randn(8, 3, 2, 2)
    exact = {name: torch.zeros_like(tensor) for name, tensor in model.named_parameters()}
    for image in images:
        shares = model(image[None]).log_softmax(1)[0]
        for share in shares:
            gradients = torch.autograd.grad(share, list(model.parameters()), retain_graph=True)
            for total, gradient in zip(exact.values(), gradients, strict=True):
                total += share.exp().detach() * gradient**2 / len(images)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for times in (64, 128):
        (found,) = hfsoup.estimate("fisher", [before], model=model, images=images.repeat(times, 1, 1, 1))
        assert found.keys() == exact.keys()
        for name, wanted in exact.items():
            torch.testing.assert_close(found[name], wanted, rtol=0.5, atol=0)
            assert found[name].sum().item() == pytest.approx(wanted.sum().item(), rel=0.15)
    assert model.training
    assert all(tensor.equal(before[name]) for name, tensor in model.state_dict().items())


def test_gram_matrices_are_of_what_reaches_a_layer() -> None:
    """For linear layers and 1×1 convolutions at their stride, and for no other layer."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3), torch.nn.Conv2d(4, 6, 1, stride=2), torch.nn.Conv2d(6, 6, 1, groups=2),
        torch.nn.Flatten(), torch.nn.Linear(24, 5),
    )  # fmt: skip
    images = torch.randn(150, 3, 6, 6)
    (found,) = hfsoup.estimate("gram", [model.state_dict()], model=model, images=images)
    assert found.keys() == {"1.weight", "4.weight"}
    first = model[0](images)[:, :, ::2, ::2].movedim(1, -1).reshape(-1, 4).double()
    last = model[:4](images).double()
    for name, rows in (("1.weight", first), ("4.weight", last)):
        torch.testing.assert_close(found[name].double(), rows.T @ rows / len(rows), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("merge", sorted(LOOKING))
def test_a_soup_is_the_merge_of_what_is_estimated(merge: str, family: Family, data: Path, images: Any) -> None:
    """Block by block from files, by the files' names, it is what estimate and search give of the models themselves."""
    soup = hfsoup.bake(*family.words[:3], recipe="uniform", merge=merge, dataset=str(data), bn="average")
    models = [AutoModelForImageClassification.from_pretrained(folder) for folder in family.folders[:3]]
    states = [model.state_dict() for model in models]
    processor = ViTImageProcessorPil.from_pretrained(family.folders[0])
    pixels = processor(images["validation"]["image"][:], return_tensors="pt")["pixel_values"]
    told = hfsoup.estimate(LOOKING[merge], states, model=models[0], images=pixels)
    wanted = hfsoup.search("uniform", states, merge=merge, importance=told).state_dict()
    mean = hfsoup.search("uniform", states).state_dict()
    found = soup.pipeline().model.state_dict()
    moved = set()
    for name, tensor in wanted.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-4, atol=1e-5)
        if tensor.is_floating_point() and not tensor.allclose(mean[name], atol=1e-4):
            moved.add(name)
    layers = {name for name, tensor in told[0].items() if merge == "regmean" or tensor.any()}
    assert moved <= layers
    assert len(moved) > (6 if len(layers) > 6 else 1), moved


def test_a_normalised_fisher_weighs_every_ingredient_alike(vit: Family, data: Path, images: Any, alone: Path) -> None:
    """Each F is divided by its L2 norm over all tensors, from files and from state dicts."""
    told = ("--recipe", "uniform", "--merge", "fisher", "--dataset", data, "--output")
    bake(*vit.words[:2], *told, "plain")
    bake(*vit.words[:2], "--normalise", *told, "soup")
    models = [AutoModelForImageClassification.from_pretrained(folder) for folder in vit.folders[:2]]
    states = [model.state_dict() for model in models]
    processor = ViTImageProcessorPil.from_pretrained(vit.folders[0])
    pixels = processor(images["validation"]["image"][:], return_tensors="pt")["pixel_values"]
    found = hfsoup.estimate("fisher", states, model=models[0], images=pixels)
    norms = [torch.cat([tensor.double().ravel() for tensor in one.values()]).norm() for one in found]
    scaled = [{name: f.double() / norm for name, f in one.items()} for one, norm in zip(found, norms, strict=True)]
    soup, plain = (AutoModelForImageClassification.from_pretrained(name).state_dict() for name in ("soup", "plain"))
    moved = 0
    for name, first in scaled[0].items():
        top = first * states[0][name].double() + scaled[1][name] * states[1][name].double()
        bottom = first + scaled[1][name]
        wanted = torch.where(bottom > 0, top / bottom, (states[0][name].double() + states[1][name].double()) / 2)
        torch.testing.assert_close(soup[name].double(), wanted, rtol=1e-4, atol=1e-5)
        moved += not torch.allclose(soup[name], plain[name], rtol=1e-3)
    assert moved > 6
    louder = [found[0], {name: 7 * tensor for name, tensor in found[1].items()}]
    made = [
        hfsoup.search("uniform", states, merge="fisher", importance=one, normalise=True).state_dict()
        for one in (found, louder)
    ]
    for name in found[0]:
        torch.testing.assert_close(made[0][name], made[1][name], rtol=1e-5, atol=1e-6)
    assert run("verify", "soup").code == 0


@pytest.mark.parametrize("merge", sorted(LOOKING))
def test_record_and_card_say_what_was_looked_at_and_verify_looks_again(
    merge: str, vit: Family, data: Path, alone: Path
) -> None:
    """The images and a hash for every ingredient; another hash, or other images, are named."""
    bake(*vit.words[:2], "--recipe", "uniform", "--merge", merge, "--dataset", data, "--output", "soup")
    path = Path("soup/soup.json")
    record = json.loads(path.read_text())
    told = record["importance"]
    assert (told["kind"], told["seed"], told["images"]["images"]) == (LOOKING[merge], 0, 60)
    assert SHOWN in Path("soup/README.md").read_text()
    told["files"][1] = "0" * 64
    path.write_text(json.dumps(record))
    assert "vit-2: its importance, estimated again, is not" in refused("verify", "soup", code=1)
    told["files"].append("0" * 64)
    path.write_text(json.dumps(record))
    assert "the importance of 3 ingredients as recorded, found that of 2" in refused("verify", "soup", code=1)
    told["images"]["fingerprint"] = "other"
    path.write_text(json.dumps(record))
    assert "the images that the merge used have changed" in refused("verify", "soup", code=1)


def test_scores_are_kept_by_what_was_estimated(vit: Family, data: Path, images: Any, alone: Path) -> None:
    """Other signs or other images are scored anew, the same ones are not."""
    shutil.copytree(data, "data")
    images["train"].to_parquet("data/train-00000-of-00001.parquet")
    words = (*vit.words[:2], "--recipe", "uniform", "--merge", "fisher", "--dataset", "data")
    first = bake(*words, "--output", "a")
    assert first["images_forwarded"] == 3 * 60 + 2 * 72
    for n, more in enumerate((("--seed", -1), ("--calibration-split", "validation"))):
        assert bake(*words, *more, "--output", f"b{n}")["images_forwarded"] >= 60 + 72, more
    again = bake(*words, "--output", "c")
    assert again["images_forwarded"] == 0
    assert again["soup"]["sha256"] == first["soup"]["sha256"]


@pytest.mark.parametrize("merge", sorted(LOOKING))
def test_classes_in_another_order_change_nothing(merge: str, vit: Family, data: Path, alone: Path) -> None:
    """An ingredient is shown images with its classes in the reference's order, so the soup is the same."""
    told = ("--recipe", "uniform", "--merge", merge, "--dataset", data, "--output")
    other = permuted(vit.folders[1], alone / "vit-2", [3, 0, 5, 1, 4, 2])
    bake(*vit.words[:2], *told, "plain")
    bake(vit.words[0], other, *told, "turned")
    plain, turned = weights(Path("plain")), weights(Path("turned"))
    assert all(torch.allclose(plain[name], turned[name], rtol=1e-4, atol=1e-5) for name in plain)
    assert run("verify", "turned").code == 0


@pytest.mark.parametrize("merge", sorted(LOOKING))
def test_mixed_types_and_heads_for_other_classes(merge: str, vit: Family, data: Path, alone: Path) -> None:
    """Each is looked at with its own head, the first one's is in the soup, and both soups are verified."""
    told = ("--recipe", "uniform", "--merge", merge, "--dataset", data, "--output")
    bake(vit.words[0], cast(vit.folders[1], alone / "half", torch.bfloat16), *told, "mixed")
    other = other_classes(vit.folders[1], alone / "other")
    bake(vit.words[0], other, "--on-mismatch", "backbone-only", *told, "headed")
    found, first = weights(Path("headed")), weights(vit.folders[0])
    assert found["classifier.weight"].equal(first["classifier.weight"])
    body = (
        "vit.layers.0.mlp.fc1.weight"
        if "vit.layers.0.mlp.fc1.weight" in found
        else next(name for name in found if name.endswith("dense.weight"))
    )
    assert not found[body].allclose((first[body] + weights(vit.folders[1])[body]) / 2, atol=1e-5)
    for name in ("mixed", "headed"):
        done = run("verify", name)
        assert done.code == 0, done.err


@pytest.mark.parametrize("merge", sorted(LOOKING))
def test_aligned_ingredients_are_looked_at_as_they_are_aligned(
    merge: str, vit: Family, data: Path, images: Any, alone: Path
) -> None:
    """The soup of a model and its shuffled copy is that model."""
    first, second = copy_model(vit.folders[0], alone / "first"), copy_model(vit.folders[0], alone / "second")
    put_weights(second, shuffled(weights(second), "vit", AutoConfig.from_pretrained(first).to_dict()))
    words = (first, second, "--recipe", "uniform", "--merge", merge, "--dataset", data, "--align", "weights")
    bake(*words, "--output", "soup")
    shown = images["test"]["image"][:]
    assert torch.allclose(logits(Path("soup"), shown), logits(first, shown), atol=1e-3)
    assert run("verify", "soup").code == 0


def test_batch_norms_get_new_statistics_as_ever(resnet: Family, data: Path, alone: Path) -> None:
    """The soup is scored both ways, and shipped and verified as it scores best."""
    words = (*resnet.words[:2], "--recipe", "uniform", "--merge", "regmean", "--dataset", data, "--output", "soup")
    bake(*words, "--bn", "recalibrate")
    record = json.loads(Path("soup/soup.json").read_text())
    assert record["batch_norm"]["statistics"]
    assert record["batch_norm"]["calibration"] == record["importance"]["images"]
    done = run("verify", "soup", "--scores")
    assert done.code == 0, done.err


def test_the_bytes_do_not_depend_on_the_threads_of_numpy(vit: Family, data: Path, alone: Path) -> None:
    """A large system of equations is solved by one thread, whatever its library would take."""
    found, words = set(), [alone / f"wide-{n}" for n in range(2)]
    classes = {"id2label": dict(enumerate(NAMES)), "label2id": {name: n for n, name in enumerate(NAMES)}}
    config = AutoConfig.for_model("vit", **{**CONFIGS["vit"], "intermediate_size": 384}, **classes)
    for seed, folder in enumerate(words):
        torch.manual_seed(seed)
        AutoModelForImageClassification.from_config(config).save_pretrained(folder)
        ViTImageProcessorPil.from_pretrained(vit.folders[0]).save_pretrained(folder)
    for threads in (1, 4):
        with threadpool_limits(threads, user_api="blas"):
            told = ("--recipe", "uniform", "--merge", "regmean", "--dataset", data, "--dtype", "float64")
            found.add(bake(*words, *told, "--output", f"soup-{threads}")["soup"]["sha256"])
    assert len(found) == 1


def test_a_dry_run_counts_what_is_shown(vit: Family, data: Path, alone: Path) -> None:
    """Every ingredient sees the images once, in the plan and on the screen; for the mean none does."""
    words = (*vit.words, "--dataset", data, "--dry-run")
    work = bake(*words, "--merge", "fisher")["work"]
    assert (work["shown"], work["estimated"], work["calibration"]) == (60, 240, None)
    assert "importance of weights, on 240 images" in run("bake", *words, "--merge", "regmean").err
    assert bake(*words)["work"]["estimated"] is None


def test_what_lacks_images_or_a_merge_is_refused_at_once(alone: Path) -> None:
    """Before the Hub is asked, with the option that would do."""
    for merge in LOOKING:
        said = refused("bake", "org/nowhere", "--merge", merge, code=2)
        assert f"the merge {merge} needs images" in said
        assert "--dataset" in said
    words = ("--merge", "fisher", "--align", "weights", "--fit", "--dataset", "org/nothing")
    assert "--fit leaves fisher nothing to merge" in refused("bake", "org/nowhere", *words, code=2)
    with pytest.raises(hfsoup.SoupError, match="needs images, whose labels it does not read"):
        hfsoup.SoupCallback(merge="fisher")
    with pytest.raises(hfsoup.SoupError, match="needs the gram of each of the 2 ingredients"):
        hfsoup.search("uniform", [{}, {}], merge="regmean")
    with pytest.raises(hfsoup.SoupError, match="known: fisher, gram"):
        hfsoup.estimate("nothing", [small().state_dict()], model=small(), images=torch.ones(1, 12))
    state = {"w": torch.ones(2)}
    with pytest.raises(hfsoup.SoupError, match="expected shape"):
        hfsoup.search("uniform", [state] * 2, merge="fisher", importance=[{"w": torch.ones(3)}] * 2)


def test_numbers_that_are_none_are_named(vit: Family, data: Path, alone: Path) -> None:
    """An ingredient whose activations are NaN cannot be looked at."""
    broken = copy_model(vit.folders[0], alone / "broken")
    put_weights(broken, {name: tensor * float("nan") for name, tensor in weights(broken).items()})
    for merge in LOOKING:
        words = (vit.words[1], broken, "--recipe", "uniform", "--merge", merge, "--dataset", data, "--output", "soup")
        said = refused("bake", *words, code=1)
        assert "expected finite weights and activations" in said
        assert "broken" in said
