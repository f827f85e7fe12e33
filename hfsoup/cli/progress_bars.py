"""Progress of a running stage: a bar with its rate on a terminal, plain lines elsewhere."""

from __future__ import annotations

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
)
from rich.text import Text

from hfsoup.utils.progress import Stage
from hfsoup.utils.text import format_size

NARROW, WIDE, TAKEN = 6, 40, 68


class StageBar(Stage):
    """A stage with a bar, or a pulse where the total is not known.

    Args:
        console: where to.
        title: what runs.
        total: how many units there are, 0 where that is not known.
        unit: `B` for bytes, else a noun; empty where nothing is counted.
    """

    def __init__(self, console: Console, title: str, total: int, unit: str) -> None:
        super().__init__(title, unit, total)
        self.progress = Progress(*_choose_columns(console.width, unit), console=console, transient=True)
        self._task = self.progress.add_task(title, total=total or None, standing="")

    def __call__(self, count: int) -> None:
        """Move on."""
        self.progress.update(self._task, advance=count)

    def expect(self, total: int) -> None:
        """Show a total."""
        self.progress.update(self._task, total=total or None)

    def reach(self, done: int, text: str) -> None:
        """Move to, and say how things stand."""
        self.progress.update(self._task, completed=done, standing=text)


class RateColumn(ProgressColumn):
    """Units a second over the last seconds."""

    def __init__(self, unit: str) -> None:
        super().__init__()
        self._unit = unit

    def render(self, task: Task) -> Text:
        """The rate, or nothing before there is one."""
        speed = task.finished_speed or task.speed
        if not speed:
            return Text("")
        return Text(f"{format_size(speed)}/s" if self._unit == "B" else f"{speed:,.0f}/s", "cyan")


class CountColumn(ProgressColumn):
    """How many of how many."""

    def render(self, task: Task) -> Text:
        """Both where both are known."""
        of = f"/{task.total:,.0f}" if task.total else ""
        return Text(f"{task.completed:,.0f}{of}") if task.completed or of else Text("")


def _choose_columns(width: int, unit: str) -> list[ProgressColumn]:
    """Columns that fit into one line."""
    head = [SpinnerColumn(), TextColumn("{task.description}")]
    if not unit:
        return [*head, TimeElapsedColumn()]
    bar = BarColumn(max(NARROW, min(WIDE, width - TAKEN)))
    count = DownloadColumn() if unit == "B" else CountColumn()
    return [
        *head,
        bar,
        count,
        RateColumn(unit),
        TimeElapsedColumn(),
        TextColumn("{task.fields[standing]}", markup=False),
    ]
