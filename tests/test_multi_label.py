"""Multi-label models: sigmoids as pipeline() has them, multi-label metrics, every recipe; regression is not scored."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image, List, Value
from family import NAMES, Family, copy_model, put_weights, weights
from huggingface_hub import HfApi, ModelCard
from hypothesis import given
from hypothesis import strategies as st
from several import make_multi, make_several, multi_hot
from shell import bake, refused, run
from sklearn.metrics import average_precision_score, f1_score
from transformers import pipeline

from hfsoup.data.splits import halve, limit_rows
from hfsoup.data.tasks import MULTI_LABEL
from hfsoup.evaluation.metrics import load_metric
from hfsoup.localhub import LocalHub

METRICS = MULTI_LABEL.metrics


@pytest.fixture(scope="session")
def several() -> DatasetDict:
    """Images with several classes each."""
    return make_several()


@pytest.fixture(scope="session")
def multi(vit: Family, several: DatasetDict, tmp_path_factory: pytest.TempPathFactory) -> Family:
    """Four multi-label ViTs."""
    return make_multi(vit, several, tmp_path_factory.mktemp("multi"))


@pytest.fixture(scope="session")
def multi_resnet(resnet: Family, several: DatasetDict, tmp_path_factory: pytest.TempPathFactory) -> Family:
    """Four multi-label ResNets."""
    return make_multi(resnet, several, tmp_path_factory.mktemp("multi-resnet"))


@pytest.fixture(scope="session")
def pictures(several: DatasetDict, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The selection and test images as parquet files, their labels lists of ClassLabel."""
    return write(several, tmp_path_factory.mktemp("several") / "d")


def write(images: Any, folder: Path) -> Path:
    folder.mkdir(parents=True)
    for name in ("validation", "test"):
        images[name].to_parquet(folder / f"{name}-0.parquet")
    return folder


def probabilities(folder: Path, rows: Any) -> Any:
    """What the pipeline gives each class of each image, images × classes."""
    classify = pipeline("image-classification", str(folder))
    said = [classify(picture, top_k=len(NAMES)) for picture in rows["image"][:]]
    return np.array([[{one["label"]: one["score"] for one in each}[name] for name in NAMES] for each in said])


def scored(name: str, true: Any, shares: Any) -> float:
    """scikit-learn's number."""
    if name == "average_precision":
        return float(average_precision_score(true, shares, average="macro"))
    return float(f1_score(true, shares >= 0.5, average=name.removeprefix("f1_"), zero_division=0))


@pytest.mark.parametrize("name", METRICS)
def test_a_multi_label_bake_scores_what_the_pipeline_says(
    name: str, multi: Family, several: DatasetDict, pictures: Path, alone: Path
) -> None:
    """Ingredients and soup have scikit-learn's metric of the pipeline's sigmoids; rule and threshold are stated."""
    done = run("bake", *multi.words, "--dataset", pictures, "--metric", name, "--output", "soup", "--json", "-")
    assert done.code == 0, done.err
    found = done.json
    true = {part: multi_hot(several[part]) for part in ("validation", "test")}
    for folder, ingredient in zip(multi.folders, found["ingredients"], strict=True):
        wanted = scored(name, true["validation"], probabilities(folder, several["validation"]))
        assert ingredient["score"] == pytest.approx(wanted, abs=1e-6)
    for part, value in (("validation", found["soup"]["score"]), ("test", found["soup"]["test"])):
        assert value == pytest.approx(scored(name, true[part], probabilities(Path("soup"), several[part])), abs=1e-6)
    assert (found["metric"], found["task"], found["threshold"]) == (name, "multi-label", 0.5)
    low, high = found["soup"]["ci95"]
    assert low <= found["soup"]["test"] <= high
    assert found["comparison"]["mcnemar_p"] is None
    assert "a class is predicted where its sigmoid is at least 0.5" in done.err
    record = json.loads(Path("soup/soup.json").read_text())["dataset"]
    assert (record["task"], record["threshold"], record["metric"]) == ("multi-label", 0.5, name)
    card = ModelCard.load("soup/README.md")
    assert "sigmoid is at least 0.5" in card.text
    assert "multi-label" in card.data.tags
    (result,) = card.data.eval_results
    assert result.metric_type == {"average_precision": "average_precision"}.get(name, "f1")
    assert result.metric_value == found["soup"]["test"]
    assert "≤" not in done.err


@given(st.integers(1, 30), st.integers(1, 5), st.sampled_from((2, 5, 1000)), st.integers(0, 2**31))
def test_a_metric_is_scikit_learns(images: int, classes: int, levels: int, seed: int) -> None:
    """Of every class that occurs, with many equal probabilities and with none."""
    random = np.random.default_rng(seed)
    shares = random.integers(0, levels + 1, (images, classes)).astype(np.float32) / levels
    true = random.integers(0, 2, (images, classes))
    present, named = true.any(axis=0), true.any(axis=0) | (shares >= 0.5).any(axis=0)
    each = [average_precision_score(true[:, c], shares[:, c]) for c in np.flatnonzero(present)]
    found = {name: load_metric(name, MULTI_LABEL).value(shares, true) for name in METRICS}
    assert found["average_precision"] == pytest.approx(np.mean(each) if each else 0, abs=1e-6)
    f1 = [f1_score(true[:, c], shares[:, c] >= 0.5, zero_division=0) for c in np.flatnonzero(named)]
    assert found["f1_macro"] == pytest.approx(np.mean(f1) if f1 else 0)
    assert found["f1_micro"] == pytest.approx(f1_score(true.ravel(), shares.ravel() >= 0.5, zero_division=0))


@given(st.integers(1, 30), st.integers(1, 5), st.sampled_from((2, 5, 1000)), st.integers(0, 2**31))
def test_a_metric_of_drawn_images_is_that_of_their_predictions(
    images: int, classes: int, levels: int, seed: int
) -> None:
    """Some images are drawn several times and others not at all, as a bootstrap does."""
    random = np.random.default_rng(seed)
    shares = random.integers(0, levels + 1, (images, classes)).astype(np.float32) / levels
    true, rows = random.integers(0, 2, (images, classes)), random.integers(0, images, images)
    for name in METRICS:
        ours = load_metric(name, MULTI_LABEL)
        assert ours.on_rows is not None
        assert ours.on_rows(shares, true)(rows) == pytest.approx(ours.value(shares[rows], true[rows]), abs=1e-12)


@pytest.mark.parametrize(
    "recipe", ["uniform", "greedy-random", "pruned", "auto", "weighted", "learned", "radin", "search"]
)
def test_every_recipe_takes_multi_label_models(recipe: str, multi: Family, pictures: Path, alone: Path) -> None:
    """Chosen by mean average precision unless another metric is named; baked again it is the same, scores included."""
    found = bake(*multi.words[:3], "--recipe", recipe, "--dataset", pictures, "--output", "soup")
    assert found["metric"] == "average_precision"
    assert 0.3 < found["soup"]["test"] < 1
    done = run("verify", "soup", "--scores")
    assert done.code == 0, done.err


def test_batch_norms_ensemble_shifts_fisher_and_distillation(
    multi_resnet: Family, several: DatasetDict, pictures: Path, alone: Path
) -> None:
    """What looks at images works with sigmoids too; the ensemble is that of the mean of logits."""
    words = (*multi_resnet.words[:2], "--dataset", pictures, "--recipe", "uniform")
    found = bake(*words, "--ensemble", "--shifts", "--bn", "average", "--figures", "--output", "soup")
    logits = [np.log(p / (1 - p)) for p in (probabilities(f, several["test"]) for f in multi_resnet.folders[:2])]
    shares = 1 / (1 + np.exp(-np.mean(logits, axis=0)))
    wanted = scored("average_precision", multi_hot(several["test"]), shares)
    assert found["ensemble"]["best"]["value"] == pytest.approx(wanted, abs=1e-4)
    assert len(found["shifts"]) == 12
    bake(*words, "--merge", "fisher", "--output", "fisher")
    trained = bake(*words, "--distill", 2, "--output", "distilled")
    assert 0.3 < trained["soup"]["test"] < 1


def test_calibration_is_that_of_every_class_of_every_image(
    multi: Family, several: DatasetDict, pictures: Path, alone: Path
) -> None:
    """Σ nᵦ/n · |share that has the class − mean probability| over 15 bins of all images and classes."""
    found = bake(multi.words[0], multi.words[1], "--recipe", "uniform", "--dataset", pictures, "--output", "soup")
    shares, true = probabilities(Path("soup"), several["test"]).ravel(), multi_hot(several["test"]).ravel()
    bins = np.minimum((np.ceil(shares * 15) - 1).astype(int), 14)
    wanted = sum(abs((true - shares)[bins == b].sum()) for b in range(15)) / len(true)
    assert found["soup"]["ece"] == pytest.approx(wanted, abs=1e-5)


def with_labels(several: DatasetDict, feature: Any, make: Callable[[list[int]], Any], folder: Path) -> Path:
    """Both splits with another form of labels."""
    parts = {}
    for part in ("validation", "test"):
        rows = several[part]
        columns = {"image": rows["image"][:], "tags": [make(held) for held in rows["labels"][:]]}
        parts[part] = Dataset.from_dict(columns, features=Features({"image": Image(), "tags": feature}))
    return write(parts, folder)


def hot(held: list[int]) -> list[int]:
    return [int(n in held) for n in range(len(NAMES))]


REVERSED = list(reversed(NAMES))
FORMS: dict[str, tuple[Any, Callable[[list[int]], Any]]] = {
    "names": (List(Value("string")), lambda held: [NAMES[n].upper() for n in held]),
    "numbers": (List(Value("int64")), lambda held: held),
    "classes in another order": (
        List(ClassLabel(names=REVERSED)),
        lambda held: [REVERSED.index(NAMES[n]) for n in held],
    ),
    "0 and 1": (List(Value("int8")), hot),
    "floats": (List(Value("float32")), lambda held: [float(x) for x in hot(held)]),
    "truth values": (List(Value("bool"), length=len(NAMES)), lambda held: [bool(x) for x in hot(held)]),
}


@pytest.mark.parametrize("form", list(FORMS))
def test_labels_are_read_in_every_form(
    form: str, multi: Family, several: DatasetDict, pictures: Path, alone: Path
) -> None:
    """Lists of names, of numbers, of ClassLabel in any order, and vectors of 0 and 1 give one score."""
    wanted = run("eval", multi.words[0], "--dataset", pictures, "--json", "-").json
    where = with_labels(several, *FORMS[form], alone / "d")
    done = run("eval", multi.words[0], "--dataset", where, "--json", "-")
    assert done.code == 0, done.err
    assert (done.json["score"], done.json["test"]) == (wanted["score"], wanted["test"])
    assert (done.json["task"], done.json["threshold"]) == ("multi-label", 0.5)
    assert "is at least 0.5" in done.err


def test_a_column_for_each_class_is_read(multi: Family, several: DatasetDict, pictures: Path, alone: Path) -> None:
    """Where every class of the model has a column of its name, with true and false or 1 and 0."""
    wanted = run("eval", multi.words[0], "--dataset", pictures, "--json", "-").json
    parts = {}
    for part, kind in (("validation", "bool"), ("test", "int64")):
        rows = several[part]
        columns = {name: [n in held for held in rows["labels"][:]] for n, name in enumerate(NAMES)}
        features = Features({"image": Image(), **{name: Value(kind) for name in NAMES}})
        parts[part] = Dataset.from_dict({"image": rows["image"][:], **columns}, features=features)
    found = run("eval", multi.words[0], "--dataset", write(parts, alone / "d"), "--json", "-")
    assert found.code == 0, found.err
    assert found.json["test"] == wanted["test"]


WRONG: dict[str, tuple[Any, Callable[[list[int]], Any], str]] = {
    "a class that is none": (List(Value("string")), lambda held: ["kiwi", *held[:0]], "kiwi"),
    "a number too large": (List(Value("int64")), lambda held: [*held[:1], 9], "labels outside 0 to 5: found 9"),
    "no label": (List(Value("int64")), lambda held: held if len(held) != 1 else None, "rows without a label"),
    "the same class twice": (List(Value("int64")), lambda held: held + held[:1], "the same class twice"),
    "shares": (List(Value("float32")), lambda held: [0.3] * 6, "found '0.3"),
    "nothing at all": (List(Value("int64")), lambda held: [], "no class; a score on them says nothing"),
}


@pytest.mark.parametrize("case", list(WRONG))
def test_labels_that_are_none_are_refused(case: str, multi: Family, several: DatasetDict, alone: Path) -> None:
    """With the row, what was found, and never as a score."""
    feature, make, text = WRONG[case]
    where = with_labels(several, feature, make, alone / "d")
    assert text in refused("eval", multi.words[0], "--dataset", where, "--split", "validation", code=1)


def test_a_single_label_model_is_not_scored_on_several_classes(vit: Family, pictures: Path, alone: Path) -> None:
    """Nor the other way round by its metrics; the error names what decides."""
    block = refused("eval", vit.words[0], "--dataset", pictures, "--label-column", "labels", code=1)
    assert "problem_type is not multi_label_classification" in block
    block = refused("eval", vit.words[0], "--dataset", pictures, "--metric", "f1_micro", code=2)
    assert "'f1_micro' does not score single-label models" in block


def test_accuracy_does_not_score_multi_label_models(multi: Family, pictures: Path, alone: Path) -> None:
    """The error names the metrics that do."""
    block = refused("bake", *multi.words[:2], "--dataset", pictures, "--metric", "accuracy", "--output", "s", code=2)
    assert "average_precision, f1_micro, f1_macro do" in block


@pytest.mark.parametrize("kind", ["regression", "one output", "unknown"])
def test_regression_is_refused_for_scoring_before_anything_is_pulled(
    kind: str, on_hub: LocalHub, vit: Family, data: Path, alone: Path
) -> None:
    """Without a dataset it is averaged; with one, no more than a header is asked of the Hub."""
    changes: dict[str, Any] = {"problem_type": {"one output": None}.get(kind, kind)}
    if kind == "one output":
        changes |= {"id2label": {"0": "age"}, "label2id": {"age": 0}}
    api, names = HfApi(token=on_hub.token), []
    for n, folder in enumerate(vit.folders[:2]):
        target = copy_model(folder, alone / f"r-{n}", **changes)
        if kind == "one output":
            found = weights(target)
            head = {k: v[:1] for k, v in found.items() if k.startswith("classifier")}
            put_weights(target, {**found, **head})
        names.append(f"kit/{kind.replace(' ', '-')}-{n}")
        api.create_repo(names[-1])
        api.upload_folder(repo_id=names[-1], folder_path=target)
    on_hub.forget_requests()
    block = refused("bake", *names, "--dataset", data, "--output", "soup", code=1)
    assert "regression" in block or "found 'unknown'" in block
    assert "config.json" in block
    assert not [r for r in on_hub.requests if "model.safetensors" in r.path and (r.method, r.status) == ("GET", 200)]
    if kind != "unknown":
        bake(alone / "r-0", alone / "r-1", "--output", "averaged")


def test_a_report_shows_sets_of_classes(multi: Family, several: DatasetDict, pictures: Path, alone: Path) -> None:
    """Images on which the sets differ, and how often exactly the true set is predicted: those of at least one half."""
    bake(*multi.words, "--recipe", "uniform", "--dataset", pictures, "--output", "soup")
    found = json.loads(Path("soup/evaluation.json").read_text())
    predicted = [np.flatnonzero(row).tolist() for row in probabilities(Path("soup"), several["test"]) >= 0.5]
    assert found["soup"] == predicted
    right = sum(a == b == c for a, b, c in zip(found["soup"], found["best"], found["labels"], strict=True))
    differ = sum(a != b for a, b in zip(found["soup"], found["best"], strict=True))
    done = run("report", "soup", "-o", "page.html")
    assert done.code == 0, done.err
    page = Path("page.html").read_text()
    assert f"name different classes for {differ}" in page
    assert f"The set of classes that is predicted is exactly right for both on {right}" in page
    assert page.count('<figure class="tile"') == min(differ, 40)


def test_a_report_has_the_calibration_of_every_class_of_every_image(
    multi: Family, several: DatasetDict, pictures: Path, alone: Path
) -> None:
    """Bins count probabilities of all classes and how many of them the image has, without intervals."""
    bake(*multi.words, "--recipe", "uniform", "--dataset", pictures, "--output", "soup")
    found = json.loads(Path("soup/evaluation.json").read_text())["calibration"]["soup"]
    shares, truth = probabilities(Path("soup"), several["test"]), multi_hot(several["test"])
    bins = np.minimum((15 * shares).astype(int), 14)
    assert found["count"] == np.bincount(bins.ravel(), minlength=15).tolist()
    assert found["right"] == np.bincount(bins[truth == 1], minlength=15).tolist()
    done = run("report", "soup", "-o", "page.html")
    assert done.code == 0, done.err
    page = Path("page.html").read_text()
    assert "every class of every test image" in page
    assert 'class="whisker"' not in page


SETS = st.lists(st.sets(st.integers(0, 4)), min_size=2, max_size=60)


@given(SETS, st.integers(2, 50))
def test_sets_are_halved_and_limited_in_their_shares(held: list[set[int]], limit: int) -> None:
    """Halves that differ by one row at most of each set; a limit takes rows of everywhere, always the same."""
    labels = np.array([[int(n in each) for n in range(5)] for each in held])
    first, second = halve(labels)
    assert sorted([*first, *second]) == list(range(len(held)))
    for each in {frozenset(s) for s in held}:
        counts = [sum(frozenset(held[n]) == each for n in half) for half in (first, second)]
        assert abs(counts[0] - counts[1]) <= 1
    rows = limit_rows(labels, limit)
    assert len(rows) == len(set(rows.tolist())) == min(limit, len(held))
    for each in {frozenset(s) for s in held}:
        share = len(rows) / len(held) * sum(frozenset(s) == each for s in held)
        assert abs(sum(frozenset(held[n]) == each for n in rows) - share) < 1.0001


def test_one_split_is_halved_by_sets(multi: Family, several: DatasetDict, alone: Path) -> None:
    """The note says which rule cut it."""
    several["validation"].to_parquet(alone / "validation.parquet")
    done = run("eval", multi.words[0], "--dataset", "validation.parquet")
    assert done.code == 0, done.err
    assert "stratified by the set of classes of an image" in done.err
