"""Other programs as clients, each in a process of its own, for they read their environment once."""

from __future__ import annotations

import gzip
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx2
import pytest
from huggingface_hub import HfApi

from hfsoup.localhub import LocalHub

TRANSFORMERS = """
import torch
from transformers import AutoModelForImageClassification, ViTConfig, ViTForImageClassification
size = dict(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, image_size=8, patch_size=4)
model = ViTForImageClassification(ViTConfig(**size))
model.push_to_hub("ann/vit", max_shard_size="1KB")
again = AutoModelForImageClassification.from_pretrained("ann/vit")
pairs = zip(model.state_dict().values(), again.state_dict().values(), strict=True)
print(all(torch.equal(one, two) for one, two in pairs))
"""
DATASETS = """
import numpy as np, os
from PIL import Image as Pixels
from datasets import ClassLabel, Dataset, Features, Image, load_dataset
from huggingface_hub import HfApi
images = [Pixels.fromarray(np.full((4, 4, 3), value, dtype=np.uint8)) for value in range(4)]
features = Features({"image": Image(), "label": ClassLabel(names=["a", "b"])})
Dataset.from_dict({"image": images, "label": [0, 1, 0, 1]}, features=features).push_to_hub("ann/pets", split="test")
rows = load_dataset("ann/pets", split="test")
streamed = next(iter(load_dataset("ann/pets", split="test", streaming=True)))
for number, image in enumerate(images):
    os.makedirs(f"folder/train/{number % 2}", exist_ok=True)
    image.save(f"folder/train/{number % 2}/{number}.png")
HfApi().create_repo("ann/folder", repo_type="dataset")
HfApi().upload_folder(repo_id="ann/folder", repo_type="dataset", folder_path="folder")
print(rows["label"], streamed["label"], load_dataset("ann/folder", split="train").num_rows)
"""


def _environment(site: LocalHub, home: Path, **more: str) -> dict[str, str]:
    return {**os.environ, "HF_ENDPOINT": site.url, "HF_TOKEN": site.token, "HF_HOME": str(home / "hf"), **more}


def _run(arguments: list[str], folder: Path, environment: dict[str, str]) -> str:
    done = subprocess.run(arguments, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_transformers(site: LocalHub, tmp_path: Path) -> None:
    """A sharded model pushed by transformers loads again with the same weights."""
    assert _run([sys.executable, "-c", TRANSFORMERS], tmp_path, _environment(site, tmp_path)).endswith("True\n")


def test_datasets(site: LocalHub, tmp_path: Path) -> None:
    """A dataset pushed by datasets loads again, whole and streamed, and so does a folder of images."""
    out = _run([sys.executable, "-c", DATASETS], tmp_path, _environment(site, tmp_path))
    assert out.splitlines()[-1].endswith("[0, 1, 0, 1]) 0 4") or out.splitlines()[-1] == "[0, 1, 0, 1] 0 4"


def test_the_hf_command(site: LocalHub, tmp_path: Path) -> None:
    """The command line uploads, lists and downloads."""
    hf = str(Path(sys.executable).with_name("hf"))
    environment = _environment(site, tmp_path, HF_HUB_DISABLE_UPDATE_CHECK="1")
    (tmp_path / "up").mkdir()
    (tmp_path / "up" / "w.bin").write_bytes(b"weights")
    _run([hf, "upload", "ann/cli", "up", "."], tmp_path, environment)
    assert '"ann/cli"' in _run([hf, "repos", "ls", "--format", "json"], tmp_path, environment)
    _run([hf, "download", "ann/cli", "--local-dir", "down"], tmp_path, environment)
    assert (tmp_path / "down" / "w.bin").read_bytes() == b"weights"


needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
needs_lfs = pytest.mark.skipif(
    shutil.which("git") is None or shutil.which("git-lfs") is None, reason="git and git-lfs are not installed"
)


@pytest.fixture
def git(tmp_path: Path) -> Callable[..., str]:
    """Runs git as ann, with settings of its own: `git(folder, *arguments)`."""
    names = {f"GIT_{role}_{key}": "ann@localhub" for role in ("AUTHOR", "COMMITTER") for key in ("NAME", "EMAIL")}
    settings = {
        "GIT_CONFIG_GLOBAL": str(tmp_path / "gitconfig"),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_TERMINAL_PROMPT": "0",
    }

    def run(folder: Path, *arguments: str) -> str:
        return _run(["git", *arguments], folder, {**os.environ, "HOME": str(tmp_path), **settings, **names})

    return run


def _address(site: LocalHub, repo: str, user: str = "ann", token: str = "") -> str:
    return f"{site.url}/{repo}".replace("http://", f"http://{user}:{token or site.token}@")


@needs_git
@pytest.mark.parametrize(("size", "buffer"), [(1, "100000000"), (20, "100")], ids=["1 MB, length", "20 MB, chunked"])
def test_git_pushes_what_is_large_and_not_lfs(
    site: LocalHub, api: HfApi, repo: str, tmp_path: Path, git: Callable[..., str], size: int, buffer: str
) -> None:
    """A push of megabytes that git keeps itself arrives, however it is sent; whole and shallow clones give it back."""
    git(tmp_path, "clone", _address(site, repo), "mine")
    mine, content = tmp_path / "mine", os.urandom(size << 20)
    (mine / "notes.txt").write_bytes(content)
    git(mine, "add", ".")
    git(mine, "commit", "-qm", "notes")
    git(mine, "-c", f"http.postBuffer={buffer}", "push", "origin", "HEAD:main")
    assert api.list_repo_commits(repo)[0].title == "notes"
    assert Path(api.hf_hub_download(repo, "notes.txt")).read_bytes() == content
    git(tmp_path, "clone", "--depth", "1", f"{site.url}/{repo}", "shallow")
    assert (tmp_path / "shallow" / "notes.txt").read_bytes() == content
    assert git(tmp_path / "shallow", "rev-list", "--count", "HEAD") == "1\n"
    git(tmp_path / "shallow", "fetch", "--unshallow")
    assert git(tmp_path / "shallow", "rev-list", "--count", "HEAD") == "2\n"


@needs_git
def test_git_requests_may_be_compressed(site: LocalHub, api: HfApi, repo: str) -> None:
    """A long request of git's is gzipped; it is answered with a pack as the plain one is."""
    wanted = f"0032want {api.model_info(repo).sha}\n00000009done\n".encode()
    for content, headers in ((wanted, {}), (gzip.compress(wanted), {"Content-Encoding": "gzip"})):
        kind = {"Content-Type": "application/x-git-upload-pack-request", **headers}
        got = httpx2.post(f"{site.url}/{repo}.git/git-upload-pack", content=content, headers=kind)
        assert (got.status_code, got.content.startswith(b"0008NAK\nPACK")) == (200, True)


@needs_lfs
def test_git_both_ways(
    site: LocalHub, api: HfApi, bob: HfApi, repo: str, tmp_path: Path, git: Callable[..., str]
) -> None:
    """What the Hub holds git clones, large files included, and what git pushes the Hub holds; only from an owner."""
    weights = os.urandom(30_000)
    api.upload_file(path_or_fileobj=weights, path_in_repo="w.bin", repo_id=repo)
    git(tmp_path, "lfs", "install")
    git(tmp_path, "clone", f"{site.url}/{repo}", "copy")
    copy = tmp_path / "copy"
    assert (copy / "w.bin").read_bytes() == weights
    (copy / "new.safetensors").write_bytes(weights[::-1])
    git(copy, "add", ".")
    git(copy, "commit", "-qm", "from git")
    head = api.model_info(repo).sha
    for address in (f"{site.url}/{repo}", _address(site, repo, "bob", str(bob.token))):
        with pytest.raises(AssertionError, match=r"40[13]|could not read Username"):
            git(copy, "push", address, "main")
    assert api.model_info(repo).sha == head
    git(copy, "push", _address(site, repo), "main")
    assert api.list_repo_commits(repo)[0].title == "from git"
    assert Path(api.hf_hub_download(repo, "new.safetensors")).read_bytes() == weights[::-1]
