"""Named things found one a file: recipes and merges."""

from __future__ import annotations

import importlib
import pkgutil
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from typing import TYPE_CHECKING, Generic, TypeVar

from hfsoup.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from hfsoup.searching import Rules

F = TypeVar("F")


@dataclass(frozen=True)
class Entry(Generic[F]):
    """A function under its name, with the paper that defines it and one line that says what it does.

    `evaluations` gives the most mixes that a recipe scores of k ingredients under given rules; None where unknown.
    `choices` is the number of finished soups that a recipe takes the best of, which intervals have to allow for;
    `logits` says that it reads the ingredients' logits, `package` what it needs that is not installed with hfsoup, and
    `warning` is a sentence for cards.
    """

    name: str
    function: F
    paper: str
    summary: str
    needs_data: bool
    elementwise: bool
    evaluations: Callable[[int, Rules], int] | None = None
    choices: int = 1
    logits: bool = False
    package: str = ""
    warning: str = ""

    def require(self) -> None:
        """Fail if the package that it needs is not there."""
        if self.package and find_spec(self.package) is None:
            what = f"{self.name} needs the package {self.package}, which is not installed"
            raise UsageError(what, hint=f"pip install 'hfsoup[{self.name}]'")


class Registry(Generic[F]):
    """Entries of one kind; the modules of `package` are imported the first time one is asked for."""

    def __init__(self, kind: str, package: str) -> None:
        self.kind, self.package = kind, package
        self._entries: dict[str, Entry[F]] = {}

    def register(
        self,
        name: str,
        *,
        paper: str,
        summary: str,
        needs_data: bool = True,
        elementwise: bool = True,
        evaluations: Callable[[int, Rules], int] | None = None,
        choices: int = 1,
        logits: bool = False,
        package: str = "",
        warning: str = "",
    ) -> Callable[[F], F]:
        """Decorate a function to be known as `name`."""

        def keep(function: F) -> F:
            self._entries[name] = Entry(
                name, function, paper, summary, needs_data, elementwise, evaluations, choices, logits, package, warning
            )
            return function

        return keep

    @cached_property
    def _all(self) -> dict[str, Entry[F]]:
        package = importlib.import_module(self.package)
        for module in sorted(m.name for m in pkgutil.iter_modules(package.__path__)):
            importlib.import_module(f"{self.package}.{module}")
        return dict(sorted(self._entries.items()))

    def get(self, name: str) -> Entry[F]:
        """The entry called `name`; an unknown name is an error that lists the known ones."""
        if name not in self._all:
            raise UsageError(
                f"there is no {self.kind} called {name!r}; known: {', '.join(self._all)}", hint="hfsoup recipes"
            )
        return self._all[name]

    def __iter__(self) -> Iterator[Entry[F]]:
        return iter(self._all.values())
