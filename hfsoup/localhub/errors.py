"""HTTP errors as exceptions, with the headers by which clients choose theirs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class HttpError(Exception):
    """An HTTP error answer.

    Args:
        status: HTTP status.
        message: the `error` of the JSON body.
        code: the `X-Error-Code` header, by which clients choose their exception.
        headers: further headers.
        body: further fields of the JSON body.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str = "",
        headers: dict[str, str] | None = None,
        body: dict[str, object] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        # Clients read the header where an answer has no body.
        shown = " ".join(message.split()).encode("latin-1", "replace").decode("latin-1")
        self.headers = {"X-Error-Message": shown, **(headers or {})}
        self.body = {"error": message, **(body or {})}
        if code:
            self.headers["X-Error-Code"] = code


class MovedError(Exception):
    """The repo now has another name.

    Args:
        old: id asked for, `ns/name`.
        new: id it has now.
    """

    def __init__(self, old: str, new: str) -> None:
        super().__init__(f"{old} is now {new}")
        self.old = old
        self.new = new


def require_one_of(field: str, value: Any, allowed: Sequence[Any]) -> Any:
    """The value, which must be one of those allowed."""
    if value not in allowed:
        raise HttpError(400, f"Invalid {field}: {value!r}, expected one of {', '.join(map(str, allowed))}")
    return value


def no_repo(repo_id: str, *, anonymous: bool) -> HttpError:
    """The repo is missing, or private and not the caller's: both look the same from outside."""
    status = 401 if anonymous else 404
    return HttpError(status, "Repository not found", code="RepoNotFound", body={"repo": repo_id})


def no_revision(revision: str) -> HttpError:
    """No branch, tag or commit of that name."""
    return HttpError(404, f"Invalid rev id: {revision}", code="RevisionNotFound")


def no_entry(path: str, commit: str, *, what: str = "Entry not found") -> HttpError:
    """No such file or folder; the commit lets clients remember that it is absent there."""
    return HttpError(404, f"{what}: {path}", code="EntryNotFound", headers={"X-Repo-Commit": commit})


def bad_token() -> HttpError:
    """The token sent is not one of this Hub's."""
    return HttpError(401, "Invalid credentials in Authorization header")
