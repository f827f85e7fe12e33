"""`hfsoup cache`: what hfsoup keeps on the disk, how it is brought down, and what is never taken from under a bake."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from family import Family
from shell import bake, refused, run
from test_every_bake import files

from hfsoup.evaluation import journal
from hfsoup.utils.cache import cached_folder, list_entries

HOUR = 3600
HOLD = (
    "import sys; from hfsoup.utils.cache import register_user; register_user(); print(1, flush=True); sys.stdin.read()"
)


@pytest.fixture
def cache(alone: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of hfsoup."""
    monkeypatch.setenv("HFSOUP_CACHE", str(alone / "cache"))
    return alone / "cache"


def entry(key: str, size: int, hours: float) -> Path:
    """An entry of so many bytes that was last used so many hours ago."""
    made = cached_folder("converted", key, lambda folder: (folder / "file").write_bytes(key.encode() * (size // 8)))
    os.utime(made, (time.time() - HOUR * hours,) * 2)
    os.utime(made / "file", (time.time() - HOUR * hours,) * 2)
    return made


def prune(*words: object) -> str:
    """What `hfsoup cache prune` prints, from a process of its own: this one uses the cache that it has used."""
    command = [sys.executable, "-m", "hfsoup", "cache", "prune", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_lists_what_a_bake_keeps_by_kind_and_says_whose_the_downloads_are(
    vit: Family, data: Path, cache: Path
) -> None:
    """Images, scores and architectures with their bytes, which add up to what lies there."""
    bake(*vit.words, "--dataset", data)
    found = json.loads(run("cache", "--json").out)
    kinds = {row["kind"]: row for row in found["kinds"]}
    assert {"images", "scores", "models"} <= kinds.keys()
    assert kinds["images"]["items"] == 2
    held = [p for p in cache.rglob("*") if p.is_file() and p.suffix not in (".lock", ".pid")]
    assert found["bytes"] == pytest.approx(sum(path.stat().st_size for path in held), rel=0.05)
    assert (found["folder"], found["limit"]) == (str(cache), 50 * 10**9)
    text = run("cache").out
    assert "images of datasets as models take them" in text
    assert "hf cache ls" in text


def test_what_was_used_longest_ago_goes_first(cache: Path) -> None:
    """Down to the limit and no further; what is used again counts as new."""
    made = [entry(f"key-{n:04}", 8000, hours) for n, hours in enumerate((5, 9, 1, 7))]
    cached_folder("converted", "key-0001", lambda _: pytest.fail("it was there"))
    assert "removed 1 item" in prune("--cache-limit", "26kB")
    assert [path.is_dir() for path in made] == [True, True, True, False]
    assert "removed 1 item" in prune("--cache-limit", "18kB")
    assert [path.is_dir() for path in made] == [False, True, True, False]
    assert "removed 1 item" in prune("--cache-limit", 0)
    assert [path.is_dir() for path in made] == [False, True, False, False], "this process has used the second one"


def test_what_a_running_process_has_used_stays(cache: Path) -> None:
    """An entry used since the oldest user began is not removed, one from before is; a killed user protects nothing."""
    old, new = entry("key-old", 8000, 5), entry("key-new", 8000, 5)
    holder = subprocess.Popen([sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert holder.stdout is not None
    assert holder.stdout.readline()
    os.utime(new)
    prune("--cache-limit", 0)
    assert (old.is_dir(), new.is_dir()) == (False, True)
    holder.kill()
    holder.wait()
    holder.stdout.close()
    os.utime(new, (1, 1))


def test_a_bake_prunes_to_its_limit_and_is_not_changed_by_it(
    vit: Family, data: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By flag or variable, what was used hours ago goes after the bake, which says so; its bytes are the same."""
    bake(*vit.words, "--dataset", data, "--output", "a")
    old = entry("key-old", 80_000, 5)
    done = run("bake", *vit.words, "--dataset", data, "--output", "b", "--cache-limit", "1 kB")
    assert done.code == 0, done.err
    assert "removed" in done.err
    assert not old.exists()
    assert files(Path("a")) == files(Path("b"))
    assert all(time.time() - found.used < HOUR for found in list_entries())
    old = entry("key-old", 80_000, 5)
    monkeypatch.setenv("HFSOUP_CACHE_LIMIT", "1kB")
    assert run("bake", *vit.words, "--output", "c").code == 0
    assert not old.exists()


def test_a_wrong_size_is_refused_at_once(vit: Family, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With an example, before anything is read."""
    assert "as in 20GB" in refused("bake", *vit.words, "--cache-limit", "many", code=2)
    monkeypatch.setenv("HFSOUP_CACHE_LIMIT", "many")
    assert "as in 20GB" in refused("bake", *vit.words, code=2)
    assert "as in 20GB" in refused("cache", code=2)


def test_scores_do_not_grow_without_bound(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At its limit the file of scores drops the older half; the newest are there."""
    monkeypatch.setattr(journal, "MOST", 300_000)
    scores, random = journal.Journal(cache / "scores.sqlite"), np.random.default_rng(0)
    for n in range(100):
        scores.put(f"key-{n}", {"predictions": random.integers(0, 255, 8000, dtype=np.uint8)})
    assert scores.path.stat().st_size < 400_000
    assert scores.get("key-99") is not None
    assert scores.get("key-0") is None
    with closing(sqlite3.connect(scores.path)) as database:
        assert 10 < database.execute("SELECT count(*) FROM results").fetchone()[0] < 50
