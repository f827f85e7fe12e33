"""A Hub that misbehaves on order, and what must hold whatever it does; shared by the ordinary and the long tests."""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
from huggingface_hub import HfApi, constants
from huggingface_hub.errors import RepositoryNotFoundError
from shell import Result, run

from hfsoup.hub import retry as patience
from hfsoup.localhub import LocalHub

STATUSES = (401, 403, 404, 409, 412, 413, 429, 500, 504)
KINDS = (*STATUSES, "dropped")
QUICK = {"connect": 2.0, "read": 0.6, "first": 0.01, "longest": 5.0, "window": 0.5, "slowest": 50_000.0, "silence": 1.5}


def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten every wait, so that a stall costs a test seconds."""
    for name, value in QUICK.items():
        monkeypatch.setattr(patience.LIMITS, name, value)
    for name in ("HF_HUB_ETAG_TIMEOUT", "HF_HUB_DOWNLOAD_TIMEOUT"):
        monkeypatch.setattr(constants, name, QUICK["read"])


def rule(kind: int | str) -> dict[str, Any]:
    """The fault of a kind: a status, or a reply that gets lost after the request was handled."""
    return {"drop": True} if kind == "dropped" else {"status": kind}


@contextmanager
def fault(hub: LocalHub, path: str = "", **ordered: Any) -> Iterator[Any]:
    """A fault while the block lasts."""
    try:
        yield hub.fault(path, **ordered)
    finally:
        hub.clear_faults()


def forget(*repos: str) -> None:
    """Take repositories out of the client's cache, and the blobs that they share with others."""
    for repo in repos:
        folder = Path(constants.HF_HUB_CACHE) / f"models--{repo.replace('/', '--')}"
        for blob in (folder / "blobs").glob("*"):
            blob.resolve().unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)


def blobs(repo: str) -> dict[str, Path]:
    """Cached files of a repository by name."""
    folder = Path(constants.HF_HUB_CACHE) / f"models--{repo.replace('/', '--')}" / "snapshots"
    return {path.name: path.resolve() for path in folder.glob("*/*")}


def flip(path: Path, random: random.Random) -> None:
    """Change one bit of a file."""
    content = bytearray(path.read_bytes())
    content[random.randrange(len(content))] ^= 1 << random.randrange(8)
    path.chmod(0o644)
    path.write_bytes(content)


@dataclass(frozen=True)
class Head:
    """What a repository holds on main, by path and hash; None where there is no repository."""

    files: dict[str, str] | None
    commits: int = 0


def head(hub: LocalHub, repo: str) -> Head:
    """The state of a repository's main branch."""
    api = HfApi(token=hub.token)
    try:
        info = api.model_info(repo, files_metadata=True)
    except RepositoryNotFoundError:
        return Head(None)
    files = {s.rfilename: s.lfs.sha256 if s.lfs else str(s.blob_id) for s in info.siblings or ()}
    return Head(files, len(api.list_repo_commits(repo)))


def complete(found: Head, folder: Path, repo: str) -> bool:
    """Whether a repository holds every file of a folder, byte for byte, its own name in the card."""
    from hfsoup.hub.cards import name_card
    from hfsoup.utils.hashing import hash_blob, hash_file

    files = found.files or {}
    card = (folder / "README.md").read_bytes()
    named = name_card(card.decode(), repo).encode()
    hashes = [hashlib.sha256(text).hexdigest().encode() for text in (card, named)]
    record = (folder / "soup.json").read_bytes().replace(*hashes)
    texts = {
        name: hashlib.sha1(b"blob %d\0" % len(t) + t).hexdigest()
        for name, t in {
            "README.md": named,
            "soup.json": record,
        }.items()
    }
    rest = (path for path in folder.iterdir() if path.name not in texts)
    return texts.items() <= files.items() and all(files.get(p.name) in (hash_blob(p), hash_file(p)) for p in rest)


def paths(hub: LocalHub) -> list[str]:
    """The requests of the latest run, as patterns that match each."""
    return [f"^{re.escape(seen.path)}" for seen in hub.requests]


def push_survives(hub: LocalHub, soup: Path, repo: str, kind: int | str, n: int, *, forever: bool) -> Result:
    """Push with request number `n` failing, once or for good: old or complete, told what to type, and that works."""
    api = HfApi(token=hub.token)
    api.delete_repo(repo, missing_ok=True)
    api.create_repo(repo)
    api.upload_file(path_or_fileobj=b"old", path_in_repo="pytorch_model.bin", repo_id=repo)
    before = head(hub, repo)
    hub.forget_requests()
    if forever:
        done = _push_with_path_failing(hub, soup, repo, kind, n)
    else:
        with fault(hub, skip=n, times=1, **rule(kind)):
            done = run("push", soup, repo)
    after = head(hub, repo)
    where = f"{kind} at {n}, {'forever' if forever else 'once'}: {done.err}"
    assert after == before or (complete(after, soup, repo) and after.commits == before.commits + 1), where
    assert (soup / "model.safetensors").is_file()
    assert "Traceback" not in done.err, where
    if done.code:
        assert done.code == 1, where
        again = re.search(r"hfsoup push (\S+) (\S+)$", done.err.strip())
        assert again, where
        assert run("push", *again.groups()).code == 0, where
        after = head(hub, repo)
    assert complete(after, soup, repo), where
    assert "pytorch_model.bin" not in (after.files or {}), where
    assert after.commits == before.commits + 1, where
    return done


def _push_with_path_failing(hub: LocalHub, soup: Path, repo: str, kind: int | str, n: int) -> Result:
    """Push with everything like request number `n` of a push failing."""
    shape = SHAPES[n]
    with fault(hub, shape[1], method=shape[0], **rule(kind)):
        return run("push", soup, repo)


# The requests of a push by plain HTTP, in order, by what they match; by Xet the first of its own.
SHAPES = (
    ("GET", "^/api/whoami-v2$"),
    ("GET", "/auth-check/write$"),
    ("GET", "^/api/models/[^/]+/[^/]+$"),
    ("POST", "/preupload/"),
    ("POST", "/objects/batch$"),
    ("PUT", "."),
    ("POST", "/lfs/verify/"),
    ("POST", "/validate-yaml$"),
    ("POST", "/commit/"),
)
XET_SHAPE = ("GET", "/xet-write-token/")


@contextmanager
def before_each_request(act: Callable[[int], None]) -> Iterator[list[int]]:
    """Call `act` with the number of every request of this process before it is sent, but not for its own requests."""
    send, own, lock = httpx2.HTTPTransport.handle_request, threading.local(), threading.Lock()
    count = [0]

    def handle(self: httpx2.HTTPTransport, request: httpx2.Request) -> httpx2.Response:
        if not getattr(own, "busy", False):
            with lock:
                own.busy, number = True, count[0]
                count[0] += 1
                try:
                    act(number)
                finally:
                    own.busy = False
        return send(self, request)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(httpx2.HTTPTransport, "handle_request", handle)
        yield count


def mark(folder: Path, version: str, target: Path) -> Path:
    """A copy of a model whose config, processor and weights all say which version they are of."""
    from family import edit_json, put_weights, weights

    shutil.copytree(folder, target)
    edit_json(target / "config.json", version=version)
    edit_json(target / "preprocessor_config.json", version=version)
    tensors = weights(target)
    name = min(tensors)
    tensors[name] = tensors[name] * 0 + int(version)
    put_weights(target, tensors)
    return target


def versions(folder: Path) -> set[str]:
    """The versions that a soup's files are of."""
    from family import weights

    tensors = weights(folder)
    found = {json.loads((folder / n).read_text())["version"] for n in ("config.json", "preprocessor_config.json")}
    return found | {str(int(tensors[min(tensors)].flatten()[0]))}


def timed(*words: object) -> tuple[Result, float]:
    """A command and how long it took."""
    begin = time.monotonic()
    return run(*words), time.monotonic() - begin


def environment(hub: LocalHub, **more: str) -> dict[str, str]:
    """The environment of a process of its own that uses this Hub."""
    return {**os.environ, "HF_ENDPOINT": hub.url, "HF_TOKEN": hub.token, **more}


GUARD = """
import os, socket

def _watch(name):
    real = getattr(socket.socket, name)
    def watched(self, address, *rest):
        _note(address if isinstance(address, tuple) else None)
        return real(self, address, *rest)
    setattr(socket.socket, name, watched)

def _note(address):
    if address and (address[0] not in ("127.0.0.1", "localhost", "::1") or str(address[1]) != os.environ["HUB_PORT"]):
        with open(os.environ["FOREIGN"], "a") as log:
            log.write(f"{address[0]}:{address[1]}\\n")
        raise OSError(101, f"no network in this test: {address}")

def _look_up(host, port, *rest, real=socket.getaddrinfo, **options):
    if host is not None:
        _note((host if isinstance(host, str) else host.decode(), port))
    return real(host, port, *rest, **options)

for name in ("connect", "connect_ex"):
    _watch(name)
socket.getaddrinfo = _look_up
"""


@dataclass(frozen=True)
class Ended:
    """A process that ran to its end."""

    code: int
    out: str
    err: str
    foreign: list[str]


def process(
    hub: LocalHub,
    folder: Path,
    *words: object,
    start: tuple[str, ...] = ("-m", "hfsoup"),
    wait: float = 120,
    **more: str,
) -> Ended:
    """Type `hfsoup WORDS...` in a process of its own, whose sockets, and those of its children, reach the Hub alone."""
    guard, foreign = folder / "guard", folder / "foreign.log"
    guard.mkdir(exist_ok=True)
    (guard / "sitecustomize.py").write_text(GUARD)
    paths = os.pathsep.join([str(guard), *filter(None, [os.environ.get("PYTHONPATH")])])
    own = {"FOREIGN": str(foreign), "HUB_PORT": hub.url.rsplit(":", 1)[1], "PYTHONPATH": paths}
    homes = {"HF_HOME": str(folder / "home"), "HFSOUP_CACHE": str(folder / "cache")}
    env = {name: value for name, value in environment(hub, **own, **homes).items() if name not in SWITCHES}
    command = [sys.executable, *start, *map(str, words)]
    done = subprocess.run(command, cwd=folder, env={**env, **more}, capture_output=True, text=True, timeout=wait)
    return Ended(done.returncode, done.stdout, done.stderr, foreign.read_text().split() if foreign.exists() else [])


# What the tests switch off in their own process, and a process of its own must switch off by itself.
SWITCHES = (
    *("HF_HUB_DISABLE_TELEMETRY", "HF_UPDATE_DOWNLOAD_COUNTS", "DISABLE_SAFETENSORS_CONVERSION"),
    "HF_HUB_DISABLE_PROGRESS_BARS",
)
