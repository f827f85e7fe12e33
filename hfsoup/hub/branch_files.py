"""Small files on a branch of a model repository, where a job that was stopped finds what it had."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from hfsoup.hub.client import convert_hub_errors, disable_progress_bars, hub_api

BURST, SECONDS = 40, 45.0
"""Commits that may follow each other at once, and after them the seconds from one to the next.

Together at most 120 in an hour: the Hub allows a user 128.
"""


class BranchFiles:
    """The files in one folder of a branch, written by this process only.

    Args:
        repo: the model repository.
        branch: the branch, which is made by `create`.
        folder: the folder of the files.
    """

    def __init__(self, repo: str, branch: str, folder: str) -> None:
        self.repo, self.branch, self.folder = repo, branch, folder
        self._where = f"{repo}@{branch}"
        self._credit, self._counted = float(BURST), time.monotonic()

    def create(self) -> None:
        """Make the branch where it is not there yet."""
        with convert_hub_errors(self._where, access="push"):
            hub_api().create_branch(self.repo, branch=self.branch, exist_ok=True)

    def fetch(self) -> dict[str, bytes]:
        """The contents of all files by name."""
        with convert_hub_errors(self._where), disable_progress_bars(), tempfile.TemporaryDirectory() as scratch:
            hub_api().snapshot_download(
                self.repo, revision=self.branch, allow_patterns=f"{self.folder}/*", local_dir=scratch
            )
            folder = Path(scratch, self.folder)
            return {path.name: path.read_bytes() for path in folder.iterdir()} if folder.is_dir() else {}

    def may_send(self) -> bool:
        """Whether the next commit is within the rate that the Hub allows."""
        now = time.monotonic()
        self._credit = min(BURST, self._credit + (now - self._counted) / SECONDS)
        self._counted = now
        return self._credit >= 1

    def send(self, files: Mapping[str, bytes], message: str) -> None:
        """Add files in one commit."""
        from huggingface_hub import CommitOperationAdd

        self._credit -= 1
        additions = [CommitOperationAdd(f"{self.folder}/{name}", content) for name, content in files.items()]
        with convert_hub_errors(self._where, access="push"), disable_progress_bars():
            hub_api().create_commit(self.repo, additions, commit_message=message, revision=self.branch)

    def delete(self) -> None:
        """Delete the branch."""
        with convert_hub_errors(self._where, access="push"):
            hub_api().delete_branch(self.repo, branch=self.branch)
