"""The Hub in a folder: enough of the Hugging Face Hub's protocol for its clients, over plain git repositories."""

from __future__ import annotations

from importlib.util import find_spec

from hfsoup.utils.errors import SoupError

_NEEDED = ("markdown_it", "nh3", "pathspec", "pygit2", "starlette", "uvicorn")
_MISSING = [name for name in _NEEDED if find_spec(name) is None]
if _MISSING:
    raise SoupError(
        f"the Hub in a folder needs {', '.join(_MISSING)}, which is not installed", hint="pip install 'hfsoup[hub]'"
    )

from hfsoup.localhub.faults import Fault, Seen  # noqa: E402 (the check comes first)
from hfsoup.localhub.server import LocalHub, serve  # noqa: E402

__all__ = ["Fault", "LocalHub", "Seen", "serve"]
