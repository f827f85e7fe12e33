"""Whatever the Hub answers, a bake ends right or with one clear block, in time."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from family import Family
from huggingface_hub import HfApi, constants
from misbehave import (
    environment,
    fault,
    forget,
    hurry,
)
from shell import only, refused, run

from hfsoup.localhub import LocalHub

MODEL = "kit/vit-1"


@pytest.fixture(autouse=True)
def _quick(on_hub: LocalHub, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Short waits, and an empty cache before and after."""
    hurry(monkeypatch)
    forget(MODEL)
    yield
    on_hub.clear_faults()
    forget(MODEL)


@pytest.fixture
def api(signed_in: LocalHub) -> HfApi:
    """The Hub's client with the user's token."""
    return HfApi(token=signed_in.token)


REFUSALS = {
    "401": ({"status": 401}, "does not accept your token", "hf auth login"),
    "403": ({"status": 403}, "may not read here", "hf auth login"),
    "404": ({"status": 404, "headers": {"X-Error-Code": "RepoNotFound"}}, "no such repository", "spelling"),
    "disabled": (
        {"status": 403, "headers": {"X-Error-Message": "Access to this resource is disabled."}},
        "disabled this repository",
        f"leave out {MODEL}",
    ),
    "400": ({"status": 400}, "the Hub answered 400: ordered fault", "later"),
    "413": ({"status": 413}, "refuses a request of this size", f"hf upload {MODEL}"),
    "storage": (
        {"status": 403, "headers": {"X-Error-Message": "Private repository storage limit reached"}},
        "may not read here: Private repository storage limit reached",
        "free storage",
    ),
    "sso": (
        {"status": 403, "body": b'{"error": "You must sign in by SSO \\u001b[2J to kit"}'},
        "may not read here: You must sign in by SSO [2J to kit",
        "sign in to the organisation",
    ),
    "review": (
        {
            "status": 403,
            "headers": {"X-Error-Code": "GatedRepo", "X-Error-Message": "Your request is awaiting a review"},
        },
        "gated and you have no access yet: Your request is awaiting a review",
        "wait for its authors",
    ),
    "a page of a proxy": ({"status": 403, "body": b"<html>Forbidden</html>"}, "may not read here\n", "hf auth login"),
    "429": ({"status": 429, "headers": {"Retry-After": "7200"}}, "to wait 2.0 h", "after that"),
    "ratelimit": ({"status": 429, "headers": {"RateLimit": '"api";r=0;t=500'}}, "to wait 8 min", "after that"),
    "500": ({"status": 500}, "the Hub answered 500", "the same command"),
    "503": ({"status": 503}, "the Hub answered 503", "the same command"),
    "cut": ({"cut": 5}, "cannot be reached: the connection to the Hub broke", "network"),
    "stalled": ({"stall": 60.0}, "cannot be reached: the Hub did not answer in time", "network"),
    "dripping": ({"drip": 0.2, "body": b" " * 9000}, "cannot be reached: the Hub did not answer in time", "network"),
    "html": ({"body": b"<html>welcome</html>"}, "not that of a Hub", "HF_ENDPOINT"),
    "empty": ({"body": b""}, "not that of a Hub", "HF_ENDPOINT"),
    "list": ({"body": b"[1, 2]"}, "not that of a Hub", "HF_ENDPOINT"),
    "object": ({"body": b"{}"}, "not that of a Hub", "HF_ENDPOINT"),
    "odd": ({"body": b'{"id": 7, "sha": [], "siblings": 3}'}, "not that of a Hub", "HF_ENDPOINT"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_a_refusal_is_one_clear_block(name: str, signed_in: LocalHub, alone: Path) -> None:
    """Each answer that cannot be helped names the repository, what is wrong and what to do, within seconds."""
    ordered, what, hint = REFUSALS[name]
    with fault(signed_in, f"/api/models/{MODEL}", **ordered):
        begin = time.monotonic()
        block = refused("bake", MODEL, "--output", "soup", code=1)
    assert what in block
    assert hint in block.splitlines()[-1]
    assert MODEL in block
    assert time.monotonic() - begin < 10
    assert list(alone.iterdir()) == []


PASSING = {
    **{str(s): {"status": s, "headers": {"Retry-After": "0"}} for s in (408, 429, 500, 502, 503, 504)},
    "ratelimit": {"status": 429, "headers": {"RateLimit": '"api";r=0;t=0'}},
    "cut": {"cut": 20},
    "stalled": {"stall": 60.0},
    "dropped": {"drop": True},
}


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("name", PASSING)
def test_what_passes_is_waited_for(name: str, method: str, signed_in: LocalHub, alone: Path, vit: Family) -> None:
    """A failure that happens once, at the listing or at a file, is tried again, and the wait is shown."""
    path = f"/{MODEL}/resolve/" if method == "HEAD" else f"/api/models/{MODEL}"
    with fault(signed_in, path, method=method, times=1, **PASSING[name]) as ordered:
        done = run("bake", *only(MODEL, vit.words[1]), "--output", "soup")
    assert done.code == 0, done.err
    assert ordered.hits == 1
    if (name, method) != ("cut", "HEAD"):
        assert "retrying in" in done.err


@pytest.mark.usefixtures("plain_http")
@pytest.mark.parametrize("name", ["500", "503", "429", "cut", "stalled"])
def test_a_download_that_fails_once_goes_on(name: str, signed_in: LocalHub, vit: Family, alone: Path) -> None:
    """Files are asked for again too, also after a 5xx and in the middle, and arrive whole."""
    with fault(signed_in, "/resolve/.*safetensors", method="GET", times=1, **PASSING[name]) as ordered:
        done = run("bake", *only(MODEL, vit.words[1]), "--output", "soup")
    assert done.code == 0, done.err
    assert ordered.hits == 1
    assert "; resuming" in done.err or "; retrying in" in done.err
    assert Path("soup/model.safetensors").read_bytes() == (vit.folders[0] / "model.safetensors").read_bytes()


def test_five_minutes_are_waited_for(signed_in: LocalHub, alone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A window of the Hub's own is slept through, which is shown, and not taken for the end."""
    from hfsoup.hub import retry as patience

    slept: list[float] = []
    monkeypatch.setattr(patience.LIMITS, "longest", patience.Limits().longest)
    monkeypatch.setattr("hfsoup.hub.retry.time.sleep", slept.append)
    asked = {"status": 429, "headers": {"RateLimit": '"api";r=0;t=300'}}
    with fault(signed_in, f"/api/models/{MODEL}", times=1, **asked):
        done = run("bake", *only(MODEL, "kit/vit-10"), "--output", "soup")
    assert (done.code, slept) == (0, [301.0]), done.err
    assert "retrying in 301 s" in done.err


def test_the_users_own_time_outs_hold(signed_in: LocalHub, alone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """HF_HUB_ETAG_TIMEOUT gives a slow Hub more time than hfsoup would."""
    monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 30)
    with fault(signed_in, f"/{MODEL}/resolve/.*/config.json", method="HEAD", times=1, stall=1.5):
        done = run("bake", *only(MODEL, "kit/vit-10"), "--output", "soup")
    assert done.code == 0, done.err
    assert "retrying in" not in done.err


def test_the_programs_client_is_as_it_was(signed_in: LocalHub, alone: Path) -> None:
    """After a bake, and after one that fails, huggingface_hub has the client that it had, which waits as before."""
    import httpx2
    from huggingface_hub import close_session, get_session, set_client_factory

    made: list[httpx2.Client] = []

    def factory() -> httpx2.Client:
        made.append(httpx2.Client(timeout=None, headers={"X-Proxy": "ours"}))
        return made[-1]

    close_session()
    before = get_session()
    try:
        assert run("bake", *only(MODEL, "kit/vit-10"), "--output", "soup").code == 0
        assert run("bake", "kit/no-such", "--output", "none").code == 1
        assert get_session() is before
        assert "send" not in vars(before)
        set_client_factory(factory)
        forget(MODEL)
        assert run("bake", *only(MODEL, "kit/vit-10"), "--output", "again").code == 0
        assert [get_session()] == made
        assert "send" not in vars(made[0])
    finally:
        set_client_factory(lambda: httpx2.Client(follow_redirects=True, timeout=None, event_hooks=before.event_hooks))


def test_without_a_token_a_login_is_offered(on_hub: LocalHub, alone: Path) -> None:
    """401 for somebody unknown says so."""
    with fault(on_hub, f"/api/models/{MODEL}", status=401):
        block = refused("bake", MODEL, "--output", "soup", code=1)
    assert "this request needs a token" in block
    assert "hf auth login" in block


def test_a_gated_repository(signed_in: LocalHub, api: HfApi, vit: Family, alone: Path, monkeypatch: Any) -> None:
    """Where the licence is to be accepted is told, once for the anonymous and once for who has no access."""
    api.create_repo("kit/gated", exist_ok=True)
    api.upload_folder(repo_id="kit/gated", folder_path=vit.folders[0])
    api.update_repo_settings("kit/gated", gated="manual")
    for token in (signed_in.add_user("stranger"), None):
        monkeypatch.setenv("HF_TOKEN", token) if token else monkeypatch.delenv("HF_TOKEN")
        block = refused("bake", "kit/gated", "--output", "soup", code=1)
        assert "gated" in block
        assert f"accept the licence at {signed_in.url}/kit/gated" in block
        assert ("hf auth login" in block) == (token is None)
    api.delete_repo("kit/gated")


def test_a_renamed_repository_goes_by_both_names(signed_in: LocalHub, api: HfApi, vit: Family, alone: Path) -> None:
    """The user is told of the new name, which is the one that is recorded."""
    api.create_repo("kit/before")
    api.upload_folder(repo_id="kit/before", folder_path=vit.folders[0])
    api.move_repo("kit/before", "kit/after")
    done = run("bake", "kit/before", vit.words[1], "--output", "soup", "--json", "-")
    api.delete_repo("kit/after")
    assert "kit/before is now called kit/after" in done.err
    assert [i["id"] for i in done.json["ingredients"]] == ["kit/after", vit.words[1]]
    assert "kit/before" in Path("soup/soup.json").read_text()


def test_a_repository_deleted_meanwhile(signed_in: LocalHub, alone: Path) -> None:
    """A 404 for what was listed a moment ago says that, not that the name is wrong."""
    with fault(signed_in, f"/{MODEL}/resolve/", status=404, headers={"X-Error-Code": "RepoNotFound"}):
        block = refused("bake", MODEL, "--output", "soup", code=1)
    assert "deleted or made private in the meantime" in block
    assert MODEL in block


def test_a_file_deleted_meanwhile(signed_in: LocalHub, alone: Path, vit: Family) -> None:
    """A listed file that is not there is named."""
    forget(MODEL)
    gone = {"status": 404, "headers": {"X-Error-Code": "EntryNotFound"}}
    with fault(signed_in, "/resolve/.*preprocessor_config", **gone):
        block = refused("bake", *only(MODEL, vit.words[1]), "--output", "soup", code=1)
    assert "a file of the listing no longer exists" in block
    assert "preprocessor_config.json" in block


@pytest.mark.parametrize(
    ("endpoint", "what"),
    [("http://127.0.0.1:1", "nothing listens at"), ("http://no-such-host.invalid", "there is no host no-such-host")],
)
def test_a_hub_that_is_not_there(endpoint: str, what: str, signed_in: LocalHub, alone: Path, monkeypatch: Any) -> None:
    """A refused connection and an unknown host are told apart, with HF_ENDPOINT as the place to look."""
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    block = refused("bake", MODEL, "--output", "soup", code=1)
    assert what in block
    assert "HF_ENDPOINT" in block


def test_offline(signed_in: LocalHub, alone: Path, monkeypatch: Any) -> None:
    """In offline mode the Hub is not asked, and the error says which switch it is."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    signed_in.forget_requests()
    block = refused("bake", MODEL, "--output", "soup", code=1)
    assert "HF_HUB_OFFLINE=0" in block
    assert signed_in.requests == []


def test_real_time_outs_add_up_to_less_than_two_minutes() -> None:
    """The tries of one request, and the waits between, end within 120 s; so do those of a commit."""
    from hfsoup.hub.push import MAX_TRIES
    from hfsoup.hub.retry import Limits

    usual = Limits()
    waits = sum(usual.first * 2**n for n in range(usual.tries - 1))
    assert usual.tries * usual.read + waits < 120
    assert MAX_TRIES * 2 * usual.read + waits < 120
    assert constants.HF_HUB_DOWNLOAD_TIMEOUT * 6 + 6 < 120
    assert usual.window * 6 + 6 < 120
    assert usual.silence + constants.HF_HUB_DOWNLOAD_TIMEOUT * 6 + 6 < 120


@pytest.mark.parametrize("path", ["/api/models/", "/resolve/.*/config.json", "/resolve/.*safetensors"])
def test_ctrl_c_during_a_stall(path: str, on_hub: LocalHub, vit: Family, alone: Path) -> None:
    """A process that waits for a silent Hub ends within 5 s of Ctrl-C, with code 130 and nothing left behind."""
    on_hub.forget_requests()
    method = "GET" if "api" in path else "HEAD"
    with fault(on_hub, path, method=method, stall=120.0) as silent:
        words = [sys.executable, "-m", "hfsoup", "bake", MODEL, vit.words[1], "--output", "soup"]
        env = environment(on_hub, HF_HOME=str(alone / "home"))
        process = subprocess.Popen(words, env=env, stderr=subprocess.PIPE, text=True)
        while silent.hits == 0 and process.poll() is None:
            time.sleep(0.05)
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        begin = time.monotonic()
        try:
            err = process.communicate(timeout=20)[1]
        finally:
            process.kill()
        assert time.monotonic() - begin < 5
    assert process.returncode == 130
    assert "interrupted" in err
    assert "Traceback" not in err
    assert not Path("soup").exists()
