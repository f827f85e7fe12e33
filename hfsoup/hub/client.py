"""The client of the Hub; huggingface_hub's errors become HubError, with what to do next."""

from __future__ import annotations

import re
import shlex
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import wait
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from hfsoup.utils.close_names import find_close_names
from hfsoup.utils.errors import AccessError, HubError, SoupError
from hfsoup.utils.redact import redact
from hfsoup.utils.text import format_duration, one_line
from hfsoup.utils.threads import Found, start_thread

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

SAME_COMMAND = "the same command"
ONCE = "HF_HUB_OFFLINE=0 once, to cache it"
FOLDER = "FOLDER"
"""Placeholder in a hint for the folder that is being pushed."""
MAX_MESSAGE = 300
"""The most characters that an error quotes of the Hub's message."""
POLL = 0.2
"""Seconds between two looks at a transfer by Xet."""
KINDS = {"model": "model", "dataset": "dataset", "space": "Space"}
"""The types of repositories, as they are written in messages."""
LOOKUP_TIMEOUT = 10
"""The time-out in seconds of a request that only improves an error message."""
PARSE_ERRORS = (KeyError, TypeError, AttributeError, ValueError)
"""What huggingface_hub raises while it parses an answer that is not that of a Hub."""
XET_TOKEN = re.compile(r"/xet-(read|write)-token/")
_xet_lock = threading.Lock()
_plain: list[bool] = []
"""While Xet is disabled: the value of the switch before, then one entry for each block that disables it."""


class StalledError(RuntimeError):
    """A transfer by hf-xet that makes no progress."""


def is_offline() -> bool:
    """Whether offline mode is on (`HF_HUB_OFFLINE=1`)."""
    from huggingface_hub import is_offline_mode

    return is_offline_mode()


def hub_api() -> HfApi:
    """A client of the Hub at `HF_ENDPOINT` with the user's token; errors are those of `hub_address`."""
    from huggingface_hub import HfApi

    from hfsoup.utils.version import __version__

    return HfApi(hub_address(), library_name="hfsoup", library_version=__version__)


def hub_address() -> str:
    """The address of the Hub, `HF_ENDPOINT`, without importing its client.

    Raises:
        HubError: HF_ENDPOINT is not an http address, or contains a name or password, which every message would show.
    """
    from huggingface_hub import constants

    parts = urlsplit(constants.ENDPOINT)
    if "@" in parts.netloc:
        where = f"{parts.scheme}://…@{parts.hostname}"
        raise HubError("HF_ENDPOINT contains a name or password", where=where, hint="leave it out, then: hf auth login")
    if parts.scheme not in ("http", "https"):
        what = f"expected HF_ENDPOINT to begin with http:// or https://, found {constants.ENDPOINT!r}"
        raise HubError(what, hint=f"export HF_ENDPOINT=https://{constants.ENDPOINT.rpartition('/')[2]}")
    return constants.ENDPOINT


def is_xet_error(error: Exception, *, begun: bool = True) -> bool:
    """Whether a transfer failed because of Xet: in hf-xet, or in the Hub's answer to the request for an Xet token.

    Args:
        error: what was raised. hf-xet's own errors have no HTTP response, no cause and no errno.
        begun: whether hf-xet was called at all.
    """
    from httpx2 import HTTPError
    from huggingface_hub.errors import HfHubHTTPError

    from hfsoup.hub.retry import RequestFailedError

    if isinstance(error, (HfHubHTTPError, RequestFailedError)):
        request = error.response.request if isinstance(error, HfHubHTTPError) else error.request
        return XET_TOKEN.search(request.url.path) is not None
    if isinstance(error, HTTPError):
        return False
    if isinstance(error, ValueError):
        return str(error).startswith("Xet ")
    own = isinstance(error, (RuntimeError, OSError)) and error.__cause__ is None and not getattr(error, "errno", None)
    return begun and own


@contextmanager
def disable_xet() -> Iterator[None]:
    """Make huggingface_hub download files by plain HTTP inside the block, in all threads.

    It has no other switch that also holds where it knows files by a listing in its cache, without asking for them.
    """
    from huggingface_hub import constants

    with _xet_lock:
        if not _plain:
            _plain.append(constants.HF_HUB_DISABLE_XET)
        _plain.append(True)
        constants.HF_HUB_DISABLE_XET = True
    try:
        yield
    finally:
        with _xet_lock:
            _plain.pop()
            if len(_plain) == 1:
                constants.HF_HUB_DISABLE_XET = _plain.pop()


@contextmanager
def disable_progress_bars() -> Iterator[None]:
    """Hide huggingface_hub's own progress bars inside the block."""
    from huggingface_hub.utils import (  # type: ignore[attr-defined]
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    if are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()


def wait_unless_overdue(work: Callable[[], Found], overdue: Callable[[], bool]) -> Found:
    """Run `work` in a thread and return its result; the thread is abandoned once `overdue` returns true.

    hf-xet is native code that other threads cannot stop, and each of its tries has a time-out of five minutes.

    Raises:
        StalledError: the work was overdue.
    """
    future = start_thread(work)
    while not wait([future], timeout=POLL).done:
        if overdue():
            raise StalledError("no progress by Xet")
    return future.result()


@contextmanager
def expect_answer(where: str, *, access: str = "read", listed: bool = False, kind: str | None = None) -> Iterator[None]:
    """As `convert_hub_errors`; errors of parsing become HubError too, as the answer is then not that of a Hub."""
    try:
        with convert_hub_errors(where, access=access, listed=listed, kind=kind):
            yield
    except PARSE_ERRORS as error:
        first = next(iter(str(error).strip().splitlines()), type(error).__name__)
        what = f"the answer from {hub_api().endpoint} is not that of a Hub ({first[:200]})"
        raise HubError(what, where=where, hint=f"check HF_ENDPOINT, then {SAME_COMMAND}") from error


@contextmanager
def convert_hub_errors(
    where: str, *, access: str = "read", listed: bool = False, kind: str | None = None
) -> Iterator[None]:
    """Retry requests inside the block, and convert errors of huggingface_hub into HubError.

    Args:
        where: the repository, with `@revision` and a file where there are any.
        access: what the request does: `read` or `push`.
        listed: the Hub listed it a moment ago, so if it is missing now it was deleted in the meantime.
        kind: `model` or `dataset`, if the user named the repository: if it does not exist, other types are looked up.
    """
    from httpx2 import HTTPError
    from huggingface_hub import errors

    from hfsoup.hub.retry import retry_requests

    try:
        with retry_requests():
            yield
    except errors.HFValidationError as error:
        what = "there is no such folder" if where.startswith(("/", ".", "~")) else "not a repository name"
        raise HubError(f"{what}: {where!r}", hint="ORG/NAME, or a folder as ./NAME") from error
    except (HTTPError, OSError, RuntimeError) as error:
        root = find_cause(error)
        if (
            kind
            and not listed
            and isinstance(root, errors.RepositoryNotFoundError)
            and (other := _find_other_kind(where, kind))
        ):
            raise other from error
        if (ours := _convert_error(root, where, access, listed)) is root:
            raise
        unknown = type(root) is errors.RepositoryNotFoundError or not isinstance(root, errors.HfHubHTTPError)
        if kind and not listed and unknown and isinstance(ours, HubError):
            ours = _mention_folders(ours, where, kind)
        raise ours from error


def _mention_folders(error: HubError, name: str, kind: str) -> HubError:
    """The same error, which also says that no folder of that name is here, with the closest one; for names of users."""
    if "@" in name:
        return error
    close = find_close_names(Path(name))
    hint = error.hint
    if close:
        nearest = shlex.quote(str(Path(name).parent / close[0]))
        hint = f"--dataset {nearest}" if kind == "dataset" else nearest
    return type(error)(f"{error.what}; no folder of that name is here either", where=error.where, hint=hint)


def _find_other_kind(where: str, kind: str) -> AccessError | None:
    """The error for a repository of another type than expected; None if there is none of that name."""
    from httpx2 import HTTPError

    repo = "/".join(_strip_revision(where).split("/")[:2])
    for other in (each for each in KINDS if each != kind):
        try:
            hub_api().repo_info(repo, repo_type=other, timeout=LOOKUP_TIMEOUT)
        except (HTTPError, OSError, RuntimeError, *PARSE_ERRORS):
            # No repository of this type, or no answer: the first error stands.
            continue
        owner, _, name = repo.rpartition("/")
        hint = f"hf {kind}s list " + (f"--author {owner}" if owner else f"--search {name}")
        if kind == "model" and other == "dataset":
            hint = f"--dataset {repo}; models: {hint}"
        what = f"expected a {kind}, found a {KINDS[other]} of that name, and no {kind}"
        return AccessError(what, where=repo, hint=hint)
    return None


def _strip_revision(where: str) -> str:
    """The repository of `ORG/NAME@REVISION, FILE`."""
    return where.split(",")[0].split("@")[0]


def find_cause(error: Exception) -> Exception:
    """The error that huggingface_hub wrapped into a less specific one."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    while isinstance(error, (LocalEntryNotFoundError, RuntimeError)) and isinstance(error.__cause__, Exception):
        error = error.__cause__
    return error


def _convert_error(error: Exception, where: str, access: str, listed: bool) -> Exception:
    """The error to raise for one of huggingface_hub's; the same one if it has nothing to do with the Hub."""
    from httpx2 import HTTPError
    from huggingface_hub import errors, get_token

    repo = _strip_revision(where)
    match error:
        case errors.GatedRepoError():
            words = _quote_message(error)
            hint = f"accept the licence at {hub_api().endpoint}/{repo}" + (
                "" if get_token() else ", then: hf auth login"
            )
            if re.search(r"review|rejected", words, re.IGNORECASE):
                hint = f"leave out {repo}, or wait for its authors, then {SAME_COMMAND}"
            return AccessError(f"this repository is gated and you have no access yet{words}", where=where, hint=hint)
        case errors.RepositoryNotFoundError() if listed:
            return AccessError(
                "the repository was deleted or made private in the meantime", where=where, hint=f"leave out {repo}"
            )
        case errors.RepositoryNotFoundError():
            known = get_token() is not None
            who, act = ("your token cannot see it", "whoami") if known else ("you are not logged in", "login")
            what = f"there is no such repository, or it is private and {who}"
            return AccessError(what, where=where, hint=f"check the spelling, or: hf auth {act}")
        case errors.RevisionNotFoundError():
            return AccessError("there is no such revision", where=where, hint="leave out @REVISION, or name a branch")
        case errors.DisabledRepoError():
            return AccessError("the Hub has disabled this repository", where=where, hint=f"leave out {repo}")
        case errors.LocalEntryNotFoundError() | errors.FileMetadataError():
            what = f"the answer from {hub_api().endpoint} is not that of a Hub"
            return HubError(what, where=where, hint=f"check HF_ENDPOINT, then {SAME_COMMAND}")
        case errors.EntryNotFoundError():
            return HubError("a file of the listing no longer exists", where=where, hint=SAME_COMMAND)
        case errors.LocalTokenNotFoundError():
            return HubError("no token for the Hub", where=where, hint="hf auth login")
        case errors.OfflineModeIsEnabled() if access == "push":
            hint = "HF_HUB_OFFLINE=0, or without --push: hfsoup push FOLDER ORG/NAME does it later"
            return HubError("offline mode is on, so nothing can be pushed", where=where, hint=hint)
        case errors.OfflineModeIsEnabled():
            what = "offline mode is on, and this is not cached"
            return HubError(what, where=where, hint="HF_HUB_OFFLINE=0, or a local folder as ./NAME")
        case errors.HfHubHTTPError():
            return _convert_status(error, where, access)
        case HTTPError() | ConnectionError() | TimeoutError():
            return _convert_connection_error(error, where)
        case OSError() if error.errno:
            return SoupError(f"the cache cannot be used: {error.strerror}", where=str(error.filename or where))
        case OSError() if "Consistency check" in str(error):
            return HubError("the downloaded file does not have the announced size", where=where, hint=SAME_COMMAND)
    return error


def _convert_status(error: HfHubHTTPError, where: str, access: str) -> SoupError:
    """The error for a status without a class of its own in huggingface_hub, with the Hub's message."""
    from huggingface_hub import get_token

    from hfsoup.hub.retry import requested_wait

    status, words = error.response.status_code, _quote_message(error)
    repo = _strip_revision(where)
    match status:
        case 401 if not get_token():
            return HubError(f"this request needs a token{words}", where=where, hint="hf auth login")
        case 401:
            return HubError(f"the Hub does not accept your token{words}", where=where, hint="hf auth login")
        case 402:
            hint = f"{hub_api().endpoint}/settings/billing, then {SAME_COMMAND}"
            return HubError(f"the Hub asks for credit{words}", where=where, hint=hint)
        case 403:
            return HubError(f"your token may not {access} here{words}", where=where, hint=_suggest_fix(words, repo))
        case 409 | 412:
            what = f"the repository changed in the meantime; nothing was overwritten{words}"
            return HubError(what, where=where, hint=f"add --create-pr to propose it, or {SAME_COMMAND}")
        case 413:
            what = f"the Hub refuses a request of this size{words}"
            return HubError(what, where=where, hint=f"hf upload {repo} {FOLDER}")
        case 429:
            seconds = requested_wait(error.response)
            wait = f"; the Hub asks to wait {format_duration(seconds)}" if seconds else ""
            return HubError(
                f"too many requests{wait}{words}",
                where=where,
                hint=f"{'after that' if seconds else 'in some minutes'}, {SAME_COMMAND}",
            )
    return HubError(f"the Hub answered {status}{words}", where=where, hint=f"later, {SAME_COMMAND}")


def _quote_message(error: HfHubHTTPError) -> str:
    """The Hub's own message on one line, after a colon; empty for a page of HTML or XML, which proxies send."""
    message = one_line(redact(error.server_message or ""), MAX_MESSAGE)
    return f": {message}" if message and not message.startswith("<") else ""


def _suggest_fix(words: str, repo: str) -> str:
    """What to do about a 403, judged by the Hub's message."""
    owner = f"{hub_api().endpoint}/{repo.partition('/')[0]}"
    for pattern, hint in (
        (r"storage|quota", f"free storage at {owner}, or use another owner"),
        (r"\bsso\b|single.sign|saml", f"sign in to the organisation at {owner}, then {SAME_COMMAND}"),
        (r"review|pending", f"wait for the review, then {SAME_COMMAND}"),
        (r"billing|payment|subscri", f"open {owner}, then {SAME_COMMAND}"),
    ):
        if re.search(pattern, words, re.IGNORECASE):
            return hint
    return "hf auth login, with a token that has this permission"


def _convert_connection_error(error: Exception, where: str) -> HubError:
    """The error for a request without a complete answer."""
    from hfsoup.hub.retry import RequestFailedError, describe_failure

    chain = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None and isinstance(cause, Exception):
        chain.append(cause)
    host = urlsplit(hub_api().endpoint).hostname
    if any(isinstance(e, socket.gaierror) for e in chain):
        return HubError(
            f"there is no host {host}", where=where, hint=f"check network and HF_ENDPOINT, then {SAME_COMMAND}"
        )
    if any(isinstance(e, ConnectionRefusedError) for e in chain):
        what = f"nothing listens at {hub_api().endpoint}"
        return HubError(what, where=where, hint=f"check HF_ENDPOINT, then {SAME_COMMAND}")
    why = str(error) if isinstance(error, RequestFailedError) else describe_failure(error)
    what = f"the Hub at {hub_api().endpoint} cannot be reached: {why}"
    return HubError(what, where=where, hint=f"check the network, then {SAME_COMMAND}")
