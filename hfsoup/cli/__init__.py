"""The command line: arguments, printing, exit codes."""

from __future__ import annotations

import os
import sys

import typer

from hfsoup.errors import SoupError

app = typer.Typer(
    name="hfsoup",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Model soups of image classifiers on the Hugging Face Hub: average, measure, push.",
)


def main() -> None:
    """Run a command; a problem is one short block on standard error and an exit code, a traceback with `--debug`."""
    _quieten()
    from hfsoup.cli import commands  # noqa: F401 - registers them
    from hfsoup.cli.launch import relaunch

    relaunch()

    debug = "--debug" in sys.argv
    sys.argv = [word for word in sys.argv if word != "--debug"]
    try:
        app()
    except SoupError as error:
        if debug:
            raise
        fail(error)
    except KeyboardInterrupt:
        if debug:
            raise
        print("\ninterrupted", file=sys.stderr)  # noqa: T201
        sys.exit(130)


def fail(error: SoupError) -> None:
    """Print the block, once whatever the number of processes, and leave."""
    if os.environ.get("RANK", "0") == "0":
        text = "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in str(error))
        print(f"error: {text}", file=sys.stderr)  # noqa: T201
    sys.exit(error.exit_code)


def _quieten() -> None:
    """Keep the libraries below from talking, phoning home, or converting pickles elsewhere; what the user set stays."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("HF_UPDATE_DOWNLOAD_COUNTS", "0")
    os.environ.setdefault("DISABLE_SAFETENSORS_CONVERSION", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("DATASETS_VERBOSITY", "error")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
