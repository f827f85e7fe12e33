"""Everything a Hub can do to a push and to a pull, at every request."""

from __future__ import annotations

import random
import re
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from family import Family
from misbehave import KINDS, SHAPES, blobs, fault, flip, forget, hurry, process, push_survives, rule, timed
from shell import bake, only, run

from hfsoup.localhub import LocalHub

pytestmark = pytest.mark.soak
MODEL = "kit/vit-1"
FILES = ("config.json", "model.safetensors", "preprocessor_config.json", "README.md")
PULLS = (("GET", "/api/models/"), *((m, f"/resolve/.*/{file}") for m in ("HEAD", "GET") for file in FILES))
BROKEN: dict[str, dict[str, Any]] = {
    **{str(kind): rule(kind) for kind in (*KINDS, 408, 502, 503)},
    "cut": {"cut": 10},
    "stalled": {"stall": 60.0},
    "garbage": {"body": b"<html>"},
    "empty": {"body": b""},
}


@pytest.fixture
def quick(plain_http: None, on_hub: LocalHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Short waits."""
    hurry(monkeypatch)


@pytest.fixture(scope="module")
def soup(vit: Family, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A baked folder."""
    folder = tmp_path_factory.mktemp("soup") / "soup"
    bake(*vit.words, "--output", folder)
    return folder


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n", range(10))
def test_push_once(n: int, kind: int | str, soup: Path, signed_in: LocalHub, quick: None) -> None:
    """Request n of a push fails once: the head is old or complete, and what the error says works."""
    push_survives(signed_in, soup, "kit/matrix", kind, n, forever=False)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n", range(len(SHAPES)))
def test_push_for_good(n: int, kind: int | str, soup: Path, signed_in: LocalHub, quick: None) -> None:
    """All requests like request n of a push fail: the head is old or complete, and what the error says works after."""
    push_survives(signed_in, soup, "kit/matrix", kind, n, forever=True)


@pytest.mark.parametrize("times", [1, None])
@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize(("method", "path"), PULLS)
def test_pull(
    method: str, path: str, name: str, times: int | None, signed_in: LocalHub, vit: Family, alone: Path, quick: None
) -> None:
    """A request of a pull fails, once or for good: the right bytes in the end, or one clear block, in seconds."""
    forget(MODEL)
    with fault(signed_in, path, method=method, times=times, **BROKEN[name]):
        done, seconds = timed("bake", *only(MODEL, vit.words[1]), "--output", "soup")
    assert seconds < 20
    assert "Traceback" not in done.err
    if done.code:
        assert (done.code, done.err.count("error:")) == (1, 1)
        assert MODEL in done.err
        assert "  try: " in done.err
        assert not Path("soup").exists()
        assert run("bake", *only(MODEL, vit.words[1]), "--output", "soup").code == 0
    assert Path("soup/model.safetensors").read_bytes() == (vit.folders[0] / "model.safetensors").read_bytes()
    assert Path("soup/preprocessor_config.json").read_bytes() == (
        (vit.folders[0] / "preprocessor_config.json").read_bytes()
    )


@pytest.mark.usefixtures("plain_http", "on_hub")
@pytest.mark.parametrize("seed", range(25))
@pytest.mark.parametrize("file", FILES)
def test_flips(file: str, seed: int, signed_in: LocalHub, vit: Family, alone: Path) -> None:
    """One bit of one file, on the server or in the cache: caught, and mended where the Hub has the right one."""
    chance = random.Random(f"{file} {seed}")
    forget(MODEL)
    sent = bytearray((vit.folders[0] / file).read_bytes())
    sent[chance.randrange(len(sent))] ^= 1 << chance.randrange(8)
    with fault(signed_in, f"/resolve/.*/{file}", method="GET", body=bytes(sent)):
        done = run("bake", *only(MODEL, vit.words[1]), "--output", "soup")
    assert done.code == 1
    assert "is not the one the Hub lists" in done.err
    assert run("bake", *only(MODEL, vit.words[1]), "--output", "soup").code == 0
    flip(blobs(MODEL)[file], chance)
    done = run("bake", *only(MODEL, vit.words[1]), "--output", "again")
    assert done.code == 0
    assert "downloading it again" in done.err
    assert Path("again/model.safetensors").read_bytes() == Path("soup/model.safetensors").read_bytes()


STALLS = (
    ("GET", "/api/models/kit/vit-1", {"stall": 300.0}),
    ("GET", "/api/models/kit/vit-1", {"drip": 2.0, "body": b" " * 900_000}),
    ("HEAD", "/kit/vit-1/resolve/", {"stall": 300.0}),
    ("GET", "/kit/vit-1/resolve/.*safetensors", {"stall": 300.0}),
    ("GET", "/kit/vit-1/resolve/.*safetensors", {"drip": 60.0}),
    ("GET", "/kit/vit-1/resolve/.*safetensors", {"drip": 2.0}),
    ("GET", "/api/datasets/kit/shapes", {"stall": 300.0}),
    ("HEAD", "/datasets/kit/shapes/resolve/", {"stall": 300.0}),
    *((method, path, {"stall": 300.0}) for method, path in SHAPES),
)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("first", range(0, len(STALLS), 6))
def test_a_stall_with_the_real_time_outs(
    first: int, on_hub: LocalHub, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A Hub that goes silent, or only drips, at any request of a bake with a push: an end within 120 s."""
    chosen = STALLS[first : first + 6]
    with ThreadPoolExecutor(len(chosen)) as pool:
        ends = list(pool.map(lambda stall: _stalled(on_hub, tmp_path_factory.mktemp("stall"), *stall), chosen))
    for stall, (code, seconds, err) in zip(chosen, ends, strict=True):
        # A second try may find that what it asks for is done already.
        assert code == 0 or re.search("did not answer in time|broke", err), (stall, err)
        assert seconds < 120, (stall, seconds)


def _stalled(source: LocalHub, folder: Path, method: str, path: str, ordered: dict[str, Any]) -> tuple[int, float, str]:
    """Exit code and error of a bake with a push, and the seconds from the first silence to the end."""
    with LocalHub(folder / "hub", user="kit") as hub, ThreadPoolExecutor(1) as pool:
        for part in ("repos", "lfs"):
            shutil.copytree(source.folder / part, hub.folder / part, dirs_exist_ok=True)
        silent = hub.fault(f"{path}.*" if "/kit/" in path else path, method=method, **ordered)
        words = ("kit/vit-1", "kit/vit-2", "--dataset", "kit/shapes", "--push", "kit/stalled", "--output", "soup")
        # A store of Xet has no requests of the Hub's for weights.
        plain = {"HF_HUB_DISABLE_XET": "1"} if "safetensors" in path else {}
        running = pool.submit(process, hub, folder, "bake", *words, wait=400, **plain)
        while not silent.hits and not running.done():
            time.sleep(0.1)
        begin = time.monotonic()
        done = running.result()
        return done.code, time.monotonic() - begin, done.err
