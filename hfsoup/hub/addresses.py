"""Converts addresses of the Hub's pages to repository names."""

from __future__ import annotations

import re
from urllib.parse import unquote, urlsplit

from hfsoup.utils.errors import UsageError
from hfsoup.utils.text import quoted

HOSTS = frozenset(("huggingface.co", "www.huggingface.co", "hf.co"))
SCHEME = re.compile(r"(https?|hf)://", re.IGNORECASE)
OTHERS = {"datasets": "dataset", "spaces": "Space", "papers": "paper", "docs": "page", "blog": "page"}
# What follows a repository in an address, and whether the last part is a file.
VIEWS = {"tree": False, "commit": False, "commits": False, "blob": True, "resolve": True, "raw": True, "blame": True}
# A question mark alone is a glob's.
QUERY = re.compile(r"(\?[\w.-]+=.*|#.*)$")
COLLECTION = re.compile(r"collections/[\w.-]+/[\w.-]+")


def parse_model_address(text: str) -> str:
    """ORG/NAME of an address, with subfolder and @REVISION, or collections/ORG/SLUG; other text is returned unchanged.

    Raises:
        UsageError: it is not the address of models, or of another site.
    """
    parts = _split_address(text)
    if parts is None:
        return text
    hint = "https://huggingface.co/ORG/NAME, or ORG/NAME"
    if parts and parts[0] == "models":
        parts = parts[1:]
    if parts and parts[0] == "datasets" and len(parts) > 2:
        hint = f"--dataset {'/'.join(parts[1:3])}"
    if parts and parts[0] in OTHERS:
        raise UsageError(f"expected a model, found the address of a {OTHERS[parts[0]]}", where=quoted(text), hint=hint)
    if parts and parts[0] == "collections":
        if not COLLECTION.fullmatch("/".join(parts)):
            raise UsageError("expected a collection's address", where=quoted(text), hint="hf.co/collections/ORG/SLUG")
        return "/".join(parts)
    if len(parts) == 1:
        raise UsageError("this address names no model", where=quoted(text), hint=f"{parts[0]}/*")
    if len(parts) < 2:
        raise UsageError("this address names no model", where=quoted(text), hint=hint)
    (owner, name), rest = parts[:2], parts[2:]
    name, _, revision = name.partition("@")
    if text.lower().startswith("hf://"):
        below = rest
    elif len(rest) > 1 and rest[0] in VIEWS:
        # The references of pull requests have slashes of their own.
        length = 4 if rest[1:3] == ["refs", "pr"] else 2
        revision, below = "/".join(rest[1:length]), rest[length : -1 if VIEWS[rest[0]] else None]
    else:
        below = []
    return "/".join([owner, name, *below]) + (f"@{revision}" if revision else "")


def parse_dataset_address(text: str) -> str | None:
    """ORG/NAME of a dataset's address or of `datasets/ORG/NAME`; None for any other text."""
    parts = text.split("/") if text.startswith("datasets/") else _split_address(text)
    return "/".join(parts[1:3]) if parts and parts[0] == "datasets" and len(parts) > 2 else None


def _split_address(text: str) -> list[str] | None:
    """The parts of the path of a Hub address; None for any other text."""
    found = SCHEME.match(text)
    if found and found[1].lower() == "hf":
        return _split_path(text[found.end() :])
    host, _, path = (text[found.end() :] if found else text).partition("/")
    if host.lower() in _list_hosts():
        return _split_path(QUERY.sub("", path))
    if found:
        raise UsageError("expected an address of the Hub", where=quoted(text), hint="https://huggingface.co/ORG/NAME")
    return None


def _list_hosts() -> frozenset[str]:
    from huggingface_hub import constants

    return HOSTS | {urlsplit(constants.ENDPOINT).netloc.lower()}


def _split_path(path: str) -> list[str]:
    return [unquote(part) for part in path.split("/") if part]
