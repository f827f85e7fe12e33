"""One request to a Hub: who sends it, what it contains, which repo it is about, and what the caller may do there."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from typing import IO, Any
from urllib.parse import parse_qs, quote, urlencode

import pygit2
from starlette.requests import Request
from starlette.responses import Response

from hfsoup.localhub.auth import Accounts, User, require_owner, require_user
from hfsoup.localhub.contents import find_commit
from hfsoup.localhub.discussions import pr_ref
from hfsoup.localhub.errors import HttpError, MovedError, no_repo
from hfsoup.localhub.lfs import LfsStore
from hfsoup.localhub.names import RepoName
from hfsoup.localhub.signed_urls import Signer
from hfsoup.localhub.store import Repo, Store, parse_name

_COMMON = (
    *("author", "cardData", "createdAt", "disabled", "gated", "lastModified", "likes", "private", "sha", "siblings"),
    *("tags", "trendingScore", "usedStorage", "downloads", "downloadsAllTime"),
)
# What `expand` may ask for, by the kind of repo.
FIELDS = {
    "models": (
        *_COMMON,
        *("baseModels", "config", "evalResults", "library_name", "model-index", "pipeline_tag", "safetensors"),
        "spaces",
    ),
    "datasets": _COMMON,
    "spaces": (*_COMMON, "sdk", "subdomain", "models", "datasets"),
}
DISABLED = "Access to this resource is disabled."


@dataclass(frozen=True)
class Options:
    """How a Hub answers.

    Args:
        page_size: most items in one page of a list.
        part_size: bytes of one part; larger uploads are offered in parts to clients that can.
        cdn_port: port of a second origin that large files are sent to by a redirect; None serves them in place.
    """

    page_size: int = 1000
    part_size: int = 64 << 20
    cdn_port: int | None = None


@dataclass(frozen=True)
class Hub:
    """Stores, accounts and options of one Hub."""

    store: Store
    lfs: LfsStore
    accounts: Accounts
    signer: Signer
    options: Options


@dataclass
class HubRequest:
    """One request. `body` is there for handlers that do not stream."""

    hub: Hub
    http: Request
    params: dict[str, str]
    body: IO[bytes] | None = None

    @cached_property
    def user(self) -> User | None:
        """Who is calling; None for nobody."""
        return self.hub.accounts.user(self.http.headers.get("authorization"))

    @property
    def base(self) -> str:
        """This Hub's address as the client knows it."""
        return f"{self.http.url.scheme}://{self.http.headers.get('host', 'localhost')}"

    def json(self) -> dict[str, Any]:
        """The JSON object in the body; HttpError 400 for anything else."""
        try:
            value = json.loads(self.read() or b"{}")
        except ValueError as error:
            raise HttpError(400, "Expected a JSON body") from error
        if not isinstance(value, dict):
            raise HttpError(400, "Expected a JSON object as body")
        return value

    def form(self) -> dict[str, list[str]]:
        """The URL-encoded form in the body."""
        return parse_qs(self.read().decode(errors="replace"))

    def read(self) -> bytes:
        """The whole body."""
        return self.body.read() if self.body else b""

    def flag(self, name: str) -> bool:
        """A boolean of the query."""
        return is_true(self.http.query_params.get(name))

    def values(self, name: str) -> list[str]:
        """The values of a repeated query parameter, written `name` or `name[]`."""
        return self.http.query_params.getlist(name) + self.http.query_params.getlist(f"{name}[]")

    def allow_query(self, *names: str) -> None:
        """HttpError 400 for a query parameter of another name: better refused than silently ignored."""
        for key in self.http.query_params:
            if key.removesuffix("[]") not in names:
                raise HttpError(400, f"Unknown parameter {key!r}: this Hub knows {', '.join(names)}")

    def expand(self, kind: str) -> tuple[str, ...]:
        """The fields in `expand`, with the id; empty if there are none; HttpError 400 for an unknown one."""
        asked = [field for value in self.values("expand") for field in value.split(",")]
        for field in asked:
            if field not in FIELDS[kind]:
                known = ", ".join(FIELDS[kind])
                raise HttpError(400, f"Invalid expand: this Hub knows no {field!r} of {kind}, but {known}")
        return ("_id", "id", *asked) if asked else ()

    def page(self, items: list[Any]) -> tuple[list[Any], dict[str, str]]:
        """The page of a list at `cursor` of `limit` items, and a Link header to the next part."""
        query = self.http.query_params
        size = min(_number(query.get("limit"), self.hub.options.page_size), self.hub.options.page_size)
        start = _number(query.get("cursor"), 0)
        if start + size >= len(items) or size == 0:
            return items[start : start + size], {}
        pairs = [(key, value) for key, value in query.multi_items() if key != "cursor"]
        target = f"{self.base}{self.raw_path}?{urlencode([*pairs, ('cursor', str(start + size))])}"
        return items[start : start + size], {"Link": f'<{target}>; rel="next"'}

    @property
    def raw_path(self) -> str:
        """The path as sent."""
        return raw_path(self.http)

    def web_url(self, name: RepoName, *rest: str) -> str:
        """Absolute web address of something of a repo."""
        return "/".join([self.base, quote(name.web), *(quote(part) for part in rest)])

    def visible_repo(self, kind: str, repo_id: str) -> Repo | None:
        """The repo of that id, also by a former one, if the caller may see it."""
        name = parse_name(kind, repo_id)
        try:
            found = self.hub.store.open(name) if name else None
        except MovedError as moved:
            return self.visible_repo(kind, moved.new)
        return found if found and can_see(self.user, found) else None

    def visible_repos(self, kind: str, namespace: str | None = None) -> Iterator[Repo]:
        """The repos of a kind, of one namespace or of all, that the caller may see."""
        for name in self.hub.store.names(kind):
            # One that was renamed meanwhile has no other name here.
            with suppress(MovedError):
                repo = self.hub.store.open(name) if namespace in (None, name.namespace) else None
                if repo and can_see(self.user, repo):
                    yield repo

    def repo(self) -> Repo:
        """The repo of this request, which the caller may at least see."""
        user, kind, repo_id = self.user, self.params["kind"], self.params["repo"]
        name = parse_name(kind, repo_id)
        repo = self._open(name, repo_id) if name else None
        if repo is None or not can_see(user, repo):
            raise no_repo(repo_id, anonymous=user is None)
        if repo.meta.disabled:
            raise HttpError(403, DISABLED)
        return repo

    def repo_to_read(self) -> Repo:
        """The repo of this request, whose files the caller may read."""
        repo = self.repo()
        granted = [item["user"] for item in repo.meta.access if item["status"] == "accepted"]
        allowed = self.user and (self.user.member_of(repo.name.namespace) or self.user.name in granted)
        if repo.meta.gated and not allowed:
            text = f"Access to {repo.name.singular} {repo.name.id} is restricted"
            visit = f"Visit {self.web_url(repo.name)} to ask for access."
            if self.user is None:
                text += ". You must have access to it and be authenticated to access it. Please log in."
                raise HttpError(401, text, code="GatedRepo")
            text += f" and you are not in the authorized list. {visit}"
            raise HttpError(403, text, code="GatedRepo")
        return repo

    def repo_to_write(self) -> Repo:
        """The repo of this request, to which the caller may write."""
        repo = self.repo()
        require_owner(self.user, repo.name.namespace)
        return repo

    def repo_to_discuss(self) -> Repo:
        """The repo of this request, which the caller, who is somebody, may read."""
        require_user(self.user)
        return self.repo_to_read()

    def commit_to_read(self) -> tuple[Repo, pygit2.Commit]:
        """The repo of this request, whose files the caller may read, and the commit at its revision or main."""
        repo = self.repo_to_read()
        return repo, find_commit(repo.git, self.params.get("rev", "main"))

    def repo_to_commit(self) -> Repo:
        """The repo of this request, to whose revision the caller may commit, or to which they may propose a commit.

        Owners commit anywhere; whoever opened a pull request commits to it.
        """
        repo, user = self.repo_to_discuss(), require_user(self.user)
        revision = self.params["rev"]
        opened = [item for item in repo.meta.discussions if item["isPullRequest"] and item["author"] == user.name]
        if not self.flag("create_pr") and revision not in (pr_ref(item["num"]) for item in opened):
            require_owner(user, repo.name.namespace)
        return repo

    @property
    def is_local(self) -> bool:
        """Whether the client is on this machine, where it can open the folders of Xet."""
        client = self.http.client
        return client is not None and ipaddress.ip_address(client.host).is_loopback

    def xet_hash(self, repo: Repo, oid: str) -> str | None:
        """The Xet hash of a large file, for clients that can download it by Xet."""
        store = self.hub.lfs.xet
        able = self.is_local and "hf_hub/" in self.http.headers.get("user-agent", "")
        return store.hash(repo.path, oid) if store and able else None

    @contextmanager
    def change(self, repo: Repo) -> Iterator[Repo]:
        """The repo as it is now, under its lock; its hub.json is written when the block ends without an error."""
        with self.hub.store.lock(repo.name):
            now = self.reopen(repo)
            yield now
            self.hub.store.save(now)

    def reopen(self, repo: Repo) -> Repo:
        """The repo as it is now, read under its lock before a change."""
        found = self.hub.store.open(repo.name)
        if found is None:
            raise no_repo(repo.name.id, anonymous=False)
        return found

    def _open(self, name: RepoName, asked: str) -> Repo | None:
        try:
            return self.hub.store.open(name)
        except MovedError as moved:
            if self.visible_repo(name.kind, moved.new) is None:
                return None
            raise MovedError(asked, moved.new) from None


def can_see(user: User | None, repo: Repo) -> bool:
    """Whether the repo exists as far as this caller is concerned."""
    return repo.meta.visibility != "private" or (user is not None and user.member_of(repo.name.namespace))


def is_true(value: object) -> bool:
    """Whether a query or JSON value means yes."""
    return str(value).lower() in ("1", "true")


def raw_path(request: Request) -> str:
    """The path of a request before unquoting."""
    raw: bytes = request.scope["raw_path"]
    return raw.decode("latin-1")


def reply(value: object, *, status: int = 200, headers: dict[str, str] | None = None, kind: str = "") -> Response:
    """A JSON answer."""
    content = json.dumps(value, default=str).encode()
    return Response(content, status, headers, media_type=kind or "application/json")


def _number(text: str | None, default: int) -> int:
    if text is None or text == "":
        return default
    if not text.isascii() or not text.isdigit() or len(text) > 12:
        raise HttpError(400, f"Expected a number, found {text!r}")
    return int(text)
