"""A bake that was killed goes on where it stopped."""

from __future__ import annotations

import json
import random
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from family import Family
from huggingface_hub import HfApi, constants
from killing import Killer
from shell import bake, only, run

from hfsoup.localhub import LocalHub
from hfsoup.utils.hashing import hash_file

FEW, MANY = 10, 200
IMAGES = 60


@pytest.fixture(scope="module")
def killer() -> Iterator[Killer]:
    """One process with everything imported."""
    process = Killer()
    yield process
    process.close()


def contents(folder: Path) -> dict[str, str]:
    """Every file of a folder with its sha256."""
    return {path.name: hash_file(path) for path in sorted(folder.iterdir())}


def paid(cache: Path) -> int:
    """How many sets of predictions are kept."""
    path = cache / "scores.sqlite"
    if not path.exists():
        return 0
    with closing(sqlite3.connect(path)) as database:
        tables = database.execute("SELECT count(*) FROM sqlite_master WHERE name = 'results'").fetchone()[0]
        return int(database.execute("SELECT count(*) FROM results").fetchone()[0]) if tables else 0


def killed_and_continued(killer: Killer, words: list[str], folder: Path, points: list[float], events: int) -> None:
    """Kill a bake at each point (a share of its events), look at what is left, continue, compare with a whole one."""
    whole = killer.bake("bake", *words, "--output", folder / "whole", "--json", "-", cache=folder / "cache")
    assert whole.code == 0, whole.err
    expected = contents(folder / "whole")
    candidates = paid(folder / "cache")
    for n, point in enumerate(points):
        output, cache = folder / f"soup-{n}", folder / f"cache-{n}"
        command = ["bake", *words, "--output", output, "--json", "-"]
        first = killer.bake(*command, cache=cache, event=1 + int(point * events))
        assert not output.exists() or contents(output) == expected, f"torn output at {point}"
        before = paid(cache)
        second = killer.bake(*command, cache=cache)
        assert second.code == 0, second.err
        assert contents(output) == expected
        left = list(folder.glob(f".soup-{n}*"))
        assert not left, f"orphans at {point}: {left}"
        forwarded = json.loads(second.out)["images_forwarded"]
        total = json.loads(whole.out)["images_forwarded"]
        assert forwarded <= total * (candidates - before) / candidates + 72, (first, before)


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("count", [FEW, pytest.param(MANY, marks=pytest.mark.soak)])
def test_killed_at_any_point_it_goes_on_and_ends_with_the_same_bytes(
    killer: Killer, vit: Family, data: Path, tmp_path: Path, count: int
) -> None:
    """Whatever the instant, nothing torn is left, nothing paid for is paid again, the bytes are those of one run."""
    words = [*vit.words, "--recipe", "greedy", "--dataset", str(data)]
    trial = killer.bake("bake", *words, "--output", tmp_path / "trial", cache=tmp_path / "cache-trial")
    assert trial.code == 0, trial.err
    lot = random.Random(count)
    killed_and_continued(killer, words, tmp_path, [lot.random() for _ in range(count)], trial.events)


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("count", [4, pytest.param(40, marks=pytest.mark.soak)])
def test_killed_while_it_pulls_scores_or_pushes_it_goes_on(
    on_hub: LocalHub, signed_in: LocalHub, tmp_path: Path, count: int
) -> None:
    """From Hub to Hub: after a kill the target is absent or whole; the same command ends with the same files."""
    api, target, lot = HfApi(token=signed_in.token), "kit/killed", random.Random(count)
    words = ["bake", "kit/vit-[0-9]*", "--dataset", "kit/shapes", "--push", target, "--output"]
    process = Killer()
    try:
        whole = process.bake(*words, tmp_path / "whole", cache=tmp_path / "cache")
        assert whole.code == 0, whole.err
        expected = contents(tmp_path / "whole")
        pushed = {*expected, ".eval_results/hfsoup-shapes.yaml"}
        for n in range(count):
            api.delete_repo(target, missing_ok=True)
            shutil.rmtree(constants.HF_HUB_CACHE)
            event, again = 1 + int(lot.random() * whole.events), (*words, tmp_path / f"soup-{n}")
            process.bake(*again, cache=tmp_path / f"cache-{n}", event=event)
            names = set(api.list_repo_files(target)) if api.repo_exists(target) else set()
            assert names - {".gitattributes"} in (set(), pushed), (event, names)
            second = process.bake(*again, cache=tmp_path / f"cache-{n}")
            assert second.code == 0, (event, second.err)
            assert contents(tmp_path / f"soup-{n}") == expected
            assert set(api.list_repo_files(target)) - {".gitattributes"} == pushed
    finally:
        process.close()
        api.delete_repo(target, missing_ok=True)


def test_scores_are_taken_from_before_and_no_resume_measures_them_again(vit: Family, data: Path, alone: Path) -> None:
    """The second bake forwards no image; with --no-resume it forwards as many as the first, to the same end."""
    first = bake(*vit.words, "--dataset", data, "--output", "a")
    second = bake(*vit.words, "--dataset", data, "--output", "b")
    third = bake(*vit.words, "--dataset", data, "--output", "c", "--no-resume")
    assert (second["images_forwarded"], third["images_forwarded"]) == (0, first["images_forwarded"])
    assert contents(Path("a")) == contents(Path("b")) == contents(Path("c"))


@pytest.mark.parametrize(
    "change",
    [
        ["--dtype", "float16"],
        ["--limit", "30"],
        ["--batch-size", "16"],
        ["--split", "test", "--test-split", "validation"],
    ],
)
def test_a_change_of_what_scores_depend_on_is_never_a_hit(
    vit: Family, data: Path, alone: Path, change: list[str]
) -> None:
    """Another dtype, other images or another batch size are measured anew."""
    words = [*vit.words, "--recipe", "uniform", "--dataset", data]
    bake(*words, "--output", "a")
    assert bake(*words, *change, "--output", "b")["images_forwarded"] > 0


def test_a_change_of_one_weight_is_never_a_hit(vit: Family, data: Path, alone: Path) -> None:
    """An ingredient whose bytes differ under the same name is measured anew."""
    shutil.copytree(vit.folders[0], "model")
    bake(*only("./model", vit.words[2]), "--dataset", data, "--output", "a")
    shutil.rmtree("model")
    shutil.copytree(vit.folders[1], "model")
    assert bake(*only("./model", vit.words[2]), "--dataset", data, "--output", "b")["images_forwarded"] > 0


def test_a_damaged_journal_costs_time_only(
    vit: Family, data: Path, alone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A journal that is no database any more is named, and the bake ends as before."""
    monkeypatch.setenv("HFSOUP_CACHE", str(alone / "cache"))
    bake(*vit.words, "--dataset", data, "--output", "a")
    (alone / "cache" / "scores.sqlite").write_bytes(b"not a database" * 100)
    done = run("bake", *vit.words, "--dataset", data, "--output", "b")
    assert done.code == 0
    assert "scores cannot be cached" in done.err
    assert contents(Path("a")) == contents(Path("b"))


def test_a_second_bake_into_the_same_folder_is_refused_with_the_first_ones_process(vit: Family, alone: Path) -> None:
    """Whoever holds the output folder is named."""
    import os

    from hfsoup.averaging.writer import lock_output

    with lock_output(Path("soup")):
        done = run("bake", *vit.words, "--output", "soup")
    assert done.code == 1
    assert f"process {os.getpid()}" in done.err


def test_an_output_is_replaced_only_with_overwrite_and_then_whole(vit: Family, alone: Path) -> None:
    """Another soup in the way is an error; --overwrite puts the new one in its place and leaves nothing else."""
    bake(*vit.words[:2], "--output", "soup")
    before = contents(Path("soup"))
    assert run("bake", *vit.words, "--output", "soup").code == 1
    assert contents(Path("soup")) == before
    bake(*vit.words, "--output", "soup", "--overwrite")
    assert contents(Path("soup")) != before
    assert [path.name for path in alone.iterdir()] == ["soup"]


def test_a_stopped_push_goes_on_from_the_baked_folder(on_hub: LocalHub, signed_in: LocalHub, alone: Path) -> None:
    """The same command finds its own soup in the output folder and pushes it."""
    command = ["bake", "kit/vit-*", "--output", "soup", "--push", "kit/stopped"]
    on_hub.fault(r"/commit/", status=403, times=1)
    assert run(*command).code == 1
    baked = contents(Path("soup"))
    assert run(*command).code == 0
    assert contents(Path("soup")) == baked
