"""The command line: arguments, printing, exit codes."""

from __future__ import annotations

import os
import signal
import sys
import threading
from types import FrameType

from hfsoup.cli.app import app, exit_with_error
from hfsoup.utils.errors import SoupError
from hfsoup.utils.redact import excepthook
from hfsoup.utils.redact import redact as redact

INTERRUPTED, GRACE = 130, 4.0


def main() -> None:
    """Run a command and exit with its code."""
    try:
        _run()
    except SystemExit as end:
        if int(os.environ.get("WORLD_SIZE", "1")) == 1:
            raise
        # Threads of the distributed libraries may crash an interpreter that is shutting down.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(end.code if isinstance(end.code, int) else int(end.code is not None))


def _run() -> None:
    """Run the command; an error is one short block on standard error, or a traceback with `--debug`."""
    _silence_libraries()
    from hfsoup.cli import cache, commands, hub, sweep, ui  # noqa: F401 - registers them
    from hfsoup.cli.launch import relaunch

    relaunch()

    before = signal.signal(signal.SIGINT, _handle_interrupt)
    debug = "--debug" in sys.argv
    sys.argv = [_expand_home(word) for word in sys.argv if word != "--debug"]
    try:
        app(prog_name="hfsoup")
    except SoupError as error:
        if debug:
            raise
        exit_with_error(error)
    except OSError as error:
        if debug:
            raise
        exit_with_error(SoupError(f"the disk reports: {error.strerror or error}", where=str(error.filename or "")))
    except SystemExit as end:
        if end.code == INTERRUPTED:
            kept = {"bake": "downloads and scores", "sweep": "finished runs"}.get("".join(sys.argv[1:2]))
            if any(word.partition("=")[0] == "--jobs" for word in sys.argv):
                # The bake goes on elsewhere, which has been said.
                kept = None
            text = f"; {kept} are kept: run the same command to resume" if kept else ""
            print(f"\ninterrupted{text}", file=sys.stderr)
        raise
    finally:
        signal.signal(signal.SIGINT, before)
        sys.excepthook = excepthook


def _expand_home(word: str) -> str:
    """Expand `~` in an argument, which a shell does not do after an equals sign or in quotes."""
    flag, sign, value = word.partition("=") if word.startswith("--") else ("", "", word)
    return flag + sign + os.path.expanduser(value)  # noqa: PTH111 - most arguments are not paths


def _handle_interrupt(number: int, frame: FrameType | None) -> None:
    """Raise KeyboardInterrupt, and exit soon in any case: a library may wait for threads that wait for the network."""
    end = threading.Timer(GRACE, os._exit, (INTERRUPTED,))
    end.daemon = True
    end.start()
    signal.default_int_handler(number, frame)


def _silence_libraries() -> None:
    """Turn off progress bars, telemetry and pickle conversion of the libraries, unless the user has set them."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("HF_UPDATE_DOWNLOAD_COUNTS", "0")
    os.environ.setdefault("DISABLE_SAFETENSORS_CONVERSION", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("DATASETS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
