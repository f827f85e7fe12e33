"""A command's flags, made from the options of a bake, with the names that a shell may complete."""

from __future__ import annotations

import inspect
from collections.abc import Callable

import typer

from hfsoup.checkpoints.dtypes import FLOAT_DTYPES
from hfsoup.options.options import BN_MODES, get_option_types, option_fields


def _recipes() -> list[str]:
    from hfsoup.recipes import RECIPES

    return [entry.name for entry in RECIPES]


def _merges() -> list[str]:
    from hfsoup.merges import MERGES

    return [entry.name for entry in MERGES]


def add_option_flags(*groups: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command one flag for every field of Options in `groups`."""

    choices = {"recipe": _recipes, "merge": _merges, "bn": lambda: list(BN_MODES), "dtype": lambda: list(FLOAT_DTYPES)}

    def give(command: Callable[..., None]) -> Callable[..., None]:
        types = get_option_types()
        kept = [p for p in inspect.signature(command, eval_str=True).parameters.values() if p.name != "options"]
        for f in (f for f in option_fields() if f.metadata["group"] in groups):
            flag = f.name.replace("_", "-")
            default = typer.Option(
                f.default,
                f"--{flag}/--no-{flag}" if f.default is True else f"--{flag}",
                # Brackets would be taken for markup, and vanish with the default that they hold.
                help=f.metadata["help"].replace("[", "\\["),
                rich_help_panel=f.metadata["group"],
                show_default=bool(f.default),
                autocompletion=choices.get(f.name),
            )
            kept.append(
                inspect.Parameter(f.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=types[f.name])
            )
        command.__signature__ = inspect.Signature(kept)  # type: ignore[attr-defined]
        command.__annotations__ = {p.name: p.annotation for p in kept}
        return command

    return give
