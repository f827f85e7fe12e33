"""What a person sees while a bake runs, and at its end, all on standard error: `--json -` owns standard output."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.panel import Panel
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table

from hfsoup.watch import Watch

if TYPE_CHECKING:
    from hfsoup.soup import Soup
    from hfsoup.types import Decision


class Screen(Watch):
    """A stage a line, with bars where there is a terminal, and each decision as it is taken."""

    def __init__(self, *, quiet: bool) -> None:
        self.console = Console(stderr=True, quiet=quiet, highlight=False)

    def note(self, text: str) -> None:
        """Print a note."""
        self.console.print(f"[yellow]note[/] {escape(clean(text))}")

    def decision(self, names: tuple[str, ...], decision: Decision) -> None:
        """Print a step of the search."""
        mark = "[green]kept[/]" if decision.accepted else "[dim]not kept[/]"
        name = escape(clean(names[decision.ingredient]))
        self.console.print(f"  {decision.step:>3} {decision.action:<4} {name}  {decision.score.value:.4f}  {mark}")

    @contextmanager
    def stage(self, title: str, total: int = 0, unit: str = "") -> Iterator[Callable[[int], None]]:
        """Show a bar, or a spinner where the total is not known, and leave one line behind."""
        if not self.console.is_terminal or self.console.quiet:
            self.console.print(title)
            yield lambda _: None
            return
        counts = DownloadColumn() if unit == "B" else MofNCompleteColumn()
        columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), counts, TimeElapsedColumn())
        with Progress(*columns, console=self.console, transient=True) as progress:
            task = progress.add_task(title, total=total or None)
            yield lambda n: progress.update(task, advance=n)
        self.console.print(f"[green]✓[/] {title}")

    def result(self, soup: Soup) -> None:
        """The ingredients, the soup against the best of them, and what to type next."""
        self.console.print(_ingredients(soup))
        self.console.print(Panel("\n".join(_closing(soup)), title="soup", border_style="green", expand=False))

    def score(self, soup: Soup) -> None:
        """What one model scores."""
        c = soup.comparison
        interval = f" [{c.interval[0]:.4f}, {c.interval[1]:.4f}]" if c and c.interval else ""
        self.console.print(f"{soup.options.metric}: selection {soup.score:.4f}, test {soup.test:.4f}{escape(interval)}")


def clean(text: str) -> str:
    """Text from outside without control characters, so that it cannot steer the terminal."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def _ingredients(soup: Soup) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("ingredient")
    table.add_column(soup.options.metric, justify="right")
    table.add_column("weight", justify="right")
    for ingredient, score, weight in zip(soup.family.ingredients, soup.scores, soup.mix.coefficients, strict=True):
        shown = f"{weight:.3f}" if weight else "[dim]–[/]"
        table.add_row(escape(clean(str(ingredient))), f"{score.value:.4f}" if score else "–", shown)
    return table


def _closing(soup: Soup) -> Iterator[str]:
    c = soup.comparison
    if c is not None and soup.best is not None:
        best = escape(clean(str(soup.family.ingredients[soup.best])))
        interval = f" [{c.interval[0]:.4f}, {c.interval[1]:.4f}]" if c.interval else ""
        yield f"test {soup.options.metric} {c.soup.value:.4f}{escape(interval)}"
        yield f"best ingredient {c.best.value:.4f} ({best})"
        p = "" if c.p_value is None else f", p = {c.p_value:.2g}"
        if soup.mix.members == (soup.best,):
            yield "[yellow]the search kept the best ingredient alone: no soup was better on the selection split[/]"
        elif c.verdict == "better":
            yield f"[green]the soup is better than its best ingredient[/] by {100 * c.difference:.2f} points{p}"
        elif c.verdict == "worse":
            yield f"[red]the soup is worse than its best ingredient[/] by {-100 * c.difference:.2f} points{p}"
        else:
            difference = f"{100 * c.difference:+.2f} points{p}"
            yield f"[yellow]the soup is not distinguishable from its best ingredient[/] ({difference})"
        yield f"{soup.images_forwarded:,} images forwarded"
    else:
        yield "nothing was measured: without --dataset it is not known whether the soup is better"
    if soup.path:
        yield f"saved to {escape(str(soup.path))}"
    if soup.pushed:
        yield f"pushed to {escape(soup.pushed.url)}"
    home = soup.pushed.repo if soup.pushed else str(soup.path) if soup.path else None
    if home:
        yield f'[bold]pipeline("image-classification", "{escape(home)}")[/]'
