"""Draw README's pictures from a real bake: a terminal, and the gallery of its report, each for light and dark mode.

    python scripts/pictures.py FOLDER

FOLDER is one that `hfsoup demo --folder FOLDER` has filled; its local Hub is served again, and the sweep in it is baked
in a terminal. Needs tmux and Chromium.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image
from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

from hfsoup.localhub import LocalHub

ROOT = Path(__file__).parents[1]
IMAGES = ROOT / ".github" / "images"
ORG, WIDTH, HEIGHT = "kitchen", 94, 60
COMMAND = f'hfsoup bake "{ORG}/vit-?" --recipe greedy --dataset {ORG}/digits --push {ORG}/soup'
DARK = TerminalTheme(
    (13, 17, 23),
    (230, 237, 243),
    [
        *((72, 79, 88), (255, 133, 82), (47, 201, 154), (210, 153, 34)),
        *((86, 180, 233), (188, 140, 255), (57, 197, 207), (177, 186, 196)),
    ],
)
LIGHT = TerminalTheme(
    (255, 255, 255),
    (31, 35, 40),
    [
        *((36, 41, 47), (196, 78, 0), (0, 122, 90), (154, 103, 0)),
        *((0, 114, 178), (130, 80, 223), (27, 124, 131), (89, 99, 110)),
    ],
)
GALLERY = (640, 806)
"""Width and height of the report's picture in CSS pixels."""


def main(home: Path) -> None:
    """Bake, and write four files into `.github/images`."""
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as made, LocalHub(home / "hub", user=ORG) as hub:
        work = Path(made)
        environment = {"HF_ENDPOINT": hub.url, "HF_TOKEN": hub.token, "HF_HOME": str(work / "cache")}
        screen = show_in_terminal(COMMAND, work, environment)
        report = [sys.executable, "-m", "hfsoup", "report", "soup", "-o", "report.html"]
        subprocess.run(report, cwd=work, env={**os.environ, **environment, "PYTHONPATH": str(ROOT)}, check=True)
        page = (work / "report.html").read_text(encoding="utf-8")
    for name, theme in (("light", LIGHT), ("dark", DARK)):
        draw_terminal(screen, theme, IMAGES / f"terminal-{name}.svg")
        draw_gallery(page, IMAGES / f"gallery-{name}.png", dark=name == "dark")


def show_in_terminal(command: str, work: Path, environment: dict[str, str]) -> str:
    """What a terminal shows once a command has ended, with its colours as escape sequences."""
    (work / "hfsoup").write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m hfsoup "$@"\n')
    (work / "hfsoup").chmod(0o755)
    settings = {**environment, "PATH": f"{work}:{os.environ['PATH']}", "PS1": "$ ", "COLORTERM": "truecolor"}
    exports = "; ".join(f"export {name}={shlex.quote(value)}" for name, value in settings.items())
    tmux = ["tmux", "-L", f"hfsoup-{os.getpid()}"]
    # Each prompt leaves a file: the second one says that the command has ended.
    prompt = "PROMPT_COMMAND='touch \"prompt-$((++n))\"'"
    (work / "bashrc").write_text(f"{exports}; cd {work}; {prompt}; clear\n")
    shell = f"bash --rcfile {work / 'bashrc'}"
    subprocess.run([*tmux, "new-session", "-d", "-x", str(WIDTH), "-y", str(HEIGHT), shell], check=True)
    try:
        wait_for(work / "prompt-1")
        subprocess.run([*tmux, "send-keys", command, "Enter"], check=True)
        wait_for(work / "prompt-2")
        done = subprocess.run([*tmux, "capture-pane", "-e", "-p"], capture_output=True, text=True, check=True)
    finally:
        subprocess.run([*tmux, "kill-server"], check=False)
    return done.stdout.rstrip().removesuffix("$").rstrip()


def wait_for(file: Path) -> None:
    """Wait until a file exists, and a moment longer, in which the prompt is drawn."""
    while not file.exists():
        time.sleep(0.2)
    time.sleep(1)


def draw_terminal(screen: str, theme: TerminalTheme, file: Path) -> None:
    """Write a terminal's text as SVG that loads no fonts."""
    console = Console(width=WIDTH, record=True, file=open(os.devnull, "w"), force_terminal=True)  # noqa: SIM115
    console.print(Text.from_ansi(screen))
    svg = console.export_svg(title="hfsoup", theme=theme, unique_id="hfsoup")
    svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)
    file.write_text(svg.replace("Fira Code, monospace", "ui-monospace, Menlo, Consolas, monospace"), encoding="utf-8")


def draw_gallery(page: str, file: Path, *, dark: bool) -> None:
    """Write the verdict and the test images of a report as PNG."""
    head, body = page.split("<body>", 1)
    verdict = re.search(r'<p class="verdict.*?</p>', body, re.DOTALL)
    tiles = body[body.index("<h2>Where they differ</h2>") : body.index("<footer>")]
    tiles = re.sub(r'<p class="(choice|faint)">.*?</p>', "", tiles, flags=re.DOTALL)
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None or verdict is None:
        sys.exit("expected Chromium, and a report with a verdict")
    with tempfile.TemporaryDirectory() as made:
        source = Path(made) / "page.html"
        source.write_text(f"{head}<body>{verdict[0]}{tiles}</body></html>", encoding="utf-8")
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--force-device-scale-factor=2"]
        flags += [f"--window-size={GALLERY[0]},{GALLERY[1]}", f"--blink-settings=preferredColorScheme={int(not dark)}"]
        flags += [f"--screenshot={made}/page.png", f"--user-data-dir={made}/profile"]
        subprocess.run([chromium, *flags, source.as_uri()], check=True, capture_output=True)
        Image.open(f"{made}/page.png").convert("P", palette=Image.Palette.ADAPTIVE, colors=128).save(
            file, optimize=True
        )


if __name__ == "__main__":
    if len(sys.argv) != 2 or not (Path(sys.argv[1]) / "hub").is_dir():
        sys.exit("expected the folder of a demo; try: hfsoup demo --folder FOLDER")
    main(Path(sys.argv[1]))
