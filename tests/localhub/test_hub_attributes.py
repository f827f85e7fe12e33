"""The pattern language of .gitattributes and .gitignore, measured against git itself."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from hfsoup.localhub.gitattributes import add_lfs_lines, default_attributes, is_ignored, is_lfs

ATTRIBUTES = """
# comment filter=lfs
*.bin filter=lfs diff=lfs merge=lfs -text
*.txt text
/top filter=lfs
deep/**/x filter=lfs
saved/**/* filter=lfs
a?c filter=lfs
[xy]z filter=lfs
[!q]w filter=lfs
"with space" filter=lfs
sub/*.dat filter=lfs
plain.bin -filter
keep.bin !filter
*ev* filter=lfs
"""
PATHS = """
a.bin d/a.bin a.txt top d/top deep/x deep/a/x deep/a/b/x deepx saved/a saved/a/b savedx abc a/c axxc xz yz zz ww qw
sub/k.dat sub/d/k.dat k.dat plain.bin d/plain.bin keep.bin x.events.1 d/xevy .bin bin with\\ space
""".replace("\n", " ").split(" ")
IGNORE = "*.log\n!keep.log\nbuild/\n/root\ndocs/*.txt\n**/deep\nlast/**\n"


def _git(folder: Path, *arguments: str, text: str = "") -> str:
    done = subprocess.run(["git", *arguments], cwd=folder, input=text, capture_output=True, text=True, check=False)
    return done.stdout


needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")


@needs_git
def test_attributes_are_read_as_git_reads_them(tmp_path: Path) -> None:
    """For every path, git's own answer."""
    paths = [path.replace("\\", "") for path in PATHS if path and not path.startswith("space")] + ["with space"]
    _git(tmp_path, "init", "-q")
    (tmp_path / ".gitattributes").write_text(ATTRIBUTES)
    found = _git(tmp_path, "check-attr", "-z", "--stdin", "filter", text="\0".join(paths)).split("\0")
    expected = {path: value == "lfs" for path, value in zip(found[::3], found[2::3], strict=False)}
    assert len(expected) == len(set(paths))
    assert {path: is_lfs(ATTRIBUTES, path) for path in paths} == expected


@needs_git
def test_added_lines_cover_their_path_alone(tmp_path: Path) -> None:
    """A line added for a path with odd characters makes git treat that path, and not its neighbour, as large."""
    paths = ["a b.txt", "star*.txt", "q?.txt", "[1].txt", "d/e f/[x].txt", 'quo"te', "back'tick", "é.txt"]
    _git(tmp_path, "init", "-q")
    text = add_lfs_lines("*.bin filter=lfs", paths)
    (tmp_path / ".gitattributes").write_text(text)
    others = ["starX.txt", "qx.txt", "1.txt", "d/a b.txt"]
    found = _git(tmp_path, "check-attr", "-z", "--stdin", "filter", text="\0".join(paths + others)).split("\0")
    assert {path for path, value in zip(found[::3], found[2::3], strict=False) if value == "lfs"} == set(paths)
    assert add_lfs_lines(text, paths) == text


@needs_git
def test_ignored_paths_are_those_git_ignores(tmp_path: Path) -> None:
    """For every path, git's own answer."""
    paths = [
        "a.log",
        "d/a.log",
        "keep.log",
        "build/x",
        "d/build/x",
        "build",
        "root",
        "d/root",
        "docs/a.txt",
        "docs/d/a.txt",
        "deep/x",
        "d/deep",
        "last/a",
        "x",
    ]
    _git(tmp_path, "init", "-q")
    (tmp_path / ".gitignore").write_text(IGNORE)
    found = _git(tmp_path, "check-ignore", "--no-index", "-z", "--stdin", text="\0".join(paths)).split("\0")
    assert {path for path in paths if is_ignored(IGNORE, path)} == set(filter(None, found))


def test_new_repos_keep_weights_large_and_datasets_pictures_too() -> None:
    """Weights are large everywhere, pictures in datasets, text nowhere."""
    models, datasets = default_attributes("models"), default_attributes("datasets")
    for text in (models, datasets):
        assert is_lfs(text, "d/model.safetensors")
        assert is_lfs(text, "data/train-0.parquet")
        assert not is_lfs(text, "config.json")
    assert is_lfs(datasets, "train/cat.png")
    assert not is_lfs(models, "cat.png")
