"""The boundary to huggingface_hub: its errors become ours, with what to type next."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit

from hfsoup.errors import AccessError, HubError, SoupError
from hfsoup.human import duration
from hfsoup.redact import redact
from hfsoup.waits import LISTENERS

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

Given = TypeVar("Given")
Found = TypeVar("Found")
AGAIN = "the same command"
_installed = threading.Lock()


def api() -> HfApi:
    """A client of the Hub that the environment names (`HF_ENDPOINT`), with the user's own token.

    Raises:
        HubError: the address of the Hub holds a name or password, which would end up in every message and log.
    """
    from huggingface_hub import HfApi, constants

    from hfsoup import __version__

    parts = urlsplit(constants.ENDPOINT)
    if "@" in parts.netloc:
        where = f"{parts.scheme}://…@{parts.hostname}"
        raise HubError("HF_ENDPOINT holds a name or password", where=where, hint="leave it out, then: hf auth login")
    _be_patient()
    return HfApi(library_name="hfsoup", library_version=__version__)


def cache() -> Path:
    """hfsoup's own cache: `$HFSOUP_CACHE`, else `hfsoup` in the folder that `HF_HOME` names."""
    from huggingface_hub import constants

    return Path(os.environ.get("HFSOUP_CACHE") or Path(constants.HF_HOME) / "hfsoup")


@contextmanager
def told(notify: Callable[[str], None] | None) -> Iterator[None]:
    """Tell `notify` of waits for the Hub while the block lasts; None leaves it to whoever is told already."""
    if notify is None:
        yield
        return
    LISTENERS.append(notify)
    try:
        yield
    finally:
        LISTENERS.remove(notify)


def side_by_side(work: Callable[[Given], Found], items: Sequence[Given], *, threads: int = 8) -> list[Found]:
    """`work` of every item, in order, in threads that keep neither an error nor Ctrl-C waiting."""
    todo: SimpleQueue[int] = SimpleQueue()
    done: SimpleQueue[tuple[int, Found | BaseException, bool]] = SimpleQueue()
    stopped = threading.Event()
    for n in range(len(items)):
        todo.put(n)

    def loop() -> None:
        while not stopped.is_set():
            try:
                n = todo.get_nowait()
            except Empty:
                return
            try:
                done.put((n, work(items[n]), True))
            except BaseException as error:  # noqa: BLE001 - handed on to the caller's thread
                done.put((n, error, False))

    for _ in range(min(threads, len(items))):
        threading.Thread(target=loop, daemon=True).start()
    found: dict[int, Found] = {}
    try:
        while len(found) < len(items):
            n, value, fine = done.get()
            if not fine:
                raise value  # type: ignore[misc]
            found[n] = value  # type: ignore[assignment]
    finally:
        stopped.set()
    return [found[n] for n in range(len(items))]


@contextmanager
def answers(where: str, *, access: str = "read", listed: bool = False) -> Iterator[None]:
    """As `hub_errors`, around calls that do nothing but ask: what they cannot read is no answer of a Hub."""
    try:
        with hub_errors(where, access=access, listed=listed):
            yield
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        first = next(iter(str(error).strip().splitlines()), type(error).__name__)
        what = f"the answer from {api().endpoint} is not one that a Hub gives ({first[:200]})"
        raise HubError(what, where=where, hint=f"look at HF_ENDPOINT, then {AGAIN}") from error


@contextmanager
def hub_errors(where: str, *, access: str = "read", listed: bool = False) -> Iterator[None]:
    """Turn what the Hub's client raises about the repository `where` into a HubError.

    Args:
        where: the repository, perhaps with `@revision` and a file.
        access: what was tried, in a word.
        listed: the Hub named it a moment ago, so that what is missing now was deleted meanwhile.
    """
    from httpx2 import HTTPError
    from huggingface_hub import errors

    try:
        yield
    except errors.HFValidationError as error:
        what = "there is no such folder" if where.startswith(("/", ".", "~")) else "not a repository name"
        raise HubError(f"{what}: {where!r}", hint="ORG/NAME, or a folder as ./NAME") from error
    except (HTTPError, OSError, RuntimeError) as error:
        root = cause(error)
        if (ours := _ours(root, where, access, listed)) is root:
            raise
        raise ours from error


def cause(error: Exception) -> Exception:
    """What huggingface_hub wrapped into an error that says less."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    while isinstance(error, (LocalEntryNotFoundError, RuntimeError)) and isinstance(error.__cause__, Exception):
        error = error.__cause__
    return error


def _ours(error: Exception, where: str, access: str, listed: bool) -> Exception:
    """The error to raise for one of the client's; itself where it is not about the Hub."""
    from httpx2 import HTTPError
    from huggingface_hub import errors, get_token

    repo = where.split(",")[0].split("@")[0]
    match error:
        case errors.GatedRepoError():
            hint = f"accept the licence at {api().endpoint}/{repo}" + ("" if get_token() else ", then: hf auth login")
            return AccessError("this repository is gated and you have no access yet", where=where, hint=hint)
        case errors.RepositoryNotFoundError() if listed:
            return AccessError("the repository was deleted or hidden meanwhile", where=where, hint=f"leave out {repo}")
        case errors.RepositoryNotFoundError():
            known = get_token() is not None
            who, act = ("your token cannot see it", "whoami") if known else ("you are not logged in", "login")
            what = f"there is no such repository, or it is private and {who}"
            return AccessError(what, where=where, hint=f"look at the spelling, or: hf auth {act}")
        case errors.RevisionNotFoundError():
            return AccessError("there is no such revision", where=where, hint="leave out @REVISION, or name a branch")
        case errors.DisabledRepoError():
            return AccessError("the Hub has disabled this repository", where=where, hint=f"leave out {repo}")
        case errors.LocalEntryNotFoundError() | errors.FileMetadataError():
            what = f"the answer from {api().endpoint} is not one that a Hub gives"
            return HubError(what, where=where, hint=f"look at HF_ENDPOINT, then {AGAIN}")
        case errors.EntryNotFoundError():
            return HubError("a file that the listing named is not there", where=where, hint=AGAIN)
        case errors.LocalTokenNotFoundError():
            return HubError("no token for the Hub", where=where, hint="hf auth login")
        case errors.OfflineModeIsEnabled():
            what = "offline mode is on, and this has to be asked of the Hub"
            return HubError(what, where=where, hint="HF_HUB_OFFLINE=0, or a local folder as ./NAME")
        case errors.HfHubHTTPError():
            return _refused(error, where, access)
        case HTTPError() | ConnectionError() | TimeoutError():
            return _unreached(error, where)
        case OSError() if error.errno:
            return SoupError(f"the cache cannot be used: {error.strerror}", where=str(error.filename or where))
        case OSError() if "Consistency check" in str(error):
            return HubError("the file that arrived has not the length that was announced", where=where, hint=AGAIN)
    return error


def _refused(error: HfHubHTTPError, where: str, access: str) -> SoupError:
    """The error for a status that has no class of its own in the client."""
    from huggingface_hub import get_token

    from hfsoup.patience import asked_wait

    match error.response.status_code:
        case 401 if not get_token():
            return HubError("the Hub wants to know who asks", where=where, hint="hf auth login")
        case 401:
            return HubError("the Hub does not accept your token", where=where, hint="hf auth login")
        case 403:
            hint = "hf auth login, with a token that may"
            return HubError(f"your token may not {access} here", where=where, hint=hint)
        case 409 | 412:
            what = "the repository changed in the meantime; nothing was overwritten"
            return HubError(what, where=where, hint=f"add --create-pr to propose it, or {AGAIN}")
        case 413:
            return HubError("that is more than the Hub takes at once", where=where, hint="hf upload-large-folder")
        case 429:
            asked = asked_wait(error.response)
            what = "the Hub asks to slow down" + (f" and to wait {duration(asked)}" if asked else "")
            return HubError(what, where=where, hint=f"{'after that' if asked else 'in some minutes'}, {AGAIN}")
    said = redact(next(iter((error.server_message or "").splitlines()), "")[:200])
    what = f"the Hub answered {error.response.status_code}" + (f": {said}" if said else "")
    return HubError(what, where=where, hint=f"later, {AGAIN}")


def _unreached(error: Exception, where: str) -> HubError:
    """The error where nothing, or not enough, came back."""
    from hfsoup.patience import GaveUpError, said

    chain = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None and isinstance(cause, Exception):
        chain.append(cause)
    host = urlsplit(api().endpoint).hostname
    if any(isinstance(e, socket.gaierror) for e in chain):
        return HubError(f"there is no host {host}", where=where, hint=f"look at network and HF_ENDPOINT, then {AGAIN}")
    if any(isinstance(e, ConnectionRefusedError) for e in chain):
        what = f"nothing listens at {api().endpoint}"
        return HubError(what, where=where, hint=f"look at HF_ENDPOINT, then {AGAIN}")
    why = str(error) if isinstance(error, GaveUpError) else said(error)
    what = f"the Hub at {api().endpoint} cannot be reached: {why}"
    return HubError(what, where=where, hint=f"look at the network, then {AGAIN}")


def _be_patient() -> None:
    """Let huggingface_hub use our client, unless the program around us has set one of its own."""
    from huggingface_hub import set_client_factory
    from huggingface_hub.utils import _http

    from hfsoup.patience import client

    with _installed:
        if _http._GLOBAL_CLIENT_FACTORY is _http.default_client_factory:
            set_client_factory(client)
