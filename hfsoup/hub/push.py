"""A folder becomes one commit on the Hub, or nothing does."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hfsoup.hub.cards import CARD, MANIFEST, SIGNATURE, UNPUSHED
from hfsoup.hub.client import (
    FOLDER,
    SAME_COMMAND,
    disable_progress_bars,
    disable_xet,
    expect_answer,
    find_cause,
    hub_api,
    is_xet_error,
    wait_unless_overdue,
)
from hfsoup.hub.notices import listening, notify_listener
from hfsoup.utils.errors import HubError, SoupError
from hfsoup.utils.hashing import hash_blob, hash_file

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.hf_api import ModelInfo

STALE = re.compile(
    r"(model|pytorch_model)(-\d+-of-\d+)?\.(safetensors|bin)(\.index\.json)?|adapter_(config\.json|model\.(safetensors|bin))"
    r"|evaluation\.json|figures/(scores|search|closeness|line)(-dark)?\.png"
)
# With these the Hub itself said no, so that there can be no commit.
FINAL_STATUSES = (400, 401, 403, 404, 413, 422)
IGNORED = re.compile(r"(^|/)(\.git|\.cache|\.ipynb_checkpoints|__pycache__)/|(^|/)\.DS_Store$")
MAX_TRIES = 2
MESSAGE = "Add model soup"
DESCRIPTION = "Baked with hfsoup; soup.json says from what."


@dataclass(frozen=True)
class Pushed:
    """Where a soup went; `url` is the page to look at, a pull request's where one was made."""

    repo: str
    commit: str
    url: str


def require_push_access(repo: str, *, create_pr: bool = False) -> None:
    """Fail before any work where the name is none, there is no token, or it may not write there."""
    from huggingface_hub import get_token
    from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise HubError(f"not a repository name: {repo!r}", hint="--push ORG/NAME") from error
    if not get_token():
        raise HubError("pushing needs a token, and there is none", where=repo, hint="hf auth login, or HF_TOKEN=…")
    with expect_answer(repo, access="push"):
        rights = _read_rights(hub_api().whoami())
    user, namespace, name = next(iter(rights.roles)), *repo.rpartition("/")[::2]
    if not namespace:
        raise HubError(f"expected ORG/NAME, found {repo!r}", hint=f"--push {user}/{repo}")
    if rights.role == "read" and not create_pr:
        raise HubError("your token may only read", where=repo, hint="hf auth login, with a token that may write")
    if rights.scopes is not None and not create_pr and not rights.scopes & {namespace, repo}:
        what = f"your token is a fine-grained one that may not write to {namespace}"
        where = f"{hub_api().endpoint}/settings/tokens"
        raise HubError(what, where=repo, hint=f"allow it to write to repositories of {namespace} at {where}")
    if rights.roles.get(namespace) == "read" and not create_pr:
        what = f"your role in {namespace} is read, with which nothing can be pushed there"
        raise HubError(what, where=repo, hint=f"--push {user}/{name}")
    with expect_answer(repo, access="push"):
        try:
            return hub_api().auth_check(repo, write=not create_pr)
        except GatedRepoError:
            return None
        except RepositoryNotFoundError:
            if create_pr:
                raise
    if rights.scopes is not None and namespace not in rights.scopes:
        what = f"there is no such repository, and your fine-grained token may not make one in {namespace}"
        raise HubError(what, where=repo, hint=f"make it at {hub_api().endpoint}/new, or another token: hf auth login")
    if namespace not in rights.roles:
        what = f"your token may not push to {namespace}, only to {', '.join(rights.roles)}"
        raise HubError(what, where=repo, hint=f"--push {user}/{name}")
    return None


@dataclass(frozen=True)
class _Rights:
    """What a token may do.

    `role` is its own; `roles` are those in its user's namespace, which is the first, and in organisations;
    `scopes` are the namespaces and repositories that a fine-grained token may write to, None for another token.
    """

    role: str | None
    roles: dict[str, str | None]
    scopes: frozenset[str] | None


def _read_rights(user: dict[str, Any]) -> _Rights:
    token = (user.get("auth") or {}).get("accessToken") or {}
    roles = {user["name"]: "admin", **{org["name"]: org.get("roleInOrg") for org in user.get("orgs") or ()}}
    scopes = None
    if token.get("role") == "fineGrained" and "fineGrained" in token:
        scoped = token["fineGrained"].get("scoped") or ()
        scopes = frozenset(s["entity"]["name"] for s in scoped if "repo.write" in (s.get("permissions") or ()))
    return _Rights(token.get("role"), roles, scopes)


def push(
    folder: Path,
    repo: str,
    *,
    private: bool = False,
    create_pr: bool = False,
    revision: str | None = None,
    notify: Callable[[str], None] | None = None,
) -> Pushed:
    """Upload every file of `folder` in one commit on top of the repository's head.

    Weights and pictures of an earlier model that the folder does not have are deleted in the same commit. If somebody
    else pushes in between, nothing is overwritten. A commit whose answer got lost is looked for before a second one.

    Args:
        folder: a model folder.
        repo: where to; it is made if it is not there.
        private: make it private; a public one is refused.
        create_pr: as a pull request.
        revision: to this branch, which is made if it is not there.
        notify: told of waits and of a repository that has another name by now.

    Raises:
        HubError: no token, no right, the repository changed in between, or no answer; its hint ends with the command
            that continues.
    """
    names = _list_files(folder) if folder.is_dir() else []
    if "config.json" not in names:
        raise SoupError("expected a model folder, found no config.json", where=str(folder))
    options = ["--private"] * private + ["--create-pr"] * create_pr + (["--revision", revision] if revision else [])

    def line(repo: str) -> str:
        return shlex.join(["hfsoup", "push", str(folder), repo, *options])

    try:
        with listening(notify):
            require_push_access(repo, create_pr=create_pr)
            target = _find_target(repo, private, create_pr, notify)
            return _Push(folder, names, _name_repo(folder, target), target, create_pr, revision).go()
    except HubError as error:
        other = error.hint.removeprefix("--push ")
        if other != error.hint:
            hint = line(other)
        elif FOLDER in error.hint:
            hint = f"{error.hint.replace(FOLDER, shlex.quote(str(folder)))}, or later: {line(repo)}"
        else:
            hint = (
                error.hint.replace(SAME_COMMAND, line(repo))
                if SAME_COMMAND in error.hint
                else f"{error.hint}, then: {line(repo)}"
            )
        raise HubError(error.what, where=error.where, hint=hint) from error


def _list_files(folder: Path) -> list[str]:
    """The files of a model folder and of the folders in it, but for what git, a download or an editor keeps there."""
    names = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return sorted(name for name in names if not IGNORED.search(name))


def _name_repo(folder: Path, repo: str) -> dict[str, bytes]:
    """The card with the repository's name where it says which folder to load, and the record with that card's hash.

    The folder stays as it is, for it may be pushed elsewhere too; one that was signed goes out as it was signed.
    """
    path, record, wanted = folder / CARD, folder / MANIFEST, json.dumps(UNPUSHED).encode()
    if not path.is_file() or wanted not in (card := path.read_bytes()):
        return {}
    if (folder / SIGNATURE).exists():
        notify_listener(f"{SIGNATURE} signs a card that says {UNPUSHED}; it is pushed as it is")
        return {}
    named = card.replace(wanted, json.dumps(repo).encode())
    if not record.is_file():
        return {CARD: named}
    before, after = (hashlib.sha256(text).hexdigest().encode() for text in (card, named))
    return {CARD: named, MANIFEST: record.read_bytes().replace(before, after)}


def _find_target(repo: str, private: bool, create_pr: bool, notify: Callable[[str], None] | None) -> str:
    """The repository by the name that it has now, made if it is not there."""
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    hub = hub_api()
    with expect_answer(repo, access="push"):
        try:
            info = hub.model_info(repo)
        except GatedRepoError:
            raise
        except RepositoryNotFoundError:
            if create_pr:
                raise
            hub.create_repo(repo, private=private or None, exist_ok=True)
            info = hub.model_info(repo)
        if private and not info.private:
            raise HubError("the repository is public already", where=repo, hint="leave out --private, or another name")
    if notify and info.id != repo:
        notify(f"{repo} is now called {info.id}")
    return info.id


@dataclass
class _Push:
    """One push, from the head that it found to the commit on top of it."""

    folder: Path
    names: list[str]
    texts: dict[str, bytes]
    repo: str
    create_pr: bool
    revision: str | None

    def go(self) -> Pushed:
        """Upload, commit, and make sure."""
        from huggingface_hub import CommitOperationAdd

        self.hub: HfApi = hub_api()
        with expect_answer(self.repo, access="push"):
            if self.revision and not self.create_pr:
                self.hub.create_branch(self.repo, branch=self.revision, exist_ok=True)
            self.head: ModelInfo = self.hub.model_info(self.repo, revision=self.revision)
            self.requests = self._requests() if self.create_pr else {}
            additions = [CommitOperationAdd(n, self.texts.get(n) or str(self.folder / n)) for n in self.names]
            with disable_progress_bars():
                return self._tried(additions)

    def _tried(self, additions: list[CommitOperationAdd], attempt: int = 1) -> Pushed:
        """Commit, again where that failed in passing and is not on the Hub after all."""
        from httpx2 import HTTPError

        from hfsoup.hub.retry import describe_failure, retry_delay, wait_to_retry

        try:
            return self._commit(additions)
        except (HTTPError, RuntimeError, ValueError, KeyError, TypeError) as error:
            root = find_cause(error)
            response = getattr(root, "response", None)
            if response is not None and response.status_code in FINAL_STATUSES:
                raise
            if isinstance(error, ValueError) and "metadata in README.md" in str(error):
                what = f"the Hub does not take the card: {' '.join(str(error).split())[:300]}"
                raise HubError(what, where=str(self.folder / "README.md"), hint="mend README.md") from error
            if (found := self._landed()) is not None:
                return found
            failure = root if response is None else response
            seconds = retry_delay(failure, attempt, tries=MAX_TRIES) if isinstance(root, HTTPError) else None
            if seconds is None:
                raise
        wait_to_retry(seconds, f"{describe_failure(failure)} ({self.repo}, commit)")
        return self._tried(additions, attempt + 1)

    def _commit(self, additions: list[CommitOperationAdd]) -> Pushed:
        from huggingface_hub import CommitOperationDelete

        self._upload(additions)
        stale = [CommitOperationDelete(name) for name in self._stale(self.head)]
        commit = self.hub.create_commit(
            self.repo,
            [*additions, *stale],
            commit_message=MESSAGE,
            commit_description=DESCRIPTION,
            parent_commit=self.head.sha,
            revision=self.revision,
            create_pr=self.create_pr,
        )
        return Pushed(self.repo, commit.oid, commit.pr_url or f"{self.hub.endpoint}/{self.repo}")

    def _upload(self, additions: list[CommitOperationAdd]) -> None:
        """Send the large files, by HTTP where Xet does not take them; none is left out for a .gitignore there."""
        from hfsoup.hub.retry import LIMITS, XET_BLOCK

        send = partial(
            self.hub.preupload_lfs_files, self.repo, additions, free_memory=False, revision=self.revision,
            create_pr=self.create_pr, gitignore_content="",
        )  # fmt: skip
        size = sum((self.folder / name).stat().st_size for name in self.names)
        end = time.monotonic() + LIMITS.block * (1 + size / XET_BLOCK)
        try:
            wait_unless_overdue(send, lambda: time.monotonic() > end)
        except (RuntimeError, OSError) as error:
            if not is_xet_error(error):
                raise
            notify_listener(f"{self.repo}: the files do not get there by Xet; once more by HTTP")
            with disable_xet():
                send()

    def _stale(self, info: ModelInfo) -> list[str]:
        """Weight files of an earlier model, and what was measured and drawn of it."""
        listed = [sibling.rfilename for sibling in info.siblings or ()]
        return [name for name in listed if STALE.fullmatch(name) and name not in self.names]

    def _landed(self) -> Pushed | None:
        """Our commit, if it is on the Hub: the one on top of the head that we found, with our files in it."""
        if self.create_pr:
            for reference, commit in self._requests().items():
                if reference not in self.requests and self._ours(commit):
                    number = reference.rpartition("/")[2]
                    return Pushed(self.repo, commit, f"{self.hub.endpoint}/{self.repo}/discussions/{number}")
            return None
        commits = [c.commit_id for c in self.hub.list_repo_commits(self.repo, revision=self.revision)]
        place = commits.index(self.head.sha) if self.head.sha in commits else 0
        if place == 0 or not self._ours(commits[place - 1]):
            return None
        return Pushed(self.repo, commits[place - 1], f"{self.hub.endpoint}/{self.repo}")

    def _ours(self, commit: str) -> bool:
        """Whether a commit holds our files, byte for byte, and no stale ones."""
        info = self.hub.model_info(self.repo, revision=commit, files_metadata=True)
        there = {s.rfilename: (s.lfs.sha256 if s.lfs else None, s.blob_id) for s in info.siblings or ()}
        for name in self.names:
            sha256, blob = there.get(name, (None, None))
            if (sha256 or blob) != self._hash(name, large=bool(sha256)):
                return False
        return not self._stale(info)

    def _hash(self, name: str, *, large: bool) -> str:
        """The sha256 of a file as it is pushed, or its git object id."""
        if (text := self.texts.get(name)) is None:
            return (hash_file if large else hash_blob)(self.folder / name)
        start = b"" if large else b"blob %d\0" % len(text)
        return hashlib.new("sha256" if large else "sha1", start + text, usedforsecurity=False).hexdigest()

    def _requests(self) -> dict[str, str]:
        """Pull requests, by reference, with the commit that each is at."""
        refs = self.hub.list_repo_refs(self.repo, include_pull_requests=True)
        return {ref.ref: ref.target_commit for ref in refs.pull_requests or ()}
