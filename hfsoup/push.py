"""A folder becomes one commit on the Hub."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from hfsoup.errors import HubError, SoupError
from hfsoup.hub import api, hub_errors

STALE = re.compile(r"(model|pytorch_model)(-\d+-of-\d+)?\.(safetensors|bin)(\.index\.json)?")


@dataclass(frozen=True)
class Pushed:
    """Where a soup went; `url` is the page to look at, a pull request's where one was made."""

    repo: str
    commit: str
    url: str


def may_push(repo: str) -> None:
    """Fail before any work where there is no token, or the name is none."""
    from huggingface_hub import get_token
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils._validators import validate_repo_id

    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise HubError(f"not a repository name: {repo!r}", hint="--push ORG/NAME") from error
    if not get_token():
        raise HubError("pushing needs a token, and there is none", where=repo, hint="hf auth login, or HF_TOKEN=…")
    with hub_errors(repo, access="push"):
        api().whoami()


def push(
    folder: Path, repo: str, *, private: bool = False, create_pr: bool = False, revision: str | None = None
) -> Pushed:
    """Upload every file of `folder` in one commit on top of the repository's head.

    Weights of an earlier model that the folder does not have are deleted in the same commit. If somebody else pushes in
    between, nothing is overwritten.

    Raises:
        HubError: no token, no right, or the repository changed in between.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    names = sorted(path.name for path in folder.iterdir() if path.is_file()) if folder.is_dir() else []
    if "config.json" not in names:
        raise SoupError("expected a model folder, found no config.json", where=str(folder))
    may_push(repo)
    hub = api()
    with hub_errors(repo, access="push"):
        hub.create_repo(repo, private=private or None, exist_ok=True)
        info = hub.model_info(repo)
        if private and not info.private:
            raise HubError("the repository is public already", where=repo, hint="leave out --private, or another name")
        if revision and not create_pr:
            hub.create_branch(repo, branch=revision, exist_ok=True)
            info = hub.model_info(repo, revision=revision)
        stale = [s.rfilename for s in info.siblings or () if STALE.fullmatch(s.rfilename) and s.rfilename not in names]
        commit = hub.create_commit(
            repo,
            [
                *(CommitOperationAdd(name, str(folder / name)) for name in names),
                *(CommitOperationDelete(name) for name in stale),
            ],
            commit_message="Add model soup",
            commit_description="Baked with hfsoup; soup.json says from what.",
            create_pr=create_pr,
            revision=revision,
            parent_commit=info.sha,
        )
    return Pushed(repo, commit.oid, commit.pr_url or f"{hub.endpoint}/{repo}")
