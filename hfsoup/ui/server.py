"""Serves the page until Ctrl-C: the port, who may visit, and no tokens for strangers."""

from __future__ import annotations

import os
import socket
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

from hfsoup.utils.errors import UsageError
from hfsoup.utils.extras import require_extra
from hfsoup.utils.redact import VARIABLES, excepthook

LOOPBACK = ("127.0.0.1", "localhost")
SPACE = "SPACE_ID"


def serve(host: str, port: int, ready: Callable[[str, bool], None]) -> None:
    """Serve the page until Ctrl-C.

    On any host but this machine's own, and in a Space, the page is `public`: it takes Hub names only, works
    without a token, writes to a temporary folder and does not push.

    Args:
        host: the address to listen on.
        port: 0 takes a free one.
        ready: called with the address once the page is served, and whether it is public.

    Raises:
        UsageError: gradio is not installed, or the port is taken.
    """
    require_gradio()
    public = host not in LOOPBACK or SPACE in os.environ
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    with tempfile.TemporaryDirectory(prefix="hfsoup-page-") as nowhere:
        if public:
            forget_tokens()
            use_own_caches(Path(nowhere))
            # In an empty folder no name that is typed can be a local path.
            (empty := Path(nowhere, "empty")).mkdir()
            os.chdir(empty)
        free = _find_port(host, port)
        from hfsoup.ui.page import build_page, serve_page

        threading.excepthook = _report_crash
        hosts = [] if public else [host, *LOOPBACK]
        serve_page(
            build_page(public=public), host, free, hosts, lambda url: ready(url, public), proxied=SPACE in os.environ
        )


def _report_crash(found: threading.ExceptHookArgs) -> None:
    """Print the traceback of a thread without secrets."""
    if found.exc_value:
        excepthook(found.exc_type, found.exc_value, found.exc_traceback)


def require_gradio() -> None:
    """Fail if the extra is not installed."""
    require_extra("ui", "gradio", "the page")


def forget_tokens() -> None:
    """Remove all tokens from this process.

    Has to run before huggingface_hub is imported, which reads the environment once.
    """
    for name in VARIABLES:
        os.environ.pop(name, None)
    os.environ |= {"HF_HUB_DISABLE_IMPLICIT_TOKEN": "1", "HF_TOKEN_PATH": os.devnull}


def use_own_caches(folder: Path) -> None:
    """Let this process cache and receive files below `folder`, where no private repository and no other upload lies.

    Has to run before huggingface_hub is imported, as for `forget_tokens`.
    """
    names = ("HF_HUB_CACHE", "HF_XET_CACHE", "HF_DATASETS_CACHE", "HF_MODULES_CACHE", "HFSOUP_CACHE", "GRADIO_TEMP_DIR")
    os.environ |= {name: str(folder / "caches" / name) for name in names}


def _find_port(host: str, port: int) -> int:
    """The port, or a free one for 0."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
            return int(probe.getsockname()[1])
    except (OSError, OverflowError) as error:
        raise UsageError(
            f"the page cannot listen on this address: {error}", where=f"{host}:{port}", hint="--port 0"
        ) from error
