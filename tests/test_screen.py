"""What a person sees: bars and links on a terminal, plain lines elsewhere, never a broken line."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest
from family import Family
from rich.cells import cell_len
from shell import run

from hfsoup.localhub import LocalHub

ROOT = Path(__file__).parents[1]
LINK = re.compile(r"\x1b\]8;[^;]*;([^\x1b]*)\x1b\\")
CODES = re.compile(r"\x1b\][^\x1b]*\x1b\\|\x1b\[[0-9;?]*[A-Za-z]")


def terminal(width: int, *words: object, **environment: str) -> str:
    """What a pseudo-terminal of that width gets."""
    here, there = pty.openpty()
    fcntl.ioctl(there, termios.TIOCSWINSZ, struct.pack("HHHH", 50, width, 0, 0))
    known = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "NO_COLOR")}
    process = subprocess.Popen(
        [sys.executable, "-m", "hfsoup", *map(str, words)],
        env={**known, "PYTHONPATH": str(ROOT), "TERM": "xterm-256color", **environment},
        stdin=there, stdout=there, stderr=there,
    )  # fmt: skip
    os.close(there)
    parts = []
    while True:
        try:
            parts.append(os.read(here, 65536))
        except OSError:
            break
    os.close(here)
    assert process.wait() == 0, b"".join(parts).decode()
    return b"".join(parts).decode()


def final(text: str) -> list[str]:
    """The lines that stay: what a carriage return or a cursor moved back over is gone."""
    stays = [line.rsplit("\r", 1)[-1] for line in CODES.sub("", text).replace("\r\n", "\n").split("\n")]
    return [line.rstrip() for line in stays]


@pytest.mark.parametrize("width", [80, 120])
def test_a_bake_on_a_terminal(width: int, on_hub: LocalHub, signed_in: LocalHub, alone: Path) -> None:
    """One line a stage, a bar with the best score, links to commits, no line wider than the terminal."""
    raw = terminal(width, "bake", "kit/vit-*", "--dataset", "kit/shapes", "--no-resume")
    lines = final(raw)
    assert max(map(cell_len, lines)) <= width
    for stage in ("Resolved 4", "Pulled 4 checkpoints, ", "Checked: ", "Prepared 60", "Scored 7", "Wrote soup"):
        assert sum(f"✓ {stage}" in line for line in lines) == 1, (stage, lines)
    assert "to go" in raw
    assert re.search(r"best \d+\.\d\d %", raw)
    links = set(LINK.findall(raw))
    assert len([link for link in links if f"{on_hub.url}/kit/vit-" in link and "/tree/" in link]) == 4
    assert 'use it: pipeline("image-classification", "soup")' in lines


def test_no_color(vit: Family, data: Path, alone: Path) -> None:
    """NO_COLOR leaves the bars and takes the colours."""
    coloured = re.compile(r"\x1b\[(?:\d+;)*(?:3[0-7]|38;[25];\d+|9[0-7])m")
    words = ("bake", *vit.words, "--dataset", data)
    assert coloured.search(terminal(80, *words))
    assert not coloured.search(terminal(80, *words, "--overwrite", NO_COLOR="1"))


def test_plain_where_there_is_no_terminal(vit: Family, data: Path, alone: Path) -> None:
    """No escape code, no bar, no frame, and a long text stays on its line."""
    done = run("bake", *vit.words, "--dataset", data)
    assert done.code == 0
    assert not set("\x1b╭│━⠋") & set(done.err)
    (verdict,) = [line for line in done.err.splitlines() if line.startswith("verdict: ")]
    assert verdict.count("its best ingredient") + verdict.count("alone") == 1


def test_scores_say_what_they_are_of(vit: Family, data: Path, alone: Path) -> None:
    """The table's scores are headed by their split, and a bake of cached scores evaluates none."""
    words = ("bake", *vit.words, "--dataset", data)
    assert "accuracy, selection  weight" in " ".join(run(*words).err.replace("   ", "  ").splitlines())
    assert "images evaluated: none: every score was cached\n" in run(*words, "--overwrite").err


def test_check_without_images_promises_no_gain(vit: Family, alone: Path) -> None:
    """It says that the ingredients fit together, and which option says whether a soup may win."""
    done = run("check", *vit.words)
    assert done.err.endswith("these fit together; hfsoup check --dataset says whether a soup may win\n")


def test_what_was_cached_is_said(on_hub: LocalHub, alone: Path) -> None:
    """The second pull of the same commits costs nothing, and the line says so."""
    assert run("bake", "kit/vit-*").code == 0
    again = run("bake", "kit/vit-*")
    assert re.search(r"✓ Pulled 4 checkpoints, [\d.]+ kB \(4 cached\)", again.err), again.err
