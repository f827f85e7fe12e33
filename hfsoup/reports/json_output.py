"""The one object that `--json` writes of a bake."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hfsoup.provenance.records import record_attempts, record_comparison, record_shift, record_trace
from hfsoup.recipes import RECIPES
from hfsoup.utils.version import __version__

if TYPE_CHECKING:
    from hfsoup.evaluation.scores import Comparison
    from hfsoup.provenance.result import BakeResult, Composition, Evaluation, SearchResult


def make_json(soup: BakeResult) -> dict[str, Any]:
    """A bake as plain values."""
    search, evaluation, run, threshold = soup.search, soup.evaluation, soup.run, soup.task.threshold
    c, a, d = evaluation.comparison, soup.composition.adapter, soup.composition.distilled
    return {
        "hfsoup": __version__,
        "recipe": soup.options.chosen_recipe,
        "merge": soup.options.merge,
        "metric": soup.metric,
        **({"task": soup.task.name, "threshold": threshold} if threshold is not None else {}),
        "ingredients": _list_ingredients(soup.composition, search),
        **_describe_base(soup.composition),
        **_describe_learning(soup),
        "trace": [
            {key: value for key, value in step.model_dump().items() if key not in ("walk", "alpha") or value}
            for step in record_trace(search.trace, soup.family)
        ],
        **(
            {"attempts": [one.model_dump() for one in record_attempts(search.attempts, soup.mix)]}
            if search.attempts
            else {}
        ),
        "soup": {
            "score": soup.score,
            "test": soup.test,
            **_describe_intervals(c),
            "path": str(soup.path) if soup.path else None,
            "sha256": soup.location.sha256,
        },
        "best_ingredient": _describe_best(soup.composition, search, c),
        **({"comparison": record_comparison(c).model_dump()} if c else {}),
        **_describe_extras(evaluation, len(soup.mix.members)),
        "images_forwarded": run.images_forwarded,
        "images_spared": run.images_spared,
        "seconds": {name: round(value, 3) for name, value in run.seconds.items()},
        "pushed": soup.pushed.to_json() if soup.pushed else None,
        **({"distilled": d.to_json()} if d else {}),
        **({"adapter": {"rank": a.rank, "error": a.error, "worst": a.worst, "layer": a.layer}} if a else {}),
        **({"numbers": dict(evaluation.numbers)} if evaluation.numbers else {}),
    }


def _list_ingredients(made_of: Composition, search: SearchResult) -> list[dict[str, Any]]:
    """Every ingredient with its score and weight; its least and largest where tensors have their own."""
    rows = zip(made_of.family.ingredients, made_of.mix.coefficients, search.scores, strict=True)
    return [
        {
            "id": ingredient.id,
            "revision": ingredient.source.revision,
            "score": score and score.value,
            **({"bn": score.bn} if score and score.bn != "average" else {}),
            "weight": weight,
            **({"weights": list(span)} if (span := made_of.mix.span(n)) else {}),
            "used": weight != 0,
        }
        for n, (ingredient, weight, score) in enumerate(rows)
    ]


def _describe_base(made_of: Composition) -> dict[str, Any]:
    if made_of.family.base is None:
        return {}
    base = made_of.family.base.ingredient
    alpha = {"alpha": made_of.mix.alpha} if made_of.mix.base else {}
    return {"base": {"id": base.id, "revision": base.source.revision, "weight": made_of.mix.base, **alpha}}


def _describe_learning(soup: BakeResult) -> dict[str, Any]:
    """What coefficients were learned from, where they were, and the passes over it."""
    split = soup.images.learning if soup.images else None
    if split is None:
        return {}
    epochs, tensors = RECIPES.get(soup.options.chosen_recipe).epochs, len(soup.mix.tensors)
    return {"learned": {"split": split.name, "images": len(split), "epochs": epochs, "tensors": tensors}}


def _describe_intervals(c: Comparison | None) -> dict[str, Any]:
    if c is None:
        return {"ci95": None}
    return {
        "ci95": list(c.ci95.soup) if c.ci95 else None,
        "ece": c.ece,
    }


def _describe_best(made_of: Composition, search: SearchResult, c: Comparison | None) -> dict[str, Any] | None:
    if search.best is None:
        return None
    score = search.scores[search.best]
    return {
        "id": made_of.family.ingredients[search.best].id,
        "score": score and score.value,
        "test": c.best.value if c else None,
        **({"ece": c.best_ece} if c else {}),
    }


def _describe_extras(evaluation: Evaluation, members: int) -> dict[str, Any]:
    """Ensemble and shifts, where they were measured."""
    found: dict[str, Any] = {}
    if evaluation.ensemble:
        found["ensemble"] = {"members": members, **record_comparison(evaluation.ensemble).model_dump()}
    if evaluation.shifts:
        found["shifts"] = [record_shift(shift).model_dump() for shift in evaluation.shifts]
    return found
