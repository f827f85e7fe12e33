"""What a person sees while a bake runs, and at its end, all on standard error: `--json -` owns standard output."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.panel import Panel
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table
from rich.text import Text

from hfsoup.watch import Watch

if TYPE_CHECKING:
    from hfsoup.preflight import Diagnosis
    from hfsoup.soup import Soup
    from hfsoup.types import Comparison, Decision


class Screen(Watch):
    """A stage a line, with bars where there is a terminal, and each decision as it is taken."""

    def __init__(self, *, quiet: bool) -> None:
        self.console = Console(stderr=True, quiet=quiet, highlight=False)

    def note(self, text: str) -> None:
        """Print a note."""
        self.console.print(Text.assemble(("note ", "yellow"), plain(text, 600)))

    def decision(self, names: tuple[str, ...], decision: Decision) -> None:
        """Print a step of the search."""
        mark = ("kept", "green") if decision.accepted else ("not kept", "dim")
        bound = "≤" if decision.score.at_most else " "
        name, score = plain(names[decision.ingredient]), f" {bound}{decision.score.value:.4f}  "
        self.console.print(Text.assemble(f"  {decision.step:>3} {decision.action:<4} ", name, score, mark))

    @contextmanager
    def stage(self, title: str, total: int = 0, unit: str = "") -> Iterator[Callable[[int], None]]:
        """Show a bar, or a spinner where the total is not known, and leave one line behind."""
        if not self.console.is_terminal or self.console.quiet:
            self.console.print(title)
            yield lambda _: None
            return
        counts = DownloadColumn() if unit == "B" else TextColumn("{task.completed:,.0f} " + unit)
        columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), counts, TimeElapsedColumn())
        with Progress(*columns, console=self.console, transient=True) as progress:
            task = progress.add_task(title, total=total or None)
            yield lambda n: progress.update(task, advance=n)
        self.console.print(f"[green]✓[/] {title}")

    def result(self, soup: Soup) -> None:
        """The ingredients, the soup against the best of them, and what to type next."""
        self.console.print(_ingredients(soup))
        self.console.print(Panel(Text("\n").join(_closing(soup)), title="soup", border_style="green", expand=False))

    def same(self, text: str) -> None:
        """Print something that held."""
        self.console.print(Text.assemble(("✓ ", "green"), plain(text, 600)))

    def score(self, soup: Soup) -> None:
        """What one model scores."""
        c = soup.comparison
        interval = f" [{c.interval[0]:.4f}, {c.interval[1]:.4f}]" if c and c.interval else ""
        numbers = f": selection {soup.score:.4f}, test {soup.test:.4f}{interval}"
        self.console.print(Text.assemble(plain(soup.options.metric), numbers))

    def diagnosis(self, found: Diagnosis) -> None:
        """The ingredients with their cosines, the reasons, and the verdict last."""
        table = Table(box=None, pad_edge=False)
        table.add_column("ingredient")
        for n in range(len(found.cosine or ())):
            table.add_column(str(n + 1), justify="right")
        for n, fact in enumerate(found.ingredients):
            row = [f"{c:.2f}" for c in found.cosine[n]] if found.cosine else []
            table.add_row(Text.assemble(f"{n + 1} ", plain(fact["id"])), *row)
        self.console.print(table)
        for reason in found.reasons:
            self.console.print(Text("\n").join(plain(line, 600) for line in f"- {reason}".splitlines()))
        colour = {"soup": "green", "recalibrate": "green", "align": "yellow", "no": "red"}[found.verdict]
        self.console.print(Text(found.summary, f"bold {colour}"))


def plain(text: object, longest: int = 200) -> Text:
    """Text from outside that can neither steer the terminal nor be taken for markup: every odd character replaced."""
    shortened = str(text) if len(str(text)) <= longest else f"{str(text)[: longest - 1]}…"
    return Text("".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in shortened))


def _ingredients(soup: Soup) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("ingredient")
    table.add_column(plain(soup.options.metric), justify="right")
    table.add_column("weight", justify="right")
    for ingredient, score, weight in zip(soup.family.ingredients, soup.scores, soup.mix.coefficients, strict=True):
        share = Text(f"{weight:.3f}") if weight else Text("–", "dim")
        table.add_row(plain(ingredient), f"{score.value:.4f}" if score else "–", share)
    return table


def _closing(soup: Soup) -> Iterator[Text]:
    c = soup.comparison
    if c is not None and soup.best is not None:
        interval = f" [{c.interval[0]:.4f}, {c.interval[1]:.4f}]" if c.interval else ""
        yield Text.assemble("test ", plain(soup.options.metric), f" {c.soup.value:.4f}{interval}")
        best = plain(soup.family.ingredients[soup.best])
        yield Text.assemble(f"best ingredient {c.best.value:.4f} (", best, ")")
        yield _verdict(c, alone=soup.mix.members == (soup.best,) and not soup.adapter)
        whole = soup.images_forwarded + soup.images_spared
        yield Text(f"{soup.images_forwarded:,} images forwarded, of {whole:,} that full evaluation would have taken")
    else:
        yield Text("nothing was measured: without --dataset it is not known whether the soup is better")
    if soup.path:
        yield Text.assemble("saved to ", plain(soup.path))
    if soup.pushed:
        yield Text.assemble("pushed to ", plain(soup.pushed.url))
    if soup.adapter and soup.path:
        yield Text.assemble("an adapter of rank ", str(soup.adapter.rank), ": README.md in it tells how to load it")
        return
    home = soup.pushed.repo if soup.pushed else str(soup.path) if soup.path else None
    if home:
        yield Text.assemble('pipeline("image-classification", "', plain(home), '")', style="bold")


def _verdict(c: Comparison, *, alone: bool) -> Text:
    p = "" if c.p_value is None else f", p = {c.p_value:.2g}"
    if alone:
        return Text("the search kept the best ingredient alone: no soup was better on the selection split", "yellow")
    if c.verdict == "better":
        by = f" by {100 * c.difference:.2f} points{p}"
        return Text.assemble(("the soup is better than its best ingredient", "green"), by)
    if c.verdict == "worse":
        by = f" by {-100 * c.difference:.2f} points{p}"
        return Text.assemble(("the soup is worse than its best ingredient", "red"), by)
    difference = f" ({100 * c.difference:+.2f} points{p})"
    return Text.assemble(("the soup is not distinguishable from its best ingredient", "yellow"), difference)
