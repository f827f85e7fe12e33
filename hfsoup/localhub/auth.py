"""Users, organisations and tokens, kept in `DIR/hub.json`; and who may do what."""

from __future__ import annotations

import base64
import binascii
import hmac
import json
import secrets
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hfsoup.errors import SoupError
from hfsoup.localhub.files import replace
from hfsoup.localhub.names import RESERVED, valid_part
from hfsoup.localhub.refusal import RefusedError, bad_token

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


@dataclass(frozen=True)
class User:
    """Who is calling, and whether the token may write."""

    name: str
    orgs: tuple[str, ...]
    role: str

    def owns(self, namespace: str) -> bool:
        """Whether the namespace is the user's own or an organisation of theirs."""
        return namespace == self.name or namespace in self.orgs


class Accounts:
    """The users of one Hub. `DIR/hub.json` may be edited while the Hub runs: it is read again when it changed."""

    def __init__(self, folder: Path, first_user: str) -> None:
        self._path = folder / "hub.json"
        self._lock = threading.Lock()
        self._seen: tuple[int, int, int] | None = None
        self._users: dict[str, Any] = {}
        if not self._path.exists():
            self._save({first_user: {"orgs": [], "tokens": {_new_token(): "write"}}})
        self._refresh()

    def first(self) -> tuple[str, str]:
        """Name and token of the first user that holds a token."""
        with self._lock:
            self._refresh()
            for name, entry in self._users.items():
                for token in entry["tokens"]:
                    return name, token
        raise SoupError("no user of this Hub has a token", where=str(self._path), hint=f"rm {self._path}")

    def add_user(self, name: str, orgs: Sequence[str], role: str) -> str:
        """A new token for a user, who is created or joins further organisations if need be."""
        for part in (name, *orgs):
            if not valid_part(part) or part.lower() in RESERVED:
                raise SoupError(f"expected a user or organisation name, found {part!r}", where=str(self._path))
        if role not in ("read", "write"):
            raise SoupError(f"expected the role read or write, found {role!r}", where=f"user {name}")
        token = _new_token()
        with self._lock:
            self._refresh()
            entry = self._users.setdefault(name, {"orgs": [], "tokens": {}})
            entry["orgs"] += [org for org in orgs if org not in entry["orgs"]]
            entry["tokens"][token] = role
            self._save(self._users)
        return token

    def user(self, authorization: str | None) -> User | None:
        """Who sent this `Authorization` header; None for nobody, RefusedError 401 for a token unknown here."""
        token = _token_of(authorization)
        if token is None:
            return None
        found: User | None = None
        with self._lock:
            self._refresh()
            for name, entry in self._users.items():
                for known, role in entry["tokens"].items():
                    if hmac.compare_digest(known.encode(), token.encode()):
                        found = User(name, tuple(entry["orgs"]), role)
        if found is None:
            raise bad_token()
        return found

    def is_user(self, name: str) -> bool:
        """Whether a user (not an organisation) has this name."""
        with self._lock:
            self._refresh()
            return name in self._users

    def _refresh(self) -> None:
        stat = self._path.stat()
        now = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
        if now == self._seen:
            return
        try:
            users = json.loads(self._path.read_text())["users"]
            self._users = {str(name): _entry(entry) for name, entry in users.items()}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            form = '{"users": {NAME: {"orgs": [ORG], "tokens": {TOKEN: "write"}}}}'
            raise SoupError(f"expected {form}, found something else", where=str(self._path)) from error
        self._seen = now

    def _save(self, users: dict[str, Any]) -> None:
        replace(self._path, json.dumps({"users": users}, indent=2).encode(), mode=0o600)


def need_user(user: User | None) -> User:
    """The caller, who must be somebody."""
    if user is None:
        raise RefusedError(401, "Invalid username or password.", headers={"WWW-Authenticate": 'Basic realm="Hub"'})
    return user


def need_owner(user: User | None, namespace: str) -> User:
    """The caller, who must be allowed to write to the namespace."""
    somebody = need_user(user)
    if somebody.role != "write":
        raise RefusedError(403, f"This token of {somebody.name} may only read: you need a token with write rights.")
    if not somebody.owns(namespace):
        raise RefusedError(403, f"You don't have the rights to write under the namespace {namespace!r}.")
    return somebody


def _entry(entry: dict[str, Any]) -> dict[str, Any]:
    orgs, tokens = list(entry.get("orgs", [])), dict(entry.get("tokens", {}))
    return {"orgs": [str(org) for org in orgs], "tokens": {str(token): str(role) for token, role in tokens.items()}}


def _token_of(authorization: str | None) -> str | None:
    scheme, _, value = (authorization or "").strip().partition(" ")
    if not scheme:
        return None
    if scheme.lower() == "bearer" and value:
        return value.strip()
    if scheme.lower() == "basic":
        try:
            name, _, password = base64.b64decode(value, validate=True).decode().partition(":")
            return password or name
        except (binascii.Error, UnicodeDecodeError) as error:
            raise bad_token() from error
    raise bad_token()


def _new_token() -> str:
    return "hf_" + secrets.token_hex(17)
