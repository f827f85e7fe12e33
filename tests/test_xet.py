"""Files that travel by Xet, as they do for every user of the Hub, and what happens where that fails."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from family import Family
from huggingface_hub import HfApi, constants, snapshot_download
from misbehave import blobs, complete, environment, fault, flip, forget, head, hurry, timed
from shell import only, refused, run

from hfsoup.hub import download as fetching
from hfsoup.localhub import LocalHub

MODEL = "kit/vit-1"
OTHER = "kit/vit-10"
WEIGHTS = "model.safetensors"
SEEDED = random.Random(5)


@pytest.fixture(autouse=True)
def _quick(on_hub: LocalHub, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Short waits, and an empty cache before and after."""
    hurry(monkeypatch)
    monkeypatch.setattr(fetching, "XET", fetching._Xet())
    # The client keeps a store's token until it expires: whether one is asked for would depend on the tests before.
    monkeypatch.setattr("huggingface_hub.utils._xet.XET_CONNECTION_INFO_CACHE", {})
    forget(MODEL)
    # The client shares files of one content, also with a repository that another test pulled.
    for each in list_shared(on_hub):
        each.unlink(missing_ok=True)
    yield
    on_hub.clear_faults()
    forget(MODEL)


def list_shared(hub: LocalHub) -> list[Path]:
    """Where the client keeps the files of MODEL that came by Xet."""
    tree = HfApi(token=hub.token).list_repo_tree(MODEL)
    hashes = [xet for each in tree if (xet := getattr(each, "xet_hash", None))]
    return [Path(constants.HF_HUB_CACHE) / "blobs" / each[:2] / each for each in hashes]


@pytest.fixture
def silent() -> Iterator[dict[str, Any]]:
    """A token for a store that takes connections and never answers."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(50)
        yield {"headers": {"X-Xet-Cas-Url": f"http://127.0.0.1:{server.getsockname()[1]}"}}


@pytest.fixture
def twin(on_hub: LocalHub, vit: Family) -> Iterator[str]:
    """Another repository with the same files."""
    api = HfApi(token=on_hub.token)
    api.create_repo("kit/twin", exist_ok=True)
    api.upload_folder(repo_id="kit/twin", folder_path=vit.folders[0])
    forget("kit/twin")
    yield "kit/twin"
    api.delete_repo("kit/twin")
    forget("kit/twin")


def test_weights_come_by_xet_and_nothing_else_is_printed(signed_in: LocalHub, alone: Path) -> None:
    """No byte of the weights comes by HTTP, and no traceback by hf-xet's threads."""
    done = run("bake", *only(MODEL, OTHER), "--output", "soup")
    assert (done.code, "Traceback" in done.err) == (0, False), done.err
    asked = signed_in.requests
    assert any("xet-read-token" in one.path for one in asked)
    # The header alone is read by HTTP, as a range, for an estimate of disk and memory.
    assert not any(one.method == "GET" and one.path.endswith(f"/{WEIGHTS}") and one.status == 200 for one in asked)


def test_progress_is_what_arrives(signed_in: LocalHub) -> None:
    """Whoever is told of bytes is told of all of them, once, when they come by Xet, and when they are here already."""
    from hfsoup.ingredients.pull import pull_ingredients
    from hfsoup.ingredients.resolve import resolve_patterns

    sources = resolve_patterns((MODEL,))
    for _ in range(2):
        told: list[int] = []
        pull_ingredients(sources, advance=told.append)
        size = sum(path.stat().st_size for path in blobs(MODEL).values())
        assert sum(told) == size


def test_a_store_that_never_answers(signed_in: LocalHub, silent: dict[str, Any], vit: Family, alone: Path) -> None:
    """After a while of silence the file is asked for by HTTP, which is told."""
    with fault(signed_in, "/xet-read-token/", **silent) as asked:
        done, seconds = timed("bake", *only(MODEL, OTHER), "--output", "soup")
    assert (done.code, asked.hits > 0) == (0, True), done.err
    assert f"'{WEIGHTS}': no data arrives by Xet; retrying by HTTP" in done.err
    assert Path("soup", WEIGHTS).read_bytes() == (vit.folders[0] / WEIGHTS).read_bytes()
    assert seconds < 30


def test_a_silent_store_of_files_that_a_listing_in_the_cache_names(
    signed_in: LocalHub, silent: dict[str, Any], vit: Family, alone: Path
) -> None:
    """After snapshot_download huggingface_hub knows of Xet without a request; the files come by HTTP all the same."""
    snapshot_download(MODEL)
    blobs(MODEL)[WEIGHTS].unlink()
    with fault(signed_in, "/xet-read-token/", **silent):
        done = run("bake", *only(MODEL, OTHER), "--output", "soup")
    assert done.code == 0, done.err
    assert f"'{WEIGHTS}': no data arrives by Xet; retrying by HTTP" in done.err
    assert Path("soup", WEIGHTS).read_bytes() == (vit.folders[0] / WEIGHTS).read_bytes()


def test_one_silence_is_enough(signed_in: LocalHub, silent: dict[str, Any], alone: Path) -> None:
    """Files after the first that was waited for in vain are asked for by HTTP at once."""
    forget(OTHER)
    with fault(signed_in, "/xet-read-token/", **silent):
        first = run("bake", *only(MODEL, OTHER), "--output", "soup")
        forget(MODEL)
        second = run("bake", *only(MODEL, OTHER), "--output", "again")
    assert first.err.count("retrying by HTTP") >= 1
    assert (second.code, "retrying by HTTP" in second.err) == (0, False), second.err


def test_neither_xet_nor_http(signed_in: LocalHub, silent: dict[str, Any], alone: Path) -> None:
    """Where HTTP fails too, that is one clear error in time."""
    signed_in.fault(f"/resolve/.*{WEIGHTS}", method="GET", stall=60.0)
    with fault(signed_in, "/xet-read-token/", **silent):
        block = refused("bake", *only(MODEL, OTHER), "--output", "soup", code=1)
    assert "cannot be reached: the Hub did not answer in time" in block


def test_a_store_that_refuses(signed_in: LocalHub, vit: Family, alone: Path) -> None:
    """A store that hf-xet cannot open, here a folder that is not there, costs a note."""
    with fault(signed_in, "/xet-read-token/", headers={"X-Xet-Cas-Url": "local:///dev/null/nowhere"}):
        done = run("bake", *only(MODEL, OTHER), "--output", "soup")
    assert done.code == 0, done.err
    assert "by Xet failed; retrying by HTTP" in done.err
    assert Path("soup", WEIGHTS).read_bytes() == (vit.folders[0] / WEIGHTS).read_bytes()


def test_ctrl_c_while_the_store_is_silent(on_hub: LocalHub, silent: dict[str, Any], alone: Path) -> None:
    """A process whose hf-xet waits ends within 5 s of Ctrl-C, with code 130."""
    with fault(on_hub, "/xet-read-token/", **silent) as asked:
        words = [sys.executable, "-m", "hfsoup", "bake", MODEL, OTHER, "--output", "soup"]
        env = environment(on_hub, HF_HOME=str(alone / "home"))
        process = subprocess.Popen(words, env=env, stderr=subprocess.PIPE, text=True)
        while asked.hits == 0 and process.poll() is None:
            time.sleep(0.05)
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        begin = time.monotonic()
        try:
            err = process.communicate(timeout=20)[1]
        finally:
            process.kill()
    assert (process.returncode, "Traceback" in err) == (130, False), err
    assert time.monotonic() - begin < 5


def test_a_damaged_blob_that_repositories_share_heals(signed_in: LocalHub, twin: str, alone: Path) -> None:
    """The blob goes, not only the links to it: both repositories have the right one again."""
    for repo in (MODEL, twin):
        assert run("bake", *only(repo, OTHER), "--output", f"soup-{repo[4:]}").code == 0
    shared = blobs(MODEL)[WEIGHTS]
    assert shared == blobs(twin)[WEIGHTS]
    right = shared.read_bytes()
    flip(shared, SEEDED)
    for repo in (twin, MODEL):
        done = run("bake", *only(repo, OTHER), "--output", f"again-{repo[4:]}")
        assert done.code == 0, done.err
        assert Path(f"again-{repo[4:]}", WEIGHTS).read_bytes() == right
        assert blobs(repo)[WEIGHTS].read_bytes() == right


def test_a_damaged_file_outside_the_cache_is_not_the_hubs_fault(signed_in: LocalHub, alone: Path) -> None:
    """What a link in the cache leads to elsewhere stays; the error names that file, not the Hub."""
    assert run("bake", *only(MODEL, OTHER), "--output", "soup").code == 0
    folder = Path(constants.HF_HUB_CACHE) / "models--kit--vit-1" / "blobs"
    blob = next(path for path in folder.iterdir() if path.resolve() == blobs(MODEL)[WEIGHTS])
    elsewhere = alone / "deduplicated"
    elsewhere.write_bytes(blob.read_bytes())
    flip(elsewhere, SEEDED)
    os.unlink(blob)  # noqa: PTH108 - not what it links to
    blob.symlink_to(elsewhere)
    done = run("bake", *only(MODEL, OTHER), "--output", "again")
    assert done.code == 0, done.err
    assert elsewhere.is_file()
    assert Path("again", WEIGHTS).read_bytes() == Path("soup", WEIGHTS).read_bytes()


def test_a_store_with_a_damaged_chunk(signed_in: LocalHub, twin: str, alone: Path) -> None:
    """hf-xet refuses what it got, and the file comes by HTTP."""
    xorbs = (signed_in.folder / "repos" / "models" / f"{twin}.git" / "hub-xet" / "store").glob("xet/xorbs/xorbs/*")
    kept = {path: path.read_bytes() for path in xorbs if path.suffix != ".tagset"}
    for path in kept:
        flip(path, SEEDED)
    try:
        done = run("bake", *only(twin, OTHER), "--output", "soup")
    finally:
        for path, content in kept.items():
            path.write_bytes(content)
    assert done.code == 0, done.err
    assert kept


@pytest.mark.parametrize("failure", ["silent", "refused"])
def test_a_push_goes_by_http_where_xet_fails(
    failure: str, signed_in: LocalHub, silent: dict[str, Any], vit: Family, alone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store that takes nothing costs a note; the push is complete."""
    from hfsoup.hub.retry import LIMITS

    monkeypatch.setattr(LIMITS, "block", 2.0)
    api = HfApi(token=signed_in.token)
    assert run("bake", *only(MODEL, OTHER), "--output", "soup").code == 0
    url = silent["headers"]["X-Xet-Cas-Url"] if failure == "silent" else "local:///dev/null/nowhere"
    body = f'{{"casUrl": "{url}", "accessToken": "x", "exp": {int(time.time()) + 3600}}}'.encode()
    with fault(signed_in, "/xet-write-token/", body=body, headers={"X-Xet-Cas-Url": url}):
        done, seconds = timed("push", "soup", "kit/by-http")
    try:
        assert done.code == 0, done.err
        assert "by Xet failed; retrying by HTTP" in done.err
        assert complete(head(signed_in, "kit/by-http"), Path("soup"), "kit/by-http")
        assert seconds < 30
    finally:
        api.delete_repo("kit/by-http")


@pytest.mark.parametrize("failure", [{"status": n} for n in (401, 403, 404, 500)] + [{"stall": 30.0}], ids=str)
def test_a_hub_that_gives_no_token_for_the_store(
    failure: dict[str, Any], signed_in: LocalHub, vit: Family, alone: Path
) -> None:
    """The file comes by HTTP, and a note says so."""
    with fault(signed_in, "/xet-read-token/", **failure) as asked:
        done = run("bake", *only(MODEL, OTHER), "--output", "soup")
    assert (done.code, asked.hits > 0) == (0, True), done.err
    assert "by Xet failed; retrying by HTTP" in done.err
    assert Path("soup", WEIGHTS).read_bytes() == (vit.folders[0] / WEIGHTS).read_bytes()


def test_a_token_that_is_none(signed_in: LocalHub, vit: Family, alone: Path) -> None:
    """An answer without the address of a store costs a note; files after the first are asked for by HTTP at once."""
    forget(OTHER)
    with fault(signed_in, "/xet-read-token/", status=200, body=b"{}") as asked:
        first = run("bake", *only(MODEL, OTHER), "--output", "soup")
        count = asked.hits
        forget(MODEL)
        again = run("bake", *only(MODEL, OTHER), "--output", "again")
    assert (first.code, again.code) == (0, 0), first.err + again.err
    assert "by Xet failed; retrying by HTTP" in first.err
    assert (count > 0, asked.hits) == (True, count)
    assert Path("again", WEIGHTS).read_bytes() == (vit.folders[0] / WEIGHTS).read_bytes()
