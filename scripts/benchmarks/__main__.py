"""Measure hfsoup beside other ways to do the same, on this machine, in one run.

All checkpoints are made on the spot in a temporary folder (6 GB of disk); nothing is fetched. What is printed are
ratios of medians, hfsoup's over the other's, of ways that ran in turn: no figure says anything about another machine.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from setting import Setting
    from timing import Row

sys.path.insert(1, str(Path(__file__).parents[2]))

SECTIONS = ("average", "candidates", "evaluate", "race", "orders", "startup", "scale", "bake", "prepare")
SHARED = Path("/dev/shm")  # noqa: S108 - a folder in memory is what is wanted
ROOM = 3 << 30
"""Bytes that must be free in memory for outputs to go there."""
WIDTHS = (52, 34, 13, 9, 13)


def main() -> None:
    """Run the sections that were asked for and print their tables."""
    args = _parser().parse_args()
    chosen = args.sections or list(SECTIONS)
    if unknown := set(chosen) - set(SECTIONS):
        raise SystemExit(f"there is no section {unknown.pop()!r}; known: {', '.join(SECTIONS)}")
    # A benchmark that is stopped clears its temporary folders too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hfsoup-benchmark-")))
        # Read by the libraries when they are first imported, which is below.
        os.environ |= {"HFSOUP_CACHE": str(home / "cache"), "HF_HOME": str(home / "hf"), "HF_HUB_OFFLINE": "1"}
        os.environ |= {"HF_DATASETS_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
        os.environ |= {"TRANSFORMERS_VERBOSITY": "error"}
        from peers import Peers
        from setting import Setting

        fast = home
        if SHARED.is_dir() and os.statvfs(SHARED).f_bavail * os.statvfs(SHARED).f_frsize > ROOM:
            fast = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hfsoup-benchmark-", dir=SHARED)))
        setting = Setting(home, fast, Peers(args.peers), args.quick, args.large)
        if args.quick:
            print("--quick: tiny sizes whatever the names say, one round; the figures mean nothing")
        rows = [row for name in SECTIONS if name in chosen for row in _section(name, setting)]
    if args.json:
        found = {"machine": _machine(), "quick": args.quick, "rows": [asdict(row) for row in rows]}
        args.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/benchmark", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("sections", nargs="*", metavar="SECTION", help=f"some of {', '.join(SECTIONS)} [all]")
    add("--json", type=Path, metavar="FILE", help="write all figures, medians in seconds included")
    add(
        "--peers",
        type=Path,
        action="append",
        default=[],
        metavar="DIR",
        help="a folder of programs to compare with: mergekit-pytorch, or avg_checkpoints.py of timm",
    )
    add("--large", action="store_true", help="also a sharded checkpoint of 5 GB")
    add("--quick", action="store_true", help="tiny sizes, one round: shows that it runs and measures nothing")
    return parser


def _section(name: str, setting: Setting) -> Iterator[Row]:
    """The rows of one section, each printed as soon as it is there."""
    section, begin = import_module(f"bench_{name}"), time.perf_counter()
    print(f"\n{name}: {section.NOTE}\n")
    print(_line("what", "against", "ratio", "processor", "target"))
    print(_line(*("-" * width for width in WIDTHS)))
    for row in section.run(setting):
        cpu = f"{row.cpu:.2f}" if row.cpu is not None else ""
        print(_line(row.what, row.against, row.shown, cpu, row.target), flush=True)
        yield row
    print(f"\n{name} took {time.perf_counter() - begin:.0f} s", file=sys.stderr)


def _line(*cells: str) -> str:
    return f"| {' | '.join(cell.ljust(width) for cell, width in zip(cells, WIDTHS, strict=True))} |"


def _machine() -> dict[str, object]:
    from hfsoup.utils.threads import count_processors

    names = ("torch", "transformers", "numpy", "safetensors")
    return {
        "processors": count_processors(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        **{name: version(name) for name in names},
    }


if __name__ == "__main__":
    main()
