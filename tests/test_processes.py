"""Several processes: the numbers and bytes of one, and an end in seconds when one of them dies."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from family import Family
from shell import bake
from test_resume import contents

LAUNCH = [str(Path(sys.executable).with_name("accelerate")), "launch", "--num_processes", "2", "-m", "hfsoup"]


@pytest.mark.parametrize(
    "more", [("--recipe", "pruned", "--ensemble", "--shifts"), ("--merge", "regmean")], ids=["pruned", "regmean"]
)
def test_two_processes_give_the_numbers_and_bytes_of_one(
    more: tuple[str, ...], resnet: Family, data: Path, alone: Path
) -> None:
    """`accelerate launch --num_processes 2` on a CPU runs two, and every decision, score and byte is the same."""
    given = [*resnet.words, "--dataset", str(data), *more]
    one = bake(*given, "--output", "one")
    words = ["bake", *given, "--output", "two", "--no-resume"]
    done = subprocess.run([*LAUNCH, *words, "--json", "-"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    two = json.loads(done.stdout)
    assert contents(Path("one")) == contents(Path("two"))
    for found in (one, two):
        del found["seconds"], found["soup"]["path"]
    assert one == two


def test_an_error_in_one_of_two_processes_is_one_block(resnet: Family, data: Path, alone: Path) -> None:
    """A wrong split is said once, and the exit code is the error's."""
    words = ["bake", *resnet.words, "--dataset", str(data), "--split", "nope"]
    done = subprocess.run([*LAUNCH, *words], capture_output=True, text=True, check=False, timeout=60)
    assert done.stderr.count("error:") == 1, done.stderr
    assert "there is no split 'nope'" in done.stderr


def test_a_killed_process_ends_the_others_within_seconds(resnet: Family, data: Path, alone: Path) -> None:
    """One of two killed while it scores: the rest ends, says so, and leaves no output."""
    words = ["bake", *resnet.words, "--dataset", str(data), "--output", "soup", "--batch-size", "1", "--no-resume"]
    running = subprocess.Popen([*LAUNCH, *words], stderr=subprocess.PIPE, text=True)
    assert running.stderr is not None
    for line in running.stderr:
        if line.startswith("Scoring"):
            break
    launched = [p for p in psutil.Process(running.pid).children(recursive=True) if p.environ().get("RANK") == "1"]
    begin = time.monotonic()
    os.kill(launched[0].pid, signal.SIGKILL)
    rest = running.stderr.read()
    assert running.wait(timeout=30) != 0
    assert time.monotonic() - begin < 20
    assert "was killed by signal 9" in rest, rest
    assert not Path("soup").exists()
