"""The token stays home."""

from __future__ import annotations

from pathlib import Path

import pytest
from family import Family
from huggingface_hub import HfApi, constants
from misbehave import fault, forget, process
from shell import refused

from hfsoup.hub.client import hub_api as our_api
from hfsoup.localhub import LocalHub
from hfsoup.utils.errors import HubError
from hfsoup.utils.redact import redact

LOUD = {"HF_DEBUG": "1", "HF_HUB_VERBOSITY": "debug", "TRANSFORMERS_VERBOSITY": "debug", "DATASETS_VERBOSITY": "debug"}


@pytest.fixture
def secret(on_hub: LocalHub, vit: Family) -> str:
    """The token of a user who owns a private ingredient, kit/hidden."""
    api = HfApi(token=on_hub.token)
    api.create_repo("kit/hidden", private=True, exist_ok=True)
    api.upload_folder(repo_id="kit/hidden", folder_path=vit.folders[0])
    return on_hub.add_user("kit")


def found(secret: str, folder: Path) -> list[str]:
    """The files under a folder that hold the secret."""
    return [str(p) for p in folder.rglob("*") if p.is_file() and secret.encode() in p.read_bytes()]


def test_a_whole_run_at_its_loudest(secret: str, on_hub: LocalHub, tmp_path: Path) -> None:
    """Private pull, bake, push, all at debug level: no file, no line and no commit holds the token."""
    words = ("kit/hidden", "kit/vit-2", "--dataset", "kit/shapes", "--push", "kit/secrets", "--json", "result.json")
    done = process(on_hub, tmp_path, "--debug", "bake", *words, "--output", "soup", HF_TOKEN=secret, **LOUD)
    assert done.code == 0, done.err[-2000:]
    assert "curl" in done.err
    assert secret not in done.out + done.err
    assert (tmp_path / "soup" / "soup.json").is_file()
    assert len(list(tmp_path.rglob("*"))) > 20
    assert found(secret, tmp_path) == []
    api = HfApi(token=on_hub.token)
    pushed = Path(api.snapshot_download("kit/secrets", cache_dir=tmp_path / "pushed"))
    api.delete_repo("kit/secrets")
    assert list(pushed.iterdir())
    assert found(secret, tmp_path / "pushed") == []


@pytest.mark.parametrize("status", [400, 500])
def test_an_error_that_repeats_the_token(status: int, secret: str, on_hub: LocalHub, tmp_path: Path) -> None:
    """A Hub that says the token back does not get it printed, neither in the block nor in a --debug traceback."""
    body = f'{{"error": "no good: {secret} Bearer {secret}"}}'.encode()
    with fault(on_hub, "/api/models/kit/hidden", status=status, body=body, headers={"Retry-After": "0"}):
        done = process(on_hub, tmp_path, "--debug", "bake", "kit/hidden", HF_TOKEN=secret, **LOUD)
    assert done.code == 1
    assert "Traceback" in done.err
    assert "no good" in done.err
    assert secret not in done.out + done.err
    assert found(secret, tmp_path) == []


def test_the_block_is_redacted(secret: str, on_hub: LocalHub, alone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So is the one block of an error without --debug."""
    monkeypatch.setenv("HF_TOKEN", secret)
    forget("kit/hidden")
    with fault(on_hub, "/api/models/kit/hidden", status=400, body=f'{{"error": "no good: {secret}"}}'.encode()):
        block = refused("bake", "kit/hidden", code=1)
    assert "no good: …" in block
    assert secret not in block


@pytest.mark.parametrize(
    "address", ["http://me:hunter2@127.0.0.1:9", "http://hunter2@127.0.0.1:9", "http://:hunter2@h"]
)
def test_a_password_in_the_address_is_refused(address: str, alone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """HF_ENDPOINT must not carry a name or password: they would be in every message."""
    monkeypatch.setattr(constants, "ENDPOINT", address)
    with pytest.raises(HubError) as error:
        our_api()
    assert "hunter2" not in str(error.value)
    block = refused("bake", "kit/vit-1", code=1)
    assert "HF_ENDPOINT contains a name or password" in block
    assert "hunter2" not in block


def test_a_password_in_the_address_of_a_process(on_hub: LocalHub, tmp_path: Path) -> None:
    """Nor is it printed by what huggingface_hub logs."""
    address = on_hub.url.replace("://", "://me:hunter2@")
    done = process(on_hub, tmp_path, "--debug", "bake", "kit/vit-1", HF_ENDPOINT=address, **LOUD)
    assert done.code == 1
    assert "hunter2" not in done.out + done.err
    assert found("hunter2", tmp_path) == []


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("token hf_" + "aB3" * 12 + " end", "token … end"),
        ("hf_oauth_" + "x" * 30 + ".abc-def.x", "…"),
        ("at https://user:pass@host/x", "at https://…@host/x"),
        ("Authorization: Bearer abc.def", "Authorization: Bearer …"),
        ("call hf_hub_download of org/name@main", "call hf_hub_download of org/name@main"),
    ],
)
def test_what_is_taken_out(text: str, shown: str) -> None:
    """Tokens by their shape, passwords in addresses and bearer headers go; other words stay."""
    assert redact(text) == shown


def test_the_users_own_token_of_any_shape_is_taken_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The token in the environment is known, whatever it looks like."""
    monkeypatch.setenv("HF_TOKEN", "plain-words")
    assert redact("it is plain-words!") == "it is …!"
