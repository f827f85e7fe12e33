"""Starting, stopping, and coming back."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError

from hfsoup.localhub import LocalHub, serve
from hfsoup.utils.errors import SoupError


def test_everything_is_there_after_a_restart(tmp_path: Path) -> None:
    """Repos, large files, discussions, users and tokens outlive the server."""
    with LocalHub(tmp_path) as hub:
        token = hub.token
        api = HfApi(endpoint=hub.url, token=token)
        api.create_repo("user/m")
        api.upload_file(path_or_fileobj=os.urandom(999), path_in_repo="w.bin", repo_id="user/m", create_pr=True)
    with LocalHub(tmp_path, user="other") as hub:
        api = HfApi(endpoint=hub.url, token=token)
        assert api.whoami()["name"] == "user"
        assert api.get_discussion_details("user/m", 1).is_pull_request
        assert len(Path(api.hf_hub_download("user/m", "w.bin", revision="refs/pr/1")).read_bytes()) == 999


def test_a_folder_is_served_once(tmp_path: Path) -> None:
    """A second Hub on the same folder is refused while the first runs."""
    with LocalHub(tmp_path), pytest.raises(SoupError, match="already served"):
        LocalHub(tmp_path).start()
    with LocalHub(tmp_path):
        pass


def test_a_port_that_is_taken(tmp_path: Path, site: LocalHub) -> None:
    """The error names the port and what to type."""
    port = int(site.url.rpartition(":")[2])
    with pytest.raises(SoupError, match=f"port {port} is already in use") as caught:
        serve(tmp_path, port=port, ready=lambda url, token: None)
    assert "--port" in caught.value.hint
    with LocalHub(tmp_path):
        pass


def test_damaged_accounts(tmp_path: Path) -> None:
    """Accounts that cannot be read are reported, not obeyed, also while the Hub runs."""
    with LocalHub(tmp_path) as hub:
        (tmp_path / "hub.json").write_text("{}")
        with pytest.raises(HfHubHTTPError, match="500"):
            HfApi(endpoint=hub.url, token="hf_eve").whoami()
    with pytest.raises(SoupError, match="expected"):
        LocalHub(tmp_path).start()


def test_bad_names_for_users(site: LocalHub) -> None:
    """Users cannot take reserved or impossible names."""
    for name in ("api", "datasets", "a/b", ""):
        with pytest.raises(SoupError, match="expected a user"):
            site.add_user(name)
    with pytest.raises(SoupError, match="role"):
        site.add_user("carl", role="admin")


def test_serving_ends_with_ctrl_c(tmp_path: Path) -> None:
    """`serve` tells where it listens, and an interrupt ends it at once and cleanly."""
    code = (
        "from pathlib import Path; from hfsoup.localhub import serve; import signal, sys\n"
        # A test run in the background has its children ignore interrupts.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "serve(Path(sys.argv[1]), port=0, ready=lambda url, token: print(url, token, flush=True))"
    )
    child = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout is not None
        url, token = child.stdout.readline().split()
        assert HfApi(endpoint=url, token=token).whoami()["name"] == "user"
        child.send_signal(signal.SIGINT)
        assert child.wait(5) == 0
    finally:
        child.kill()
        child.communicate()


def test_without_the_extra_the_error_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Importing without pygit2, starlette or uvicorn says what to install."""
    code = (
        "import sys; sys.modules['pygit2'] = None\n"
        "import importlib.util as u; real = u.find_spec\n"
        "u.find_spec = lambda name, *a: None if name == 'pygit2' else real(name, *a)\n"
        "import hfsoup.localhub"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "pip install 'hfsoup[hub]'" in done.stderr
    assert "needs pygit2" in done.stderr
