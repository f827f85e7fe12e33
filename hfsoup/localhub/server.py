"""Starting and stopping a Hub."""

from __future__ import annotations

import asyncio
import errno
import socket
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

import uvicorn
from filelock import FileLock, Timeout
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from hfsoup.localhub.app import make_app
from hfsoup.localhub.auth import Accounts
from hfsoup.localhub.errors import HttpError
from hfsoup.localhub.faults import Fault, Faults, Seen
from hfsoup.localhub.lfs import LfsStore
from hfsoup.localhub.names import parse_repo_name
from hfsoup.localhub.request import Hub, Options
from hfsoup.localhub.signed_urls import Signer
from hfsoup.localhub.store import Store
from hfsoup.utils.errors import SoupError


class LocalHub:
    """A Hub in a folder, served by a thread of this process while the `with` block lasts.

        with LocalHub(folder) as hub:
            HfApi(endpoint=hub.url, token=hub.token).create_repo(f"{hub.user}/model")

    Args:
        folder: the folder of repos, large files and accounts; created if need be.
        host: address to listen on.
        port: port to listen on; 0 takes a free one.
        user: name of the first user, if the folder has no accounts yet.
        page_size: most items in one page of a list.
        part_size: size in bytes above which uploads are offered in parts of that size.
        cdn: whether large files are served from a second origin, by a redirect.
        log: file to which every request is added as a line of JSON.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        user: str = "user",
        page_size: int = 1000,
        part_size: int = 64 << 20,
        cdn: bool = False,
        log: Path | None = None,
    ) -> None:
        self.folder = Path(folder).resolve()
        self._host, self._port, self._cdn, self._log = host, port, cdn, log
        self._first_user, self._page_size, self._part_size = user, page_size, part_size
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None
        self.url = ""

    def __enter__(self) -> LocalHub:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Listen, and return once requests are answered. SoupError if folder or port are taken."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with ExitStack() as undo:
            self._lock = _lock_folder(self.folder)
            undo.callback(self._lock.release)
            accounts = Accounts(self.folder, create=True)
            if not accounts.users():
                accounts.add_user(self._first_user)
            sockets = [undo.enter_context(_listen(self._host, port)) for port in (self._port, 0)[: 1 + self._cdn]]
            ports = [item.getsockname()[1] for item in sockets]
            options = Options(self._page_size, self._part_size, ports[1] if self._cdn else None)
            self._hub = Hub(Store(self.folder), LfsStore(self.folder), accounts, Signer(), options)
            self._faults = Faults(make_app(self._hub), self._log)
            undo.pop_all()
        shown = f"[{self._host}]" if ":" in self._host else self._host
        self.url = f"http://{shown}:{ports[0]}"
        self._server = _make_server(self._faults)
        self._thread = threading.Thread(target=self._server.run, args=(sockets,), name="localhub", daemon=True)
        self._thread.start()
        while not self._server.started and self._thread.is_alive():
            self._thread.join(0.01)

    def stop(self) -> None:
        """Finish the answers under way and free port and folder."""
        if self._server is None or self._thread is None:
            return
        self._faults.close()
        self._server.should_exit = True
        self._thread.join()
        self._server = self._thread = None
        self._lock.release()

    @property
    def user(self) -> str:
        """Name of the first user."""
        return self._hub.accounts.first()[0]

    @property
    def token(self) -> str:
        """Token of the first user."""
        return self._hub.accounts.first()[1]

    def add_user(self, name: str, orgs: Sequence[str] = (), *, role: str = "write") -> str:
        """A new token for a user, who is created, or joins further organisations, if need be.

        Args:
            name: the user.
            orgs: organisations the user may write to, besides the namespace of that name.
            role: `write`, or `read` for a token that may not change anything.
        """
        return self._hub.accounts.add_user(name, orgs, role)

    def grant(self, repo_id: str, user: str, *, kind: str = "models") -> None:
        """Let a user read the files of a gated repo."""
        self._change(kind, repo_id, lambda meta: meta.grant_access(user))

    def disable(self, repo_id: str, *, kind: str = "models") -> None:
        """Refuse all access to a repo, as the Hub does after a complaint."""
        self._change(kind, repo_id, lambda meta: setattr(meta, "disabled", True))

    def fault(self, path: str, **rule: Any) -> Fault:
        """Make matching requests fail; see `Fault` for the rules. Its `hits` counts the requests that it changed."""
        return self._faults.add(Fault(path, **rule))

    def clear_faults(self) -> None:
        """Remove all faults and let stalled requests go on."""
        self._faults.clear()

    @property
    def requests(self) -> list[Seen]:
        """The latest requests that were answered (10,000 at most), oldest first."""
        return self._faults.seen

    def forget_requests(self) -> None:
        """Empty the list of requests."""
        self._faults.forget()

    def _change(self, kind: str, repo_id: str, change: Callable[[Any], object]) -> None:
        try:
            name = parse_repo_name(kind, repo_id)
        except HttpError as refusal:
            raise SoupError(refusal.message, where=str(self.folder)) from refusal
        with self._hub.store.lock(name):
            repo = self._hub.store.open(name)
            if repo is None:
                raise SoupError(f"there is no repo {repo_id} here", where=str(self.folder))
            change(repo.meta)
            self._hub.store.save(repo)


def serve(
    folder: Path, *, host: str = "127.0.0.1", port: int = 8080, user: str = "user", ready: Callable[[str, str], None]
) -> None:
    """Serve a folder until Ctrl-C; `ready(url, token)` is called once it listens. SoupError if the port is taken."""
    with LocalHub(folder, host=host, port=port, user=user) as hub:
        ready(hub.url, hub.token)
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            return


class _Protocol(H11Protocol):
    """Lets the application reach its connection, so that a fault can break it."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.app = partial(_with_transport, self.app, transport)


async def _with_transport(
    app: ASGIApp, transport: asyncio.Transport, scope: Scope, receive: Receive, send: Send
) -> None:
    scope["hfsoup.transport"] = transport
    await app(scope, receive, send)


def _make_server(app: ASGIApp) -> uvicorn.Server:
    config = uvicorn.Config(
        app,
        http=_Protocol,
        ws="none",
        lifespan="off",
        loop="asyncio",
        log_config=None,
        log_level="error",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=2,
    )
    return uvicorn.Server(config)


def _lock_folder(folder: Path) -> FileLock:
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        hint = "stop that one, or another folder"
        raise SoupError("this folder is already served by another Hub", where=str(folder), hint=hint) from None
    return lock


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio turns off Nagle's algorithm, and with it 40 ms per answer, only where the protocol is given.
    found = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((host, port))
    except OSError as error:
        found.close()
        taken = error.errno == errno.EADDRINUSE
        what = f"port {port} is already in use" if taken else f"cannot listen on {host}: {error.strerror}"
        hint = "choose another with --port, or --port 0 for any" if taken else ""
        raise SoupError(what, where=f"{host}:{port}", hint=hint) from error
    found.listen(128)
    return found
