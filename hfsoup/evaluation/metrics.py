"""What scores a task: one of its own metrics, or a script of the Hub that is trusted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from hfsoup.data.metrics import METRICS, check_predictions
from hfsoup.data.tasks import SINGLE_LABEL, require_metric
from hfsoup.data.tasks.task import Labels, Metric, Task
from hfsoup.hub.client import expect_answer, hub_api
from hfsoup.hub.download import RemoteFile, fetch_file
from hfsoup.utils.errors import SoupError, UsageError
from hfsoup.utils.text import one_line


def load_metric(name: str | None = None, task: Task = SINGLE_LABEL, *, trust_remote: bool = False) -> Metric:
    """The metric called `name`.

    Args:
        name: one of the task's own or of a plug-in, None for the first of them; or that of a Space on the Hub with a
            script of evaluate's, ORG/NAME or only NAME for evaluate's own. A script on this disk is never run.
        task: what it scores.
        trust_remote: allow the latter, whose script is fetched and run.
    """
    name = require_metric(name, task, trust_remote=trust_remote)
    return task.load_metric(name) if name in METRICS else _fetch_metric(name, task)


def _fetch_metric(name: str, task: Task) -> Metric:
    """A metric of the Hub, from one commit whose every file is compared with its listing."""
    space = name if "/" in name else f"evaluate-metric/{name}"
    with expect_answer(space):
        info = hub_api().space_info(space, files_metadata=True)
    files = [
        RemoteFile(s.rfilename, s.size or 0, s.lfs.sha256 if s.lfs else None, s.blob_id or "")
        for s in info.siblings or ()
    ]
    script = f"{space.split('/')[1]}.py"
    if info.sha is None or script not in {file.name for file in files}:
        raise UsageError(f"expected a Space with {script}, found none", where=space)
    paths = {file.name: fetch_file(space, file, info.sha, kind="space") for file in files if file.name.endswith(".py")}
    return Metric(
        name, task, 1, counts=False, value=_load_script(name, paths[script]), on_rows=None, source=f"{space}@{info.sha}"
    )


def _load_script(name: str, script: Path) -> Callable[[Labels, Labels], float]:
    import evaluate

    try:
        loaded = evaluate.load(str(script), keep_in_memory=True)
    except (OSError, ImportError, ValueError, TypeError, AttributeError, SyntaxError) as error:
        raise UsageError(f"evaluate cannot load the metric {name!r}: {one_line(error, 300)}") from error

    def value(predictions: Labels, references: Labels) -> float:
        guesses, truth = check_predictions(predictions, references)
        result = loaded.compute(predictions=guesses[:, 0], references=truth)
        numbers = [v for v in (result or {}).values() if isinstance(v, (int, float)) and not isinstance(v, bool)]
        if len(numbers) != 1:
            raise SoupError(f"expected one number from the metric {name}, found {one_line(sorted(result or {}))}")
        return float(numbers[0])

    return value
