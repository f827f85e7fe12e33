"""soup.json: everything that is needed to bake the same bytes again."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from hfsoup import __version__

if TYPE_CHECKING:
    from hfsoup.images import Split
    from hfsoup.soup import Soup
    from hfsoup.types import Ingredient, Score

LIBRARIES = (
    "torch",
    "transformers",
    "huggingface_hub",
    "datasets",
    "evaluate",
    "accelerate",
    "safetensors",
    "numpy",
    "pillow",
)


def lock(soup: Soup, hashes: dict[str, str]) -> dict[str, Any]:
    """The record of a soup, as plain JSON values.

    Args:
        soup: what was baked and measured.
        hashes: the soup's weight files and their sha256.
    """
    family = soup.family
    return {
        "hfsoup": __version__,
        "recipe": soup.options.chosen_recipe,
        "merge": soup.options.merge,
        "options": soup.options.changed(),
        "patterns": list(soup.patterns),
        "ingredients": [
            {**_ingredient(i), "coefficient": c, "order": order, "score": _score(s)}
            for i, c, order, s in zip(
                family.ingredients, soup.mix.coefficients, family.orders, soup.scores, strict=True
            )
        ],
        "dataset": _dataset(soup),
        "trace": soup.decisions(),
        "score": _score(soup.selection),
        "test": _comparison(soup),
        "images_forwarded": soup.images_forwarded,
        "weights": hashes,
        "versions": {name: version(name) for name in LIBRARIES},
    }


def _ingredient(ingredient: Ingredient) -> dict[str, Any]:
    files = [{"name": w.name, "size": w.size, "sha256": w.sha256} for w in ingredient.weights]
    return {"id": ingredient.id, "revision": ingredient.source.revision, "files": files}


def _dataset(soup: Soup) -> dict[str, Any] | None:
    images = soup.images
    if images is None:
        return None
    splits = {"selection": _split(images.selection), "test": _split(images.test)}
    return {
        "id": images.dataset,
        "config": images.config,
        "revision": images.revision,
        "metric": soup.options.metric,
        **splits,
    }


def _split(split: Split) -> dict[str, Any]:
    return {"name": split.name, "rule": split.rule, "images": len(split), "fingerprint": split.fingerprint}


def _score(score: Score | None) -> dict[str, Any] | None:
    return None if score is None else {"value": score.value, "correct": score.correct, "total": score.total}


def _comparison(soup: Soup) -> dict[str, Any] | None:
    c = soup.comparison
    if c is None:
        return None
    return {
        "soup": _score(c.soup),
        "best": _score(c.best),
        "ci95": c.interval,
        "best_ci95": c.best_interval,
        "difference_ci95": c.difference_interval,
        "mcnemar_p": c.p_value,
        "verdict": c.verdict,
    }
