"""Several processes: the numbers and bytes of one, and an end in seconds when one of them dies."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from family import Family
from shell import bake, refused
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


@pytest.mark.parametrize(
    ("who", "when"),
    [("0", "Resolved"), ("1", ""), ("1", "Preparing"), ("0", "Scoring"), ("1", "Scoring"), ("launcher", "Scoring")],
)
def test_a_killed_process_ends_the_others_within_seconds(
    who: str, when: str, resnet: Family, data: Path, alone: Path
) -> None:
    """Whichever is killed, and whenever: the rest ends, one error says so, and no process and no output is left."""
    words = ["bake", *resnet.words, "--dataset", str(data), "--output", "soup", "--batch-size", "1", "--no-resume"]
    running = subprocess.Popen([*LAUNCH, *words], stderr=subprocess.PIPE, text=True)
    ranks = find_ranks(running.pid)
    assert running.stderr is not None
    while when and when not in running.stderr.readline():
        assert running.poll() is None
    begin = time.monotonic()
    (ranks["0"].parent() if who == "launcher" else ranks[who]).kill()
    rest = running.stderr.read()
    assert running.wait(timeout=30) != 0
    _, left = psutil.wait_procs(ranks.values(), timeout=10)
    assert time.monotonic() - begin < 10
    assert left == []
    assert rest.count("error:") == 1, rest
    assert "hfsoup/cli" not in rest, rest
    assert "the launcher was killed" in rest if who == "launcher" else f"process {who} of 2 was killed by" in rest
    assert not Path("soup").exists()


def find_ranks(launcher: int) -> dict[str, psutil.Process]:
    """The two processes that a launcher has started, once they are there."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        found = {}
        for process in psutil.Process(launcher).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                found[process.environ().get("RANK", "")] = process
        if {"0", "1"} <= found.keys():
            return {rank: found[rank] for rank in ("0", "1")}
        time.sleep(0.05)
    raise AssertionError("no processes were started")


@pytest.mark.parametrize(
    ("variable", "program"), [("SLURM_STEP_NUM_TASKS", "srun"), ("OMPI_COMM_WORLD_SIZE", "mpirun")]
)
def test_processes_that_nothing_connects_are_told_of_the_launcher(
    variable: str, program: str, vit: Family, alone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of four tasks of srun would bake the whole soup by itself, into the folder of the other three."""
    monkeypatch.setenv(variable, "4")
    block = refused("bake", *vit.words[:2], "--output", "soup", code=2)
    assert f"{program} started 4 processes, and no launcher connects them" in block
    assert "accelerate launch --num_machines" in block
    monkeypatch.setenv(variable, "1")
    bake(*vit.words[:2], "--output", "soup")
