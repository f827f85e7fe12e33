"""The errors that users see: what was expected and found, where, and what to do next."""

from __future__ import annotations

import re
from pathlib import Path

# What libraries raise for unexpected values in a file.
LOADING_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)
# How transformers says that an image processor needs another library.
MISSING_LIBRARY = re.compile(r"(?:requires the|optional dependencies:) ([\w\-]+)")


class SoupError(Exception):
    """A problem that the user can solve.

    Args:
        what: what was expected and what was found.
        where: the repo, file and tensor it was found in.
        hint: the next command to type, or what to change.

    Example:
        >>> import hfsoup
        >>> try:
        ...     hfsoup.search("greedy", ["missing.safetensors"])
        ... except hfsoup.SoupError as error:
        ...     print(error)
        the file is missing
          in:  missing.safetensors
    """

    exit_code = 1

    def __init__(self, what: str, *, where: str = "", hint: str = "") -> None:
        super().__init__(what)
        self.what, self.where, self.hint = what, where, hint

    def __str__(self) -> str:
        lines = [self.what]
        if self.where:
            lines.append(f"  in:  {self.where}")
        if self.hint:
            lines.append(f"  try: {self.hint}")
        return "\n".join(lines)

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return _rebuild, (type(self), self.what, self.where, self.hint)


class UsageError(SoupError):
    """The command or call is wrong: an unknown name, a pattern without matches, contradictory options."""

    exit_code = 2


class MismatchError(SoupError):
    """The ingredients cannot be averaged with each other."""


class OutOfMemoryError(SoupError):
    """The memory of the device is too small."""


class ProcessLostError(SoupError):
    """Another process of a launched bake has ended."""


class HubError(SoupError):
    """The Hub refused, or could not be reached."""


class AccessError(HubError):
    """A repository or revision cannot be read: it does not exist, is private, gated, disabled or deleted."""


def _rebuild(kind: type[SoupError], what: str, where: str, hint: str) -> SoupError:
    """Unpickle an error that another process raised."""
    return kind(what, where=where, hint=hint)


def require_utf8(path: Path | str) -> None:
    """Refuse a path that is no text, which neither records nor cards can hold.

    Raises:
        UsageError: its bytes on this disk are not UTF-8.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError:
        name = str(path).encode("utf-8", "backslashreplace").decode()
        raise UsageError("expected a path in UTF-8", where=name, hint="mv, to rename it") from None
