"""What a Hub sends is not believed: hashes, names, headers and commits are checked."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from family import Family
from huggingface_hub import HfApi, constants
from misbehave import (
    before_each_request,
    blobs,
    fault,
    flip,
    forget,
    hurry,
    mark,
    versions,
)
from shell import only, refused, run

from hfsoup.baking.pipeline import run_bake as bake_one
from hfsoup.localhub import LocalHub
from hfsoup.options.options import Options
from hfsoup.utils.progress import Watch

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


@pytest.fixture
def api(signed_in: LocalHub) -> HfApi:
    """The Hub's client with the user's token."""
    return HfApi(token=signed_in.token)


@pytest.mark.usefixtures("plain_http")
@pytest.mark.parametrize("file", FILES)
def test_a_flip_on_the_server_is_caught(file: str, signed_in: LocalHub, vit: Family, alone: Path) -> None:
    """One wrong byte, once, is fetched again and costs a note; for good, it is an error that names the file."""
    sent = bytearray((vit.folders[0] / file).read_bytes())
    sent[len(sent) // 2] ^= 4
    with fault(signed_in, f"/resolve/.*/{file}", method="GET", times=1, body=bytes(sent)):
        done = run("bake", *only(MODEL, vit.words[1]), "--output", "soup")
    assert done.code == 0, done.err
    assert "is not the file that the Hub lists; downloading it again" in done.err
    forget(MODEL)
    with fault(signed_in, f"/resolve/.*/{file}", method="GET", body=bytes(sent)):
        block = refused("bake", *only(MODEL, vit.words[1]), "--output", "again", code=1)
    assert "is not the one the Hub lists" in block
    assert file in block
    assert run("bake", *only(MODEL, vit.words[1]), "--output", "again").code == 0


@pytest.mark.parametrize(("file", "by"), [*((file, "Xet") for file in FILES), ("model.safetensors", "HTTP")])
def test_a_flip_in_the_cache_is_caught(
    file: str, by: str, signed_in: LocalHub, vit: Family, alone: Path, request: pytest.FixtureRequest
) -> None:
    """A cached file with one other bit, of the same length, goes and is fetched again."""
    if by == "HTTP":
        request.getfixturevalue("plain_http")
    assert run("bake", *only(MODEL, vit.words[1]), "--output", "soup").code == 0
    right = blobs(MODEL)[file].read_bytes()
    flip(blobs(MODEL)[file], SEEDED)
    done = run("bake", *only(MODEL, vit.words[1]), "--output", "again")
    assert done.code == 0, done.err
    (note,) = (line for line in done.err.splitlines() if "is not the file that the Hub lists" in line)
    assert file in note
    assert blobs(MODEL)[file].read_bytes() == right
    assert Path("again/model.safetensors").read_bytes() == Path("soup/model.safetensors").read_bytes()


@pytest.mark.usefixtures("plain_http")
def test_a_wrong_length_is_caught(signed_in: LocalHub, alone: Path, vit: Family) -> None:
    """A file shorter than announced is not used."""
    with fault(signed_in, "/resolve/.*safetensors", method="GET", body=b"short"):
        block = refused("bake", *only(MODEL, vit.words[1]), "--output", "soup", code=1)
    assert "does not have the announced size" in block
    assert "model.safetensors" in block


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "..\\evil", "a/../evil", "a//evil", ".", "x\n.json", ""])
def test_a_hostile_name_in_a_listing_is_not_used(
    name: str, signed_in: LocalHub, api: HfApi, alone: Path, vit: Family, request: pytest.FixtureRequest
) -> None:
    """Only plain names of the repository are asked for and written."""
    # Of a commit that it has listed, huggingface_hub need not ask for weights that come by Xet: this one is new.
    repo = api.create_repo("kit/listed").repo_id
    request.addfinalizer(lambda: (api.delete_repo(repo), forget(repo)))
    api.upload_folder(repo_id=repo, folder_path=vit.folders[0])
    info = _info(signed_in, repo)
    info["siblings"].append({**info["siblings"][0], "rfilename": name})
    before = _outside()
    signed_in.forget_requests()
    with fault(signed_in, f"/api/models/{repo}", body=json.dumps(info).encode()):
        assert run("bake", *only(repo, vit.words[1]), "--output", "soup").code == 0
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


@pytest.mark.usefixtures("plain_http")
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
            bake_one(("kit/moves",), Options(output=f"soup{number}"), Watch(), several=False)
        assert versions(Path(f"soup{number}")) == ({"2"} if number == 0 else {"1"})
        number += 1
    assert number >= 9
    api.delete_repo("kit/moves")


def _info(hub: LocalHub, repo: str = MODEL) -> dict[str, Any]:
    import httpx2

    found: dict[str, Any] = httpx2.get(f"{hub.url}/api/models/{repo}?blobs=true").json()
    return found


def _outside() -> set[Path]:
    """Files named evil anywhere near the cache."""
    return set(Path(constants.HF_HOME).parent.rglob("*evil*"))
