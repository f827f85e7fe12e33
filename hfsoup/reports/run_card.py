"""The card of a run of `hfsoup sweep`: what it started from, what it was trained on, and how."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from hfsoup.ingredients.cards import read_license
from hfsoup.reports.card.formatting import escape_markdown

if TYPE_CHECKING:
    from hfsoup.checkpoints.types import Ingredient


def render_run_card(record: dict[str, Any], *, base: str, dataset: str, start: Ingredient) -> str:
    """The text of README.md, by the run's record; only what is on the Hub is named in the metadata.

    Args:
        record: the run's `sweep.json`.
        base: the base as the user named it, without its revision.
        dataset: the dataset as the user named it.
        start: the base, whose licence is the run's.
    """
    from huggingface_hub import ModelCardData

    local = {name: os.path.lexists(os.path.expanduser(name)) for name in (base, dataset)}  # noqa: PTH111
    data = ModelCardData(
        library_name="transformers",
        pipeline_tag="image-classification",
        license=read_license(start),
        base_model=None if local[base] else start.source.repo,
        datasets=None if local[dataset] else [dataset],
    )
    origin = {part: _describe(record[part]) for part in ("base", "dataset")}
    config = f", configuration `{record['dataset']['config']}`" if record["dataset"]["config"] else ""
    rows = {name: escape_markdown(value) for name, value in record["hyperparameters"].items()}
    rows["frozen"] = ", ".join(f"`{glob}`" for glob in record["frozen"]) or "nothing"
    return f"""---
{data.to_yaml()}
---

# Fine-tuned image classifier

{origin["base"]}, fine-tuned on the split `{record["dataset"]["split"]}` of {origin["dataset"]}{config}, by
`hfsoup sweep`. It is one run of a family: all start from the same weights, head included (drawn with the seed
{record["head_seed"]} where the base has none), and differ in the hyper-parameters below. It was not evaluated.

| hyper-parameter | value |
|---|---|
{chr(10).join(f"| {name} | {value} |" for name, value in rows.items())}

AdamW; a tenth of the steps is warm-up, unless the schedule has none.
"""


def _describe(part: dict[str, Any]) -> str:
    """A base or a dataset with its commit."""
    at = f" at commit `{part['revision']}`" if part["revision"] else ""
    return f"`{part['id']}`{at}"
