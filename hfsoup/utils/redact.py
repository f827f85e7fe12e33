"""Removes tokens and passwords from text before it is printed or written."""

from __future__ import annotations

import os
import re
import sys
import traceback
from types import TracebackType

VARIABLES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HUGGINGFACEHUB_API_TOKEN")
TOKEN_PATTERN = re.compile(
    r"""\b(hf|api_org)_(oauth_)?[A-Za-z0-9]{20,}[\w.\-]*|(?<=://)[^/\s@'"]+(?=@)|(?<=[Bb]earer )[^\s'",]+"""
)


def redact(text: str) -> str:
    """The text without the user's token, anything that looks like a token, and names and passwords in URLs."""
    for secret in _list_secrets():
        text = text.replace(secret, "…")
    return TOKEN_PATTERN.sub("…", text)


def excepthook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print a redacted traceback; for `sys.excepthook`."""
    sys.stderr.write(redact("".join(traceback.format_exception(kind, error, trace))))


def _list_secrets() -> set[str]:
    found = {os.environ.get(name, "").strip() for name in VARIABLES}
    if "huggingface_hub" in sys.modules:
        from huggingface_hub import get_token

        found.add(get_token() or "")
    return {secret for secret in found if len(secret) >= 4}
