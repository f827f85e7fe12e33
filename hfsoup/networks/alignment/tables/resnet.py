"""ResNet as transformers names it: blocks of two or three layers, with or without a shortcut convolution."""

from __future__ import annotations

import re
from typing import Any

from hfsoup.networks.alignment.groups import Group, Member, Shapes, Step, axes, norm
from hfsoup.networks.alignment.tables import permutations

STEM, HEAD = "resnet.embedder.embedder", "classifier.1"
LAYER = re.compile(r"(resnet\.encoder\.stages\.(\d+)\.layers\.(\d+))\.layer\.(\d+)\.convolution\.weight")


def steps(shapes: Shapes) -> tuple[Step, ...]:
    """The convolutions from front to back, a block's shortcut before the convolution that it is added to."""
    found = [_make_step(STEM)]
    for block, last in _find_blocks(shapes):
        if f"{block}.shortcut.convolution.weight" in shapes:
            found.append(_make_step(f"{block}.shortcut"))
        found += [_make_step(f"{block}.layer.{j}") for j in range(last)]
        found.append(_make_step(f"{block}.layer.{last}", f"{block}.shortcut"))
    return (*found, Step(HEAD))


@permutations("resnet", paper="arXiv:1512.03385", steps=steps)
def groups(shapes: Shapes, _: dict[str, Any]) -> tuple[Group, ...]:
    """One group for every residual stream, which ends at a shortcut convolution, and one between layers of a block."""
    stream, found = [*_list_output_axes(STEM)], []
    size, name = shapes[f"{STEM}.convolution.weight"][0], "stem"
    for block, last in _find_blocks(shapes):
        first, shortcut = f"{block}.layer.0", f"{block}.shortcut"
        stream += axes(f"{first}.convolution.weight", axis=1)
        if f"{shortcut}.convolution.weight" in shapes:
            stream += axes(f"{shortcut}.convolution.weight", axis=1)
            found.append(Group(name, size, tuple(stream)))
            name, size, stream = block, shapes[f"{shortcut}.convolution.weight"][0], [*_list_output_axes(shortcut)]
        for j in range(last):
            here, following = f"{block}.layer.{j}", f"{block}.layer.{j + 1}.convolution.weight"
            members = (*_list_output_axes(here), *axes(following, axis=1))
            found.append(Group(here, shapes[f"{here}.convolution.weight"][0], members))
        stream += _list_output_axes(f"{block}.layer.{last}")
    return (*found, Group(name, size, (*stream, Member(f"{HEAD}.weight", 1))))


def _find_blocks(shapes: Shapes) -> list[tuple[str, int]]:
    """The names of all blocks from front to back, each with the number of its last layer."""
    found: dict[tuple[int, int], tuple[str, int]] = {}
    for match in filter(None, map(LAYER.fullmatch, shapes)):
        place = int(match[2]), int(match[3])
        found[place] = match[1], max(int(match[4]), found.get(place, ("", 0))[1])
    return [found[place] for place in sorted(found)]


def _list_output_axes(name: str) -> tuple[Member, ...]:
    return (*axes(f"{name}.convolution.weight"), *norm(f"{name}.normalization"))


def _make_step(name: str, shortcut: str | None = None) -> Step:
    return Step(f"{name}.convolution", f"{name}.normalization", shortcut)
