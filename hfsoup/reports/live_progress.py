"""What `hfsoup.bake` shows while it runs: bars in a terminal, a display in a notebook, else the logger `hfsoup`."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html import escape
from importlib import import_module
from typing import Any

from hfsoup.reports.terminal_progress import TerminalProgress
from hfsoup.utils.progress import SearchStep, Stage, Watch
from hfsoup.utils.text import format_size, one_line

LOG = logging.getLogger("hfsoup")
PAUSE = 0.2
"""Seconds between two updates of the display."""
LINES = 200


def choose_progress(shown: bool | None = None) -> Watch:
    """What shows the progress of a bake, in the main process; the others show nothing.

    Args:
        shown: True for bars or lines on standard error, or a display in a notebook; False for the logger only; None
            for the logger where there is neither a notebook nor a terminal.
    """
    if os.environ.get("RANK", "0") != "0":
        return Watch()
    if shown is False:
        return LoggedProgress()
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    # The shell of a terminal has no kernel, and shows no HTML.
    if shell is not None and hasattr(shell, "kernel"):
        display = import_module("IPython.display").display
        return NotebookDisplay(lambda content, **how: display(content, raw=True, **how))
    if shown or (sys.stderr is not None and sys.stderr.isatty()):
        return TerminalProgress(quiet=False)
    return LoggedProgress()


class LoggedProgress(Watch):
    """Notes are warnings, which Python prints to standard error unless told otherwise; all else is information."""

    def note(self, text: str) -> None:
        """Warn."""
        LOG.warning(one_line(text, 600))

    def inform(self, text: str) -> None:
        """Log a finding."""
        LOG.info(one_line(text, 600))

    def decision(self, step: SearchStep) -> None:
        """Log a step of the search."""
        LOG.info(_format_step(step))

    @contextmanager
    def stage(self, title: str, total: int = 0, unit: str = "") -> Iterator[Stage]:  # noqa: ARG002
        """Log what the stage did."""
        stage = Stage(title)
        yield stage
        LOG.info(_format_stage(stage))


class NotebookDisplay(Watch):
    """One output of a cell, in HTML without scripts or widgets, which is replaced as the bake goes on.

    Args:
        show: shows a bundle of MIME types, by `display_id`, in place of what it showed there before with `update`.
    """

    def __init__(self, show: Callable[..., Any]) -> None:
        self._show, self._lock = show, threading.Lock()
        self._shown, self._id = 0.0, f"hfsoup-{id(self)}"
        self._lines: list[str | Stage] = []

    def note(self, text: str) -> None:
        """Show a note."""
        self._add(f"note: {one_line(text, 600)}")

    def decision(self, step: SearchStep) -> None:
        """Show a step of the search."""
        self._add(_format_step(step))

    @contextmanager
    def stage(self, title: str, total: int = 0, unit: str = "") -> Iterator[Stage]:
        """Show a bar for a stage, and then what it did."""
        stage = Stage(title, unit, total, moved=self._moved)
        self._add(stage)
        yield stage
        stage.text = stage.text or title
        self._moved(force=True)

    def _add(self, line: str | Stage) -> None:
        with self._lock:
            self._lines.append(line)
        self._moved(force=True)

    def _moved(self, *, force: bool = False) -> None:
        with self._lock:
            if not force and time.monotonic() - self._shown < PAUSE:
                return
            lines = self._lines[-LINES:]
            text = "\n".join(x if isinstance(x, str) else _format_stage(x) for x in lines)
            html = f'<pre style="line-height: 1.45">{"<br>".join(map(_format_html, lines))}</pre>'
            content = {"text/plain": text, "text/html": html}
            self._show(content, display_id=self._id, **({"update": True} if self._shown else {}))
            self._shown = time.monotonic()


def _format_html(line: str | Stage) -> str:
    """A line of the display: a note in bold, a stage with its bar while it runs and with a tick at its end."""
    if isinstance(line, str):
        text = escape(line)
        return f'<span style="font-weight: 600">{text}</span>' if line.startswith("note: ") else f"  {text}"
    text = escape(_format_stage(line))
    if line.text:
        return f'<span style="color: #2da44e">✓</span> {text}'
    if not line.total:
        return f"… {text}"
    return f'<progress value="{min(line.count, line.total)}" max="{line.total}"></progress> {text}'


def _format_stage(stage: Stage) -> str:
    if stage.text or not stage.total:
        return one_line(stage.text or stage.title, 600)
    shown = format_size if stage.unit == "B" else "{:,.0f}".format
    far = f"{100 * min(stage.count / stage.total, 1):.0f} % of {shown(stage.total)}"
    unit = f" {stage.unit}" if stage.unit not in ("", "B") else ""
    return one_line(f"{stage.title} … {far}{unit} {stage.standing}".rstrip(), 600)


def _format_step(step: SearchStep) -> str:
    return f"{step.number or ''} {step.outcome} {step.describe(one_line(step.ingredient))}".lstrip()
