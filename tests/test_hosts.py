"""Two hosts, each with a network of its own, by torchrun: with one disk for HF_HOME, and with a disk each."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from shell import bake

from hfsoup.localhub import LocalHub

COUNT = count()
FIRST, SECOND = "10.213.71.1", "10.213.71.2"
RELAY = """
import socket, sys, threading
def pump(source, target):
    while data := source.recv(65536):
        target.sendall(data)
    target.shutdown(socket.SHUT_WR)
def relay(here, there):
    with socket.create_server(here) as server:
        while True:
            client = server.accept()[0]
            other = socket.create_connection(there)
            for pair in ((client, other), (other, client)):
                threading.Thread(target=pump, args=pair, daemon=True).start()
"""


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@pytest.fixture
def network() -> Iterator[tuple[list[str], str]]:
    """How to run a command on the second host, and the end of the devices' names.

    Its network reaches the first host and nothing else.
    """
    unique = f"{os.getpid()}{next(COUNT)}"
    name, ours, theirs = f"hfsoup{unique}", f"a{unique}", f"b{unique}"
    try:
        ip("netns", "add", name)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("a second network needs root and iproute2")
    try:
        ip("link", "add", ours, "type", "veth", "peer", "name", theirs, "netns", name)
        ip("addr", "add", f"{FIRST}/24", "dev", ours)
        ip("link", "set", ours, "up")
        ip("-n", name, "addr", "add", f"{SECOND}/24", "dev", theirs)
        for device in ("lo", theirs):
            ip("-n", name, "link", "set", device, "up")
        yield ["ip", "netns", "exec", name], unique
    finally:
        ip("netns", "del", name)


def find_port() -> int:
    with socket.socket() as server:
        server.bind((FIRST, 0))
        return int(server.getsockname()[1])


@contextmanager
def reachable(hub: LocalHub, inside: list[str]) -> Iterator[None]:
    """The Hub's address leads to it on the second host too."""
    port, outer = urlsplit(hub.url).port, find_port()
    scope: dict[str, object] = {}
    exec(RELAY, scope)
    relay = scope["relay"]
    assert callable(relay)
    threading.Thread(target=relay, args=((FIRST, outer), ("127.0.0.1", port)), daemon=True).start()
    code = f"{RELAY}\nrelay(('127.0.0.1', {port}), ({FIRST!r}, {outer}))"
    process = subprocess.Popen([*inside, sys.executable, "-c", code])
    try:
        yield
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("shared", [True, False], ids=["one disk", "a disk each"])
def test_two_hosts_bake_what_one_process_bakes(
    shared: bool, on_hub: LocalHub, network: tuple[list[str], str], alone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same decisions and bytes; a host pulls for itself exactly where it does not see the other's files."""
    inside, unique = network
    monkeypatch.setenv("HF_TOKEN", on_hub.token)
    words = ["bake", "kit/vit-1", "kit/vit-2", "kit/vit-3", "--dataset", "kit/shapes", "--batch-size", "7", "--shifts"]
    one = bake(*words[1:], "--output", "one")
    on_hub.forget_requests()
    port = find_port()
    home, running = alone / "home", []
    home.mkdir()
    # Another file system in the place of HF_HOME, for the processes of the second host alone.
    own = ["unshare", "--mount", "sh", "-c", f'mount -t tmpfs tmpfs {home} && exec "$@"', "sh"]
    with reachable(on_hub, inside):
        for rank, before in ((1, inside if shared else [*inside, *own]), (0, [])):
            (alone / f"host-{rank}").mkdir()
            launch = ["-m", "torch.distributed.run", "--nnodes=2", f"--node_rank={rank}", "--nproc_per_node=1"]
            launch += [f"--master_addr={FIRST}", f"--master_port={port}", "-m", "hfsoup"]
            env = os.environ | {"HF_HOME": str(home), "HF_ENDPOINT": on_hub.url, "HF_HUB_CACHE": str(home / "hub")}
            env |= {"HFSOUP_CACHE": str(home / "hfsoup"), "HF_DATASETS_CACHE": str(home / "datasets")}
            env["GLOO_SOCKET_IFNAME"] = f"{'ab'[rank]}{unique}"
            running.append(
                subprocess.Popen(
                    [*before, sys.executable, *launch, *words, "--output", "two", "--json", "-"],
                    env=env, cwd=alone / f"host-{rank}", text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                )
            )  # fmt: skip
        try:
            outputs = [process.communicate(timeout=120) for process in reversed(running)][::-1]
        finally:
            for process in running:
                process.kill()
    (_, second), (first, errors) = outputs
    assert [process.returncode for process in running] == [0, 0], errors + second
    two = json.loads(first)
    assert two["trace"] == one["trace"]
    assert two["comparison"] == one["comparison"]
    assert {**two["soup"], "path": "one"} == one["soup"]
    assert (alone / "host-0/two/model.safetensors").read_bytes() == Path("one/model.safetensors").read_bytes()
    assert not (alone / "host-1/two").exists()
    heads = [r for r in on_hub.requests if r.path == "/api/models/kit/vit-1"]
    assert len(heads) == (1 if shared else 2)
