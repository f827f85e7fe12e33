"""The test score in the form in which the Hub shows and ranks results: `.eval_results/hfsoup-DATASET.yaml`.

It is written where a soup is pushed, from its soup.json alone (https://huggingface.co/docs/hub/eval-results).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import yaml

from hfsoup.data.splits import is_training
from hfsoup.hub.cards import EVAL_RESULTS, parse_yaml_list
from hfsoup.hub.client import hub_address
from hfsoup.provenance.manifest import FILE_NAME, require_size
from hfsoup.utils.errors import SoupError
from hfsoup.utils.text import one_line

if TYPE_CHECKING:
    from huggingface_hub import EvalResultEntry

    from hfsoup.provenance.manifest import Manifest

MAX_BYTES = 64 << 10
TASK = "default"
"""The task of a dataset that defines none in its eval.yaml and that has no configuration."""


def name_eval_results(record: Manifest) -> str | None:
    """The file's name; None where there is no result to show.

    That is a soup without a test score, one on a dataset that is not on the Hub, and one on images that the models may
    have been trained on.
    """
    data = record.dataset
    if record.test is None or data is None or data.revision is None or is_training(data.test.name):
        return None
    return f"{EVAL_RESULTS}{data.id.rpartition('/')[2]}.yaml"


def make_eval_results(
    folder: Path, record: Manifest, repo: str, *, revision: str | None = None, task: str | None = None
) -> dict[str, bytes]:
    """The file by its name, none where there is no result to show.

    Args:
        folder: the soup's folder; the date is that of its record.
        record: the record.
        repo: the repository that the soup is pushed to, whose soup.json is the source.
        revision: the branch that it is pushed to.
        task: the task of the dataset's eval.yaml that was scored; by default the dataset's configuration.
    """
    from huggingface_hub import eval_result_entries_to_yaml

    name = name_eval_results(record)
    if name is None:
        return {}
    day = datetime.fromtimestamp((folder / FILE_NAME).stat().st_mtime, UTC).date()
    entry = replace(
        _make_entry(record),
        date=day.isoformat(),
        source_url=f"{hub_address()}/{repo}/blob/{quote(revision or 'main', safe='')}/{FILE_NAME}",
        source_name=f"{FILE_NAME} of hfsoup {record.hfsoup}",
        **({"task_id": task} if task else {}),
    )
    text = yaml.safe_dump(eval_result_entries_to_yaml([entry]), sort_keys=False, allow_unicode=True, width=1000)
    return {name: text.encode()}


def _make_entry(record: Manifest) -> EvalResultEntry:
    """What the record says of the result."""
    from huggingface_hub import EvalResultEntry

    data, test = record.dataset, record.test
    if data is None or test is None:
        raise ValueError("no result")
    notes = f"{record.metric} on the split {data.test.name} ({data.test.rule}), {test.soup.total:,} images"
    if test.ci95:
        notes += f", 95 % interval {test.ci95[0]:.4f} to {test.ci95[1]:.4f}"
    task, value = data.config or TASK, test.soup.value
    return EvalResultEntry(data.id, task, value, dataset_revision=data.revision, notes=one_line(notes, 500))


def compare_eval_results(folder: Path, record: Manifest, *, where: str) -> Iterator[str]:
    """Where the file in a folder, which may come from anyone, shows something else than the record; nothing without it.

    Its date, its source and the dataset's task are not in the record.
    """
    from huggingface_hub import parse_eval_result_entries

    name = name_eval_results(record)
    if name is None or not (folder / name).is_file():
        return
    require_size(name, (folder / name).stat().st_size, MAX_BYTES, where=where)
    try:
        found = parse_eval_result_entries(parse_yaml_list((folder / name).read_text(encoding="utf-8")))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise SoupError(f"{name} is damaged", where=where) from error
    expected = _make_entry(record)
    for label in ("dataset_id", "dataset_revision", "value", "notes"):
        shown, recorded = {one_line(getattr(entry, label)) for entry in found}, one_line(getattr(expected, label))
        if shown != {recorded}:
            yield f"{name}: {label} is {', '.join(sorted(shown)) or 'missing'}, and {recorded} in {FILE_NAME}"
