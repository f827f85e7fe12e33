"""Named things found one a file: recipes and merges, hfsoup's own and those of installed plug-ins."""

from __future__ import annotations

import importlib
import pkgutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from hfsoup.utils.errors import UsageError
from hfsoup.utils.text import one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


F = TypeVar("F", bound="Callable[..., Any]")
OWN = "hfsoup"


@dataclass(frozen=True)
class Entry(Generic[F]):
    """A function under its name, with the paper that defines it and one line that says what it does.

    `evaluations` gives the most mixes that a recipe scores of k ingredients under given rules; None where unknown.
    `needs_base` asks for the model that the ingredients were fine-tuned from, `density` is the share of a task
    vector that a merge keeps unless it is told otherwise, `importance` the kind of importance that it asks of every
    ingredient, which takes images, and `origin` is the package that the function comes from, with its version where
    it is a plug-in. `choices` is the number of finished soups that a recipe takes the best of, which intervals have
    to allow for; `logits` says that it reads the ingredients' logits, `learns` how often it goes over half of the
    selection split to learn from it, `package` what it needs that is not installed with hfsoup, `warning` is a
    sentence for cards, and `reads` names the options that only some of its kind look at.
    """

    name: str
    function: F
    paper: str
    summary: str
    needs_data: bool
    elementwise: bool
    needs_base: bool
    density: float
    origin: str
    evaluations: Callable[[int, Any], int] | None = None
    choices: int = 1
    logits: bool = False
    package: str = ""
    warning: str = ""
    importance: str = ""
    learns: int = 0
    reads: tuple[str, ...] = ()

    def require(self) -> None:
        """Fail if the package that it needs is not there."""
        if self.package and find_spec(self.package) is None:
            what = f"{self.name} needs the package {self.package}, which is not installed"
            raise UsageError(what, hint=f"pip install 'hfsoup[{self.name}]'")


class Registry(Generic[F]):
    """Entries of one kind; the modules of `package` are imported the first time one is asked for.

    Plug-ins are the entry points of the `group`, which is called as the package unless given: modules that register
    what they bring when they are imported. They are imported the first time that a name is asked for which hfsoup
    does not have, or all are listed. What went wrong with one is in `broken`, a text for each.
    """

    def __init__(self, kind: str, package: str, group: str = "") -> None:
        self.kind, self.package, self.group = kind, package, group or package
        self.broken: list[str] = []
        self._entries: dict[str, Entry[F]] = {}

    def register(
        self,
        name: str,
        *,
        paper: str,
        summary: str,
        needs_data: bool = True,
        elementwise: bool = True,
        needs_base: bool = False,
        density: float = 1.0,
        evaluations: Callable[[int, Any], int] | None = None,
        choices: int = 1,
        logits: bool = False,
        package: str = "",
        warning: str = "",
        importance: str = "",
        learns: int = 0,
        reads: tuple[str, ...] = (),
    ) -> Callable[[F], F]:
        """Decorate a function to be known as `name`.

        Raises:
            UsageError: something else has that name.
        """

        def keep(function: F) -> F:
            home = _top_package(function.__module__)
            taken = self._entries.get(name) if home == OWN or self._own else None
            if taken is not None and taken.function.__module__ != function.__module__:
                raise UsageError(f"the {self.kind} {one_line(name)} is there already, from {taken.origin}")
            self._entries[name] = Entry(
                name,
                function,
                paper,
                summary,
                needs_data,
                elementwise,
                needs_base,
                density,
                home,
                evaluations,
                choices,
                logits,
                package,
                warning,
                importance,
                learns,
                reads,
            )
            return function

        return keep

    @cached_property
    def _own(self) -> bool:
        """Import hfsoup's own entries, once."""
        package = importlib.import_module(self.package)
        for module in sorted(m.name for m in pkgutil.iter_modules(package.__path__)):
            importlib.import_module(f"{self.package}.{module}")
        return True

    @cached_property
    def _foreign(self) -> bool:
        """Import the plug-ins, once."""
        for point in sorted(entry_points(group=self.group), key=lambda point: (point.name, point.value)):
            self._load(point)
        return True

    def _load(self, point: EntryPoint) -> None:
        """Import one plug-in, in a thread of its own: whatever a foreign package raises stays there."""
        before, origin = dict(self._entries), f"{point.dist.name} {point.dist.version}" if point.dist else point.value
        with ThreadPoolExecutor(1) as pool:
            error = pool.submit(point.load).exception()
        if error is not None:
            self._entries = before
            said = one_line(f"{type(error).__name__}: {error}")
            self.broken.append(f"the plug-in {one_line(origin)} does not work and is left out: {said}")
        for name, entry in self._entries.items():
            if entry.origin == _top_package(point.module):
                self._entries[name] = replace(entry, origin=origin)

    def get(self, name: str) -> Entry[F]:
        """The entry called `name`; an unknown name is an error that lists the known ones."""
        found = self._entries.get(name) if self._own else None
        if (found is None or found.origin != OWN) and self._foreign:
            found = self._entries.get(name)
        if found is None:
            what = f"there is no {self.kind} called {name!r}; known: {', '.join(sorted(self._entries))}"
            raise UsageError("\n  ".join([what, *self.broken]), hint="hfsoup recipes")
        return found

    def own(self) -> list[Entry[F]]:
        """hfsoup's own entries, without a look at any plug-in."""
        return [entry for entry in self._entries.values() if entry.origin == OWN] if self._own else []

    def __iter__(self) -> Iterator[Entry[F]]:
        known = self._own and self._foreign
        return iter([self._entries[name] for name in sorted(self._entries)] if known else ())


def _top_package(module: str) -> str:
    """The package that a module is in."""
    return module.partition(".")[0]
