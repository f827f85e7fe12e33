"""Signed addresses of large files: whoever has one needs no token until it expires."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections.abc import Mapping
from urllib.parse import urlencode

from hfsoup.localhub.errors import HttpError

LIFETIME = 24 * 3600


class Signer:
    """Signs with a key that lives as long as the server runs."""

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)

    def href(self, base: str, action: str, oid: str, **fields: object) -> str:
        """An address `/lfs/<action>/<oid>` that carries these fields and a signature over all of it."""
        values = {name: str(value) for name, value in fields.items()} | {"until": str(int(time.time()) + LIFETIME)}
        values["sig"] = self._sign(action, oid, values)
        return f"{base}/lfs/{action}/{oid}?{urlencode(values)}"

    def check(self, action: str, oid: str, query: Mapping[str, str]) -> dict[str, str]:
        """The fields of a signed address; HttpError 403 if it was tampered with or is too old."""
        values = {name: value for name, value in query.items() if name != "sig"}
        good = hmac.compare_digest(self._sign(action, oid, values).encode(), query.get("sig", "").encode())
        if not good or int(values["until"]) < time.time():
            raise HttpError(403, "This address is not, or no longer, valid.")
        return values

    def _sign(self, action: str, oid: str, values: Mapping[str, str]) -> str:
        text = "\n".join([action, oid, *(f"{name}={values[name]}" for name in sorted(values))])
        return hmac.new(self._key, text.encode(), hashlib.sha256).hexdigest()
