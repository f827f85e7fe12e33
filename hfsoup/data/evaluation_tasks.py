"""The tasks that a dataset of the Hub declares in its eval.yaml, by which the Hub ranks results.

https://huggingface.co/docs/hub/eval-results
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hfsoup.hub.cards import parse_yaml_mapping
from hfsoup.hub.client import expect_answer, hub_api
from hfsoup.hub.download import RemoteFile, fetch_file
from hfsoup.hub.notices import notify_listener
from hfsoup.utils.errors import HubError
from hfsoup.utils.text import one_line

FILE_NAME = "eval.yaml"
MAX_BYTES = 1 << 20


def find_task(dataset: str, config: str | None, revision: str, split: str) -> str | None:
    """The id of the task that is this configuration and split of a dataset; None where it declares none.

    A dataset that cannot be read any more, or whose file is no eval.yaml, is noted and has no task.
    """
    try:
        path = _fetch(dataset, revision)
        tasks = parse_yaml_mapping(path.read_text("utf-8", "replace")).get("tasks") if path else None
    except (HubError, ValueError) as error:
        notify_listener(f"the tasks of {dataset} cannot be read: {one_line(error, 300)}")
        return None
    declared = [task for task in tasks if isinstance(task, dict)] if isinstance(tasks, list) else []
    found = [str(task["id"]) for task in declared if "id" in task and _is_task(task, config, split)]
    return one_line(found[0]) if len(found) == 1 else None


def _is_task(task: dict[str, Any], config: str | None, split: str) -> bool:
    """Whether a task is of a configuration and a split; one that names none is of all."""
    wanted = {"config": config or "default", "split": split}
    return all(task.get(key, value) == value for key, value in wanted.items())


def _fetch(dataset: str, revision: str) -> Path | None:
    with expect_answer(dataset):
        listed: list[Any] = hub_api().get_paths_info(dataset, [FILE_NAME], repo_type="dataset", revision=revision)
    if not listed or not hasattr(listed[0], "size"):
        return None
    (entry,) = listed
    if entry.size > MAX_BYTES:
        raise ValueError(f"{FILE_NAME} is over the limit of {MAX_BYTES} bytes")
    file = RemoteFile(entry.path, entry.size, entry.lfs.sha256 if entry.lfs else None, entry.blob_id)
    return fetch_file(dataset, file, revision, kind="dataset")
