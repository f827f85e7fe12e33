"""Named functions, one a file: recipes, merges, metrics and the like, hfsoup's own and those of installed plug-ins."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import pkgutil
import re
import reprlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from hfsoup.utils.errors import UsageError
from hfsoup.utils.extras import require_extra
from hfsoup.utils.text import one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

F = TypeVar("F", bound="Callable[..., Any]")
OWN = "hfsoup"
TYPES: dict[str, type] = {"int": int, "float": float, "bool": bool, "str": str}
ANNOTATION = re.compile(r"(?:typing\.)?(?:Optional\[)?(int|float|bool|str)\]?(?: \| None)?")


@dataclass(frozen=True)
class Parameter:
    """A keyword-only argument of a registered function: a flag, a keyword of `hfsoup.bake` and a key of YAML files."""

    name: str
    type: type
    default: int | float | bool | str | None
    help: str = ""

    def convert(self, value: Any) -> Any:
        """The value in the parameter's type: an int may stand for a float, and None for a default of None.

        Raises:
            UsageError: it is of another type.
        """
        if self.type is float and type(value) is int:
            return float(value)
        if type(value) is not self.type and not (value is None and self.default is None):
            raise UsageError(f"expected {self.name} to be {self.type.__name__}, found {reprlib.repr(value)}")
        return value


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A function under its name.

    Attributes:
        name: what users type.
        function: what does it.
        paper: where it is defined, as `arXiv:2203.05482` or `doi:…`.
        summary: what it does, in a line.
        citation: how a model card cites it: a line of text, or BibTeX.
        origin: the package that it comes from, with its version where that is a plug-in.
        parameters: its keyword-only arguments.
        package: what it needs that is not installed with hfsoup.
    """

    name: str
    function: Callable[..., Any]
    paper: str
    summary: str
    citation: str
    origin: str
    parameters: tuple[Parameter, ...]
    package: str = ""

    def require_package(self) -> None:
        """Fail if the package that it needs is not installed."""
        if self.package:
            require_extra(self.name, self.package, self.name)

    @property
    def identity(self) -> list[str]:
        """What tells it from another one of its name: its package and, of a plug-in, the file that it is written in."""
        if self.origin == OWN:
            return [self.origin]
        try:
            text = "".join(inspect.findsource(self.function)[0])
        except (OSError, TypeError):  # typed into a shell
            text = ""
        return [self.origin, hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()]

    def fill_parameters(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """A value for every parameter: those given, and the defaults for those that are missing or None."""
        given = {name: value for name, value in values.items() if value is not None}
        return {p.name: given.get(p.name, p.default) for p in self.parameters}


E = TypeVar("E", bound=Entry)


class Registry(Generic[E]):
    """Entries of one kind; the modules of `package` are imported the first time one is asked for.

    Plug-ins are the entry points of `group`: modules that register what they bring when they are imported. They are
    imported the first time that a name is asked for which hfsoup does not have, or all are listed. Why one does not
    work is in `broken`, a text for each.

    Args:
        kind: what an entry is called in messages.
        package: where hfsoup's own are, one a module.
        entry: what is recorded of each.
        group: the group of entry points; the name of the package unless given.
        aliases: what other tools call some entries, for the hint of an error.
    """

    def __init__(
        self,
        kind: str,
        package: str,
        entry: type[E],
        group: str = "",
        aliases: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.kind, self.package, self.group, self._entry = kind, package, group or package, entry
        self.aliases = aliases
        self.broken: list[str] = []
        self._entries: dict[str, E] = {}

    def register(
        self,
        name: str,
        *,
        paper: str = "",
        summary: str = "",
        citation: str = "",
        help: Mapping[str, str] | None = None,  # noqa: A002 - what argparse and typer call it
        **traits: Any,
    ) -> Callable[[F], F]:
        """Decorate a function to be known as `name`.

        Args:
            name: what users type.
            paper: where it is defined.
            summary: what it does, in a line; the first of the function's docstring unless given.
            citation: how a model card cites it: a line of text, or BibTeX.
            help: a line for each parameter; else what the docstring's `Args:` says.
            traits: what only this kind of entry has.

        Raises:
            UsageError: something else has that name, or a keyword-only argument is no parameter.
        """

        def record(function: F) -> F:
            home = _top_package(function.__module__)
            taken = self._entries.get(name) if home == OWN or self._built_in else None
            if taken is not None and taken.function.__module__ != function.__module__:
                raise UsageError(f"the {self.kind} {one_line(name)} is there already, from {taken.origin}")
            said = inspect.getdoc(function) or ""
            self._entries[name] = self._entry(
                name=name,
                function=function,
                paper=paper,
                summary=summary or said.split("\n", 1)[0].rstrip("."),
                citation=citation,
                origin=home,
                parameters=read_parameters(function, help or {}, where=f"the {self.kind} {one_line(name)}"),
                **traits,
            )
            return function

        return record

    @cached_property
    def _built_in(self) -> bool:
        """Import hfsoup's own entries, once."""
        package = importlib.import_module(self.package)
        for module in sorted(m.name for m in pkgutil.iter_modules(package.__path__)):
            importlib.import_module(f"{self.package}.{module}")
        return True

    @cached_property
    def _plug_ins(self) -> bool:
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

    def get(self, name: str) -> E:
        """The entry called `name`.

        Raises:
            UsageError: there is none; the known ones are listed, and the one that was probably meant is the hint.
        """
        found = self.find(name)
        if found is None:
            what = f"there is no {self.kind} called {name!r}; known: {', '.join(sorted(self._entries))}"
            meant = self.aliases.get(name) or find_nearest(name.replace("_", "-"), sorted(self._entries))
            hint = f"--{self.kind} {meant}" if meant else "hfsoup recipes"
            raise UsageError("\n  ".join([what, *self.broken]), hint=hint)
        return found

    def find(self, name: str) -> E | None:
        """The entry called `name`, None where there is none."""
        found = self._entries.get(name) if self._built_in else None
        if (found is None or found.origin != OWN) and self._plug_ins:
            found = self._entries.get(name)
        return found

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self.find(name) is not None

    def list_built_in(self) -> list[E]:
        """hfsoup's own entries, without importing any plug-in."""
        return [entry for entry in self._entries.values() if entry.origin == OWN] if self._built_in else []

    def list_plug_ins(self) -> list[E]:
        """The entries of plug-ins; where none is installed or registered, nothing is imported."""
        some = any(entry.origin != OWN for entry in self._entries.values()) or entry_points(group=self.group)
        return [entry for entry in self if entry.origin != OWN] if some else []

    def __iter__(self) -> Iterator[E]:
        known = self._built_in and self._plug_ins
        return iter([self._entries[name] for name in sorted(self._entries)] if known else ())


def read_parameters(function: Callable[..., Any], texts: Mapping[str, str], *, where: str) -> tuple[Parameter, ...]:
    """The keyword-only arguments of a function, with a line of help from `texts` or the docstring's `Args:`.

    Raises:
        UsageError: one has no default, or is no int, float, bool or str; `where` is whose it is.
    """
    found, said = [], inspect.getdoc(function) or ""
    for p in inspect.signature(function).parameters.values():
        if p.kind is not p.KEYWORD_ONLY:
            continue
        text = p.annotation if isinstance(p.annotation, str) else inspect.formatannotation(p.annotation)
        annotated = ANNOTATION.fullmatch(text.strip("'\""))
        kind: type = TYPES[annotated[1]] if annotated else object
        if p.annotation is p.empty:
            kind = type(p.default)
        fits = p.default is None or type(p.default) is kind or (kind is float and type(p.default) is int)
        if kind not in TYPES.values() or not fits:
            what = f"{where}: expected {p.name} to be an int, float, bool or str with a default, found {one_line(p)}"
            raise UsageError(what)
        line = re.search(rf"^\s+{re.escape(p.name)}(?: \(.*?\))?: (.+)$", said, re.MULTILINE)
        default = float(p.default) if kind is float and p.default is not None else p.default
        found.append(Parameter(p.name, kind, default, texts.get(p.name, line[1].strip() if line else "")))
    return tuple(found)


def find_nearest(name: str, known: list[str]) -> str:
    """The known name that is most like `name`; empty where none is."""
    return next(iter(get_close_matches(name, known, 1)), "")


def _top_package(module: str) -> str:
    """The package that a module is in."""
    return module.partition(".")[0]
