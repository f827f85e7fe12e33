"""Whatever the Hub does, a bake ends right or with one clear block, and a push is complete or absent."""

from __future__ import annotations

import json
import random
import shutil
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
    KINDS,
    SHAPES,
    before_each_request,
    blobs,
    complete,
    environment,
    fault,
    flip,
    forget,
    head,
    hurry,
    mark,
    push_survives,
    timed,
    versions,
)
from shell import bake, refused, run

from hfsoup.localhub import LocalHub

MODEL = "kit/vit-1"
FILES = ("config.json", "model.safetensors", "preprocessor_config.json", "README.md")
SEEDED = random.Random(7)


@pytest.fixture(autouse=True)
def _quick(on_hub: LocalHub, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Short waits, and an empty cache before and after."""
    hurry(monkeypatch)
    forget(MODEL)
    yield
    on_hub.clear_faults()
    forget(MODEL)


@pytest.fixture(scope="module")
def soup(vit: Family, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A baked folder."""
    folder = tmp_path_factory.mktemp("soup") / "soup"
    bake(*vit.words, "--output", folder)
    return folder


@pytest.fixture
def api(signed_in: LocalHub) -> HfApi:
    """The Hub's client with the user's token."""
    return HfApi(token=signed_in.token)


@pytest.fixture
def target(api: HfApi) -> Iterator[str]:
    """A repository that is gone after the test."""
    api.create_repo("kit/target")
    yield "kit/target"
    api.delete_repo("kit/target", missing_ok=True)


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
    "413": ({"status": 413}, "more than the Hub takes", "upload"),
    "429": ({"status": 429, "headers": {"Retry-After": "7200"}}, "to wait 2.0 h", "after that"),
    "ratelimit": ({"status": 429, "headers": {"RateLimit": '"api";r=0;t=500'}}, "to wait 8 min", "after that"),
    "500": ({"status": 500}, "the Hub answered 500", "the same command"),
    "503": ({"status": 503}, "the Hub answered 503", "the same command"),
    "cut": ({"cut": 5}, "cannot be reached: the connection to the Hub broke", "network"),
    "stalled": ({"stall": 60.0}, "cannot be reached: the Hub did not answer in time", "network"),
    "dripping": ({"drip": 0.2, "body": b" " * 9000}, "cannot be reached: the Hub did not answer in time", "network"),
    "html": ({"body": b"<html>welcome</html>"}, "not one that a Hub gives", "HF_ENDPOINT"),
    "empty": ({"body": b""}, "not one that a Hub gives", "HF_ENDPOINT"),
    "list": ({"body": b"[1, 2]"}, "not one that a Hub gives", "HF_ENDPOINT"),
    "object": ({"body": b"{}"}, "not one that a Hub gives", "HF_ENDPOINT"),
    "odd": ({"body": b'{"id": 7, "sha": [], "siblings": 3}'}, "not one that a Hub gives", "HF_ENDPOINT"),
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
def test_what_passes_is_waited_for(name: str, method: str, signed_in: LocalHub, alone: Path) -> None:
    """A failure that happens once, at the listing or at a file, is tried again, and the wait is shown."""
    path = f"/{MODEL}/resolve/" if method == "HEAD" else f"/api/models/{MODEL}"
    with fault(signed_in, path, method=method, times=1, **PASSING[name]) as ordered:
        done = run("bake", MODEL, "--output", "soup")
    assert done.code == 0, done.err
    assert ordered.hits == 1
    if (name, method) != ("cut", "HEAD"):
        assert "again in" in done.err


@pytest.mark.parametrize("name", ["500", "503", "429", "cut", "stalled"])
def test_a_download_that_fails_once_goes_on(name: str, signed_in: LocalHub, vit: Family, alone: Path) -> None:
    """Files are asked for again too, also after a 5xx and in the middle, and arrive whole."""
    with fault(signed_in, "/resolve/.*safetensors", method="GET", times=1, **PASSING[name]) as ordered:
        done = run("bake", MODEL, "--output", "soup")
    assert done.code == 0, done.err
    assert ordered.hits == 1
    assert "; going on" in done.err or "; again in" in done.err
    assert Path("soup/model.safetensors").read_bytes() == (vit.folders[0] / "model.safetensors").read_bytes()


def test_without_a_token_a_login_is_offered(on_hub: LocalHub, alone: Path) -> None:
    """401 for somebody unknown says so."""
    with fault(on_hub, f"/api/models/{MODEL}", status=401):
        block = refused("bake", MODEL, "--output", "soup", code=1)
    assert "wants to know who asks" in block
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
    done = run("bake", "kit/before", "--output", "soup", "--json", "-")
    api.delete_repo("kit/after")
    assert "kit/before is now called kit/after" in done.err
    assert [i["id"] for i in done.json["ingredients"]] == ["kit/after"]
    assert "kit/before" in Path("soup/soup.json").read_text()


def test_a_repository_deleted_meanwhile(signed_in: LocalHub, alone: Path) -> None:
    """A 404 for what was listed a moment ago says that, not that the name is wrong."""
    with fault(signed_in, f"/{MODEL}/resolve/", status=404, headers={"X-Error-Code": "RepoNotFound"}):
        block = refused("bake", MODEL, "--output", "soup", code=1)
    assert "deleted or hidden meanwhile" in block
    assert MODEL in block


def test_a_file_deleted_meanwhile(signed_in: LocalHub, alone: Path) -> None:
    """A listed file that is not there is named."""
    gone = {"status": 404, "headers": {"X-Error-Code": "EntryNotFound"}}
    with fault(signed_in, "/resolve/.*preprocessor_config", **gone):
        block = refused("bake", MODEL, "--output", "soup", code=1)
    assert "a file that the listing named is not there" in block
    assert "preprocessor_config.json" in block


@pytest.mark.parametrize("file", FILES)
def test_a_flip_on_the_server_is_caught(file: str, signed_in: LocalHub, vit: Family, alone: Path) -> None:
    """One wrong byte, once, is fetched again and costs a note; for good, it is an error that names the file."""
    sent = bytearray((vit.folders[0] / file).read_bytes())
    sent[len(sent) // 2] ^= 4
    with fault(signed_in, f"/resolve/.*/{file}", method="GET", times=1, body=bytes(sent)):
        done = run("bake", MODEL, "--output", "soup")
    assert done.code == 0, done.err
    assert "is not the file that the Hub lists; it is fetched again" in done.err
    forget(MODEL)
    with fault(signed_in, f"/resolve/.*/{file}", method="GET", body=bytes(sent)):
        block = refused("bake", MODEL, "--output", "again", code=1)
    assert "is not the one the Hub lists" in block
    assert file in block
    assert run("bake", MODEL, "--output", "again").code == 0


@pytest.mark.parametrize("file", FILES)
def test_a_flip_in_the_cache_is_caught(file: str, signed_in: LocalHub, vit: Family, alone: Path) -> None:
    """A cached file with one other bit, of the same length, goes and is fetched again."""
    assert run("bake", MODEL, "--output", "soup").code == 0
    right = blobs(MODEL)[file].read_bytes()
    flip(blobs(MODEL)[file], SEEDED)
    done = run("bake", MODEL, "--output", "again")
    assert done.code == 0, done.err
    (note,) = (line for line in done.err.splitlines() if "on this disk is not the file that the Hub lists" in line)
    assert file in note
    assert blobs(MODEL)[file].read_bytes() == right
    assert Path("again/model.safetensors").read_bytes() == Path("soup/model.safetensors").read_bytes()


def test_a_wrong_length_is_caught(signed_in: LocalHub, alone: Path) -> None:
    """A file shorter than announced is not used."""
    with fault(signed_in, "/resolve/.*safetensors", method="GET", body=b"short"):
        block = refused("bake", MODEL, "--output", "soup", code=1)
    assert "has not the length that was announced" in block
    assert "model.safetensors" in block


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "..\\evil", "a/../evil", "a//evil", ".", "x\n.json", ""])
def test_a_hostile_name_in_a_listing_is_not_used(name: str, signed_in: LocalHub, alone: Path) -> None:
    """Only plain names of the repository are asked for and written."""
    info = _info(signed_in)
    info["siblings"].append({**info["siblings"][0], "rfilename": name})
    before = _outside()
    signed_in.forget_requests()
    with fault(signed_in, f"/api/models/{MODEL}", body=json.dumps(info).encode()):
        assert run("bake", MODEL, "--output", "soup").code == 0
    asked = {seen.path.rsplit("/", 1)[1] for seen in signed_in.requests if "/resolve/" in seen.path}
    assert asked == set(FILES)
    assert _outside() == before


@pytest.mark.parametrize("header", ["ETag", "X-Linked-Etag", "X-Repo-Commit"])
def test_a_hostile_header_writes_nothing_outside_the_cache(header: str, signed_in: LocalHub, alone: Path) -> None:
    """The headers that become file names cannot lead elsewhere."""
    before = _outside()
    with fault(signed_in, "/resolve/", headers={header: '"../../../../evil"'}):
        block = refused("bake", MODEL, "--output", "soup", code=1)
    assert "leads out of the cache" in block
    assert _outside() == before


def test_a_listing_without_hashes_is_refused(signed_in: LocalHub, alone: Path) -> None:
    """What cannot be compared is not pulled."""
    info = _info(signed_in)
    for sibling in info["siblings"]:
        sibling.pop("lfs", None)
        sibling["blobId"] = None
    with fault(signed_in, f"/api/models/{MODEL}", body=json.dumps(info).encode()):
        assert "no hash of" in refused("bake", MODEL, "--output", "soup", code=1)


@pytest.mark.parametrize("commit", ["main", "../../x", "", "0" * 39])
def test_a_commit_that_is_none_is_refused(commit: str, signed_in: LocalHub, alone: Path) -> None:
    """A listing must pin: a branch's name or a path in the commit's place is refused."""
    body = json.dumps({**_info(signed_in), "sha": commit}).encode()
    with fault(signed_in, f"/api/models/{MODEL}", body=body):
        assert "expected a name and a commit" in refused("bake", MODEL, "--output", "soup", code=1)


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


def test_one_commit_per_ingredient(on_hub: LocalHub, api: HfApi, vit: Family, alone: Path) -> None:
    """A push to the ingredient's branch before any one request leaves config, processor and weights of one commit."""
    kept = [mark(vit.folders[0], version, alone / f"v{version}") for version in ("1", "2")]
    api.create_repo("kit/moves", exist_ok=True)
    number, count = 0, [1]
    while number < count[0]:
        api.upload_folder(repo_id="kit/moves", folder_path=kept[0])
        forget("kit/moves")

        def move(n: int, number: int = number) -> None:
            if n == number:
                api.upload_folder(repo_id="kit/moves", folder_path=kept[1])

        with before_each_request(move) as count:
            bake("kit/moves", "--output", f"soup{number}")
        assert versions(Path(f"soup{number}")) == ({"2"} if number == 0 else {"1"})
        number += 1
    assert number >= 9
    api.delete_repo("kit/moves")


SAMPLE = SEEDED.sample([(n, kind) for n in range(len(SHAPES)) for kind in KINDS], 6)


@pytest.mark.parametrize(("n", "kind"), [*SAMPLE, (9, "dropped"), (8, "dropped"), (9, 504)])
def test_a_push_is_complete_or_absent(n: int, kind: int | str, soup: Path, signed_in: LocalHub) -> None:
    """Request n of a push fails once: the head is old or complete, and the command that the error ends with works."""
    push_survives(signed_in, soup, "kit/matrix", kind, min(n, 9), forever=False)


@pytest.mark.parametrize("status", [412, 413, 500])
def test_a_commit_that_is_refused_for_good(status: int, soup: Path, signed_in: LocalHub) -> None:
    """The head is as it was, and the command that the error ends with works later."""
    done = push_survives(signed_in, soup, "kit/matrix", status, len(SHAPES) - 1, forever=True)
    assert done.code == 1
    assert ("--create-pr" in done.err) == (status == 412)


def test_a_commit_whose_answer_is_lost_is_made_once(soup: Path, signed_in: LocalHub, target: str) -> None:
    """It is looked for on the Hub before it is tried again, and reported as what it is: done."""
    before = head(signed_in, target)
    with fault(signed_in, "/commit/", drop=True) as lost:
        done = run("push", soup, target, "--json", "-")
    assert done.code == 0, done.err
    assert lost.hits == 1
    after = head(signed_in, target)
    assert complete(after, soup)
    assert after.commits == before.commits + 1
    assert done.json["commit"] == HfApi().model_info(target).sha


def test_a_lost_answer_below_somebody_elses_commit(soup: Path, signed_in: LocalHub, target: str, api: HfApi) -> None:
    """A commit of ours that somebody built upon meanwhile is found too."""

    def theirs(n: int) -> None:
        if complete(head(signed_in, target), soup) and api.model_info(target).siblings[-1].rfilename != "zzz":
            api.upload_file(path_or_fileobj=b"theirs", path_in_repo="zzz", repo_id=target)

    with fault(signed_in, "/commit/", drop=True, times=1), before_each_request(theirs):
        done = run("push", soup, target, "--json", "-")
    assert done.code == 0, done.err
    commits = [c.commit_id for c in api.list_repo_commits(target)]
    assert done.json["commit"] == commits[1]


def test_a_pull_request_whose_answer_is_lost_is_made_once(
    soup: Path, signed_in: LocalHub, target: str, api: HfApi
) -> None:
    """A pull request that was opened is found, not opened twice."""
    with fault(signed_in, "/commit/", drop=True):
        done = run("push", soup, target, "--create-pr", "--json", "-")
    assert done.code == 0, done.err
    (only,) = api.get_repo_discussions(target)
    assert done.json["url"].endswith(f"/{target}/discussions/{only.num}")


def test_a_failed_pull_request_is_repeated_by_its_hint(soup: Path, signed_in: LocalHub, target: str) -> None:
    """The command that continues has the options of the one that failed."""
    with fault(signed_in, "/commit/", status=500):
        block = refused("push", soup, target, "--create-pr", code=1)
    assert block.strip().endswith(f"hfsoup push {soup} {target} --create-pr")


def test_somebody_elses_push_is_not_overwritten(soup: Path, signed_in: LocalHub, target: str, api: HfApi) -> None:
    """A commit after ours began is kept, and --create-pr is offered."""

    def theirs(n: int) -> None:
        if any("/preupload/" in seen.path for seen in signed_in.requests) and "theirs" not in api.list_repo_files(
            target
        ):
            api.upload_file(path_or_fileobj=b"theirs", path_in_repo="theirs", repo_id=target)

    signed_in.forget_requests()
    with before_each_request(theirs):
        block = refused("push", soup, target, code=1)
    assert "changed in the meantime" in block
    assert "--create-pr" in block
    assert "theirs" in api.list_repo_files(target)
    assert "config.json" not in api.list_repo_files(target)


def test_a_gitignore_that_keeps_files_out_is_told(soup: Path, signed_in: LocalHub, target: str, api: HfApi) -> None:
    """A repository whose .gitignore would drop files gets no half soup."""
    api.upload_file(path_or_fileobj=b"*.json\n", path_in_repo=".gitignore", repo_id=target)
    before = head(signed_in, target)
    block = refused("push", soup, target, code=1)
    assert ".gitignore keeps out config.json" in block
    assert head(signed_in, target) == before


def test_a_card_that_the_hub_does_not_take(soup: Path, signed_in: LocalHub, target: str, alone: Path) -> None:
    """A card whose metadata is no YAML is named as what is wrong, and nothing is pushed."""
    shutil.copytree(soup, "edited")
    Path("edited/README.md").write_text("---\nlicense: [\n---\n")
    before = head(signed_in, target)
    block = refused("push", "edited", target, code=1)
    assert "does not take the card" in block
    assert "edited/README.md" in block
    assert head(signed_in, target) == before


def test_a_bake_whose_push_fails_leaves_the_folder(vit: Family, signed_in: LocalHub, target: str, alone: Path) -> None:
    """The error of `bake --push` ends with the `hfsoup push` line that continues, and that works."""
    with fault(signed_in, "/commit/", status=503):
        block = refused("bake", *vit.words, "--output", "my soup", "--push", target, code=1)
    assert block.strip().endswith(f"hfsoup push 'my soup' {target}")
    assert run("push", "my soup", target).code == 0
    assert complete(head(signed_in, target), Path("my soup"))


@pytest.mark.parametrize(
    ("repo", "what"), [("stranger/soup", "may not push to stranger"), ("soup", "expected ORG/NAME")]
)
def test_no_right_to_push_is_told_before_any_work(repo: str, what: str, signed_in: LocalHub, alone: Path) -> None:
    """A namespace of somebody else's is refused before anything is pulled."""
    signed_in.forget_requests()
    assert what in refused("bake", MODEL, "--push", repo, "--output", "soup", code=1)
    assert [seen for seen in signed_in.requests if MODEL in seen.path] == []


def test_a_token_that_may_only_read_is_told_before_any_work(signed_in: LocalHub, alone: Path, monkeypatch: Any) -> None:
    """So is a token without the right to write."""
    monkeypatch.setenv("HF_TOKEN", signed_in.add_user("kit", role="read"))
    assert "may only read" in refused("bake", MODEL, "--push", "kit/new", "--output", "soup", code=1)


def test_an_existing_repository_of_somebody_else(
    signed_in: LocalHub, target: str, alone: Path, monkeypatch: Any
) -> None:
    """A repository that may be read but not written to is refused before any work; a pull request to it is not."""
    monkeypatch.setenv("HF_TOKEN", signed_in.add_user("visitor"))
    assert "may not push" in refused("bake", MODEL, "--push", target, "--output", "soup", code=1)
    assert bake(MODEL, "--push", target, "--output", "soup", "--create-pr")["pushed"]["repo"] == target


@pytest.mark.parametrize("n", SEEDED.sample(range(10), 2))
def test_a_stall_ends(n: int, soup: Path, signed_in: LocalHub, target: str) -> None:
    """A Hub that goes silent at a request of a push ends it in time: four short time-outs here, under 120 s in life."""
    shape = SHAPES[min(n, len(SHAPES) - 1)]
    with fault(signed_in, shape[1], method=shape[0], stall=60.0):
        done, seconds = timed("push", soup, target)
    assert (done.code, "did not answer in time" in done.err) == (1, True), done.err
    assert seconds < 8


def test_real_time_outs_add_up_to_less_than_two_minutes() -> None:
    """The tries of one request, and the waits between, end within 120 s; so do those of a commit."""
    from hfsoup.patience import Limits
    from hfsoup.push import TRIES

    usual = Limits()
    waits = sum(usual.first * 2**n for n in range(usual.tries - 1))
    assert usual.tries * usual.read + waits < 120
    assert TRIES * 2 * usual.read + waits < 120
    assert constants.HF_HUB_DOWNLOAD_TIMEOUT * 6 + 6 < 120
    assert usual.window * 6 + 6 < 120


@pytest.mark.parametrize("path", ["/api/models/", "/resolve/.*/config.json", "/resolve/.*safetensors"])
def test_ctrl_c_during_a_stall(path: str, on_hub: LocalHub, alone: Path) -> None:
    """A process that waits for a silent Hub ends within 5 s of Ctrl-C, with code 130 and nothing left behind."""
    on_hub.forget_requests()
    method = "GET" if "api" in path else "HEAD"
    with fault(on_hub, path, method=method, stall=120.0) as silent:
        words = [sys.executable, "-m", "hfsoup", "bake", MODEL, "--output", "soup"]
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


def _info(hub: LocalHub) -> dict[str, Any]:
    import httpx2

    found: dict[str, Any] = httpx2.get(f"{hub.url}/api/models/{MODEL}?blobs=true").json()
    return found


def _outside() -> set[Path]:
    """Files named evil anywhere near the cache."""
    return set(Path(constants.HF_HOME).parent.rglob("*evil*"))
