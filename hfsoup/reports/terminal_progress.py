"""What a bake shows on standard error while it runs: bars and colours on a terminal, plain lines elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

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
from rich.table import Table
from rich.text import Text

from hfsoup.reports.summary import replace_unprintable
from hfsoup.utils.progress import SearchStep, Stage, Watch
from hfsoup.utils.text import format_size

NARROW, WIDE, TAKEN = 6, 40, 68
LEFT = 16
"""The columns before the ingredient of a step."""
UNBOUNDED = 1000
"""The width of a line where there is no terminal: lines are not wrapped."""


class TerminalProgress(Watch):
    """One line per stage, with a progress bar on a terminal, and one per step of the search.

    Args:
        quiet: print nothing.
    """

    def __init__(self, *, quiet: bool) -> None:
        self.console = Console(stderr=True, quiet=quiet, highlight=False)
        if not self.console.is_terminal:
            self.console = Console(stderr=True, quiet=quiet, highlight=False, width=UNBOUNDED)

    def note(self, text: str) -> None:
        """Print a note."""
        self._print_line(Text("note", "yellow"), replace_unprintable(text, 600))

    def decision(self, step: SearchStep) -> None:
        """Print a step of the search."""
        mark = (f"{step.outcome:<9}", "green" if step.accepted else "dim")
        room = self.console.width - LEFT - len(step.describe(""))
        # The start of a long name goes, so that its end and the score stay on the line.
        name = replace_unprintable(step.ingredient).plain
        name = name if len(name) <= room else f"…{name[-max(room - 1, 1) :]}"
        text = Text.assemble(f"  {step.number or '':>3} ", mark, f" {step.describe(name)}")
        self.console.print(text, no_wrap=True, overflow="ellipsis")

    @contextmanager
    def stage(self, title: str, total: int = 0, unit: str = "") -> Iterator[Stage]:
        """Show a bar, or a spinner if nothing is counted, and leave one line behind."""
        stage: Stage
        if self.console.is_terminal and not self.console.quiet:
            bar = stage = StageBar(self.console, title, total, unit)
            with bar.progress:
                yield bar
        else:
            stage = Stage()
            if unit:
                self.console.print(f"{title} …")
            yield stage
        self._print_line(Text("✓", "green"), replace_unprintable(stage.text or title, 600))

    def _print_line(self, mark: Text, text: Text) -> None:
        """A mark and a text, with a hanging indent on a terminal."""
        if not self.console.is_terminal:
            self.console.print(Text.assemble(mark, " ", text), soft_wrap=True)
            return
        grid = Table.grid(padding=(0, 1))
        grid.add_column(no_wrap=True)
        grid.add_column(overflow="fold")
        grid.add_row(mark, text)
        self.console.print(grid)


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
