"""Two hosts, each with a network of its own, by torchrun: with one disk for HF_HOME, and with a disk each."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import pytest
from shell import bake

from hfsoup.localhub import LocalHub

COUNT = count()
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


class Network(NamedTuple):
    """Two hosts: how to run a command on the second, the first one's address, and the device of each."""

    inside: list[str]
    address: str
    devices: tuple[str, str]


@pytest.fixture
def network() -> Iterator[Network]:
    """The second host reaches the first one and nothing else.

    Addresses are this test's own: a killed run leaves its devices, and theirs would take the same packets.
    """
    unique = f"{os.getpid()}{next(COUNT)}"
    name, ours, theirs = f"hfsoup{unique}", f"a{unique}", f"b{unique}"
    block = 4 * (int(unique) % (1 << 14))
    first, second = (f"10.213.{block >> 8}.{(block & 255) + n}" for n in (1, 2))
    try:
        ip("netns", "add", name)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("a second network needs root and iproute2")
    try:
        ip("link", "add", ours, "type", "veth", "peer", "name", theirs, "netns", name)
        ip("addr", "add", f"{first}/30", "dev", ours)
        ip("link", "set", ours, "up")
        ip("-n", name, "addr", "add", f"{second}/30", "dev", theirs)
        for device in ("lo", theirs):
            ip("-n", name, "link", "set", device, "up")
        yield Network(["ip", "netns", "exec", name], first, (ours, theirs))
    finally:
        # A network lives as long as a process in it.
        inside = subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True).stdout.split()
        for process in inside:
            with suppress(ProcessLookupError):
                os.kill(int(process), signal.SIGKILL)
        ip("netns", "del", name)


def find_port(address: str) -> int:
    with socket.socket() as server:
        server.bind((address, 0))
        return int(server.getsockname()[1])


@contextmanager
def reachable(hub: LocalHub, network: Network) -> Iterator[None]:
    """The Hub's address leads to it on the second host too."""
    port, outer = urlsplit(hub.url).port, find_port(network.address)
    scope: dict[str, object] = {}
    exec(RELAY, scope)
    relay = scope["relay"]
    assert callable(relay)
    threading.Thread(target=relay, args=((network.address, outer), ("127.0.0.1", port)), daemon=True).start()
    code = f"{RELAY}\nrelay(('127.0.0.1', {port}), ({network.address!r}, {outer}))"
    process = subprocess.Popen([*network.inside, sys.executable, "-c", code])
    try:
        yield
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("shared", [True, False], ids=["one disk", "a disk each"])
def test_two_hosts_bake_what_one_process_bakes(
    shared: bool, on_hub: LocalHub, network: Network, alone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same decisions and bytes; a host pulls for itself exactly where it does not see the other's files."""
    monkeypatch.setenv("HF_TOKEN", on_hub.token)
    words = ["bake", "kit/vit-1", "kit/vit-2", "kit/vit-3", "--dataset", "kit/shapes", "--batch-size", "7", "--shifts"]
    one = bake(*words[1:], "--output", "one")
    on_hub.forget_requests()
    port = find_port(network.address)
    home, running = alone / "home", []
    home.mkdir()
    # Another file system in the place of HF_HOME, for the processes of the second host alone.
    own = ["unshare", "--mount", "sh", "-c", f'mount -t tmpfs tmpfs {home} && exec "$@"', "sh"]
    with reachable(on_hub, network):
        for rank, before in ((1, network.inside if shared else [*network.inside, *own]), (0, [])):
            (alone / f"host-{rank}").mkdir()
            launch = ["-m", "torch.distributed.run", "--nnodes=2", f"--node_rank={rank}", "--nproc_per_node=1"]
            launch += [f"--master_addr={network.address}", f"--master_port={port}", "-m", "hfsoup"]
            env = os.environ | {"HF_HOME": str(home), "HF_ENDPOINT": on_hub.url, "HF_HUB_CACHE": str(home / "hub")}
            env |= {"HFSOUP_CACHE": str(home / "hfsoup"), "HF_DATASETS_CACHE": str(home / "datasets")}
            env["GLOO_SOCKET_IFNAME"] = network.devices[rank]
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
