"""The model card: what the bake measured, in words and tables, and nothing that it did not."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from hfsoup.checkpoints.dtypes import FLOAT_NAMES
from hfsoup.checkpoints.safetensors_io import FLOATS
from hfsoup.checkpoints.timm_config import format_model_type, has_timm_layout, is_timm, list_libraries
from hfsoup.data.splits import describe_training_split
from hfsoup.evaluation.scores import Decision, Score, describe_alpha
from hfsoup.hub.cards import UNPUSHED, name_card
from hfsoup.hub.client import hub_address
from hfsoup.ingredients.cards import find_common_license, include_bases, read_license
from hfsoup.merges import MERGES
from hfsoup.provenance.reproduce import hub_url, reproduce_command, reproduce_config
from hfsoup.recipes import RECIPES
from hfsoup.reports.card.formatting import escape_markdown, format_weight, quote_command
from hfsoup.reports.card.ingredients import describe_preparation, name_ingredients
from hfsoup.reports.figures import list_pictures
from hfsoup.reports.measurements import (
    CARD,
    Results,
    describe_comparison,
    describe_rejected,
    describe_statistics,
    format_difference,
    format_score,
    list_sentences,
    name_metric,
    read_results,
)
from hfsoup.utils.resources import find_resource
from hfsoup.utils.text import one_line, shorten_name
from hfsoup.utils.version import __version__

if TYPE_CHECKING:
    from huggingface_hub import EvalResult, ModelCardData

    from hfsoup.averaging.mix import Mix
    from hfsoup.checkpoints.types import Ingredient, LowRankAdapter
    from hfsoup.data.images import Images
    from hfsoup.networks.distillation.result import Distillation
    from hfsoup.provenance.result import BakeResult, Composition, Emissions, SearchResult

MOST_ATTEMPTS = 12
MOST_LABELS = 100
LOCAL_DATASET = "imagefolder"
"""The type of a dataset that is no repository, as in the cards that transformers' Trainer writes."""
DISTILLATION = (
    "Beyer et al., Knowledge distillation: a good teacher is patient and consistent, CVPR 2022,"
    " https://arxiv.org/abs/2106.05237"
)
HUB_METRICS = {"f1_macro": "f1", "f1_micro": "f1"}
VERSIONS = ("transformers", "torch", "datasets", "evaluate", "numpy")


def render_card(soup: BakeResult) -> str:
    """The text of README.md for a soup, from `model_cards/soup.md`."""
    from jinja2 import Template

    # As huggingface_hub's ModelCard.from_template does it, which imports the whole client of the Hub.
    template = Template(find_resource("model_cards/soup.md").read_text("utf-8"))
    filled = template.render(card_data=_make_metadata(soup).to_yaml(), **_fill(soup))
    card = re.sub(r"\n{3,}", "\n\n", filled)
    return name_card(card, soup.options.push, soup.options.revision) if soup.options.push else card


def _make_metadata(soup: BakeResult) -> ModelCardData:
    """What the Hub reads at the head of the card."""
    from huggingface_hub import ModelCardData

    made_of, images, results = soup.composition, soup.images, _eval_results(soup)
    data = ModelCardData(
        library_name=_library(made_of),
        pipeline_tag=soup.task.auto_class.pipeline_tag,
        tags=[*_tags(made_of), "hfsoup", *_formats(made_of), *soup.task.tags],
        base_model=_bases(made_of),
        license=soup.options.license or find_common_license(made_of.used),
        datasets=[one_line(images.dataset)] if images and images.revision else None,
        metrics=[_hub_metric(soup.metric)] if images else None,
        model_name="soup" if results else None,
        eval_results=results,
    )
    if emissions := soup.run.emissions:
        data["co2_eq_emissions"] = _list_emissions(
            emissions, trained=bool(made_of.distilled or (images and images.learning))
        )
    relation = "adapter" if made_of.adapter else "finetune" if made_of.distilled else "merge"
    if data.base_model and (relation != "merge" or not made_of.mix.alone):
        data["base_model_relation"] = relation
    return data


def _list_emissions(found: Emissions, *, trained: bool) -> dict[str, str | float]:
    """Emissions as the Hub lists them, with the keys that have a value."""
    keys: dict[str, str | float] = {
        "emissions": found.grams,
        "source": f"{found.tracker}, of the bake alone: the training of its ingredients is not in it",
        "training_type": "fine-tuning" if trained else "merging",
        "geographical_location": found.location,
        "hardware_used": found.hardware,
    }
    return {key: value for key, value in keys.items() if value != ""}


def _tags(made_of: Composition) -> list[str]:
    """Tags by kind; one ingredient is neither a soup nor a merge, and globs leave it out by the tag hfsoup."""
    if made_of.distilled:
        return ["distilled-soup", "distillation"]
    return [] if made_of.mix.alone else ["model-soup", "merge"]


def _library(made_of: Composition) -> str:
    return "peft" if made_of.adapter else "timm" if has_timm_layout(made_of.family.config) else "transformers"


def _formats(made_of: Composition) -> list[str]:
    """The other libraries and formats that the Hub lists this model under."""
    config = made_of.family.config
    if made_of.adapter:
        return ["lora"]
    if not is_timm(config):
        return []
    return ["timm", "transformers"] if has_timm_layout(config) else ["timm"]


def _bases(made_of: Composition) -> list[str] | None:
    """The repositories that this model comes from: ingredients and their bases, or an adapter's base alone."""
    bases = [i.source.base for i in made_of.used]
    sources = bases if made_of.adapter else [*bases, *(i.source for i in made_of.used)]
    return sorted({one_line(source.repo) for source in sources if source and source.revision}) or None


def _hub_metric(metric: str) -> str:
    return HUB_METRICS.get(metric, one_line(metric))


def _eval_results(soup: BakeResult) -> list[EvalResult] | None:
    """The test score as the Hub lists it; none on images that the models may have been trained on."""
    from huggingface_hub import EvalResult

    images, comparison = soup.images, soup.comparison
    if images is None or comparison is None or images.test.is_training:
        return None
    name = one_line(shorten_name(images.dataset, images.revision))
    return [
        EvalResult(
            task_type=soup.task.auto_class.pipeline_tag,
            task_name=soup.task.auto_class.title,
            dataset_type=name if images.revision else LOCAL_DATASET,
            dataset_name=name if images.revision else f"{name} (local files)",
            dataset_config=one_line(images.config) if images.config else None,
            dataset_split=one_line(images.test.name),
            dataset_revision=images.revision,
            metric_type=_hub_metric(soup.metric),
            metric_name=one_line(soup.metric),
            metric_value=float(comparison.soup.value),
        )
    ]


def _fill(soup: BakeResult) -> dict[str, Any]:
    """The values of the template, section by section; every text from outside is escaped here."""
    made_of, options = soup.composition, soup.options
    names = list(map(escape_markdown, made_of.names))
    labels = [escape_markdown(name, 40) for name in made_of.family.labels]
    results = read_results(soup, escape_markdown)
    return {
        "recipe": RECIPES.get(options.chosen_recipe),
        "merge": MERGES.get(options.merge),
        "metric": escape_markdown(name_metric(soup.metric)),
        "auto_class": soup.task.auto_class,
        "kind": made_of.kind,
        "used": len(soup.mix.members),
        "extrapolated": f"{soup.mix.alpha:g}" if soup.mix.alpha > 1 else None,
        "classes": soup.task.describe_classes(labels),
        "labels": labels[:MOST_LABELS],
        "unlisted": max(len(labels) - MOST_LABELS, 0),
        "rule": soup.task.rule,
        "processor": names[made_of.family.processor_index] if options.processor_from else None,
        "home": json.dumps(UNPUSHED),
        "timm": _timm_argument(made_of),
        "model_type": escape_markdown(format_model_type(made_of.family.config)),
        "alone": _is_unchanged(made_of, options.dtype),
        "copied": _describe_copied(soup, names),
        "edited": soup.mix.merged,
        "fitted": made_of.family.fitted is not None and len(soup.mix.members) > 1,
        "distilled": _describe_distillation(made_of.distilled, soup.metric, names) if made_of.distilled else None,
        "adapter": _describe_adapter(made_of.adapter) if made_of.adapter else None,
        "about": list(describe_preparation(soup, names)),
        **_list_ingredients(made_of, soup.search, soup.metric, names),
        **_describe_evaluation(soup, results),
        **_describe_search(soup.search, soup.mix, soup.metric, names),
        "pictures": list_pictures(soup),
        "licences": _describe_licences(made_of.used, options.license),
        "local_dataset": soup.images is not None and not soup.images.revision,
        "local": [n for n, i in zip(names, made_of.family.ingredients, strict=True) if not i.source.revision],
        "command": quote_command(reproduce_command(soup)),
        "config": reproduce_config(soup),
        "citations": sorted(_list_citations(soup)),
        "versions": ", ".join(f"{n} {version(n)}" for n in (*VERSIONS, *list_libraries(made_of.family.config))),
        "hfsoup": __version__,
        "others": f"{hub_address()}/models?other=hfsoup",
        "emissions": (e := soup.run.emissions) and {"grams": f"{e.grams:.3g}", "tracker": escape_markdown(e.tracker)},
    }


def _timm_argument(made_of: Composition) -> str | None:
    """What timm.create_model is given for this soup; None where timm cannot load it."""
    if made_of.adapter or "pretrained_cfg" not in made_of.family.config or len(made_of.family.shards) > 1:
        return None
    return json.dumps(f"local-dir:{UNPUSHED}")


def _is_unchanged(made_of: Composition, dtype: str | None) -> bool:
    """Whether a search among several selected one, whose weights are saved as they are."""
    family = made_of.family
    changed = made_of.adapter or made_of.distilled or family.reference_only or family.alignment or dtype
    return made_of.mix.alone and len(family) > 1 and not changed


def _describe_copied(soup: BakeResult, names: Sequence[str]) -> dict[str, str | None] | None:
    """The ingredient that the soup is a copy of, as a link; as `Manifest.copied`."""
    made_of, n = soup.composition, soup.mix.members[0]
    one = made_of.family.ingredients[n]
    converted = made_of.statistics or one.adapter or made_of.family.orders[n]
    if converted or not _is_unchanged(made_of, soup.options.dtype):
        return None
    return {"name": names[n], "link": hub_url(one.source)}


def _list_citations(soup: BakeResult) -> set[str]:
    """What the soup stands on, as a list shows it: a line each, BibTeX as a block of code."""
    texts = {entry.citation for entry in (*soup.entries, MERGES.get("mean"))}
    texts |= {DISTILLATION} if soup.composition.distilled else set()
    return {_format_bibtex(text) if text.lstrip().startswith("@") else one_line(text, 1000) for text in texts if text}


def _format_bibtex(text: str) -> str:
    """BibTeX as a block of code in a list."""
    lines = ["```bibtex", *text.replace("```", "").strip().splitlines(), "```"]
    return "\n  ".join(map(str.rstrip, lines))


def _list_ingredients(made_of: Composition, search: SearchResult, metric: str, names: Sequence[str]) -> dict[str, Any]:
    """The table of ingredients."""
    rows = enumerate(zip(made_of.family.ingredients, search.scores, strict=True))
    return {
        "ingredients": [
            {
                "name": names[n],
                "link": hub_url(ingredient.source),
                "revision": (ingredient.source.revision or "")[:12],
                "base": _describe_base(ingredient),
                "weight": _format_share(made_of, n),
                "score": f"{format_score(metric, score)}{describe_statistics(score)}",
            }
            for n, (ingredient, score) in rows
        ],
        "scored": any(score is not None for score in search.scores),
        "best": names[search.best] if search.best is not None else "",
        "best_selection": format_score(metric, search.scores[search.best]) if search.best is not None else "",
    }


def _format_share(made_of: Composition, n: int) -> str:
    """An ingredient's share of the average, or of the mean logits that a network was trained to match."""
    network, share, span = made_of.distilled, made_of.mix.coefficients[n], made_of.mix.span(n)
    if network:
        share, span = (n in network.members) / len(network.members), None
    return format_weight(share, span) if share else "left out"


def _describe_base(ingredient: Ingredient) -> dict[str, str | None] | None:
    """The model that an adapter was trained on."""
    if ingredient.adapter is None:
        return None
    base = ingredient.adapter.base
    return {
        "name": name_ingredients(base)[0],
        "link": hub_url(base.source),
        "revision": (base.source.revision or "")[:12],
    }


def _describe_distillation(found: Distillation, metric: str, names: Sequence[str]) -> dict[str, Any]:
    """How the network was trained that is saved instead of an average."""
    start = names[found.start.members[0]] if found.start.alone else f"the recipe's mix of {len(found.members)}"
    before, split = format_score(metric, found.before), escape_markdown(found.images.name)
    return {"said": found.description, "start": start, "before": before, "split": split}


def _describe_adapter(found: LowRankAdapter) -> dict[str, Any] | None:
    """What an adapter is loaded on."""
    if found.ingredient.adapter is None:
        return None
    base = found.ingredient.adapter.base.source
    return {
        "rank": found.rank,
        "base": json.dumps(one_line(base.id if base.revision else f"PATH/TO/{shorten_name(base.id, None)}")),
        "revision": json.dumps(base.revision) if base.revision else None,
    }


def _describe_evaluation(soup: BakeResult, results: Results) -> dict[str, Any]:
    """Dataset, splits, and what was measured on them."""
    images, c = soup.images, soup.comparison
    measured: dict[str, Any] = {
        "measured": list_sentences(results, CARD),
        "selection": format_score(soup.metric, soup.selection),
        "images": images,
        "comparison": None,
    }
    if images is None:
        return measured
    if c is not None and soup.best is not None:
        head = escape_markdown(soup.composition.names[0]) if soup.family.reference_only and soup.best else None
        measured["comparison"] = {"same": results.alone, "head": head, "best": results.clean(results.best)}
        rejected = describe_rejected(results)
        measured["comparison"]["rejected"] = f"{rejected[0].upper()}{rejected[1:]}."
        measured["comparison"] |= describe_comparison(soup.metric, c)
    return {
        **measured,
        "dataset": escape_markdown(_name_dataset(images)),
        "splits": _describe_splits(images),
        "epochs": RECIPES.get(soup.options.chosen_recipe).epochs if images.learning else 0,
        "trained": escape_markdown(describe_training_split(images.test.name)) if images.test.is_training else "",
        "norms": _describe_batch_norms(soup, images),
        "notes": [escape_markdown(note, 600) for note in soup.run.notes],
        "backend": images.backend,
        "precision": _describe_precision(soup),
        "shifts": _describe_shifts(results),
    }


def _describe_precision(soup: BakeResult) -> str:
    """What scores were computed in, and where transformers computes in something else."""
    found = soup.evaluation.precision
    if found is None:
        return ""
    if found.selection == found.test:
        text = f"Scores were computed in {found.test}."
    else:
        text = f"Candidates were scored in {found.selection}, the test split in {found.test}."
    stored = {soup.options.stored_dtype or spec.dtype for spec in soup.family.tensors if spec.dtype in FLOATS}
    if narrow := sorted(FLOAT_NAMES[dtype] for dtype in stored & {"F16", "BF16"}):
        names = " and ".join(narrow)
        text += f' The weights are {names}, in which pipeline() computes too unless it is given dtype="float32".'
    return text


def _name_dataset(images: Images) -> str:
    name = shorten_name(images.dataset, images.revision)
    return f"{name} ({images.config})" if images.config else name


def _describe_splits(images: Images) -> dict[str, dict[str, str]]:
    every = {"selection": images.selection, "test": images.test, "learning": images.learning}
    return {
        part: {"name": escape_markdown(split.name), "rule": escape_markdown(split.rule)}
        for part, split in every.items()
        if split
    }


def _describe_batch_norms(soup: BakeResult, images: Images) -> dict[str, Any] | None:
    """The score with each kind of batch-norm statistics, where they were re-estimated."""
    split, search = images.calibration, soup.search
    if split is None or search.selection is None or soup.composition.distilled:
        return None
    modes = [{"name": mode, "score": format_score(soup.metric, score)} for mode, score in search.modes.items()]
    return {"images": len(split), "split": escape_markdown(split.name), "modes": modes, "kept": search.selection.bn}


def _describe_shifts(results: Results) -> list[dict[str, Any]]:
    """Every shift, and the mean of them where there are several."""
    rows: list[dict[str, Any]] = []
    for one in results.shifts:
        dataset, split = map(results.clean, one.origin or ("", ""))
        origin = f"{dataset}, *{split}*" if one.origin else ""
        rows.append(
            {"name": results.clean(one.name), "origin": origin, **describe_comparison(results.metric, one.comparison)}
        )
    if len(rows) > 1:
        pairs = [(one.comparison.soup.value, one.comparison.best.value) for one in results.shifts]
        soup, best = (sum(side) / len(side) for side in zip(*pairs, strict=True))
        rows.append(
            {
                "name": "mean",
                "soup_score": format_score(results.metric, Score(soup)),
                "best_score": format_score(results.metric, Score(best)),
                "difference": format_difference(results.metric, soup - best),
            }
        )
    return rows


def _describe_search(search: SearchResult, mix: Mix, metric: str, names: Sequence[str]) -> dict[str, Any]:
    """The steps, and the mixes that were measured as a whole: the best ones first, of many only those at the top."""
    ranked = sorted(search.attempts, key=lambda one: (-one.score.key, one.mix != mix))
    return {
        "tried": len(search.attempts),
        "attempts": [
            {
                "name": escape_markdown(one.name),
                "used": len(one.mix.members),
                "score": format_score(metric, one.score),
                "kept": one.mix == mix,
            }
            for one in ranked[:MOST_ATTEMPTS]
        ],
        "trace": [{"d": d, "name": _name_step(d, names), "score": format_score(metric, d.score)} for d in search.trace],
    }


def _name_step(step: Decision, names: Sequence[str]) -> str:
    """The ingredient that a step added or dropped, or how far it led along a line."""
    return describe_alpha(step.alpha or 0.0) if step.ingredient is None else names[step.ingredient]


def _describe_licences(used: Sequence[Ingredient], chosen: str | None) -> dict[str, Any]:
    """The licences of the ingredients, and that of the soup."""
    every, agreed = list(include_bases(used)), find_common_license(used)
    licences = [escape_markdown(found) if (found := read_license(one)) else None for one in every]
    return {
        "chosen": escape_markdown(chosen) if chosen else None,
        "agreed": escape_markdown(agreed) if agreed else None,
        "named": any(licences),
        "list": list(zip(name_ingredients(*every), licences, strict=True)),
    }
