"""What can go wrong, said so that the reader knows what to type next."""

from __future__ import annotations

import re

# What libraries raise at values that they did not expect in a file.
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
    """A problem its reader can mend.

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
    """The command or call itself is wrong: an unknown name, a pattern that matches nothing, options at odds."""

    exit_code = 2


class MismatchError(SoupError):
    """The ingredients cannot be averaged with each other."""


class OutOfMemoryError(SoupError):
    """The device's memory does not hold what was asked of it."""


class HubError(SoupError):
    """The Hub refused, or could not be reached."""


class AccessError(HubError):
    """One repository or revision is not to be had: it is absent, private, gated, disabled or deleted."""


def _rebuild(kind: type[SoupError], what: str, where: str, hint: str) -> SoupError:
    """Unpickle an error that another process raised."""
    return kind(what, where=where, hint=hint)
