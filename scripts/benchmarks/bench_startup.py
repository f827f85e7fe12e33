"""Start-up: the help of the command line, and what a bake that needs no model leaves out."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from checkpoints import Vit, family, remove
from peers import Command
from setting import Setting
from timing import Row, medians, missing, process, row

SECTION = "startup"
HEAVY = ("torch", "transformers", "datasets", "accelerate", "evaluate", "pandas", "sklearn", "scipy")
NOTE = "Whole processes. The bake is a local, uniform one without a dataset, of an architecture that was seen before."
LISTED = """
import sys
from pathlib import Path
from hfsoup.cli import main
sys.argv[1:] = {words!r}
try:
    main()
except SystemExit as end:
    if end.code:
        raise
Path({file!r}).write_text(" ".join({{name.partition(".")[0] for name in sys.modules}}))
"""


def run(setting: Setting) -> Iterator[Row]:
    """The section's rows."""
    helps = [setting.peers.program(name) for name in ("hfsoup", "hf")]
    mine: Command = [helps[0], "--help"] if helps[0] else setting.hfsoup("--help")
    if helps[1]:
        times = medians([process(mine), process([helps[1], "--help"])], 2 if setting.quick else 15)
        yield row(SECTION, "hfsoup --help", "hf --help", times, "0.5")
        yield Row(SECTION, "hfsoup --help, of processor", "", times[0].cpu, "s", target="0.3")
    else:
        yield missing(SECTION, "hfsoup --help", "hf --help", "0.5")
    found = imported(setting.home / "startup")
    yield Row(
        SECTION,
        "heavy libraries that a uniform bake of a known architecture imports",
        "",
        ", ".join(found) or "none",
        target="none",
    )


def imported(home: Path) -> list[str]:
    """The heavy libraries that a bake without a dataset imports once its architecture was seen before."""
    folders = family(home / "models", Vit(64, 2), 2)
    words, file = ["bake", *map(str, folders), "--output", str(home / "soup"), "--quiet"], home / "modules"
    bake = process([sys.executable, "-c", LISTED.format(words=[*words, "--overwrite"], file=str(file))])
    bake()
    # A soup that is there already is not written again.
    remove(home / "soup")
    bake()
    modules = file.read_text().split()
    remove(home)
    return [name for name in HEAVY if name in modules]
