"""The values of a report, and the page that they fill; Jinja escapes every one of them."""

from __future__ import annotations

import hashlib
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hfsoup.checkpoints.types import Source
from hfsoup.data.splits import describe_training_split, is_training
from hfsoup.data.tasks import METRICS, SINGLE_LABEL, TASKS
from hfsoup.evaluation.scores import ALPHA, describe_outcome
from hfsoup.networks.distillation.result import describe_distillation
from hfsoup.provenance.predictions import list_classes
from hfsoup.provenance.reproduce import hub_url
from hfsoup.reports.card.formatting import format_weight
from hfsoup.reports.figures import FOLDER, NAMES
from hfsoup.reports.html.classes import count_agreement, count_by_class
from hfsoup.reports.html.gallery import Gallery, encode_data_uri, find_differences
from hfsoup.utils.resources import find_resource
from hfsoup.utils.text import format_probability, one_line, shorten_names
from hfsoup.utils.version import __version__

if TYPE_CHECKING:
    from hfsoup.provenance.manifest import Manifest
    from hfsoup.provenance.predictions import TestPredictions
    from hfsoup.provenance.records import IngredientRecord, ScoreRecord
    from hfsoup.reports.html.load import ReportData

TITLES = {
    "scores": ("Selection score against test score", "Test scores were measured after the choice."),
    "search": ("The search step by step", "A triangle is an upper bound: the candidate was given up there."),
    "closeness": ("How close the ingredients are", "Cosines between their weights, without the head."),
    "line": ("From the best ingredient to the second best", "Measured after the choice."),
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
    record, seen, mix = found.record, found.seen, found.record.mix()
    metric = record.dataset.metric if record.dataset else record.options.get("metric") or "accuracy"
    task = next((t for t in TASKS if record.dataset and t.name == record.dataset.task), SINGLE_LABEL)
    names = _ingredient_names(record)
    best = seen.best_ingredient if seen else None
    return {
        "title": one_line(found.place if not found.local else Path(found.place).resolve().name),
        "place": one_line(found.place),
        "recipe": one_line(record.recipe),
        "merge": one_line(record.merge),
        "metric": one_line(metric, 60),
        "ingredients": [
            _ingredient(i, names[n], n == best, str(metric), mix.span(n)) for n, i in enumerate(record.ingredients)
        ],
        "used": sum(i.coefficient != 0 for i in record.ingredients),
        "scored": any(i.score is not None for i in record.ingredients),
        "distilled": _distilled(record),
        "trace": [_step(record, n, str(metric)) for n in range(len(record.trace))],
        "test": _test(record, str(metric)),
        "selection": number(record.score, str(metric)),
        "best": names[best] if best is not None else "its best ingredient",
        "dataset": _dataset(record),
        "pictures": list(_pictures(found)),
        "classes": [_class(row) for row in count_by_class(seen)] if seen else [],
        "counts": count_agreement(seen) if seen else None,
        "multi": task is not SINGLE_LABEL,
        "right_text": task.correct_text,
        "differ": len(find_differences(seen)) if seen else 0,
        "tiles": [_tile(seen, tile) for tile in gallery.tiles] if seen else [],
        "missing": gallery.missing,
        "versions": ", ".join(f"{one_line(name)} {one_line(text)}" for name, text in record.versions.items()),
        "baked_with": one_line(record.hfsoup),
    }


def number(score: ScoreRecord | None, metric: str) -> str:
    """A score as the card writes it."""
    return "–" if score is None else _shown(score.value, metric)


def _shown(value: float, metric: str) -> str:
    return f"{100 * value:.2f} %" if metric in METRICS else f"{value:.4f}"


def _ingredient_names(record: Manifest) -> list[str]:
    """As the card names the ingredients."""
    return list(map(one_line, shorten_names([(i.id, i.revision) for i in record.ingredients])))


def _ingredient(
    ingredient: IngredientRecord, name: str, best: bool, metric: str, span: tuple[float, float] | None
) -> dict[str, Any]:
    source = Source(ingredient.id, ingredient.revision)
    return {
        "name": name,
        "link": hub_url(source),
        "revision": (ingredient.revision or "")[:12],
        "score": number(ingredient.score, metric),
        "value": ingredient.score.value if ingredient.score else "",
        "weight": ingredient.coefficient,
        "shown": format_weight(ingredient.coefficient, span) if ingredient.coefficient else "left out",
        "best": best,
    }


def _distilled(record: Manifest) -> str | None:
    found = record.distillation
    return describe_distillation(len(found.members), found.images.images, found.epochs) if found else None


def _step(record: Manifest, n: int, metric: str) -> dict[str, Any]:
    step = record.trace[n]
    names = dict(zip((i.id for i in record.ingredients), _ingredient_names(record), strict=True))
    return {
        "step": step.step,
        "tried": f"{one_line(step.action, 20)} {names.get(step.ingredient, one_line(step.ingredient))}",
        "score": f"{'at most ' if step.at_most else ''}{_shown(step.score, metric)}",
        "value": step.score,
        "outcome": describe_outcome(step.action, accepted=step.accepted),
        "images": step.images,
    }


def _test(record: Manifest, metric: str) -> dict[str, Any] | None:
    test = record.test
    if test is None:
        return None
    gap, adjusted = test.soup.value - test.best.value, test.adjusted
    return {
        "soup": number(test.soup, metric),
        "best": number(test.best, metric),
        "total": test.soup.total,
        "level": f"{100 * adjusted.level:.3g}" if adjusted else "95",
        "choices": test.choices,
        "soup_interval": _interval(adjusted.soup if adjusted else test.ci95),
        "best_interval": _interval(adjusted.best if adjusted else test.best_ci95),
        "difference": f"{100 * gap:+.2f} points",
        "difference_interval": _interval(adjusted.difference if adjusted else test.difference_ci95, "{:+.2f}"),
        "p_value": None if test.mcnemar_p is None else format_probability(test.mcnemar_p, ALPHA / test.choices),
        "verdict": test.verdict if test.verdict in ("better", "worse") else "not distinguishable",
    }


def _interval(bounds: list[float] | None, form: str = "{:.2f}") -> str:
    return "not measured" if bounds is None else " to ".join(form.format(100 * bound) for bound in bounds)


def _dataset(record: Manifest) -> dict[str, str] | None:
    data = record.dataset
    if data is None:
        return None
    name = data.id if data.revision else Path(data.id).name
    return {
        "name": one_line(f"{name} ({data.config})" if data.config else name),
        "revision": one_line(data.revision or "")[:12],
        "selection": f"{one_line(data.selection.name)}, {one_line(data.selection.rule)}",
        "learning": f"{one_line(data.learning.name)}, {one_line(data.learning.rule)}" if data.learning else "",
        "test": f"{one_line(data.test.name)}, {one_line(data.test.rule)}",
        "trained": describe_training_split(data.test.name) if is_training(data.test.name) else "",
    }


def _pictures(found: ReportData) -> Iterator[dict[str, str]]:
    for name in NAMES:
        light, dark = (found.pictures.get(f"{FOLDER}/{name}{end}.png") for end in ("", "-dark"))
        if light:
            title, caption = TITLES[name]
            yield {
                "title": title,
                "caption": caption,
                "light": encode_data_uri(light, "png"),
                "dark": encode_data_uri(dark or light, "png"),
            }


def _class(row: Any) -> dict[str, Any]:
    return {
        "name": one_line(row.name),
        "images": row.images,
        "soup": row.soup / row.images,
        "best": row.best / row.images,
        "difference": (row.soup - row.best) / row.images,
    }


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
