"""What the terminal shows while a bake runs and at its end, on standard error: standard output is for `--json -`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from hfsoup.cli.tables import make_ingredient_table, make_plan_table
from hfsoup.reports.measurements import format_score, format_with_interval
from hfsoup.reports.summary import format_usage, replace_unprintable, summarize
from hfsoup.reports.terminal_progress import TerminalProgress

if TYPE_CHECKING:
    from hfsoup.baking.plan import Plan
    from hfsoup.baking.soup import Soup
    from hfsoup.baking.sweep_plan import SweepPlan
    from hfsoup.ingredients.diagnose import Diagnosis


class Screen(TerminalProgress):
    """The progress of a command, and its result at the end."""

    def show_result(self, soup: Soup) -> None:
        """Show the ingredients, the comparison of soup and best ingredient, and how to use the soup."""
        self.console.print()
        self.console.print(make_ingredient_table(soup))
        self.console.print()
        self._print_facts("soup", list(summarize(soup)))
        if (line := format_usage(soup)) is not None:
            self.console.print(Text.assemble("use it: ", (line.plain, "bold")), soft_wrap=True)

    def _print_facts(self, title: str, rows: list[tuple[str, Text]]) -> None:
        """Labelled facts, in a panel on a terminal."""
        if not self.console.is_terminal:
            for name, text in rows:
                self.console.print(Text.assemble(f"{name}: ", text), soft_wrap=True)
            return
        grid = Table.grid(padding=(0, 2))
        grid.add_column(style="dim", no_wrap=True)
        grid.add_column(overflow="fold")
        for name, text in rows:
            grid.add_row(name, text)
        self.console.print(Panel(grid, title=title, border_style="green", expand=False, padding=(0, 1)))

    def show_plan(self, plan: Plan) -> None:
        """Show the plan of a bake."""
        from hfsoup.baking.plan import describe_plan

        self.console.print()
        self.console.print(make_plan_table(plan))
        self.console.print()
        self._print_facts("plan" if plan.elsewhere else "dry run", list(describe_plan(plan)))

    def show_sweep_plan(self, plan: SweepPlan) -> None:
        """Show the plan of a sweep."""
        from hfsoup.baking.sweep_plan import describe_sweep

        self._print_facts("dry run", list(describe_sweep(plan)))

    def show_log(self, text: str) -> None:
        """Print a line that another machine printed, as text."""
        self.console.print(replace_unprintable(text, 2000), soft_wrap=True)

    def show_check(self, text: str) -> None:
        """Print something that was verified."""
        self._print_line(Text("✓", "green"), replace_unprintable(text, 600))

    def show_score(self, soup: Soup) -> None:
        """Show the score of one model."""
        c = soup.comparison
        test = f", test {format_with_interval(soup.metric, c, 'soup')}" if c else ""
        numbers = f": selection {format_score(soup.metric, soup.selection)}{test}"
        self.console.print(Text.assemble(replace_unprintable(soup.metric), numbers))

    def show_diagnosis(self, found: Diagnosis) -> None:
        """Show the ingredients with their cosines, the reasons, and the verdict."""
        table = Table(box=None, pad_edge=False)
        table.add_column("ingredient")
        for n in range(len(found.cosine or ())):
            table.add_column(str(n + 1), justify="right")
        for n, fact in enumerate(found.ingredients):
            row = [f"{c:.2f}" for c in found.cosine[n]] if found.cosine else []
            table.add_row(Text.assemble(f"{n + 1} ", replace_unprintable(fact["id"])), *row)
        self.console.print(table)
        for reason in found.reasons:
            self.console.print(Text("\n").join(replace_unprintable(line, 600) for line in f"- {reason}".splitlines()))
        colour = {"soup": "green", "recalibrate": "green", "align": "yellow", "no": "red"}[found.verdict]
        self.console.print(Text(found.summary, f"bold {colour}"))
