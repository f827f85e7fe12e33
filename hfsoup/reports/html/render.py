"""The values of a report, and the page that they fill; Jinja escapes every one of them."""

from __future__ import annotations

import hashlib
import json
from base64 import b64encode
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hfsoup.checkpoints.auto_class import IMAGE_CLASSIFICATION
from hfsoup.checkpoints.types import Source
from hfsoup.data.splits import describe_training_split
from hfsoup.data.tasks import SINGLE_LABEL, TASKS
from hfsoup.evaluation.intervals import wilson_interval
from hfsoup.evaluation.scores import Score, describe_alpha, describe_outcome
from hfsoup.provenance.predictions import list_classes
from hfsoup.provenance.reproduce import hub_url
from hfsoup.reports.card.formatting import format_weight
from hfsoup.reports.figures import FOLDER, TITLES, caption_closeness
from hfsoup.reports.html.calibration import draw_calibration
from hfsoup.reports.html.classes import count_agreement, count_by_class, find_changed_confusions
from hfsoup.reports.html.gallery import Gallery, encode_data_uri, find_differences
from hfsoup.reports.measurements import (
    REPORT,
    Results,
    describe_comparison,
    format_score,
    list_sentences,
    name_metric,
    read_recorded_results,
)
from hfsoup.utils.resources import find_resource
from hfsoup.utils.text import one_line, shorten_name
from hfsoup.utils.version import __version__

if TYPE_CHECKING:
    from hfsoup.provenance.manifest import DatasetRecord, Manifest
    from hfsoup.provenance.predictions import TestPredictions
    from hfsoup.provenance.records import DecisionRecord, IngredientRecord, ScoreRecord, SplitRecord
    from hfsoup.reports.html.classes import Confusion
    from hfsoup.reports.html.load import ReportData

CAPTIONS = {
    "scores": "Test scores were measured after the selection.",
    "search": "A triangle is an upper bound: evaluation of the candidate stopped there.",
    "line": "All mixes were measured after the selection.",
}


def render_html(found: ReportData, gallery: Gallery) -> str:
    """The page. Nothing in it is loaded from elsewhere, and its policy forbids that and every script but its own."""
    from jinja2 import Environment, StrictUndefined

    script = find_resource("model_cards/report.js").read_text("utf-8").strip()
    digest = b64encode(hashlib.sha256(script.encode()).digest()).decode()
    template = find_resource("model_cards/report.html").read_text("utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    page = environment.from_string(template)
    return page.render(script=script, digest=digest, hfsoup=__version__, **_values(found, gallery)) + "\n"


def _values(found: ReportData, gallery: Gallery) -> dict[str, Any]:
    record, seen, mix, names = found.record, found.seen, found.record.mix(), list(map(one_line, found.record.names))
    best = seen.best_ingredient if seen else None
    results = read_recorded_results(record, best)
    c, metric = results.comparison, record.metric
    rows = enumerate(record.ingredients)
    return {
        "title": one_line(found.place if not found.local else Path(found.place).resolve().name),
        "place": one_line(found.place),
        "usage": None if record.adapter else _format_usage(found.place),
        "recipe": one_line(record.recipe),
        "merge": one_line(record.merge),
        "metric": one_line(name_metric(metric), 60),
        "ingredients": [_ingredient(i, names[n], n == best, metric, mix.span(n)) for n, i in rows],
        "used": sum(i.coefficient != 0 for i in record.ingredients),
        "scored": any(i.score is not None for i in record.ingredients),
        "training": results.training,
        "kind": results.kind,
        "attempts": _rank_attempts(record),
        "trace": [_step(step, metric, record.names_by_id) for step in record.trace],
        "test": describe_comparison(metric, c) if c else None,
        "measured": list_sentences(results, REPORT),
        "selection": _format_recorded(metric, record.score),
        "best": results.clean(results.best),
        "dataset": _describe_dataset(record.dataset, results.trained_split) if record.dataset else None,
        "pictures": list(_pictures(found.pictures, based=record.base is not None)),
        "missing": gallery.missing,
        "versions": ", ".join(f"{one_line(name)} {one_line(text)}" for name, text in record.versions.items()),
        "baked_with": one_line(record.hfsoup),
        **_describe_predictions(seen, record, gallery, results),
    }


def _format_usage(place: str) -> str:
    """The Python that loads the soup."""
    return f'pipeline("{IMAGE_CLASSIFICATION.pipeline_tag}", {json.dumps(one_line(place), ensure_ascii=False)})'


def _describe_predictions(
    seen: TestPredictions | None, record: Manifest, gallery: Gallery, results: Results
) -> dict[str, Any]:
    """Classes and images of the test split."""
    name = record.dataset.task if record.dataset else SINGLE_LABEL.name
    task = next((task for task in TASKS if task.name == name), SINGLE_LABEL)
    bins, single = seen.calibration if seen else None, task is SINGLE_LABEL
    best = results.clean(results.best)
    return {
        "diagram": draw_calibration(bins, intervals=single, best=best, kind=results.kind) if bins else None,
        "multi": not single,
        "correct_text": task.correct_text,
        "classes": [_class(row) for row in count_by_class(seen)] if seen else [],
        "confusions": [_confusion(one) for one in find_changed_confusions(seen)] if seen else [],
        "counts": count_agreement(seen) if seen else None,
        "differ": len(find_differences(seen)) if seen else 0,
        "tiles": [_tile(seen, tile) for tile in gallery.tiles] if seen else [],
    }


def _format_recorded(metric: str, score: ScoreRecord | None) -> str:
    return format_score(metric, score.to_score() if score else None)


def _ingredient(
    ingredient: IngredientRecord, name: str, best: bool, metric: str, span: tuple[float, float] | None
) -> dict[str, Any]:
    source = Source(ingredient.id, ingredient.revision)
    return {
        "name": name,
        "link": hub_url(source),
        "revision": (ingredient.revision or "")[:12],
        "score": _format_recorded(metric, ingredient.score),
        "value": ingredient.score.value if ingredient.score else "",
        "weight": ingredient.coefficient,
        "shown": format_weight(ingredient.coefficient, span) if ingredient.coefficient else "left out",
        "best": best,
    }


def _rank_attempts(record: Manifest) -> list[dict[str, Any]]:
    """The mixes that the recipe measured as a whole, the best first."""
    ranked = sorted(record.attempts, key=lambda one: (-one.score, not one.kept))
    return [
        {
            "name": one_line(one.name),
            "used": sum(map(bool, one.weights)),
            "score": format_score(record.metric, Score(one.score)),
            "value": one.score,
            "kept": one.kept,
        }
        for one in ranked
    ]


def _step(step: DecisionRecord, metric: str, names: Mapping[str, str]) -> dict[str, Any]:
    name = names.get(step.ingredient, step.ingredient) if step.alpha is None else describe_alpha(step.alpha)
    return {
        "step": step.step,
        "walk": one_line(step.walk, 24),
        "tried": f"{one_line(step.action, 20)} {one_line(name)}",
        "score": format_score(metric, Score(step.score, at_most=step.at_most)),
        "value": step.score,
        "outcome": describe_outcome(step.action, accepted=step.accepted),
        "images": step.images,
    }


def _describe_dataset(data: DatasetRecord, trained_split: str) -> dict[str, str]:
    name = shorten_name(data.id, data.revision)
    return {
        "name": one_line(f"{name} ({data.config})" if data.config else name),
        "revision": one_line(data.revision or "")[:12],
        "selection": _describe_split(data.selection),
        "learning": _describe_split(data.learning) if data.learning else "",
        "test": _describe_split(data.test),
        "trained": describe_training_split(trained_split) if trained_split else "",
    }


def _describe_split(split: SplitRecord) -> str:
    return f"{one_line(split.name)}, {one_line(split.rule)}"


def _pictures(pictures: Mapping[str, bytes], *, based: bool) -> Iterator[dict[str, str]]:
    captions = {**CAPTIONS, "closeness": caption_closeness(based=based)}
    for name, title in TITLES.items():
        light, dark = (pictures.get(f"{FOLDER}/{name}{end}.png") for end in ("", "-dark"))
        if light:
            sources = {"light": encode_data_uri(light, "png"), "dark": encode_data_uri(dark or light, "png")}
            yield {"title": title, "caption": captions[name], **sources}


def _class(row: Any) -> dict[str, Any]:
    return {
        "name": one_line(row.name),
        "images": row.images,
        "soup": row.soup / row.images,
        "best": row.best / row.images,
        "soup_interval": _format_interval(row.soup, row.images),
        "best_interval": _format_interval(row.best, row.images),
        "difference": (row.soup - row.best) / row.images,
    }


def _format_interval(correct: int, total: int) -> str:
    """The 95 % interval of a share, in per cent."""
    low, high = wilson_interval(correct=correct, total=total)
    return f"{100 * low:.1f} to {100 * high:.1f}"


def _confusion(one: Confusion) -> dict[str, Any]:
    return {**vars(one), "label": one_line(one.label), "named": one_line(one.named), "difference": one.soup - one.best}


def _tile(seen: TestPredictions, tile: Any) -> dict[str, Any]:
    label, soup, best = (list_classes(group[tile.place]) for group in (seen.labels, seen.soup, seen.best))
    return {
        "picture": tile.picture,
        "pixels": tile.pixels,
        "row": seen.rows[tile.place],
        "label": _names(seen, label),
        "soup": _names(seen, soup),
        "best": _names(seen, best),
        "who": "soup" if soup == label else "best" if best == label else "neither",
    }


def _names(seen: TestPredictions, classes: tuple[int, ...]) -> str:
    return one_line(", ".join(seen.classes[n] for n in classes), 60) or "none"
