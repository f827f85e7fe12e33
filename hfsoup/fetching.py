"""One file of a commit on the Hub, on this disk and as the Hub lists it."""

from __future__ import annotations

import os
from pathlib import Path

from hfsoup.errors import HubError
from hfsoup.hashing import blob_hash, file_hash
from hfsoup.hub import AGAIN, answers
from hfsoup.names import shown
from hfsoup.types import RemoteFile


def fetch(repo: str, file: RemoteFile, revision: str, *, kind: str) -> Path:
    """A file in huggingface_hub's cache, hashed even if it was there; one that is damaged goes, and is fetched again.

    Args:
        repo: the repository.
        file: its file as the commit lists it.
        revision: the commit.
        kind: model, dataset or space.

    Raises:
        HubError: the Hub refuses, or sends other bytes than it lists.
    """
    from hfsoup.patience import tell

    where, listed = f"{repo}@{revision[:7]}, {shown(file.name)}", file.sha256 or file.blob
    for again in (True, False):
        path = _download(repo, file, revision, kind, where)
        found = file_hash(path) if file.sha256 else blob_hash(path)
        if found == listed:
            return path
        _drop(path)
        if again:
            tell(f"{where} on this disk is not the file that the Hub lists; it is fetched again")
    what = f"the file that arrives is not the one the Hub lists (hash {found[:12]}, expected {listed[:12]})"
    raise HubError(what, where=where, hint=f"later, {AGAIN}")


def _download(repo: str, file: RemoteFile, revision: str, kind: str, where: str) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.utils.tqdm import disable_progress_bars

    disable_progress_bars()
    with answers(where, listed=True):
        return Path(hf_hub_download(repo, file.name, repo_type=kind, revision=revision))


def _drop(path: Path) -> None:
    """Take a file out of the cache: its name in the snapshot, and the blob that this is a link to."""
    blob = Path(os.path.normpath(path.parent / path.readlink())) if path.is_symlink() else path
    path.unlink(missing_ok=True)
    if blob.parent.name == "blobs":
        blob.unlink(missing_ok=True)
