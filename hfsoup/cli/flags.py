"""The flags of a command, made from the options of a bake, with shell completion and help in two lengths."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any, cast

import typer
from typer.core import TyperCommand

from hfsoup.options.options import get_option_types, option_fields
from hfsoup.utils.registry import OWN, Registry

PARAMETERS = "hfsoup.parameters"
HELP_ALL = "--help-all"
FIRST = ("ingredients", "model", "dataset", "recipe", "merge", "output", "push", "dry_run")
"""What `--help` shows, in this order, before the flags that are in no panel; `--help-all` shows every option."""
LISTED = "see `hfsoup recipes`"
"""A placeholder in help texts; the command line replaces it by the names."""
SHORT = {"output": "-o"}


class OptionsCommand(TyperCommand):
    """A command with the options of a bake: `--help` fits one screen, `--help-all` shows all of them by group."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Print the help, in which recipes and merges are named."""
        for name, list_names in METHODS.items():
            for p in (cast("Any", p) for p in self.params if p.name == name):
                p.help = p.help.replace(LISTED, ", ".join(list_names()))
        if ctx.meta.get(HELP_ALL):
            super().format_help(ctx, formatter)
        else:
            self._print_short_help(ctx)

    def _print_short_help(self, ctx: Any) -> None:
        """Usage, what it does, its first options, an example: at most 22 lines of 80 columns."""
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        params, table = {str(p.name): cast("Any", p) for p in self.get_params(ctx)}, Table.grid(padding=(0, 2))
        others = [name for name, p in params.items() if not getattr(p, "rich_help_panel", None) and name != "help"]
        table.add_column(no_wrap=True, style="bold cyan")
        for p in (params[name] for name in dict.fromkeys([*FIRST, *others]) if name in params):
            flags = ", ".join(sorted(p.opts, key=len)) if p.param_type_name == "option" else p.name.upper()
            table.add_row(flags, Text((p.help or "").replace("\\[", "[")))
        example = Text(self.epilog or "")
        lines = (Text(ctx.get_usage()), "", Text(self.help or ""), "", table, "", example)
        Console(highlight=False).print(*lines, sep="\n")


class ParameterCommand(OptionsCommand):
    """A command that takes the arguments of recipes and merges that Options does not declare as flags too.

    Plug-ins are imported only for its help, and where a flag is typed that hfsoup does not have.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """The words that are left, once the flags are read; the arguments are in `ctx.meta[PARAMETERS]`."""
        flags: list[Any] = []
        known = {"--help", *(flag for p in self.params for flag in (*p.opts, *p.secondary_opts))} - {HELP_ALL}
        if any(word.startswith("--") and word.partition("=")[0] not in known for word in args):
            self.params.extend(flags := _make_parameter_flags())
        words = super().parse_args(ctx, args)
        given = {p.name: ctx.params.pop(p.name) for p in flags}
        ctx.meta[PARAMETERS] = {name: value for name, value in given.items() if value is not None}
        return words


def _recipes() -> Registry[Any]:
    from hfsoup.recipes import RECIPES

    return RECIPES


def _merges() -> Registry[Any]:
    from hfsoup.merges import MERGES

    return MERGES


METHODS: dict[str, Callable[[], list[str]]] = {
    "recipe": lambda: [entry.name for entry in _recipes()],
    "merge": lambda: [entry.name for entry in _merges()],
}


def _make_parameter_flags() -> list[Any]:
    """A flag for every argument of a recipe or merge, a plug-in's too, that Options does not declare."""
    found: dict[str, inspect.Parameter] = {}
    for registry in (_recipes(), _merges()):
        for entry in registry:
            for p in (p for p in entry.parameters if p.name not in get_option_types()):
                flag = p.name.replace("_", "-")
                option = typer.Option(
                    None,
                    f"--{flag}/--no-{flag}" if p.type is bool else f"--{flag}",
                    help=f"{p.help or entry.summary} ({registry.kind} {entry.name}) [{p.default}]".replace("[", "\\["),
                    rich_help_panel="Search" if entry.origin == OWN else "Plug-ins",
                    show_default=False,
                )
                kept = inspect.Parameter(
                    p.name, inspect.Parameter.KEYWORD_ONLY, default=option, annotation=p.type | None
                )
                found.setdefault(p.name, kept)

    def command() -> None:
        """Its flags are taken."""

    command.__signature__ = inspect.Signature(list(found.values()))  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in found.values()}
    app = typer.Typer(add_completion=False)
    app.command()(command)
    return typer.main.get_command(app).params


def _complete(values: Sequence[str]) -> Callable[[], list[str]] | None:
    return (lambda: list(values)) if values else None


def add_option_flags(*groups: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command one flag for every field of Options in `groups`, in that order, unless it has one of its own."""

    def give(command: Callable[..., None]) -> Callable[..., None]:
        types = get_option_types()
        kept = [p for p in inspect.signature(command, eval_str=True).parameters.values() if p.name != "options"]
        own = {p.name for p in kept}
        chosen = [f for f in option_fields() if f.metadata["group"] in groups and f.name not in own]
        for f in sorted(chosen, key=lambda f: groups.index(f.metadata["group"])):
            flag = f.name.replace("_", "-")
            default = typer.Option(
                f.default,
                f"--{flag}/--no-{flag}" if f.default is True or types[f.name] == bool | None else f"--{flag}",
                *filter(None, [SHORT.get(f.name)]),
                # Brackets would be taken for markup, and vanish with the default that they hold.
                help=f.metadata["help"].replace("[", "\\["),
                rich_help_panel=f.metadata["group"],
                show_default=bool(f.default),
                autocompletion=METHODS.get(f.name) or _complete(f.metadata["choices"]),
            )
            kept.append(
                inspect.Parameter(f.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=types[f.name])
            )
        kept.append(inspect.Parameter("help_all", inspect.Parameter.KEYWORD_ONLY, default=ALL, annotation=bool))

        @functools.wraps(command)
        def run(**given: Any) -> None:
            given.pop("help_all")
            command(**given)

        run.__signature__ = inspect.Signature(kept)  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in kept}
        return run

    return give


def _show_all_help(ctx: typer.Context, asked: bool) -> None:
    """Print the long help and exit."""
    if asked:
        ctx.meta[HELP_ALL] = True
        typer.echo(ctx.get_help())
        raise typer.Exit


ALL = typer.Option(False, HELP_ALL, is_eager=True, callback=_show_all_help, help="show every option, by group")
"""The flag for help in full."""
