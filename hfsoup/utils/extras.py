"""Packages that only some installations have."""

from __future__ import annotations

from importlib.util import find_spec

from hfsoup.utils.errors import UsageError


def require_extra(extra: str, package: str, purpose: str) -> None:
    """Fail where the package of an extra of hfsoup is missing.

    Args:
        extra: as in `hfsoup[extra]`.
        package: the name that it is imported by.
        purpose: what needs it, as "alignment".

    Raises:
        UsageError: it is missing, with the command that installs it.
    """
    if find_spec(package) is None:
        what = f"{purpose} needs the package {package}, which is not installed"
        raise UsageError(what, hint=f"pip install 'hfsoup[{extra}]'")
