"""The metrics against scikit-learn's, the intervals and tests against scipy's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from family import Family, copy_model, put_weights, weights, write_parquet
from huggingface_hub import HfApi
from hypothesis import example, given
from hypothesis import strategies as st
from scipy.stats import binomtest
from shell import bake, refused, run
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score, top_k_accuracy_score

from hfsoup.data.metrics import METRICS, metric
from hfsoup.data.tasks import SINGLE_LABEL
from hfsoup.data.tasks.task import Metric
from hfsoup.evaluation.comparison import ScoredPredictions, compare
from hfsoup.evaluation.intervals import draw_bootstrap, mcnemar_test, percentile_intervals, wilson_interval
from hfsoup.evaluation.metrics import load_metric
from hfsoup.evaluation.scores import Score
from hfsoup.localhub import LocalHub
from hfsoup.utils.text import format_probability

CLASSES = 7


@st.composite
def answers(draw: st.DrawFn) -> tuple[Any, Any]:
    """Scores of seven classes for some images, and the true classes."""
    count = draw(st.integers(1, 40))
    seed = draw(st.integers(0, 2**32 - 1))
    random = np.random.default_rng(seed)
    truth = random.integers(0, draw(st.integers(1, CLASSES)), count)
    scores = random.normal(size=(count, CLASSES)) + draw(st.sampled_from([0, 1, 3])) * np.eye(CLASSES)[truth]
    return scores, truth


def ranked(scores: Any, top: int) -> Any:
    return np.argsort(-scores, axis=1)[:, :top]


PEERS = {
    "accuracy": lambda s, t: accuracy_score(t, s.argmax(1)),
    "top5_accuracy": lambda s, t: top_k_accuracy_score(t, s, k=5, labels=range(CLASSES)),
    "f1_macro": lambda s, t: f1_score(t, s.argmax(1), average="macro"),
    "balanced_accuracy": lambda s, t: balanced_accuracy_score(t, s.argmax(1)),
}


@pytest.mark.parametrize(("metric", "classes", "share"), [("accuracy", 2, 0.5), ("top5_accuracy", 5, 1)])
def test_of_classes_with_equal_logits_the_first_is_predicted(
    vit: Family, images: Any, alone: Path, metric: str, classes: int, share: float
) -> None:
    """As with argmax: a head of zeros names the first of six classes, or the first five, for every image."""
    folder = copy_model(vit.folders[0], alone / "tied")
    put_weights(folder, {n: t * (not n.startswith("classifier")) for n, t in weights(folder).items()})
    few = {n: images[n].filter(lambda row: row["label"] < classes) for n in ("validation", "test")}
    done = run("eval", folder, "--dataset", write_parquet(few, alone / "few"), "--metric", metric, "--json", "-")
    assert done.json["test"] == share


@pytest.mark.filterwarnings("ignore:.*y_pred contains classes.*")
@pytest.mark.parametrize("name", SINGLE_LABEL.metrics)
@given(drawn=answers())
def test_a_metric_is_scikit_learns(name: str, drawn: tuple[Any, Any]) -> None:
    """Whole and on rows, the number is that of sklearn.metrics."""
    scores, truth = drawn
    ours = load_metric(name)
    found = ranked(scores, ours.top)
    wanted = PEERS[name](scores, truth)
    assert ours.on_rows is not None
    assert ours.value(found, truth) == pytest.approx(wanted, abs=1e-12)
    assert ours.on_rows(found, truth)(np.arange(len(truth))) == pytest.approx(wanted, abs=1e-12)


@pytest.mark.parametrize("name", SINGLE_LABEL.metrics)
def test_every_metric_bakes(name: str, vit: Family, data: Path, alone: Path) -> None:
    """Each metric selects and reports, with an interval around what it reports."""
    found = bake(*vit.words[:2], "--dataset", data, "--metric", name, "--output", "soup")
    low, high = found["soup"]["ci95"]
    assert found["metric"] == name
    assert 0 <= low <= found["soup"]["test"] <= high <= 1


def test_a_metric_script_in_the_current_folder_is_never_run(vit: Family, data: Path, alone: Path) -> None:
    """./accuracy/accuracy.py, which evaluate.load would run, is left alone."""
    script = alone / "accuracy" / "accuracy.py"
    script.parent.mkdir()
    script.write_text("import pathlib\npathlib.Path('marker').touch()\nraise SystemExit('run')\n")
    bake(*vit.words[:2], "--dataset", data, "--output", "soup")
    assert not Path("marker").exists()


def test_a_misspelled_metric_is_not_taken_for_a_script(vit: Family, data: Path, alone: Path) -> None:
    """The hint is the metric that was meant, not to run somebody's code."""
    block = refused("bake", *vit.words, "--dataset", data, "--metric", "acuracy", code=2)
    assert "try: --metric accuracy\n" in block
    assert "trust" not in block


def test_a_trusted_metric_may_resemble_one_of_ours(on_hub: LocalHub, vit: Family, data: Path, alone: Path) -> None:
    """With trust a name is looked for on the Hub, however near to another it is."""
    words = ("bake", *vit.words, "--dataset", data, "--metric", "acuracy", "--trust-remote-metric")
    assert "there is no metric" not in refused(*words, code=1)


def test_a_foreign_metric_needs_trust(vit: Family, data: Path, alone: Path) -> None:
    """Another name is refused before anything is run, and the error says which option allows it."""
    script = alone / "foreign" / "foreign.py"
    script.parent.mkdir()
    script.write_text("import pathlib\npathlib.Path('marker').touch()\n")
    block = refused("bake", *vit.words[:2], "--dataset", data, "--metric", "foreign", "--output", "soup", code=2)
    assert "--trust-remote-metric" in block
    assert "balanced_accuracy" in block
    assert not Path("marker").exists()


FOREIGN = '''
import datasets
import evaluate


class Foreign(evaluate.Metric):
    """Half the accuracy."""

    def _info(self):
        features = datasets.Features({"predictions": datasets.Value("int64"), "references": datasets.Value("int64")})
        return evaluate.MetricInfo(description="", citation="", features=features)

    def _compute(self, predictions, references):
        return {"half": sum(int(p == r) for p, r in zip(predictions, references)) / len(references) / 2}
'''


def test_a_trusted_metric_is_used(on_hub: LocalHub, vit: Family, data: Path, alone: Path) -> None:
    """With --trust-remote-metric a Space's script scores the mixes, no interval is claimed, no local script is run."""
    api = HfApi(token=on_hub.token)
    api.create_repo("kit/foreign", repo_type="space", space_sdk="static")
    api.upload_file(
        repo_id="kit/foreign", repo_type="space", path_or_fileobj=FOREIGN.encode(), path_in_repo="foreign.py"
    )
    Path("kit/foreign").mkdir(parents=True)
    Path("kit/foreign/foreign.py").write_text("import pathlib\npathlib.Path('marker').touch()\n")
    words = ("--dataset", data, "--metric", "kit/foreign", "--trust-remote-metric")
    found = bake(*vit.words[:2], *words, "--output", "soup")
    plain = bake(*vit.words[:2], "--dataset", data, "--output", "plain")
    assert [2 * i["score"] for i in found["ingredients"]] == pytest.approx([i["score"] for i in plain["ingredients"]])
    assert found["soup"]["ci95"] is None
    card = Path("soup/README.md").read_text()
    assert "bootstrap" not in card
    assert "The scores have no intervals and no test, so nothing says whether their difference is chance." in card
    assert " points" not in card
    assert not Path("marker").exists()
    assert run("verify", "soup", "--scores", "--trust-remote-metric").code == 0


def test_a_record_does_not_grant_trust(on_hub: LocalHub, vit: Family, data: Path, alone: Path) -> None:
    """Neither soup.json nor a config makes a script of the Hub run; nothing of it is fetched."""
    bake(*vit.words[:2], "--dataset", data, "--output", "soup")
    record = json.loads(Path("soup/soup.json").read_text())
    record["options"] |= {"metric": "kit/stranger", "trust_remote_metric": True}
    Path("soup/soup.json").write_text(json.dumps(record))
    on_hub.forget_requests()
    block = refused("verify", "soup", "--scores", code=2)
    assert "'kit/stranger', a script that is fetched from the Hub" in block
    assert "--trust-remote-metric, if you trust it" in block
    words = [f"ingredients: [{vit.words[0]}, {vit.words[1]}]", f"dataset: {data}", "metric: kit/stranger"]
    Path("soup.yaml").write_text("\n".join([*words, "trust_remote_metric: true", ""]))
    block = refused("bake", "soup.yaml", "--output", "other", code=2)
    assert "soup.yaml, line 4" in block
    assert "only you can allow that" in block
    assert not [r for r in on_hub.requests if "stranger" in r.path]


def test_a_metric_that_is_better_smaller_is_negated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole and on rows, so that the interval is that of the number that is reported."""
    METRICS.list_built_in()
    monkeypatch.setattr(METRICS, "_entries", dict(METRICS._entries))

    def share(predictions: Any, labels: Any) -> float:
        return float((predictions != labels).mean())

    def share_on_rows(predictions: Any, labels: Any) -> Any:
        return lambda rows: share(predictions[rows], labels[rows])

    metric("errors", summary="the share of errors", larger_is_better=False, on_rows=share_on_rows)(share)
    ours = SINGLE_LABEL.load_metric("errors")
    found, truth = np.array([[0], [1], [2], [0]]), np.array([0, 1, 0, 0])
    assert ours.value(found, truth) == -0.25
    assert ours.on_rows is not None
    assert ours.on_rows(found, truth)(np.array([2, 2, 1, 0])) == -0.5


@given(st.integers(1, 5000), st.data())
def test_wilson_is_scipys(total: int, data: st.DataObject) -> None:
    """The interval of a share is scipy's proportion_ci(method="wilson")."""
    correct = data.draw(st.integers(0, total))
    peer = binomtest(correct, total).proportion_ci(0.95, method="wilson")
    assert wilson_interval(correct=correct, total=total) == pytest.approx((peer.low, peer.high), abs=1e-12)


@given(st.integers(0, 400), st.integers(0, 400))
def test_mcnemar_is_scipys_binomial_test(first: int, second: int) -> None:
    """The exact p-value is the two-sided binomial test of a fair coin."""
    peer = binomtest(first, first + second).pvalue if first + second else 1.0
    assert mcnemar_test(only_first=first, only_second=second) == pytest.approx(peer, rel=1e-9)


def test_a_bootstrap_is_repeatable_and_about_right() -> None:
    """The interval of a mean is near the normal one, and the same each time; that of a difference is of models that see
    the same images."""
    random = np.random.default_rng(1)
    first = random.integers(0, 2, 2000)
    second = np.where(random.random(2000) < 0.9, first, 1)

    def drawn() -> list[tuple[float, float]]:
        return percentile_intervals(
            draw_bootstrap(lambda rows: first[rows].mean(), lambda rows: second[rows].mean(), 2000)
        )

    found = drawn()
    assert found == drawn()
    for (low, high), hits in zip(found, (first, second, first - second), strict=True):
        error = 1.96 * hits.std() / 2000**0.5
        assert (low, high) == pytest.approx((hits.mean() - error, hits.mean() + error), abs=error / 5)


@given(st.floats(0, 1), st.sampled_from((0.05, 0.05 / 3)))
@example(0.0501, 0.05)
@example(0.04999, 0.05)
def test_a_shown_p_is_on_its_side_of_the_level(p: float, level: float) -> None:
    """Whoever compares the p that is shown with the level comes to the verdict that is shown."""
    shown = float(format_probability(p, level))
    assert (shown < level, shown > level) == (p < level, p > level)
    assert shown == pytest.approx(p, rel=0.06)


def test_a_metric_that_some_draws_leave_undefined_has_no_intervals() -> None:
    """NaN in a draw makes no interval, and the verdict does not stand on one."""
    labels = np.array([0, 1, 1, 1])
    first, second = np.array([[0], [1], [1], [1]]), np.array([[1], [0], [1], [1]])

    def recall(predictions: Any, truth: Any) -> float:
        return float((predictions[truth == 0, 0] == 0).sum() / np.float64((truth == 0).sum()))

    def on_rows(predictions: Any, truth: Any) -> Any:
        return lambda rows: recall(predictions[rows], truth[rows])

    metric = Metric("recall", SINGLE_LABEL, 1, False, recall, on_rows)
    confidence = np.full(4, 0.5, np.float32)
    pair = [ScoredPredictions(p, confidence, Score(recall(p, labels), 4)) for p in (first, second)]
    with np.errstate(invalid="ignore"):
        found = compare(metric, *pair, labels)
    assert found.ci95 is None
    assert found.verdict == "not distinguishable"
