"""Users, organisations and tokens (`DIR/hub.json`), and who may do what."""

from __future__ import annotations

import base64
import binascii
import hmac
import secrets
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from filelock import FileLock

from hfsoup.localhub.errors import HttpError, bad_token
from hfsoup.localhub.json_files import read_json, write_json
from hfsoup.localhub.names import RESERVED, valid_part
from hfsoup.utils.errors import SoupError

T = TypeVar("T")

ROLES = ("read", "write", "admin")
Roles = dict[str, str]


@dataclass(frozen=True)
class User:
    """Who is calling: the role of the token, and the user's role in each organisation."""

    name: str
    orgs: Roles
    role: str

    def member_of(self, namespace: str) -> bool:
        """Whether the namespace is the user's own or an organisation of theirs: they see all that is in it."""
        return namespace == self.name or namespace in self.orgs

    def writes_to(self, namespace: str) -> bool:
        """Whether the user, with a token for it, may change what is in the namespace."""
        return namespace == self.name or self.orgs.get(namespace, "read") != "read"


class Accounts:
    """The users and organisations of one Hub. What another process changes is seen at the next request."""

    def __init__(self, folder: Path, *, create: bool = False) -> None:
        """Open the accounts of a folder, or start them where there are none.

        Raises:
            SoupError: there are none and `create` is false, or the file is damaged.
        """
        self._path = folder / "hub.json"
        self._lock = threading.Lock()
        self._seen: tuple[int, int, int] | None = None
        self._users: dict[str, Roles] = {}
        self._orgs: dict[str, Roles] = {}
        if self._path.exists():
            self._refresh()
        elif create:
            folder.mkdir(parents=True, exist_ok=True)
        else:
            hint = f"hfsoup hub user add NAME --dir {folder}"
            raise SoupError("expected the folder of a Hub, found no users in it", where=str(folder), hint=hint)

    def users(self) -> dict[str, Roles]:
        """The users, each with the roles of their tokens by token."""
        with self._lock:
            self._refresh()
            return {name: dict(tokens) for name, tokens in self._users.items()}

    def orgs(self) -> dict[str, Roles]:
        """The organisations, each with the roles of its members by name."""
        with self._lock:
            self._refresh()
            return {name: dict(members) for name, members in self._orgs.items()}

    def first(self) -> tuple[str, str]:
        """Name and token of the first user with a token."""
        for name, tokens in self.users().items():
            for token in tokens:
                return name, token
        hint = f"hfsoup hub user add NAME --dir {self._path.parent}"
        raise SoupError("no user of this Hub has a token", where=str(self._path), hint=hint)

    def add_user(self, name: str, orgs: Sequence[str] = (), role: str = "write") -> str:
        """A new token, `read` or `write`, for a user, who is made, or joins further organisations, if need be."""
        _check_role(role, ROLES[:2])
        token = _new_token()
        with self._change():
            for part, others in ((name, self._orgs), *((org, self._users) for org in orgs)):
                self._check_name(part, others)
            self._users.setdefault(name, {})[token] = role
            for org in orgs:
                self._orgs.setdefault(org, {}).setdefault(name, "write")
        return token

    def remove_user(self, name: str) -> None:
        """Take a user away, from organisations too; repos stay."""
        with self._change():
            self._find(name, self._users, "user")
            del self._users[name]
            for members in self._orgs.values():
                members.pop(name, None)

    def add_members(self, org: str, roles: Roles) -> None:
        """Give users a role each in an organisation, which is made if need be."""
        with self._change():
            self._check_name(org, self._users)
            for name, role in roles.items():
                _check_role(role, ROLES)
                self._find(name, self._users, "user")
            self._orgs[org] = self._orgs.get(org, {}) | roles

    def require_user(self, name: str) -> None:
        """SoupError, with the known ones, if there is no such user."""
        self._find(name, self.users(), "user")

    def remove_org(self, org: str, name: str | None = None) -> None:
        """Take a member out of an organisation, or the organisation away; repos stay."""
        with self._change():
            members = self._find(org, self._orgs, "organisation")
            if name is None:
                del self._orgs[org]
            else:
                self._find(name, members, f"member of {org}")
                del members[name]

    def user(self, authorization: str | None) -> User | None:
        """Who sent this `Authorization` header; None for nobody, HttpError 401 for a token unknown here."""
        sent = _token_of(authorization)
        if sent is None:
            return None
        found: User | None = None
        with self._lock:
            self._refresh()
            for name, tokens in self._users.items():
                for known, role in tokens.items():
                    if hmac.compare_digest(known.encode(), sent.encode()):
                        orgs = {org: members[name] for org, members in self._orgs.items() if name in members}
                        found = User(name, orgs, role)
        if found is None:
            raise bad_token()
        return found

    def is_user(self, name: str) -> bool:
        """Whether a user (not an organisation) has this name."""
        return name in self.users()

    def _check_name(self, name: str, others: Mapping[str, object]) -> None:
        if not valid_part(name) or name.lower() in RESERVED or name in others:
            taken = ", which is taken" if name in others else ""
            raise SoupError(f"expected a user or organisation name, found {name!r}{taken}", where=str(self._path))

    def _find(self, name: str, known: dict[str, T], what: str) -> T:
        if name not in known:
            names = ", ".join(known) or "none"
            raise SoupError(f"there is no {what} {name!r}; known: {names}", where=str(self._path))
        return known[name]

    def _refresh(self) -> None:
        if not self._path.exists():
            return
        stat = self._path.stat()
        now = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
        if now == self._seen:
            return
        try:
            known = read_json(self._path, {})
            self._users, self._orgs = (_texts(known[part]) for part in ("users", "orgs"))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            form = '{"users": {NAME: {TOKEN: "write"}}, "orgs": {ORG: {NAME: "write"}}}'
            raise SoupError(f"expected {form}, found something else", where=str(self._path)) from error
        self._seen = now

    @contextmanager
    def _change(self) -> Iterator[None]:
        """Change users and organisations as they are now, also on disk; an error in the block changes nothing."""
        with self._lock, FileLock(self._path.with_name(".accounts.lock")):
            self._refresh()
            self._seen = None
            yield
            write_json(self._path, {"users": self._users, "orgs": self._orgs}, mode=0o600)


def require_user(user: User | None) -> User:
    """The caller, who must be somebody."""
    if user is None:
        raise HttpError(401, "Invalid username or password.", headers={"WWW-Authenticate": 'Basic realm="Hub"'})
    return user


def require_owner(user: User | None, namespace: str) -> User:
    """The caller, who must be allowed to write to the namespace."""
    somebody = require_user(user)
    if somebody.role != "write":
        raise HttpError(403, f"This token of {somebody.name} may only read: you need a token with write rights.")
    if not somebody.writes_to(namespace):
        raise HttpError(403, f"You don't have the rights to write under the namespace {namespace!r}.")
    return somebody


def _texts(known: dict[str, dict[str, str]]) -> dict[str, Roles]:
    return {str(name): {str(key): str(role) for key, role in roles.items()} for name, roles in known.items()}


def _check_role(role: str, known: tuple[str, ...]) -> None:
    if role not in known:
        raise SoupError(f"expected the role {' or '.join(known)}, found {role!r}", where="the accounts of this Hub")


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
