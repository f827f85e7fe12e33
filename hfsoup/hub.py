"""The boundary to huggingface_hub: its errors become ours, with what to type next."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from hfsoup.errors import HubError, SoupError

if TYPE_CHECKING:
    from huggingface_hub import HfApi


def api() -> HfApi:
    """A client of the Hub that the environment names (`HF_ENDPOINT`), with the user's own token."""
    from huggingface_hub import HfApi

    from hfsoup import __version__

    return HfApi(library_name="hfsoup", library_version=__version__)


def cache() -> Path:
    """hfsoup's own cache: `$HFSOUP_CACHE`, else `hfsoup` in the folder that `HF_HOME` names."""
    from huggingface_hub import constants

    return Path(os.environ.get("HFSOUP_CACHE") or Path(constants.HF_HOME) / "hfsoup")


@contextmanager
def hub_errors(where: str, *, access: str = "read") -> Iterator[None]:
    """Turn what the Hub's client raises about the repository `where` into a HubError."""
    from httpx2 import HTTPError
    from huggingface_hub import errors

    try:
        yield
    except errors.GatedRepoError as error:
        hint = f"accept the licence at {api().endpoint}/{where.split('@')[0]}, then: hf auth login"
        raise HubError("this repository is gated and you have no access yet", where=where, hint=hint) from error
    except errors.RepositoryNotFoundError as error:
        what = "there is no such repository, or it is private and your token cannot see it"
        raise HubError(what, where=where, hint="hf auth whoami, and look at the spelling") from error
    except errors.RevisionNotFoundError as error:
        raise HubError(
            "there is no such revision", where=where, hint="leave out @REVISION, or name a branch"
        ) from error
    except errors.EntryNotFoundError as error:
        raise HubError(
            "a file that the listing named is not there", where=where, hint="the same command again"
        ) from error
    except errors.HFValidationError as error:
        raise HubError(f"not a repository name: {where!r}", hint="ORG/NAME, or a folder as ./NAME") from error
    except errors.LocalTokenNotFoundError as error:
        raise HubError("no token for the Hub", where=where, hint="hf auth login") from error
    except errors.OfflineModeIsEnabled as error:
        raise HubError(
            "offline mode is on and this is not in the cache", where=where, hint="HF_HUB_OFFLINE=0"
        ) from error
    except errors.HfHubHTTPError as error:
        raise _refused(error, where, access) from error
    except (HTTPError, ConnectionError, TimeoutError) as error:
        what = f"the Hub at {api().endpoint} cannot be reached ({type(error).__name__})"
        raise HubError(what, where=where, hint="look at the network and HF_ENDPOINT, then the same command") from error


def _refused(error: OSError, where: str, access: str) -> SoupError:
    """The error for a status that has no class of its own in the client."""
    response = getattr(error, "response", None)
    status = getattr(response, "status_code", 0)
    match status:
        case 401:
            return HubError("the Hub does not accept your token", where=where, hint="hf auth login")
        case 403:
            return HubError(
                f"your token may not {access} here", where=where, hint="hf auth login, with a token that may"
            )
        case 409 | 412:
            what = "the repository changed in the meantime; nothing was overwritten"
            return HubError(what, where=where, hint="the same command again, or --create-pr")
        case 429:
            return HubError("the Hub asks to slow down", where=where, hint="the same command in some minutes")
    return HubError(f"the Hub answered {status or 'with an error'}", where=where, hint="the same command again, later")
