"""Checks YAML of unknown origin before a loader sees it."""

from __future__ import annotations

from typing import Any

import yaml

MAX_NODES = 20_000
"""The most values of a text, those of an anchor counted wherever they are repeated."""
MAX_DEPTH = 64


def require_plain_yaml(text: str, most: int = MAX_NODES) -> None:
    """Refuse YAML that takes long to load or that loads as more than plain values.

    A few lines of anchors and aliases can stand for billions of values, which merge keys (`<<`) copy one by one; the
    time to load nested values grows with the square of their depth; and tags (`!!int`) fail on texts in many ways.

    Raises:
        yaml.YAMLError: it is not YAML, has tags, too many values or levels, or an alias of what it is part of.
    """
    sizes: dict[str, int] = {}
    # The anchor of every open collection, and the number of values in it so far; first the document itself.
    opened: list[tuple[str | None, int]] = [(None, 0)]
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if getattr(event, "tag", None) is not None:
            raise _make_error("tags (!) are not read", event)
        if isinstance(event, yaml.CollectionStartEvent):
            opened.append((event.anchor, 1))
            if len(opened) > MAX_DEPTH:
                raise _make_error(f"more than {MAX_DEPTH} levels", event)
            continue
        if isinstance(event, yaml.CollectionEndEvent):
            anchor, size = opened.pop()
        elif isinstance(event, yaml.ScalarEvent):
            anchor, size = event.anchor, 1
        elif isinstance(event, yaml.AliasEvent):
            if event.anchor not in sizes:
                raise _make_error("an alias of what does not end before it", event)
            anchor, size = None, sizes[event.anchor]
        else:
            continue
        if anchor:
            sizes[anchor] = size
        opened[-1] = (opened[-1][0], opened[-1][1] + size)
        if opened[-1][1] > most:
            raise _make_error(f"more than {most:,} values", event)


def _make_error(problem: str, event: Any) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=event.start_mark)
