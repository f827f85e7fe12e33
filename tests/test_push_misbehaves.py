"""A push is complete or absent, whatever the Hub does, and its error says how to go on."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from family import Family
from huggingface_hub import HfApi
from misbehave import (
    KINDS,
    SHAPES,
    before_each_request,
    complete,
    fault,
    forget,
    head,
    hurry,
    push_survives,
    timed,
)
from shell import bake, only, refused, run

from hfsoup.localhub import LocalHub

MODEL = "kit/vit-1"
SEEDED = random.Random(7)


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


@pytest.fixture
def target(api: HfApi) -> Iterator[str]:
    """A repository that is gone after the test."""
    api.create_repo("kit/target")
    yield "kit/target"
    api.delete_repo("kit/target", missing_ok=True)


@pytest.fixture(scope="module")
def soup(vit: Family, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A baked folder."""
    folder = tmp_path_factory.mktemp("soup") / "soup"
    bake(*vit.words, "--output", folder)
    return folder


SAMPLE = SEEDED.sample([(n, kind) for n in range(len(SHAPES)) for kind in KINDS], 6)


@pytest.mark.usefixtures("plain_http")
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
    assert complete(after, soup, target)
    assert after.commits == before.commits + 1
    assert done.json["commit"] == HfApi().model_info(target).sha


def test_a_lost_answer_below_somebody_elses_commit(soup: Path, signed_in: LocalHub, target: str, api: HfApi) -> None:
    """A commit of ours that somebody built upon meanwhile is found too."""

    def theirs(n: int) -> None:
        if complete(head(signed_in, target), soup, target) and api.model_info(target).siblings[-1].rfilename != "zzz":
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


def test_a_gitignore_keeps_nothing_out(soup: Path, signed_in: LocalHub, target: str, api: HfApi) -> None:
    """A repository whose .gitignore would drop files of a push gets the whole soup."""
    api.upload_file(path_or_fileobj=b"*.json\n*.safetensors\n", path_in_repo=".gitignore", repo_id=target)
    assert run("push", soup, target).code == 0
    assert complete(head(signed_in, target), soup, target)


def test_a_card_that_the_hub_does_not_take(soup: Path, signed_in: LocalHub, target: str, alone: Path) -> None:
    """A card whose metadata is no YAML is named as what is wrong, and nothing is pushed."""
    shutil.copytree(soup, "edited")
    Path("edited/README.md").write_text("---\nlicense: [\n---\n")
    before = head(signed_in, target)
    block = refused("push", "edited", target, code=1)
    assert "refuses the card" in block
    assert "edited/README.md" in block
    assert head(signed_in, target) == before


def test_a_bake_whose_push_fails_leaves_the_folder(vit: Family, signed_in: LocalHub, target: str, alone: Path) -> None:
    """The error of `bake --push` ends with the `hfsoup push` line that continues, and that works."""
    with fault(signed_in, "/commit/", status=503):
        block = refused("bake", *vit.words, "--output", "my soup", "--push", target, code=1)
    assert block.strip().endswith(f"hfsoup push 'my soup' {target}")
    assert run("push", "my soup", target).code == 0
    assert complete(head(signed_in, target), Path("my soup"), target)


@pytest.mark.parametrize(
    ("repo", "what"), [("stranger/soup", "may not push to stranger"), ("soup", "expected ORG/NAME")]
)
def test_no_right_to_push_is_told_before_any_work(repo: str, what: str, signed_in: LocalHub, alone: Path) -> None:
    """A namespace of somebody else's is refused before anything is pulled."""
    signed_in.forget_requests()
    assert what in refused("bake", MODEL, "--push", repo, "--output", "soup", code=1)
    assert [seen for seen in signed_in.requests if MODEL in seen.path] == []


@pytest.mark.parametrize("repo", ["stranger/soup", "soup"])
def test_a_push_elsewhere_is_hinted_at_as_a_push(repo: str, soup: Path, signed_in: LocalHub) -> None:
    """The next command to type is this one, with a repository that the token may write to."""
    block = refused("push", soup, repo, "--private", code=1)
    assert block.strip().endswith(f"hfsoup push {soup} kit/soup --private")


def test_a_folder_named_as_the_repository_stays_the_folder(
    soup: Path, signed_in: LocalHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`hfsoup push soup soup` hints at `hfsoup push soup kit/soup`."""
    monkeypatch.chdir(soup.parent)
    assert refused("push", "soup", "soup", code=1).strip().endswith("hfsoup push soup kit/soup")


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
    assert bake(MODEL, "kit/vit-2", "--push", target, "--output", "soup", "--create-pr")["pushed"]["repo"] == target


@pytest.mark.parametrize("n", SEEDED.sample(range(10), 2))
def test_a_stall_ends(n: int, soup: Path, signed_in: LocalHub, target: str) -> None:
    """A Hub that goes silent at a request of a push ends it in time: four short time-outs here, under 120 s in life."""
    shape = SHAPES[min(n, len(SHAPES) - 1)]
    with fault(signed_in, shape[1], method=shape[0], stall=60.0):
        done, seconds = timed("push", soup, target)
    assert (done.code, "did not answer in time" in done.err) == (1, True), done.err
    assert seconds < 8


@pytest.mark.parametrize("path", ["/preupload/", "/commit/", "/repos/create"])
def test_a_slow_hub_is_waited_for(path: str, soup: Path, signed_in: LocalHub, api: HfApi) -> None:
    """What changes something on the Hub has twice as long to be answered as a question, and is asked once."""
    with fault(signed_in, path, method="POST", stall=0.8) as slow:
        done = run("push", soup, "kit/slow")
    api.delete_repo("kit/slow")
    assert (done.code, slow.hits) == (0, 1), done.err


WHO = {"type": "user", "name": "kit", "orgs": [{"name": "lab", "roleInOrg": "read"}, {"name": "team"}]}


def _fine(*scoped: tuple[str, list[str]]) -> dict[str, Any]:
    scopes = [{"entity": {"type": "org", "name": name}, "permissions": granted} for name, granted in scoped]
    return {"accessToken": {"displayName": "t", "role": "fineGrained", "fineGrained": {"scoped": scopes}}}


RIGHTS = {
    "role": ("lab/new", {}, "your role in lab is read", "kit/new"),
    "no scope": ("kit/new", _fine(), "no write permission for kit", "/settings/tokens"),
    "reads": ("kit/new", _fine(("kit", ["repo.content.read"])), "no write permission for kit", "/settings/tokens"),
    "another": ("kit/new", _fine(("team", ["repo.write"])), "no write permission for kit", "/settings/tokens"),
    "one repository": ("kit/new", _fine(("kit/new", ["repo.write"])), "cannot create one in kit", "/new"),
}


@pytest.mark.parametrize("name", RIGHTS)
def test_rights_are_looked_at_before_the_first_download(name: str, signed_in: LocalHub, alone: Path) -> None:
    """A role that only reads, and a fine-grained token that does not reach, are told before anything is pulled."""
    target, auth, what, hint = RIGHTS[name]
    signed_in.forget_requests()
    with fault(signed_in, "/whoami-v2", body=json.dumps({**WHO, "auth": auth}).encode()):
        block = refused("bake", MODEL, "--push", target, "--output", "soup", code=1)
    assert what in block
    assert hint in block.splitlines()[-1]
    assert [seen for seen in signed_in.requests if MODEL in seen.path] == []


def test_a_fine_grained_token_that_reaches(signed_in: LocalHub, alone: Path, api: HfApi) -> None:
    """One that may write to the namespace pushes."""
    answer = {**WHO, "auth": _fine(("kit", ["repo.content.read", "repo.write"]))}
    with fault(signed_in, "/whoami-v2", body=json.dumps(answer).encode()):
        assert (
            bake(*only(MODEL, "kit/vit-10"), "--push", "kit/reached", "--output", "soup")["pushed"]["repo"]
            == "kit/reached"
        )
    api.delete_repo("kit/reached")
