"""Every kind of bake: killed, on a full disk, two at once, on any number of threads, and baked from its record."""

from __future__ import annotations

import errno
import json
import random
import re
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from bakes import KINDS, Kind, Kitchen, each_kind
from killing import Ended, Killer
from shell import run
from test_atomic import Faulty
from test_resume import paid

from hfsoup.merges import MERGES
from hfsoup.recipes import RECIPES
from hfsoup.utils.hashing import hash_file


@pytest.fixture(scope="module")
def killers() -> Iterator[tuple[Killer, Killer]]:
    """Two processes with everything imported, one that sees one processor, one that sees three."""
    started = Killer(1), Killer(3)
    yield started
    for process in started:
        process.close()


def baked(killer: Killer, words: list[str], output: Path, cache: Path, event: int | None = None) -> Ended:
    """A bake in a process of its own."""
    return killer.bake("bake", *words, "--output", output, "--json", "-", cache=cache, event=event)


def files(folder: Path) -> dict[str, str]:
    """The files of an output, also those in its folders, with their hashes."""
    return {path.relative_to(folder).as_posix(): hash_file(path) for path in folder.rglob("*") if path.is_file()}


def test_every_recipe_and_merge_is_in_the_list() -> None:
    """By itself; so are names that are no kind twice."""
    names = [kind.name for kind in KINDS]
    assert len(set(names)) == len(names)
    assert {f"recipe {entry.name}" for entry in RECIPES} | {f"merge {entry.name}" for entry in MERGES} < set(names)


@pytest.mark.timeout(600)
@each_kind(6, in_soak=3)
def test_killed_anywhere_it_goes_on(
    kind: Kind, times: int, killers: tuple[Killer, Killer], kitchen: Kitchen, tmp_path: Path
) -> None:
    """Killed at any point: no torn output, no orphan, no score lost, and the same command ends with the same bytes."""
    words, killer, lot = kitchen.words(kind), killers[0], random.Random(f"{kind.name} {times}")
    whole = baked(killer, words, tmp_path / "whole", tmp_path / "cache")
    assert whole.code == 0, whole.err
    expected = files(tmp_path / "whole")
    for n in range(times):
        output, cache = tmp_path / f"soup-{n}", tmp_path / f"cache-{n}"
        event = 1 + int(lot.random() * whole.events)
        assert baked(killer, words, output, cache, event).killed
        assert not output.exists() or files(output) == expected, event
        before = paid(cache)
        again = baked(killer, words, output, cache)
        assert again.code == 0, (event, again.err)
        assert files(output) == expected, event
        assert not list(tmp_path.glob(".soup-*")), event
        assert not [path for path in cache.rglob("*") if path.suffix == ".partial"], event
        forwarded = [json.loads(done.out)["images_forwarded"] for done in (again, whole)]
        assert forwarded[0] <= forwarded[1], event
        assert forwarded[0] < forwarded[1] or not before, event
        assert paid(cache) >= before, event


@pytest.mark.timeout(600)
@each_kind(3, in_soak=2)
def test_a_failing_write_is_one_error_and_changes_nothing(
    kind: Kind, times: int, kitchen: Kitchen, alone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk at any write of cache and output: at most one error, the old output whole, the next bake is well."""
    words, lot = kitchen.words(kind), random.Random(f"{kind.name} {times}")
    command = ["bake", *words, "--output", "soup", "--overwrite"]
    faulty = Faulty(monkeypatch)
    monkeypatch.setenv("HFSOUP_CACHE", str(alone / "cache"))
    done = run("bake", *words, "--output", "expected")
    assert done.code == 0, done.err
    expected, writes = files(Path("expected")), faulty.passed
    Path("soup").mkdir()
    Path("soup/old").write_text("")
    before = files(Path("soup"))
    for n in range(times):
        at = lot.randint(1, writes)
        cache = alone / f"cache-{n}"
        monkeypatch.setenv("HFSOUP_CACHE", str(cache))
        faulty.arm(at, errno.ENOSPC)
        done = run(*command)
        faulty.disarm()
        assert "Traceback" not in done.err, (at, done.err)
        assert len(re.findall("^error:", done.err, re.MULTILINE)) == int(done.code > 0), (at, done.err)
        assert files(Path("soup")) == (before if done.code else expected), (at, done.err)
        assert sorted(path.name for path in alone.iterdir() if not path.name.startswith("cache")) == [
            "expected",
            "soup",
        ]
        done = run(*command)
        assert done.code == 0, (at, done.err)
        assert files(Path("soup")) == expected, at
        assert not [path for path in cache.rglob("*") if path.suffix == ".partial"], at
        shutil.rmtree("soup")
        Path("soup").mkdir()
        Path("soup/old").write_text("")


@pytest.mark.timeout(600)
@each_kind(3)
def test_two_at_once_and_any_threads_give_the_same_bytes_which_verify(
    kind: Kind, times: int, killers: tuple[Killer, Killer], kitchen: Kitchen, tmp_path: Path
) -> None:
    """One thread alone, and one and three threads at once over one cache: the same files, which verify bakes again."""
    words = kitchen.words(kind)
    alone = baked(killers[0], words, tmp_path / "alone", tmp_path / "cache-alone")
    assert alone.code == 0, alone.err
    expected = files(tmp_path / "alone")
    for _ in range(times):
        with ThreadPoolExecutor(2) as pool:
            outputs = [tmp_path / "one", tmp_path / "three"]
            both = pool.map(lambda k, o: baked(k, words, o, tmp_path / "cache"), killers, outputs)
            for output, done in zip(outputs, both, strict=True):
                assert done.code == 0, done.err
                assert files(output) == expected
            same = list(pool.map(lambda k: baked(k, words, tmp_path / "same", tmp_path / "cache"), killers))
        assert files(tmp_path / "same") == expected
        assert [done.code for done in same if "another hfsoup (process" not in done.err] in ([0], [0, 0]), same
    checked = killers[1].bake("verify", tmp_path / "three", cache=tmp_path / "cache-verify")
    assert checked.code == 0, checked.err
