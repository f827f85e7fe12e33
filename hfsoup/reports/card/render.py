"""The model card: what the bake measured, in words and tables, and nothing that it did not."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hfsoup.checkpoints.timm_config import format_model_type, has_timm_layout, is_timm, list_libraries
from hfsoup.data.metrics import METRICS
from hfsoup.data.splits import describe_training_split
from hfsoup.hub.cards import UNPUSHED
from hfsoup.ingredients.cards import find_common_license, include_bases, read_license
from hfsoup.merges import MERGES
from hfsoup.networks.alignment.tables import TABLES
from hfsoup.networks.importance import KINDS
from hfsoup.provenance.reproduce import hub_url, reproduce_command, reproduce_config
from hfsoup.recipes import RECIPES
from hfsoup.reports.card.formatting import (
    describe_attempts,
    describe_comparison,
    describe_shifts,
    escape_markdown,
    format_score,
    format_weight,
)
from hfsoup.reports.card.ingredients import describe_preparation, name_ingredients
from hfsoup.reports.figures import list_pictures
from hfsoup.utils.registry import Entry
from hfsoup.utils.resources import find_resource
from hfsoup.utils.text import one_line
from hfsoup.utils.version import __version__

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

    from hfsoup.checkpoints.types import Ingredient
    from hfsoup.provenance.result import BakeResult

DISTILLATION = (
    "Beyer et al., Knowledge distillation: a good teacher is patient and consistent, CVPR 2022,"
    " https://arxiv.org/abs/2106.05237"
)
HUB_METRICS = {"f1_macro": "f1", "f1_micro": "f1"}
VERSIONS = ("transformers", "torch", "datasets", "evaluate", "numpy")


def render_card(soup: BakeResult) -> str:
    """The text of README.md for a soup, from `model_cards/soup.md`."""
    from huggingface_hub import ModelCard, ModelCardData

    made_of = soup.composition
    data = ModelCardData(
        library_name="peft"
        if made_of.adapter
        else "timm"
        if has_timm_layout(made_of.family.config)
        else "transformers",
        pipeline_tag=soup.task.auto_class.pipeline_tag,
        tags=[*_tags(soup), "hfsoup", *_formats(soup), *soup.task.tags],
        base_model=_bases(soup, soup.composition.used),
        license=soup.options.license or find_common_license(soup.composition.used),
        datasets=[one_line(soup.images.dataset)] if soup.images and soup.images.revision else None,
        metrics=[_metric(soup)] if soup.images else None,
        model_name="soup" if (results := _eval_results(soup)) else None,
        eval_results=results,
    )
    if data.base_model:
        data["base_model_relation"] = "adapter" if made_of.adapter else "finetune" if made_of.distilled else "merge"
    filled = ModelCard.from_template(data, template_path=str(find_resource("model_cards/soup.md")), **_values(soup))
    return re.sub(r"\n{3,}", "\n\n", str(filled))


def _tags(soup: BakeResult) -> list[str]:
    """What the Hub is told that this is; a glob that leaves out soups leaves out what was distilled too."""
    return ["distilled-soup", "distillation"] if soup.composition.distilled else ["model-soup", "merge"]


def _formats(soup: BakeResult) -> list[str]:
    """The other libraries and formats that the Hub lists this model under."""
    if soup.composition.adapter:
        return ["lora"]
    if not is_timm(soup.family.config):
        return []
    return ["timm", "transformers"] if has_timm_layout(soup.family.config) else ["timm"]


def _timm_argument(soup: BakeResult) -> str | None:
    """What timm.create_model is given for this soup; None where timm cannot load it."""
    if soup.composition.adapter or "pretrained_cfg" not in soup.family.config or len(soup.family.shards) > 1:
        return None
    return json.dumps(f"hf-hub:{one_line(soup.options.push)}" if soup.options.push else "local-dir:PATH/TO/THIS/FOLDER")


def quote_command(command: str) -> str:
    """A command on one line, whatever its words hold: what cannot be printed is written as $'\\n'."""
    return " ".join(_word(word) for word in shlex.split(command))


def _word(word: str) -> str:
    if word.isprintable():
        return shlex.quote(word)
    escaped = word.replace("\\", "\\\\").replace("'", "\\'")
    codes = (c if c.isprintable() else "".join(f"\\x{b:02x}" for b in c.encode("utf-8", "replace")) for c in escaped)
    return f"$'{''.join(codes)}'"


def _eval_results(soup: BakeResult) -> list[EvalResult] | None:
    """The test score as the Hub lists it; none on images that the models may have been trained on."""
    from huggingface_hub import EvalResult

    images, comparison = soup.images, soup.comparison
    if images is None or comparison is None or images.test.is_training:
        return None
    name = one_line(Path(images.dataset).name if images.revision is None else images.dataset)
    return [
        EvalResult(
            task_type=soup.task.auto_class.pipeline_tag,
            task_name=soup.task.auto_class.title,
            dataset_type=name,
            dataset_name=name,
            dataset_config=one_line(images.config) if images.config else None,
            dataset_split=one_line(images.test.name),
            dataset_revision=images.revision,
            metric_type=_metric(soup),
            metric_name=one_line(soup.metric),
            metric_value=float(comparison.soup.value),
        )
    ]


def _metric(soup: BakeResult) -> str:
    return HUB_METRICS.get(soup.metric, one_line(soup.metric))


def _values(soup: BakeResult) -> dict[str, Any]:
    """What the template is filled with; every text from outside is escaped here."""
    recipe, merge = RECIPES.get(soup.options.chosen_recipe), MERGES.get(soup.options.merge)
    names = name_ingredients(*soup.family.ingredients)
    images = soup.images
    return {
        "recipe": recipe,
        "merge": merge,
        "metric": escape_markdown(soup.metric),
        "auto_class": soup.task.auto_class,
        "ingredients": [
            {
                "name": names[n],
                "link": hub_url(i.source),
                "revision": (i.source.revision or "")[:12],
                "base": _base(i),
                "weight": _weight(soup, n),
                "score": format_score(soup, s),
            }
            for n, (i, s) in enumerate(zip(soup.family.ingredients, soup.scores, strict=True))
        ],
        "scored": any(score is not None for score in soup.scores),
        "best": names[soup.best] if soup.best is not None else "",
        "best_selection": format_score(soup, soup.scores[soup.best]) if soup.best is not None else "",
        "about": list(describe_preparation(soup, names)),
        "processor": names[soup.family.processor_index] if soup.options.processor_from else None,
        "home": json.dumps(one_line(soup.options.push or UNPUSHED)),
        "used": len(soup.mix.members),
        "alone": _untouched(soup),
        "fitted": soup.family.fitted is not None and len(soup.mix.members) > 1,
        "distilled": _distilled(soup, names),
        "kind": soup.composition.kind,
        "attempts": describe_attempts(soup),
        "tried": len(soup.search.attempts),
        "ensemble": describe_comparison(soup, soup.evaluation.ensemble) if soup.evaluation.ensemble else None,
        "shifts": describe_shifts(soup),
        "trace": [{"d": d, "name": names[d.ingredient], "score": format_score(soup, d.score)} for d in soup.trace],
        "images": images,
        "trained": escape_markdown(describe_training_split(images.test.name))
        if images and images.test.is_training
        else "",
        "pictures": list_pictures(soup),
        "adapter": _adapter(soup),
        "splits": _splits(soup),
        "learned": recipe.epochs if images and images.learning else 0,
        "dataset": escape_markdown(_dataset(soup)) if images else "",
        "selection": format_score(soup, soup.selection),
        "norms": _norms(soup),
        "comparison": _comparison(soup, names),
        "model_type": escape_markdown(format_model_type(soup.family.config)),
        "timm": _timm_argument(soup),
        "classes": soup.task.describe_classes(len(soup.family.labels)),
        "rule": soup.task.rule,
        "local": [n for n, i in zip(names, soup.family.ingredients, strict=True) if not i.source.revision],
        "command": quote_command(reproduce_command(soup)),
        "config": reproduce_config(soup),
        "licences": _licences(soup),
        "notes": [escape_markdown(note, 600) for note in soup.run.notes],
        "citations": sorted(_list_citations(soup)),
        "versions": ", ".join(f"{name} {version(name)}" for name in (*VERSIONS, *list_libraries(soup.family.config))),
        "backend": images.backend if images else None,
        "hfsoup": __version__,
    }


def _untouched(soup: BakeResult) -> bool:
    """Whether a search among several kept one, whose weights are shipped as they are."""
    changed = (
        soup.composition.adapter
        or soup.composition.distilled
        or soup.family.reference_only
        or soup.family.alignment
        or soup.options.dtype
    )
    return soup.mix.alone and len(soup.family.ingredients) > 1 and not changed


def _list_citations(soup: BakeResult) -> set[str]:
    """What the soup stands on, as a list shows it: a line each, BibTeX as a block of code."""
    family, metric = soup.family, METRICS.find(soup.metric) if soup.images else None
    entries: list[Entry | None] = [RECIPES.get(soup.options.chosen_recipe), MERGES.get(soup.options.merge)]
    entries += [MERGES.get("mean"), metric]
    entries += [KINDS.find(family.importance.kind) if family.importance else None]
    entries += [TABLES.find(str(family.config["model_type"])) if family.alignment else None]
    texts = {entry.citation for entry in entries if entry} | ({DISTILLATION} if soup.composition.distilled else set())
    return {_format_bibtex(text) if text.lstrip().startswith("@") else one_line(text, 1000) for text in texts if text}


def _format_bibtex(text: str) -> str:
    """BibTeX as a block of code in a list."""
    lines = ["```bibtex", *text.replace("```", "").strip().splitlines(), "```"]
    return "\n  ".join(map(str.rstrip, lines))


def _weight(soup: BakeResult, n: int) -> str:
    """An ingredient's share of the average, or of the mean logits that a network was trained to match."""
    network, share, span = soup.composition.distilled, soup.mix.coefficients[n], soup.mix.span(n)
    if network:
        share, span = (n in network.members) / len(network.members), None
    return format_weight(share, span) if share else "left out"


def _distilled(soup: BakeResult, names: list[str]) -> dict[str, Any] | None:
    """How the network was trained that is shipped instead of an average."""
    found = soup.composition.distilled
    if found is None:
        return None
    start = names[found.start.members[0]] if found.start.alone else f"what the recipe made of {len(found.members)}"
    split = escape_markdown(found.images.name)
    return {
        "said": found.description,
        "start": start,
        "before": format_score(soup, found.before),
        "split": split,
        "seed": found.seed,
    }


def _bases(soup: BakeResult, used: Sequence[Ingredient]) -> list[str] | None:
    """What the Hub is told that this comes from: ingredients and their bases, or an adapter's base alone."""
    bases = [i.source.base for i in used]
    named = bases if soup.composition.adapter else [*bases, *(i.source for i in used)]
    return sorted({one_line(source.repo) for source in named if source and source.revision}) or None


def _adapter(soup: BakeResult) -> dict[str, Any] | None:
    """How far an adapter is from the average, and what it is loaded on."""
    found = soup.composition.adapter
    if found is None or found.ingredient.adapter is None:
        return None
    base = found.ingredient.adapter.base.source
    return {
        "rank": found.rank,
        "error": f"{100 * found.error:.3g} %",
        "worst": f"{100 * found.worst:.3g} %",
        "layer": escape_markdown(found.layer),
        "base": json.dumps(one_line(base.id if base.revision else "PATH/TO/" + Path(base.id).name)),
        "revision": json.dumps(base.revision) if base.revision else None,
    }


def _splits(soup: BakeResult) -> dict[str, dict[str, str]]:
    if soup.images is None:
        return {}
    every = {"selection": soup.images.selection, "test": soup.images.test, "learning": soup.images.learning}
    return {part: {"name": escape_markdown(s.name), "rule": escape_markdown(s.rule)} for part, s in every.items() if s}


def _licences(soup: BakeResult) -> dict[str, Any]:
    """What the used ingredients' cards say, and what the soup's does."""
    used = soup.composition.used
    every = list(include_bases(used))
    said = list(zip(name_ingredients(*every), map(read_license, every), strict=True))
    return {
        "chosen": escape_markdown(soup.options.license) if soup.options.license else None,
        "agreed": escape_markdown(find_common_license(used)) if find_common_license(used) else None,
        "named": any(licence for _, licence in said),
        "said": [(name, escape_markdown(licence) if licence else None) for name, licence in said],
    }


def _norms(soup: BakeResult) -> dict[str, Any] | None:
    """What each batch-norm mode scored, where statistics were estimated at all."""
    split = soup.images.calibration if soup.images else None
    if split is None or len(soup.mix.members) == 1 or soup.selection is None or soup.composition.distilled:
        return None
    modes = [{"name": mode, "score": format_score(soup, score)} for mode, score in soup.search.modes.items()]
    return {"images": len(split), "split": escape_markdown(split.name), "modes": modes, "kept": soup.selection.bn}


def _comparison(soup: BakeResult, names: list[str]) -> dict[str, Any] | None:
    c = soup.comparison
    if c is None or soup.best is None:
        return None
    return {
        "same": soup.mix.members == (soup.best,) and not soup.composition.adapter,
        "headed": names[0] if soup.family.reference_only and soup.best else None,
        "best": names[soup.best],
        **describe_comparison(soup, c),
        "choices": c.choices,
        "level": f"{100 * c.level:.3g} %",
        "alpha": f"{c.alpha:.2g}",
    }


def _base(ingredient: Ingredient) -> dict[str, str | None] | None:
    """What an adapter was put on."""
    if ingredient.adapter is None:
        return None
    base = ingredient.adapter.base
    return {
        "name": name_ingredients(base)[0],
        "link": hub_url(base.source),
        "revision": (base.source.revision or "")[:12],
    }


def _dataset(soup: BakeResult) -> str:
    images = soup.images
    if images is None:
        return ""
    name = images.dataset if images.revision else Path(images.dataset).name
    return f"{name}{f' ({images.config})' if images.config else ''}"
