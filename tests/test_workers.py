"""Images are prepared in processes where there are many of them: the same bits, and no process is left."""

from __future__ import annotations

import functools
import operator
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from family import Family
from odd import odd_images

from hfsoup.data import preprocessing
from hfsoup.data.preprocessing import prepare_images
from hfsoup.data.workers import Worker, Workers, start_workers
from hfsoup.utils import control_groups, threads
from hfsoup.utils.errors import SoupError

ROOT = Path(__file__).parents[1]


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Processes as soon as two images are ready; what they were given to do."""
    calls, call = list[int](), Worker.call

    def counted(self: Worker, given: Any) -> Any:
        calls.append(len(given))
        return call(self, given)

    monkeypatch.setattr(preprocessing, "count_processors", lambda: 2)
    for name, value in (("BATCH", 2), ("LOOK", 0.0), ("WORTH", 0.0), ("LARGE", 2000)):
        monkeypatch.setattr(preprocessing, name, value)
    monkeypatch.setattr(Worker, "call", counted)
    return calls


@pytest.mark.filterwarnings("ignore")
def test_processes_prepare_what_threads_prepare(vit: Family, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Pixels, hashes and reasons, in the order of the rows, of odd pictures and of large ones, which they leave."""
    from hfsoup.checkpoints.processor import load_image_processor

    cells, made = list(odd_images().values())[:60], load_image_processor(vit.folders[0])
    found = []
    for home in ("threads", "processes"):
        calls = request.getfixturevalue("eager") if home == "processes" else []
        rows = range(len(cells))
        found.append(prepare_images(rows, lambda: iter(cells), made, content="", where="", home=tmp_path / home))
    one, other = found
    assert sum(calls) > 20
    assert (one.rows, one.bad, one.digests, one.lost) == (other.rows, other.bad, other.digests, other.lost)
    assert one.pixels.path.read_bytes() == other.pixels.path.read_bytes()


def test_what_cannot_be_sent_is_done_here() -> None:
    """There are no processes for it, nor for what they cannot load."""
    assert start_workers(lambda given: given, 4).get() is None
    workers = Workers(b"no pickle", 4)
    assert [workers.get(), workers.get()] == [None, None]
    workers.close()


def test_there_are_as_many_as_are_allowed_and_none_is_left() -> None:
    """Each thread has its own; closing ends them all."""
    workers = start_workers(functools.partial(operator.add, 1), 1)
    mine = workers.get()
    assert mine is not None
    assert workers.get() is mine
    assert threads.map_in_threads(lambda _: workers.get(), [0, 1], threads=2) == [None, None]
    assert mine.call(2) == 3
    with pytest.raises(TypeError):
        mine.call("two")
    assert mine.call(3) == 4
    workers.close()
    assert not psutil.Process().children()


def test_one_that_ends_is_told() -> None:
    """As when the system kills it for memory."""
    workers = start_workers(os._exit, 1)
    worker = workers.get()
    assert worker is not None
    with pytest.raises(SoupError, match="a process that prepares images has ended with code 7"):
        worker.call(7)
    workers.close()


def test_none_outlives_a_program_that_is_killed(tmp_path: Path) -> None:
    """Even one that is busy ends with its pipe, and its program's file is not run again without a guard."""
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent("""
            import time
            from hfsoup.data.workers import start_workers
            print("begun", flush=True)
            worker = start_workers(time.sleep, 1).get()
            print(worker._process.pid, worker.call(0), flush=True)
            worker.call(2)
        """),
        "utf-8",
    )
    running = subprocess.Popen(
        [sys.executable, script], stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert running.stdout is not None
    assert running.stdout.readline() == "begun\n"
    pid = int(running.stdout.readline().split()[0])
    assert psutil.pid_exists(pid)
    os.kill(running.pid, signal.SIGKILL)
    running.wait()
    deadline = time.monotonic() + 20
    while psutil.pid_exists(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not psutil.pid_exists(pid)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"cpu.max": "150000 100000"}, 2),
        ({"cpu.max": "max 100000"}, 64),
        ({"pod/cpu.max": "max 100000", "cpu.max": "400000 100000"}, 4),
        ({"cpu/pod/cpu.cfs_quota_us": "300000", "cpu/pod/cpu.cfs_period_us": "100000"}, 3),
        ({"cpu/pod/cpu.cfs_quota_us": "-1", "cpu/pod/cpu.cfs_period_us": "100000"}, 64),
    ],
)
def test_a_quota_of_processors_counts(
    files: dict[str, str], expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of both versions of control groups, and of the groups above."""
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"{text}\n")
    own = tmp_path / "own"
    own.write_text("4:cpu,cpuacct:/pod\n" if next(iter(files)).startswith("cpu/") else "0::/pod\n")
    monkeypatch.setattr(control_groups, "ROOT", tmp_path)
    monkeypatch.setattr(control_groups, "OWN", own)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    assert threads.count_processors() == expected
