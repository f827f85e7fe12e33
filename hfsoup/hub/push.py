"""Pushes a model folder to the Hub in one commit."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from hfsoup.hub.cards import CARD, EVAL_RESULTS, MANIFEST, SIGNATURE, name_card, read_card_name
from hfsoup.hub.client import (
    FOLDER,
    SAME_COMMAND,
    disable_progress_bars,
    expect_answer,
    find_cause,
    hub_api,
    is_xet_error,
    wait_unless_overdue,
)
from hfsoup.hub.notices import listening, notify_listener
from hfsoup.utils.errors import HubError, SoupError
from hfsoup.utils.hashing import hash_blob, hash_file
from hfsoup.utils.text import join_names

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.hf_api import ModelInfo

STALE = re.compile(
    r"(model|pytorch_model)(-\d+-of-\d+)?\.(safetensors|bin)(\.index\.json)?|adapter_(config\.json|model\.(safetensors|bin))"
    r"|evaluation\.json|figures/(scores|search|closeness|line)(-dark)?\.png"
    rf"|{re.escape(EVAL_RESULTS)}[^/]+\.yaml"
)
# After these answers there is no commit.
FINAL_STATUSES = (400, 401, 403, 404, 413, 422)
# Hidden files and folders but those that the Hub reads: git's, editors', caches, .env. And what Python and ssh keep.
IGNORED = re.compile(r"(^|/)(?!\.eval_results/|\.gitattributes$)\.|(^|/)(__pycache__/|id_(rsa|ecdsa|ed25519)$)")
KEY = re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----")
MAX_TRIES = 2
MESSAGE = "Add model soup"
DESCRIPTION = "Baked with hfsoup; soup.json says from what."


@dataclass(frozen=True)
class Pushed:
    """Where a soup was pushed to.

    `url` is the page of the repository or of the pull request, `collection` that of the Collection, where there is one.
    """

    repo: str
    commit: str
    url: str
    collection: str | None = None

    def to_json(self) -> dict[str, str]:
        """What there is, as plain values."""
        return {name: value for name, value in vars(self).items() if value is not None}


def require_push_access(repo: str, *, create_pr: bool = False) -> None:
    """Raise HubError before any work if the name is invalid, there is no token, or it has no write permission."""
    from huggingface_hub import get_token
    from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise HubError(f"not a repository name: {repo!r}", hint="--push ORG/NAME") from error
    if not get_token():
        raise HubError("pushing needs a token, found none", where=repo, hint="hf auth login, or HF_TOKEN=…")
    with expect_answer(repo, access="push"):
        rights = _read_rights(hub_api().whoami())
    user, namespace, name = next(iter(rights.roles)), *repo.rpartition("/")[::2]
    if not namespace:
        raise HubError(f"expected ORG/NAME, found {repo!r}", hint=f"--push {user}/{repo}")
    if rights.role == "read" and not create_pr:
        raise HubError("your token may only read", where=repo, hint="hf auth login, with a token that may write")
    if rights.scopes is not None and not create_pr and not rights.scopes & {namespace, repo}:
        what = f"your fine-grained token has no write permission for {namespace}"
        where = f"{hub_api().endpoint}/settings/tokens"
        raise HubError(what, where=repo, hint=f"allow it to write to repositories of {namespace} at {where}")
    if rights.roles.get(namespace) == "read" and not create_pr:
        what = f"your role in {namespace} is read, which does not allow pushing"
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
        what = f"there is no such repository, and your fine-grained token cannot create one in {namespace}"
        raise HubError(what, where=repo, hint=f"create it at {hub_api().endpoint}/new, or another token: hf auth login")
    if namespace not in rights.roles:
        what = f"your token may not push to {namespace}, only to {', '.join(rights.roles)}"
        raise HubError(what, where=repo, hint=f"--push {user}/{name}")
    return None


@dataclass(frozen=True)
class _Rights:
    """The permissions of a token.

    `role` is its own; `roles` are the user's, in the user's own namespace, which comes first, and in organisations;
    `scopes` are the namespaces and repositories that a fine-grained token may write to, None for other tokens.
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
    more: Callable[[str], Mapping[str, bytes]] = lambda _: {},
    notify: Callable[[str], None] | None = None,
    message: str = MESSAGE,
    description: str = DESCRIPTION,
) -> Pushed:
    """Upload every file of `folder` in one commit on top of the repository's head.

    Hidden files stay on this machine, and so do private keys, which is said. Weights, figures and results of an earlier
    model that the folder does not have are deleted in the same commit. If somebody else pushes at the same time,
    nothing is overwritten. If the answer to a commit is lost, the commit is looked up before it is sent again.

    Args:
        folder: a model folder.
        repo: the repository; created if it does not exist.
        private: create it as private; an existing public one is refused.
        create_pr: as a pull request.
        revision: the branch; created if it does not exist.
        more: files beside those of the folder, by the repository's current name; none to a signed folder, which its
            signature would not be about.
        notify: called with notices of waits, and of a repository that was renamed.
        message: of the commit.
        description: of the commit.

    Raises:
        HubError: no token, no permission, a concurrent push, or no answer; its hint ends with the command to repeat.
    """
    names = _list_files(folder) if folder.is_dir() else []
    if "config.json" not in names:
        found = "no config.json" if folder.is_dir() else "a file" if folder.exists() else "no such folder"
        beside = (path for path in folder.absolute().parent.glob("*/config.json") if path.parent != folder.absolute())
        near = next((f"hfsoup push {shlex.quote(os.path.relpath(path.parent))} {repo}" for path in sorted(beside)), "")
        hint = near or f"hfsoup bake … --output {shlex.quote(str(folder))} makes one"
        raise SoupError(f"expected a model folder, found {found}", where=str(folder), hint=hint)
    options = ["--private"] * private + ["--create-pr"] * create_pr + (["--revision", revision] if revision else [])

    def line(repo: str) -> str:
        return shlex.join(["hfsoup", "push", str(folder), repo, *options])

    try:
        with listening(notify):
            require_push_access(repo, create_pr=create_pr)
            target = find_target(repo, private, create_pr, notify)
            texts = _write_texts(folder, target, revision, more)
            names = sorted({*_leave_out_keys(folder, names), *texts})
            return _Push(folder, names, texts, target, create_pr, revision, message, description).run()
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
    """The files of a model folder and its subfolders, without hidden ones."""
    names = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return sorted(name for name in names if not IGNORED.search(name))


def _leave_out_keys(folder: Path, names: list[str]) -> list[str]:
    """The same without private keys, such as the one that signs: a push is not the place where they become known."""
    keys = [name for name in names if _is_private_key(folder / name)]
    if keys:
        notify_listener(f"not pushed, because it holds a private key: {join_names(keys, 6)}")
    return [name for name in names if name not in keys]


def _is_private_key(path: Path) -> bool:
    with path.open("rb") as file:
        return KEY.search(file.read(4096)) is not None


def _write_texts(
    folder: Path, repo: str, revision: str | None, more: Callable[[str], Mapping[str, bytes]]
) -> dict[str, bytes]:
    """The files that are not pushed as they are in the folder, by name.

    That is the card, which names the repository, soup.json with the hash of that card, and `more`. The folder is not
    changed, as it may be pushed elsewhere too; a signed one is pushed unchanged.
    """
    added = {name: text for name, text in more(repo).items() if not (folder / name).exists()}
    card = (folder / CARD).read_bytes() if (folder / CARD).is_file() else b""
    named = name_card(card.decode("utf-8", "surrogateescape"), repo, revision).encode("utf-8", "surrogateescape")
    if (folder / SIGNATURE).exists():
        if named != card:
            name = read_card_name(card.decode("utf-8", "surrogateescape"))
            notify_listener(f"{SIGNATURE} signs a card that says {name}; the card is pushed unchanged")
        if added:
            notify_listener(f"{SIGNATURE} does not sign {join_names([*added], 3)}, which is not pushed")
        return {}
    if named == card:
        return added
    added[CARD] = named
    if (folder / MANIFEST).is_file():
        before, after = (hashlib.sha256(text).hexdigest().encode() for text in (card, named))
        added[MANIFEST] = (folder / MANIFEST).read_bytes().replace(before, after)
    return added


def find_target(repo: str, private: bool, create_pr: bool, notify: Callable[[str], None] | None) -> str:
    """The repository's current name; it is created if it does not exist."""
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
            raise HubError("the repository is already public", where=repo, hint="leave out --private, or another name")
    if notify and info.id != repo:
        notify(f"{repo} is now called {info.id}")
    return info.id


@dataclass
class _Push:
    """One push: a commit on top of the head that it found."""

    folder: Path
    names: list[str]
    texts: dict[str, bytes]
    repo: str
    create_pr: bool
    revision: str | None
    message: str
    description: str

    def run(self) -> Pushed:
        """Upload the files and commit them."""
        self.hub: HfApi = hub_api()
        with expect_answer(self.repo, access="push"), ExitStack() as self.open_files:
            if self.revision and not self.create_pr:
                self.hub.create_branch(self.repo, branch=self.revision, exist_ok=True)
            self.head: ModelInfo = self.hub.model_info(self.repo, revision=self.revision)
            self.pull_requests = self._list_pull_requests() if self.create_pr else {}
            with disable_progress_bars():
                return self._commit_with_retries(self._list_additions())

    def _commit_with_retries(self, additions: list[CommitOperationAdd], attempt: int = 1) -> Pushed:
        """Commit; after a transient failure look whether the commit exists, and if not, try again.

        Requests that may be sent twice were sent often enough when they fail.
        """
        from httpx2 import HTTPError

        from hfsoup.hub.retry import RequestFailedError, describe_failure, may_retry, retry_delay, wait_to_retry

        try:
            return self._commit(additions)
        except (HTTPError, RuntimeError, ValueError, KeyError, TypeError) as error:
            root = find_cause(error)
            response = getattr(root, "response", None)
            if response is not None and response.status_code in FINAL_STATUSES:
                raise
            if isinstance(error, ValueError) and "metadata in README.md" in str(error):
                what = f"the Hub refuses the card: {' '.join(str(error).split())[:300]}"
                raise HubError(what, where=str(self.folder / "README.md"), hint="correct README.md") from error
            if (found := self._find_commit()) is not None:
                return found
            failure = root if response is None else response
            given_up = isinstance(error, RequestFailedError) and may_retry(error.request)
            again = isinstance(root, HTTPError) and not given_up
            seconds = retry_delay(failure, attempt, tries=MAX_TRIES) if again else None
            if seconds is None:
                raise
        wait_to_retry(seconds, f"{describe_failure(failure)} ({self.repo}, commit)")
        return self._commit_with_retries(additions, attempt + 1)

    def _commit(self, additions: list[CommitOperationAdd]) -> Pushed:
        from huggingface_hub import CommitOperationDelete

        uploaded = self._upload(additions)
        stale = [CommitOperationDelete(name) for name in self._list_stale(self.head)]
        commit = self.hub.create_commit(
            self.repo,
            [*uploaded, *stale],
            commit_message=self.message,
            commit_description=self.description,
            parent_commit=self.head.sha,
            revision=self.revision,
            create_pr=self.create_pr,
        )
        return Pushed(self.repo, commit.oid, commit.pr_url or f"{self.hub.endpoint}/{self.repo}")

    def _upload(self, additions: list[CommitOperationAdd]) -> list[CommitOperationAdd]:
        """Upload the large files, by HTTP if Xet fails; the additions to commit."""
        from hfsoup.hub.retry import LIMITS, XET_BLOCK

        size = sum((self.folder / name).stat().st_size for name in self.names if name not in self.texts)
        end = time.monotonic() + LIMITS.block * (1 + size / XET_BLOCK)
        try:
            wait_unless_overdue(partial(self._send, additions), lambda: time.monotonic() > end)
        except (RuntimeError, OSError) as error:
            if not is_xet_error(error):
                raise
            notify_listener(f"{self.repo}: the upload by Xet failed; retrying by HTTP")
            # huggingface_hub sends open files by HTTP.
            additions = self._list_additions(self._open)
            self._send(additions)
        return additions

    def _send(self, additions: list[CommitOperationAdd]) -> None:
        """Upload the large files of `additions`; a .gitignore in the repository is ignored."""
        self.hub.preupload_lfs_files(
            self.repo, additions, free_memory=False, revision=self.revision, create_pr=self.create_pr,
            gitignore_content="",
        )  # fmt: skip

    def _list_additions(self, source: Callable[[Path], str | BinaryIO] = str) -> list[CommitOperationAdd]:
        """The files to commit; those that are not in `texts` as `source` gives them."""
        from huggingface_hub import CommitOperationAdd

        return [CommitOperationAdd(name, self.texts.get(name) or source(self.folder / name)) for name in self.names]

    def _open(self, path: Path) -> BinaryIO:
        """A file that stays open until the end of the push."""
        return self.open_files.enter_context(path.open("rb"))

    def _list_stale(self, info: ModelInfo) -> list[str]:
        """Weights, evaluation and figures of an earlier model."""
        listed = [sibling.rfilename for sibling in info.siblings or ()]
        return [name for name in listed if STALE.fullmatch(name) and name not in self.names]

    def _find_commit(self) -> Pushed | None:
        """Our commit if it is on the Hub: the next one after the head that we found, with our files."""
        if self.create_pr:
            for reference, commit in self._list_pull_requests().items():
                if reference not in self.pull_requests and self._is_ours(commit):
                    number = reference.rpartition("/")[2]
                    return Pushed(self.repo, commit, f"{self.hub.endpoint}/{self.repo}/discussions/{number}")
            return None
        commits = [c.commit_id for c in self.hub.list_repo_commits(self.repo, revision=self.revision)]
        place = commits.index(self.head.sha) if self.head.sha in commits else 0
        if place == 0 or not self._is_ours(commits[place - 1]):
            return None
        return Pushed(self.repo, commits[place - 1], f"{self.hub.endpoint}/{self.repo}")

    def _is_ours(self, commit: str) -> bool:
        """Whether a commit has our files, byte for byte, and no stale ones."""
        info = self.hub.model_info(self.repo, revision=commit, files_metadata=True)
        there = {s.rfilename: (s.lfs.sha256 if s.lfs else None, s.blob_id) for s in info.siblings or ()}
        for name in self.names:
            sha256, blob = there.get(name, (None, None))
            if (sha256 or blob) != self._hash(name, large=bool(sha256)):
                return False
        return not self._list_stale(info)

    def _hash(self, name: str, *, large: bool) -> str:
        """The sha256 of a file as it is pushed, or its git object id."""
        if (text := self.texts.get(name)) is None:
            return (hash_file if large else hash_blob)(self.folder / name)
        start = b"" if large else b"blob %d\0" % len(text)
        return hashlib.new("sha256" if large else "sha1", start + text, usedforsecurity=False).hexdigest()

    def _list_pull_requests(self) -> dict[str, str]:
        """The commit of every pull request, by reference."""
        refs = self.hub.list_repo_refs(self.repo, include_pull_requests=True)
        return {ref.ref: ref.target_commit for ref in refs.pull_requests or ()}
