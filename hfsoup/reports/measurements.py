"""The numbers that a bake measures, each declared once: screen, page, notebook, card and report walk MEASUREMENTS.

To show one more, put it into `Evaluation.numbers` where it is measured and declare it here with `declare_number`.
`soup.json` and `--json` hold `Evaluation.numbers` as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hfsoup.data.splits import describe_training_split, is_training
from hfsoup.data.tasks import METRICS, TASKS
from hfsoup.evaluation.scores import ALPHA, NEGATED, Bounds, Comparison, Score
from hfsoup.networks.distillation.result import describe_distillation
from hfsoup.utils.text import format_count, format_probability, one_line, shorten_name

if TYPE_CHECKING:
    from hfsoup.checkpoints.types import LowRankAdapter
    from hfsoup.provenance.manifest import Manifest
    from hfsoup.provenance.records import AdapterRecord
    from hfsoup.provenance.result import BakeResult

SCREEN, NOTEBOOK, CARD, REPORT = "screen", "notebook", "card", "report"
"""Where measurements are shown; the page of `hfsoup ui` shows what the screen shows."""

DIVERSITY = "augmentation, learning rate, epochs"
MOST_ATTEMPTS = 4
"""Of more mixes that were measured as a whole the screen has no list."""


@dataclass(frozen=True)
class Attempted:
    """A mix that the recipe measured as a whole, with its selection score, and whether it is the soup."""

    name: str
    score: float
    kept: bool


@dataclass(frozen=True)
class Shifted:
    """Soup against best ingredient on other images; `origin` is their dataset and split, nothing for a corruption."""

    name: str
    origin: tuple[str, ...]
    comparison: Comparison


@dataclass(frozen=True)
class Results:
    """What a bake measured, from the bake itself or from its `soup.json`.

    `members` is how many ingredients are in the mix, `alone` whether it is the best one as it is, and `soups` are the
    selection scores of all mixes of two or more that the search scored, `selection` that of the soup. `trained_split`
    is the name of the test split where the models may have been trained on it, and `rule` how predictions come from the
    outputs of a multi-label model. `alpha` is where the soup is on the line from the base (0) through the merge (1).
    `clean` makes a text from outside harmless on the surface that shows it.
    """

    clean: Callable[[object], str]
    kind: str
    metric: str
    members: int
    best: str
    alone: bool
    soups: tuple[float, ...]
    selection: float | None
    rule: str
    trained_split: str
    comparison: Comparison | None
    ensemble: Comparison | None
    shifts: tuple[Shifted, ...]
    attempts: tuple[Attempted, ...]
    adapter: LowRankAdapter | AdapterRecord | None
    training: str
    images: int | None
    numbers: Mapping[str, float]
    alpha: float = 1.0


Texts = Callable[[Results], Iterator[str]]


@dataclass(frozen=True)
class Measurement:
    """A number that a bake measures, or several of one kind.

    `lines` are what screen, page and notebook show behind `label`; `sentences` are those of card and report, by default
    the lines after their label. Both yield nothing where it was not measured.
    """

    name: str
    label: str
    lines: Texts
    sentences: Texts | None = None
    shown: tuple[str, ...] = (SCREEN, NOTEBOOK, CARD, REPORT)


def declare_number(name: str, label: str, form: str = "{:.4f}") -> Measurement:
    """A number of `Evaluation.numbers`, shown everywhere; `form` formats it."""

    def show(found: Results) -> Iterator[str]:
        if name in found.numbers:
            yield form.format(found.numbers[name])

    return Measurement(name, label, show)


def list_lines(found: Results, surface: str) -> Iterator[tuple[str, str, str]]:
    """The name, label and text of everything that was measured and that a surface shows."""
    for one in MEASUREMENTS:
        if surface in one.shown:
            yield from ((one.name, one.label.format(kind=found.kind), text) for text in one.lines(found))


def list_sentences(found: Results, surface: str) -> list[str]:
    """The same as sentences."""
    shown = [one for one in MEASUREMENTS if surface in one.shown]
    return [text for one in shown for text in (one.sentences or _behind_label(one))(found)]


def _behind_label(one: Measurement) -> Texts:
    label = one.label[0].upper() + one.label[1:]
    return lambda found: (f"{label.format(kind=found.kind)}: {text}." for text in one.lines(found))


def read_results(soup: BakeResult, clean: Callable[[object], str] = one_line) -> Results:
    """What a bake measured."""
    search, evaluation, images, mix = soup.search, soup.evaluation, soup.images, soup.mix
    best, network = search.best, soup.composition.distilled
    return Results(
        clean=clean,
        kind=soup.composition.kind,
        metric=soup.metric,
        members=len(mix.members),
        alpha=1.0 if network else mix.alpha,
        best="" if best is None else soup.composition.names[best],
        alone=mix.alone and mix.members == (best,) and soup.composition.adapter is None,
        soups=(
            *(d.score.value for d in search.trace),
            *(a.score.value for a in search.attempts if len(a.mix.members) > 1),
        ),
        selection=search.selection.value if search.selection else None,
        rule=soup.task.rule,
        trained_split=images.test.name if images and images.test.is_training else "",
        comparison=evaluation.comparison,
        ensemble=evaluation.ensemble,
        shifts=tuple(
            Shifted(s.name, _origin(s.dataset, s.revision, s.split.name), s.comparison) for s in evaluation.shifts
        ),
        attempts=tuple(Attempted(a.name, a.score.value, a.mix == mix) for a in search.attempts),
        adapter=soup.composition.adapter,
        training=network.description if network else "",
        images=soup.run.images_forwarded,
        numbers=evaluation.numbers,
    )


def read_recorded_results(record: Manifest, best: int | None) -> Results:
    """What a bake measured, from its `soup.json`; `best` is the index of the best ingredient."""
    data, network, mix = record.dataset, record.distillation, record.mix()
    return Results(
        clean=one_line,
        kind="distilled model" if network else "soup",
        metric=record.metric,
        members=len(mix.members),
        alpha=1.0 if network else mix.alpha,
        best="its best ingredient" if best is None else record.names[best],
        alone=mix.alone and mix.members == (best,) and record.adapter is None,
        soups=(
            *(step.score for step in record.trace),
            *(a.score for a in record.attempts if sum(map(bool, a.weights)) > 1),
        ),
        selection=record.score.value if record.score else None,
        rule=next((task.rule for task in TASKS if data and task.name == data.task), ""),
        trained_split=data.test.name if data and is_training(data.test.name) else "",
        comparison=record.test.to_comparison() if record.test else None,
        ensemble=record.ensemble.to_comparison() if record.ensemble else None,
        shifts=tuple(
            Shifted(s.name, _origin(s.dataset, s.revision, s.images.name), s.test.to_comparison())
            for s in record.shifts
        ),
        attempts=tuple(Attempted(a.name, a.score, a.kept) for a in record.attempts),
        adapter=record.adapter,
        training=describe_distillation(len(network.members), network.images.images, network.epochs) if network else "",
        images=None,
        numbers=record.numbers,
    )


def _origin(dataset: str | None, revision: str | None, split: str) -> tuple[str, ...]:
    return () if dataset is None else (shorten_name(dataset, revision), split)


def name_metric(metric: str) -> str:
    """A metric as cards and reports name it: one that was negated to select, by its own name."""
    return f"{metric.removeprefix(NEGATED)} (lower is better)" if metric.startswith(NEGATED) else metric


def format_score(metric: str, score: Score | None) -> str:
    """A score as cards, reports and pages write it: of hfsoup's own metrics in per cent, else the metric's number."""
    if score is None:
        return "–"
    if metric.startswith(NEGATED):
        return f"{-score.value:.4f}"
    text = f"{100 * score.value:.2f} %" if metric in METRICS else f"{score.value:.4f}"
    return f"at most {text}" if score.at_most else text


def shorten_score(metric: str, score: Score) -> str:
    """The same where there is little room: an upper bound by its sign."""
    return format_score(metric, score).replace("at most ", "≤ ")


def describe_statistics(score: Score | None) -> str:
    """Behind what a score is of, where that was given new batch-norm statistics; else nothing."""
    return " (recalibrated)" if score and score.bn == "recalibrate" else ""


def format_difference(metric: str, value: float, form: str = "+") -> str:
    """A difference of two scores: of hfsoup's own metrics in points of a per cent, else in the metric's own unit."""
    return f"{100 * value:{form}.2f} points" if metric in METRICS else f"{value:{form}.4f}"


def describe_comparison(metric: str, c: Comparison) -> dict[str, str | int]:
    """Both sides of a comparison and the difference, as the tables of card and report show them."""
    bounds = c.ci95
    return {
        "soup_score": format_score(metric, c.soup),
        "best_score": format_score(metric, c.best),
        "soup_interval": _format_bounds(metric, bounds.soup if bounds else None),
        "best_interval": _format_bounds(metric, bounds.best if bounds else None),
        "difference": format_difference(metric, c.difference),
        "difference_interval": _format_bounds(metric, bounds.difference if bounds else None, "+"),
        "p_value": _format_p(c),
        "total": c.soup.total,
        "soup_ece": "" if c.ece is None else f"{c.ece:.4f}",
        "best_ece": "" if c.best_ece is None else f"{c.best_ece:.4f}",
        "verdict": c.verdict,
        "statistics": describe_statistics(c.best),
    }


def _format_bounds(metric: str, bounds: Bounds | None, form: str = "") -> str:
    """An interval in the unit of the scores beside it."""
    shown = (f"{100 * bound:{form}.2f}" if metric in METRICS else f"{bound:{form}.4f}" for bound in bounds or ())
    return " to ".join(shown) or "not measured"


def format_with_interval(metric: str, c: Comparison, side: str) -> str:
    """The score of one side, `soup` or `best`, with its interval where there is one."""
    score = format_score(metric, c.soup if side == "soup" else c.best)
    bounds = c.ci95 and (c.ci95.soup if side == "soup" else c.ci95.best)
    return f"{score} ({_format_bounds(metric, bounds)})" if bounds else score


def _format_p(c: Comparison) -> str:
    """The p-value, nothing where the metric has none."""
    return "" if c.p_value is None else format_probability(c.p_value, ALPHA)


LITTLE_TO_WIN, TOO_FAR_APART, MAY_WIN = "little to win", "too far apart", "may win"


def judge_forecast(numbers: Mapping[str, float]) -> str | None:
    """What the ingredients' own predictions say of a soup, in two or three words; None without an interval."""
    low = numbers.get("ensemble_gain_low")
    if low is None:
        return None
    if low <= 0:
        return LITTLE_TO_WIN
    return TOO_FAR_APART if numbers.get("weights_apart") else MAY_WIN


def describe_forecast(numbers: Mapping[str, float], metric: str) -> str:
    """What the ingredients' own predictions say of a soup, with the figures."""
    text = f"two ingredients agree on {100 * numbers['agreement']:.1f} % of the selection images"
    gain, low = numbers.get("ensemble_gain"), numbers.get("ensemble_gain_low")
    if gain is None:
        return f"{text}; their ensemble was not measured, because their logits are too large"
    text += f", and their ensemble gains {format_difference(metric, gain)}"
    if low is not None:
        text += f" ({_format_bounds(metric, (low, numbers['ensemble_gain_high']), '+')})"
    if "task_vector_cosine" in numbers:
        text += f"; the mean cosine between their task vectors is {numbers['task_vector_cosine']:.2f}"
    following = {
        LITTLE_TO_WIN: f": a soup has little to win; train runs that differ more: {DIVERSITY}",
        TOO_FAR_APART: ": an average is not likely to win that, because the weights are too far apart",
        MAY_WIN: ": a soup may win",
    }
    return text + following.get(judge_forecast(numbers) or "", "")


def _show_forecast(found: Results) -> Iterator[str]:
    if "agreement" in found.numbers:
        yield describe_forecast(found.numbers, found.metric)


def _show_test(found: Results) -> Iterator[str]:
    if c := found.comparison:
        yield f"test {found.clean(found.metric)} {format_with_interval(found.metric, c, 'soup')}"


def _show_best(found: Results) -> Iterator[str]:
    if c := found.comparison:
        best = f"{found.clean(found.best)}{describe_statistics(c.best)}"
        yield f"{format_with_interval(found.metric, c, 'best')}  {best}"


def _show_attempts(found: Results) -> Iterator[str]:
    if found.comparison and 1 < len(found.attempts) <= MOST_ATTEMPTS:
        kept = " and ".join(found.clean(one.name) for one in found.attempts if one.kept)
        named = ((found.clean(one.name), format_score(found.metric, Score(one.score))) for one in found.attempts)
        scores = ", ".join(f"{name} {score}" for name, score in named)
        yield f"{kept}, of {scores} on the selection split"


def _show_alpha(found: Results) -> Iterator[str]:
    if found.alpha != 1:
        yield f"{found.alpha:g} on the line from the base (0) through the merge of the ingredients (1)"


def _show_training(found: Results) -> Iterator[str]:
    if found.training:
        yield found.training


def describe_rejected(found: Results) -> str:
    """What is known of soups where the search kept one ingredient; every step of a search scores two or more."""
    if not found.soups:
        return "no soup of two or more was scored"
    if found.selection is not None and max(found.soups) > found.selection:
        return "soups that scored higher on the selection split were not accepted"
    return "no soup that was scored was better on the selection split"


def _show_verdict(found: Results) -> Iterator[str]:
    c = found.comparison
    if c is None:
        return
    if found.alone:
        yield f"the search kept the best ingredient alone{describe_statistics(c.best)}: {describe_rejected(found)}"
        return
    best = f"its best ingredient{describe_statistics(c.best)}"
    sure = f", p = {_format_p(c)}" if _format_p(c) else "" if c.ci95 else ", without an interval"
    if c.verdict in ("better", "worse"):
        by = f"{c.verdict} than {best} by {format_difference(found.metric, abs(c.difference), '')}{sure}"
    else:
        difference = format_difference(found.metric, c.difference)
        by = f"not distinguishable from {best} ({difference}{sure})"
    yield f"the {found.kind} is {by}"


def _explain_verdict(found: Results) -> Iterator[str]:
    if c := found.comparison:
        how = "The intervals are from a paired bootstrap."
        if p := _format_p(c):
            how = f"Exact McNemar test (paired, two-sided): p = {p}."
            how += " The interval of the difference is from a paired bootstrap."
        elif c.ci95 is None:
            how = "The scores have no intervals and no test, so nothing says whether their difference is chance."
        yield f"{how} Verdict: {c.verdict}."


def _show_leak(found: Results) -> Iterator[str]:
    if found.comparison and found.trained_split:
        yield describe_training_split(found.trained_split)
    yield from _explain_shift_leak(found)


def _explain_shift_leak(found: Results) -> Iterator[str]:
    for one in found.shifts:
        if one.origin and is_training(one.origin[-1]):
            yield found.clean(describe_training_split(f"{one.name}: {', '.join(one.origin)}"))


def _show_calibration(found: Results) -> Iterator[str]:
    if (c := found.comparison) and c.ece is not None and c.best_ece is not None:
        yield f"{c.ece:.4f}, best ingredient {c.best_ece:.4f}"


def _explain_calibration(found: Results) -> Iterator[str]:
    if (c := found.comparison) and c.ece is not None and c.best_ece is not None:
        of = "the probability of every class of every image" if found.rule else "the confidence"
        yield (
            f"Calibration error (ECE over 15 bins of {of}, 0 is best): this {found.kind} {c.ece:.4f}, best ingredient"
            f" {c.best_ece:.4f}."
        )


def _show_ensemble(found: Results) -> Iterator[str]:
    if c := found.ensemble:
        yield (
            f"{format_with_interval(found.metric, c, 'best')}  the {found.kind}"
            f" {format_difference(found.metric, c.difference)}, {c.verdict}; {found.members} times the cost"
        )


def _explain_ensemble(found: Results) -> Iterator[str]:
    if c := found.ensemble:
        f = describe_comparison(found.metric, c)
        p = f", p = {f['p_value']}" if f["p_value"] else ""
        score, difference = f" ({f['best_interval']})", f" ({f['difference_interval']}{p})"
        if c.ci95 is None:
            score = difference = ""
        yield (
            f"The ensemble of the {format_count(found.members, 'ingredient')} (the mean of their logits) costs"
            f" {found.members} times as much at inference. On the same test images it scores {f['best_score']}"
            f"{score}. This {found.kind} minus the ensemble: {f['difference']}"
            f"{difference}, {c.verdict}."
            f" Calibration error of the ensemble: {f['best_ece']}."
        )


def _show_shifts(found: Results) -> Iterator[str]:
    for one in found.shifts:
        c = one.comparison
        difference = f"{format_difference(found.metric, c.difference)}, {c.verdict}"
        soup, best = format_score(found.metric, c.soup), format_score(found.metric, c.best)
        yield f"{found.clean(one.name)} {soup}, best {best} ({difference})"


def _show_adapter(found: Results) -> Iterator[str]:
    if a := found.adapter:
        yield (
            f"rank {a.rank} loses {100 * a.error:.3g} % of ΔW, the average change of weights (Frobenius norm), and"
            f" {100 * a.worst:.3g} % in the worst layer, {found.clean(a.layer)}"
        )


def _show_images(found: Results) -> Iterator[str]:
    if found.comparison and found.images is not None:
        yield f"{found.images:,}" if found.images else "none: every score was cached"


MEASUREMENTS: tuple[Measurement, ...] = (
    Measurement("test", "{kind}", _show_test, shown=(SCREEN, NOTEBOOK)),
    Measurement("best_ingredient", "best ingredient", _show_best, shown=(SCREEN, NOTEBOOK)),
    Measurement("attempts", "chosen", _show_attempts, shown=(SCREEN,)),
    Measurement("alpha", "α", _show_alpha, shown=(SCREEN, NOTEBOOK, REPORT)),
    Measurement("distilled", "training", _show_training, shown=(SCREEN, NOTEBOOK)),
    Measurement("verdict", "verdict", _show_verdict, _explain_verdict),
    Measurement("leak", "but", _show_leak, _explain_shift_leak, (SCREEN, CARD, REPORT)),
    Measurement("ece", "calibration error", _show_calibration, _explain_calibration, (SCREEN, CARD, REPORT)),
    Measurement("ensemble", "ensemble", _show_ensemble, _explain_ensemble, (SCREEN, CARD, REPORT)),
    Measurement("shifts", "shift", _show_shifts, shown=(SCREEN, REPORT)),
    Measurement("adapter", "adapter", _show_adapter, shown=(NOTEBOOK, CARD, REPORT)),
    Measurement("forecast", "before the search", _show_forecast, shown=(NOTEBOOK, CARD, REPORT)),
    Measurement("images_forwarded", "images evaluated", _show_images, shown=(SCREEN,)),
)
"""In the order in which they are shown. What is not shown as a line or sentence has a table of its own there."""
