"""`accelerate launch` over the Hub: two ranks score, one talks to the Hub."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import HfApi
from shell import bake

from hfsoup.cli.launch import count_processes
from hfsoup.localhub import LocalHub

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("command", "count"),
    [
        ("python /usr/bin/accelerate launch --num_processes 2 -m hfsoup bake x", 2),
        ("python /usr/bin/accelerate launch --num-processes=3 -m hfsoup bake x", 3),
        ("python -m accelerate.commands.launch --num_processes 2 -m hfsoup bake x", 2),
        ("python /usr/bin/accelerate launch -m hfsoup bake x --num_processes 2", 1),
        ("python /usr/bin/accelerate launch --cpu -m hfsoup bake x", 1),
        ("bash", 1),
    ],
)
def test_the_number_of_processes_is_what_accelerate_was_asked_for(command: str, count: int) -> None:
    """It is read before `-m hfsoup` alone, in each of the ways it may be written."""
    assert count_processes(command.split()) == count


def spied(folder: Path) -> dict[str, str]:
    """An environment in which every Python that starts leaves a file in `folder`, named after its rank."""
    hook = folder.with_name("hook")
    for home in (folder, hook):
        home.mkdir()
    code = f"import os, pathlib\npathlib.Path({str(folder)!r}, os.environ.get('RANK', 'none')).touch()\n"
    (hook / "sitecustomize.py").write_text(code)
    return {**os.environ, "PYTHONPATH": os.pathsep.join((str(hook), str(ROOT)))}


def test_one_of_two_processes_touches_the_hub(
    on_hub: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bake by glob that is pushed asks the Hub for each thing once, and gives what one process gives."""
    monkeypatch.setenv("HF_TOKEN", on_hub.token)
    monkeypatch.chdir(tmp_path)
    options = ("--dataset", "kit/shapes", "--batch-size", "7", "--no-resume", "--push", "kit/launched")
    one = bake("kit/vit-*", *options, "--output", "one")
    on_hub.forget_requests()
    command = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes", "2", "-m", "hfsoup", "bake"]
    process = subprocess.Popen(
        [*command, "kit/vit-*", *options, "--output", "two", "--json", "-"],
        env=spied(tmp_path / "ranks"),
        text=True,
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        out, err = process.communicate(timeout=120)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    HfApi().delete_repo("kit/launched")
    assert process.returncode == 0, err
    two = json.loads(out)
    assert {"0", "1"} <= {path.name for path in Path("ranks").iterdir()}
    assert len([r for r in on_hub.requests if r.path == "/api/models/kit/vit-1"]) == 1
    assert two["trace"] == one["trace"]
    assert {**two["soup"], "path": "one"} == one["soup"]
    assert Path("one/model.safetensors").read_bytes() == Path("two/model.safetensors").read_bytes()
