"""The typer application, and how an error is printed."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from hfsoup.utils.errors import ProcessLostError, SoupError
from hfsoup.utils.redact import redact

app = typer.Typer(
    name="hfsoup",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Average fine-tuned image classifiers of the Hugging Face Hub into one model, evaluate it, push it.",
)


def _version(asked: bool) -> None:
    if asked:
        from hfsoup.utils.version import __version__

        print(f"hfsoup {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Options before the command."""


def exit_with_error(error: SoupError) -> None:
    """Print the error once, however many processes there are, and exit; the launcher says which process was lost."""
    if os.environ.get("RANK", "0") == "0" and not isinstance(error, ProcessLostError):
        text = "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in redact(str(error)))
        print(f"error: {text}", file=sys.stderr)
    sys.exit(error.exit_code)
