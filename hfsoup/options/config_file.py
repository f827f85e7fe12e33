"""A bake as a YAML file: validated with errors that name the line; written short or with every option."""

from __future__ import annotations

import re
import shlex
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ConfigDict, Field, ValidationError, create_model

from hfsoup.options.options import (
    EVERYTHING,
    GROUPS,
    Options,
    find_parameters,
    get_option_types,
    list_parameters,
    option_fields,
)
from hfsoup.utils.errors import SoupError, UsageError
from hfsoup.utils.registry import find_nearest
from hfsoup.utils.safe_yaml import require_plain_yaml
from hfsoup.utils.text import one_line, quoted

SUFFIXES = (".yaml", ".yml")
LIMIT = 64 << 10
PLAIN = re.compile(r"[A-Za-z0-9_.][\w./@*+-]*", re.ASCII)
HEAD = """\
# Bake it with: hfsoup bake {name}
# Flags of the command line override this file. Options that are commented out have their defaults.
"""
SCHEMA = create_model(
    "Config",
    __config__=ConfigDict(strict=True, extra="forbid"),
    ingredients=(list[str], Field(min_length=1)),
    **{name: (hint, None) for name, hint in get_option_types().items()},  # type: ignore[call-overload]
)


def is_config(words: Sequence[str]) -> bool:
    """Whether a bake's only argument is a config file."""
    return len(words) == 1 and words[0].endswith(SUFFIXES) and Path(words[0]).expanduser().is_file()


def load_config(path: Path, over: Mapping[str, Any]) -> tuple[tuple[str, ...], Options]:
    """The ingredients and options of a file.

    Args:
        path: a YAML mapping of `ingredients` and options, with underscores or dashes.
        over: options that override the file's.

    Raises:
        UsageError: something in it is wrong; the message names file and line.
    """
    lines, values = _read_yaml(path)
    found = _validate(path, lines, values, over)
    ingredients = found.pop("ingredients")
    _refuse_powers(path, lines, found, over)
    try:
        return tuple(ingredients), Options.of({**found, **over})
    except UsageError as error:
        line = next((lines[name] for name in found if _is_valid_without(found, over, name)), None)
        if line is None:
            raise
        raise UsageError(error.what, where=f"{path}, line {line}", hint=error.hint) from error


def format_config(ingredients: Sequence[str], values: Mapping[str, Any]) -> str:
    """The ingredients and some options as YAML; each line is one key or one ingredient, whatever the texts hold."""
    lines = ["ingredients:", *(f"  - {_format_scalar(name)}" for name in ingredients)]
    return "\n".join([*lines, *(f"{name}: {_format_scalar(value)}" for name, value in values.items())]) + "\n"


def format_commented_config(ingredients: Sequence[str], options: Options, name: str) -> str:
    """Write every option with its help; those with their default are commented out."""
    return (
        HEAD.format(name=one_line(name)) + format_config(ingredients, {}) + "\n".join(_format_options(options)) + "\n"
    )


def write_config(path: Path, text: str) -> None:
    """Write a config file, unless another one exists at this path."""
    try:
        if path.is_file() and path.read_text("utf-8", "replace") == text:
            return
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as error:
        raise SoupError("the file exists already", where=str(path), hint="another name") from error
    except OSError as error:
        hint = "another name" if path.parent.is_dir() else f"mkdir -p {shlex.quote(str(path.parent))}"
        raise SoupError(f"the config could not be written: {error.strerror}", where=str(path), hint=hint) from error


def _format_options(options: Options) -> Iterator[str]:
    group = ""
    for f in sorted(option_fields(), key=lambda f: GROUPS.index(f.metadata["group"])):
        if f.metadata["group"] != group:
            group = f.metadata["group"]
            yield f"\n# {group} {'-' * 20}"
        value = getattr(options, f.name)
        yield ""
        yield from (f"# {line}" for line in textwrap.wrap(f.metadata["help"], 110))
        yield f"{'# ' if value == f.default else ''}{f.name}: {_format_scalar(value)}"
    if options.parameters:
        yield f"\n# Of this recipe and merge {'-' * 20}\n"
        yield from (f"{name}: {_format_scalar(value)}" for name, value in options.parameters.items())


def _format_scalar(value: object) -> str:
    """A value on one line of ASCII."""
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_format_scalar, value))}]"
    if not isinstance(value, str):
        return str(yaml.safe_dump(value)).split("\n", 1)[0]
    if PLAIN.fullmatch(value) and yaml.safe_load(value) == value:
        return value
    return str(yaml.safe_dump(value, default_style='"', width=float("inf"))).rstrip("\n")


def _read_yaml(path: Path) -> tuple[dict[str, int], dict[str, Any]]:
    """The line and the value of every key."""
    try:
        if path.stat().st_size > LIMIT:
            raise UsageError(f"expected a config of at most {LIMIT:,} bytes", where=str(path))
        text = path.read_text("utf-8")
        require_plain_yaml(text)
        loader = yaml.SafeLoader(text)
        root = loader.get_single_node()
        if not isinstance(root, yaml.MappingNode):
            what = "expected `ingredients:` and options, found something else"
            raise UsageError(what, where=str(path), hint="hfsoup init INGREDIENT...")
        lines: dict[str, int] = {}
        values: dict[str, Any] = {}
        for key, node in root.value:
            name, line = str(loader.construct_object(key)).replace("-", "_"), key.start_mark.line + 1
            if name in lines:
                what = f"{name} is given twice, first in line {lines[name]}"
                raise UsageError(what, where=f"{path}, line {line}", hint="remove one of them")
            lines[name], values[name] = line, loader.construct_object(node, deep=True)
            if isinstance(node, yaml.SequenceNode):
                lines |= {f"{name}.{n}": item.start_mark.line + 1 for n, item in enumerate(node.value)}
    except (UnicodeDecodeError, ValueError) as error:
        raise UsageError("expected a YAML file in UTF-8, found something else", where=str(path)) from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}, line {mark.line + 1}" if mark else str(path)
        what = f"this is not YAML: {one_line(getattr(error, 'problem', None) or 'invalid characters')}"
        raise UsageError(what, where=where, hint='put text with special characters in "quotes"') from error
    return lines, values


def _validate(path: Path, lines: Mapping[str, int], values: dict[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Validate the values against the schema."""
    if isinstance(values.get("ingredients"), str):
        values["ingredients"] = [values["ingredients"]]
    if values.get("fine_tunes_of"):
        values.setdefault("ingredients", list(EVERYTHING))
    known = {*SCHEMA.model_fields, *find_parameters(values, over)}
    own = {name: value for name, value in values.items() if name in SCHEMA.model_fields or name not in known}
    try:
        found = SCHEMA.model_validate(own).model_dump(include=set(own))
        return {**found, **{name: value for name, value in values.items() if name not in own}}
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
    name = str(first["loc"][0])
    if first["type"] == "missing":
        raise UsageError(f"{name} is missing", where=str(path), hint="ingredients: [org/model-*]")
    line = lines.get(".".join(map(str, first["loc"])), lines[name])
    what, hint = f"{name}: {first['msg'].replace('Input should be', 'expected')}, found {quoted(first['input'])}", ""
    if first["type"] == "extra_forbidden":
        what = f"there is no option {quoted(name)}"
        hint = find_nearest(name, [*known, *list_parameters()]) or f"one of {', '.join(SCHEMA.model_fields)}"
    raise UsageError(what, where=f"{path}, line {line}", hint=hint)


def _refuse_powers(path: Path, lines: Mapping[str, int], found: Mapping[str, Any], over: Mapping[str, Any]) -> None:
    """Refuse what only who runs the bake may allow, as such a file may come from a card."""
    wishes = {
        "trust_remote_metric": f"the script of the metric {quoted(found.get('metric'))} to be run",
        "push": f"the soup to be pushed to {quoted(found.get('push'))}",
        "overwrite": f"the folder {quoted(found.get('output'))} to be replaced",
    }
    for name, wish in wishes.items():
        if found.get(name) and not over.get(name):
            flag = f"--{name.replace('_', '-')}" + (f" {shlex.quote(str(found[name]))}" if name == "push" else "")
            what, hint = f"this file wants {wish}; only you can allow that", f"hfsoup bake {path} {flag}"
            raise UsageError(what, where=f"{path}, line {lines[name]}", hint=f"{hint}, if you mean it")


def format_powers(options: Options) -> str:
    """The flags that a bake of a file with these options needs too, as only who runs it may allow them."""
    push = f" --push {shlex.quote(options.push)}" if options.push else ""
    trust = " --trust-remote-metric" if options.trust_remote_metric else ""
    return push + (" --overwrite" if options.overwrite else "") + trust


def _is_valid_without(found: Mapping[str, Any], over: Mapping[str, Any], name: str) -> bool:
    """Whether the options are valid without the file's `name`."""
    if name in over:
        return False
    try:
        Options.of({**{key: value for key, value in found.items() if key != name}, **over})
    except UsageError:
        return False
    return True
