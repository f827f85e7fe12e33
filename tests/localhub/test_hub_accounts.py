"""Users and organisations by the command line, while a Hub serves the folder and while none does."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError

from hfsoup.localhub import LocalHub
from tests.shell import Result, run


def _hub(folder: Path, *words: str) -> Result:
    return run("hub", *words, "--dir", folder)


def test_a_running_hub_follows_the_commands(tmp_path: Path) -> None:
    """A user and an organisation that are added, changed and removed count from the next request on."""
    with LocalHub(tmp_path, user="ann") as hub:
        token = _hub(tmp_path, "user", "add", "kit").out.strip()
        assert _hub(tmp_path, "org", "add", "lab", "--member", "ann:admin", "--member", "kit:read").code == 0
        ann, kit = HfApi(endpoint=hub.url, token=hub.token), HfApi(endpoint=hub.url, token=token)
        ann.create_repo("lab/m", private=True)
        assert kit.model_info("lab/m").id == "lab/m"
        assert [(org["name"], org["roleInOrg"]) for org in kit.whoami()["orgs"]] == [("lab", "read")]
        with pytest.raises(HfHubHTTPError, match="403"):
            kit.upload_file(path_or_fileobj=b"x", path_in_repo="x", repo_id="lab/m")
        assert _hub(tmp_path, "org", "role", "lab", "kit", "write").code == 0
        kit.upload_file(path_or_fileobj=b"x", path_in_repo="x", repo_id="lab/m")
        reader = _hub(tmp_path, "user", "token", "kit", "--role", "read").out.strip()
        with pytest.raises(HfHubHTTPError, match="may only read"):
            HfApi(endpoint=hub.url, token=reader).create_repo("kit/m")
        assert _hub(tmp_path, "org", "remove", "lab", "--member", "kit").code == 0
        assert not kit.repo_exists("lab/m")
        assert _hub(tmp_path, "user", "remove", "kit").code == 0
        with pytest.raises(HfHubHTTPError, match="Invalid user token"):
            kit.whoami(cache=False)


def test_accounts_are_made_before_a_hub_is_served(tmp_path: Path) -> None:
    """The first user may be added to a folder that is not there yet; a Hub that is served then has that user alone."""
    folder = tmp_path / "hub"
    token = _hub(folder, "user", "add", "kit").out.strip()
    _hub(folder, "user", "add", "ann", "--role", "read")
    _hub(folder, "org", "add", "lab", "--member", "kit", "--member", "ann:read")
    assert _hub(folder, "user", "list").out.splitlines() == [
        "kit  tokens: write  lab:write",
        "ann  tokens: read  lab:read",
    ]
    assert _hub(folder, "org", "list").out == "lab  kit:write  ann:read\n"
    assert _hub(folder, "org", "remove", "lab").code == 0
    assert _hub(folder, "org", "list").out == ""
    with LocalHub(folder) as hub:
        assert (hub.user, hub.token) == ("kit", token)
    assert token not in "".join(str(_hub(folder, *words)) for words in (("user", "list"), ("org", "list")))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("user", "add", "kit"), "hfsoup hub user token kit"),
        (("user", "add", "lab"), "'lab', which is taken"),
        (("user", "add", "api"), "expected a user or organisation name"),
        (("user", "add", "ann", "--role", "owner"), "expected the role read or write"),
        (("user", "token", "zoe"), "there is no user 'zoe'; known: kit"),
        (("user", "remove", "zoe"), "there is no user 'zoe'; known: kit"),
        (("org", "add", "kit", "--member", "kit"), "'kit', which is taken"),
        (("org", "add", "lab", "--member", "zoe"), "there is no user 'zoe'"),
        (("org", "add", "lab", "--member", "kit:owner"), "read or write or admin"),
        (("org", "role", "lab", "zoe", "read"), "hfsoup hub org add lab --member zoe:read"),
        (("org", "remove", "club"), "there is no organisation 'club'; known: lab"),
        (("org", "remove", "lab", "--member", "zoe"), "there is no member of lab 'zoe'; known: kit"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_cannot_be_done_is_said(tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    """The error names the known ones or the command to type, and nothing is changed."""
    _hub(tmp_path, "user", "add", "kit")
    _hub(tmp_path, "org", "add", "lab", "--member", "kit")
    before = json.loads((tmp_path / "hub.json").read_text())
    got = _hub(tmp_path, *words)
    assert (got.code in (1, 2), said in got.err, "  try: " in got.err) == (True, True, True), got.err
    assert json.loads((tmp_path / "hub.json").read_text()) == before


def test_a_folder_without_accounts(tmp_path: Path) -> None:
    """Nothing is made by looking; the error names the command that makes the first user."""
    got = _hub(tmp_path / "typo", "user", "list")
    assert (got.code, f"hfsoup hub user add NAME --dir {tmp_path / 'typo'}" in got.err) == (1, True)
    assert not (tmp_path / "typo").exists()


def test_commands_at_the_same_time(tmp_path: Path) -> None:
    """No user is lost when several are added at once."""
    code = "import sys; from hfsoup.localhub.auth import Accounts; from pathlib import Path\n"
    code += "for n in range(5): Accounts(Path(sys.argv[1])).add_user(f'{sys.argv[2]}{n}')"
    _hub(tmp_path, "user", "add", "kit")
    at_once = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path), name]) for name in ("a", "b", "c")]
    assert [child.wait() for child in at_once] == [0, 0, 0]
    assert len(_hub(tmp_path, "user", "list").out.splitlines()) == 16
