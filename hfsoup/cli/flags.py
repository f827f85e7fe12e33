"""The flags of a command, made from the options of a bake, with shell completion."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import typer
from typer.core import TyperCommand

from hfsoup.options.options import get_option_types, option_fields
from hfsoup.utils.registry import OWN, Registry

PARAMETERS = "hfsoup.parameters"


class ParameterCommand(TyperCommand):
    """A command that takes the arguments of recipes and merges that Options does not declare as flags too.

    Plug-ins are imported only for its help, and where a flag is typed that hfsoup does not have.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """The words that are left, once the flags are read; the arguments are in `ctx.meta[PARAMETERS]`."""
        flags: list[Any] = []
        known = {flag for p in self.params for flag in (*p.opts, *p.secondary_opts)}
        if any(word.startswith("--") and word.partition("=")[0] not in known for word in args) or "-h" in args:
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
    """Give a command one flag for every field of Options in `groups`."""

    methods: dict[str, Callable[[], list[str]]] = {
        "recipe": lambda: [entry.name for entry in _recipes()],
        "merge": lambda: [entry.name for entry in _merges()],
    }

    def give(command: Callable[..., None]) -> Callable[..., None]:
        types = get_option_types()
        kept = [p for p in inspect.signature(command, eval_str=True).parameters.values() if p.name != "options"]
        for f in (f for f in option_fields() if f.metadata["group"] in groups):
            flag = f.name.replace("_", "-")
            default = typer.Option(
                f.default,
                f"--{flag}/--no-{flag}" if f.default is True or types[f.name] == bool | None else f"--{flag}",
                # Brackets would be taken for markup, and vanish with the default that they hold.
                help=f.metadata["help"].replace("[", "\\["),
                rich_help_panel=f.metadata["group"],
                show_default=bool(f.default),
                autocompletion=methods.get(f.name) or _complete(f.metadata["choices"]),
            )
            kept.append(
                inspect.Parameter(f.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=types[f.name])
            )
        command.__signature__ = inspect.Signature(kept)  # type: ignore[attr-defined]
        command.__annotations__ = {p.name: p.annotation for p in kept}
        return command

    return give
