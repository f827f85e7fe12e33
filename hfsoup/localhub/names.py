"""Names of repos, branches and paths: what is allowed, and the path of each on disk."""

from __future__ import annotations

import re
from dataclasses import dataclass

from hfsoup.localhub.errors import HttpError

KINDS = ("models", "datasets", "spaces")
_PLACES = {"api", "lfs", "resolve-cache", "settings", "join", "login", "docs", "new", "collections", "avatars"}
RESERVED = frozenset({*KINDS, *_PLACES, "organizations"})

_PART = re.compile(r"\b[\w\-.]{1,96}\b", re.ASCII)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True)
class RepoName:
    """A repo's kind (`models`, `datasets`, `spaces`) and id (`ns/name`, or a bare `name` that no repo here has)."""

    kind: str
    id: str

    @property
    def namespace(self) -> str:
        """The user or organisation it belongs to; empty for a bare name."""
        return self.id.rpartition("/")[0]

    @property
    def web(self) -> str:
        """Its path on the web side: models have no prefix."""
        return self.id if self.kind == "models" else f"{self.kind}/{self.id}"

    @property
    def key(self) -> str:
        """Its path under `/api/` and under `repos/`."""
        return f"{self.kind}/{self.id}"

    @property
    def singular(self) -> str:
        """`model`, `dataset` or `space`."""
        return self.kind[:-1]


def valid_part(part: str) -> bool:
    """Whether a namespace or a repo name follows the rules of `huggingface_hub.utils.validate_repo_id`."""
    return bool(_PART.fullmatch(part)) and "--" not in part and ".." not in part and not part.endswith(".git")


def parse_repo_name(kind: str, repo_id: str) -> RepoName:
    """A checked `ns/name`; HttpError 400 if it is not allowed."""
    namespace, slash, name = repo_id.partition("/")
    if kind not in KINDS:
        raise HttpError(400, f"Invalid repo type: {kind!r}, expected one of model, dataset, space")
    if not slash or not valid_part(namespace) or not valid_part(name) or len(repo_id) > 96:
        rules = (
            "letters, digits, '-', '_', '.'; no '--' or '..', no '-' or '.' at an end, no '.git', 96 characters at most"
        )
        raise HttpError(400, f"Invalid repo name: {repo_id!r}, expected namespace/name of {rules}")
    if namespace.lower() in RESERVED:
        raise HttpError(400, f"Invalid repo name: the namespace {namespace!r} is reserved")
    return RepoName(kind, repo_id)


def check_path(path: str) -> str:
    """A path inside a repo that is safe to check out; HttpError 400 otherwise."""
    parts = path.split("/")
    bad = any(part in ("", ".", "..") or part.lower() == ".git" for part in parts)
    if bad or _CONTROL.search(path) or "\\" in path or len(path.encode()) > 4096:
        raise HttpError(422, f"Invalid file path: {path!r}")
    return path
