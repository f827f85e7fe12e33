"""Users, organisations and tokens (`DIR/hub.json`), and who may do what."""

from __future__ import annotations

import base64
import binascii
import hmac
import secrets
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
        if self._path.exists():
            self._read()
        elif create:
            folder.mkdir(parents=True, exist_ok=True)
        else:
            raise SoupError("expected the folder of a Hub, found no users in it", where=str(folder), hint=self._hint)

    def users(self) -> dict[str, Roles]:
        """The users, each with the roles of their tokens by token."""
        return self._read()[0]

    def orgs(self) -> dict[str, Roles]:
        """The organisations, each with the roles of its members by name."""
        return self._read()[1]

    def first(self) -> tuple[str, str]:
        """Name and token of the first user with a token."""
        for name, tokens in self.users().items():
            for token in tokens:
                return name, token
        raise SoupError("no user of this Hub has a token", where=str(self._path), hint=self._hint)

    def add_user(self, name: str, orgs: Sequence[str] = (), role: str = "write") -> str:
        """A new token, `read` or `write`, for a user, who is made, or joins further organisations, if need be."""
        _check_role(role, ROLES[:2])
        token = "hf_" + secrets.token_hex(17)
        with self._change() as (users, known):
            for part, others in ((name, known), *((org, users) for org in orgs)):
                self._check_name(part, others)
            users.setdefault(name, {})[token] = role
            for org in orgs:
                known.setdefault(org, {}).setdefault(name, "write")
        return token

    def remove_user(self, name: str) -> None:
        """Remove a user, from organisations too; repos stay."""
        with self._change() as (users, orgs):
            self._find(name, users, "user", self._list_hint("user"))
            del users[name]
            for members in orgs.values():
                members.pop(name, None)

    def add_members(self, org: str, roles: Roles) -> None:
        """Give users a role each in an organisation, which is made if need be."""
        with self._change() as (users, orgs):
            self._check_name(org, users)
            for name, role in roles.items():
                _check_role(role, ROLES)
                self._find(name, users, "user", self._add_hint("user", name))
            orgs[org] = orgs.get(org, {}) | roles

    def require_user(self, name: str) -> None:
        """SoupError, with the known ones, if there is no such user."""
        self._find(name, self.users(), "user", self._add_hint("user", name))

    def remove_org(self, org: str, name: str | None = None) -> None:
        """Remove a member from an organisation, or the organisation; repos stay."""
        with self._change() as (_, orgs):
            members = self._find(org, orgs, "organisation", self._list_hint("org"))
            if name is None:
                del orgs[org]
            else:
                self._find(name, members, f"member of {org}", self._list_hint("org"))
                del members[name]

    def user(self, authorization: str | None) -> User | None:
        """Who sent this `Authorization` header; None for nobody, HttpError 401 for a token unknown here."""
        sent = _read_token(authorization)
        if sent is None:
            return None
        users, orgs = self._read()
        for name, tokens in users.items():
            for token, role in tokens.items():
                if hmac.compare_digest(token.encode(), sent.encode()):
                    return User(name, {org: members[name] for org, members in orgs.items() if name in members}, role)
        raise bad_token()

    def is_user(self, name: str) -> bool:
        """Whether a user (not an organisation) has this name."""
        return name in self.users()

    @property
    def _hint(self) -> str:
        return self._add_hint("user", "NAME")

    def _add_hint(self, kind: str, name: str) -> str:
        return f"hfsoup hub {kind} add {name} --dir {self._path.parent}"

    def _list_hint(self, kind: str) -> str:
        return f"hfsoup hub {kind} list --dir {self._path.parent}"

    def _check_name(self, name: str, others: Mapping[str, object]) -> None:
        if not valid_part(name) or name.lower() in RESERVED or name in others:
            taken = ", which is taken" if name in others else ""
            hint = "another name" if taken else "letters, digits, dots and hyphens, not a word of the Hub's addresses"
            where = str(self._path)
            raise SoupError(f"expected a user or organisation name, found {name!r}{taken}", where=where, hint=hint)

    def _find(self, name: str, known: dict[str, T], what: str, hint: str) -> T:
        if name not in known:
            names = ", ".join(known) or "none"
            raise SoupError(f"there is no {what} {name!r}; known: {names}", where=str(self._path), hint=hint)
        return known[name]

    def _read(self) -> tuple[dict[str, Roles], dict[str, Roles]]:
        """Users and organisations as the file has them now."""
        try:
            known = read_json(self._path, {"users": {}, "orgs": {}})
            users, orgs = (
                {str(name): {str(key): str(role) for key, role in roles.items()} for name, roles in known[part].items()}
                for part in ("users", "orgs")
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            form = '{"users": {NAME: {TOKEN: "write"}}, "orgs": {ORG: {NAME: "write"}}}'
            raise SoupError(f"expected {form}, found something else", where=str(self._path)) from error
        return users, orgs

    @contextmanager
    def _change(self) -> Iterator[tuple[dict[str, Roles], dict[str, Roles]]]:
        """Users and organisations to change; they are written when the block ends without an error."""
        with FileLock(self._path.with_name(".accounts.lock")):
            users, orgs = self._read()
            yield users, orgs
            write_json(self._path, {"users": users, "orgs": orgs}, mode=0o600)


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


def _check_role(role: str, known: tuple[str, ...]) -> None:
    if role not in known:
        what = f"expected the role {' or '.join(known)}, found {role!r}"
        raise SoupError(what, where="the accounts of this Hub", hint=" or ".join(known))


def _read_token(authorization: str | None) -> str | None:
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
