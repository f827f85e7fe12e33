"""What classifiers are scored as. One file a task; `task_of` says which one a config.json means."""

from __future__ import annotations

import re
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from hfsoup.data.metrics import METRICS as REGISTRY
from hfsoup.data.tasks.multi_label import MultiLabel
from hfsoup.data.tasks.single_label import SingleLabel
from hfsoup.data.tasks.task import Task
from hfsoup.utils.errors import SoupError, UsageError
from hfsoup.utils.text import quoted

SINGLE_LABEL, MULTI_LABEL = SingleLabel(), MultiLabel()
TASKS: tuple[Task, ...] = (SINGLE_LABEL, MULTI_LABEL)
METRICS = tuple(dict.fromkeys(name for task in TASKS for name in task.metrics))
"""hfsoup's own, all of which are shares and shown in per cent."""
REGRESSION = "regression"
SPACE_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}(/[A-Za-z0-9][\w.-]{0,95})?")


def task_of(config: Mapping[str, Any]) -> Task:
    """The task of a config.json, as `pipeline()` takes it: one class an image unless the config says several."""
    return next((task for task in TASKS if task.problem_type == config.get("problem_type")), SINGLE_LABEL)


def require_classifier(config: Mapping[str, Any], classes: int, *, where: str) -> Task:
    """The task of a config, if its model can be scored.

    Raises:
        SoupError: it is one of regression, or has one output that names no class.
    """
    kind, known = config.get("problem_type"), [task.problem_type for task in TASKS]
    what = ""
    if kind == REGRESSION:
        what = "its problem_type is regression, which hfsoup does not score"
    elif kind not in (None, *known):
        what = f"expected problem_type to be one of {', '.join(known)}, found {quoted(kind)}"
    elif classes == 1 and task_of(config) is SINGLE_LABEL:
        what = (
            "it has one output, which is regression unless problem_type is multi_label_classification;"
            " hfsoup does not score regression"
        )
    if what:
        raise SoupError(what, where=f"{where}, config.json", hint="without --dataset these are averaged and not scored")
    return task_of(config)


def require_metric(name: str | None, task: Task, *, trust_remote: bool) -> str:
    """The name of the metric that a task is scored with: the one asked for, else the task's first.

    Raises:
        UsageError: there is none of that name, it scores another task, or it would run a script that is not trusted.
    """
    if name is None or name in task.metrics:
        return name or task.metrics[0]
    found = REGISTRY.find(name)
    if found is not None and task.name in found.tasks:
        return name
    mine = list(dict.fromkeys([*task.metrics, *(each.name for each in REGISTRY if task.name in each.tasks)]))
    known, broken = ", ".join(mine), "".join(f"\n  {text}" for text in REGISTRY.broken)
    if not SPACE_NAME.fullmatch(name) or name.endswith(".py"):
        raise UsageError(f"expected the name of a metric, found {quoted(name)}; hfsoup's own are {known}")
    if found is not None or not task.scripts:
        what = f"{name!r} does not score {task.name} models ({task.problem_type}); {known} do"
        raise UsageError(what, hint=f"--metric {task.metrics[0]}")
    if not trust_remote:
        near = [each for each in mine if each.startswith(name)] or get_close_matches(name, mine, 1, 0.6)
        if near:
            what = f"there is no metric {name!r}; hfsoup's own are {known}{broken}"
            raise UsageError(what, hint=f"--metric {near[0]}")
        what = f"{name!r} is not one of hfsoup's own metrics ({known}); any other one runs a script that is fetched"
        raise UsageError(what + broken, hint=f"--metric {name} --trust-remote-metric, if you trust it")
    return name
