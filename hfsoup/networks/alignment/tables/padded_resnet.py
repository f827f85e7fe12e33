"""Residual networks for small images whose shortcuts have no weights: wider stages get zero channels on both sides.

The channels that a stage adds to the residual stream are a group; the middle ones are those of the stage before, in
the same order. Source: He et al., arXiv:1512.03385, section 4.2, option A.
"""

from __future__ import annotations

import re
from typing import Any

from hfsoup.networks.alignment.groups import Group, Member, Shapes, Step, axes, norm
from hfsoup.networks.alignment.tables import permutations

BLOCK = re.compile(r"layer(\d+)\.(\d+)\.conv1\.weight")


def steps(shapes: Shapes) -> tuple[Step, ...]:
    """The convolutions from front to back; the second one of a block is followed by an addition."""
    found = [Step("conv1", "bn1")]
    for stage, block in _find_blocks(shapes):
        name = f"layer{stage}.{block}"
        found += [Step(f"{name}.conv1", f"{name}.bn1"), Step(f"{name}.conv2", f"{name}.bn2", f"{name}.shortcut")]
    return (*found, Step("linear"))


@permutations("padded-resnet", paper="arXiv:1512.03385", steps=steps)
def groups(shapes: Shapes, _: dict[str, Any]) -> tuple[Group, ...]:
    """One group inside every block, and one for the channels that each stage adds to the residual stream."""
    blocks, inside = _find_blocks(shapes), []
    for stage, block in blocks:
        name = f"layer{stage}.{block}"
        narrow = (*axes(f"{name}.conv1.weight"), *norm(f"{name}.bn1"), *axes(f"{name}.conv2.weight", axis=1))
        inside.append(Group(name, shapes[f"{name}.conv1.weight"][0], narrow))
    stages = sorted({stage for stage, _ in blocks})
    widths = [shapes[f"layer{stage}.0.conv2.weight"][0] for stage in stages]
    stream = []
    for n, stage in enumerate(stages):
        members: list[Member] = []
        for later in range(n, len(stages)):
            members += _list_stage_axes(stages[later], blocks, _locate_channels(widths, n, later), shapes)
            if later + 1 < len(stages) and widths[later + 1] != widths[later]:
                at = _locate_channels(widths, n, later)
                members += axes(f"layer{stages[later + 1]}.0.conv1.weight", axis=1, at=at)
        if n == 0:
            members += [*axes("conv1.weight"), *norm("bn1")]
        members += axes("linear.weight", axis=1, at=_locate_channels(widths, n, len(stages) - 1))
        stream.append(Group(f"residual {stage}", len(_locate_channels(widths, n, n)), tuple(members)))
    return (*(group for group in stream if group.size), *inside)


def _find_blocks(shapes: Shapes) -> list[tuple[int, int]]:
    found = [(int(m[1]), int(m[2])) for name in shapes if (m := BLOCK.fullmatch(name))]
    return sorted(found)


def _list_stage_axes(stage: int, blocks: list[tuple[int, int]], at: tuple[int, ...], shapes: Shapes) -> list[Member]:
    """The axes of one stage's blocks that follow channels of the residual stream; a first block may be narrower."""
    members: list[Member] = []
    for name in (f"layer{s}.{b}" for s, b in blocks if s == stage):
        members += [*axes(f"{name}.conv2.weight", at=at), *norm(f"{name}.bn2", at)]
        if not name.endswith(".0") or shapes[f"{name}.conv1.weight"][1] == shapes[f"{name}.conv2.weight"][0]:
            members += axes(f"{name}.conv1.weight", axis=1, at=at)
    return members


def _locate_channels(widths: list[int], origin: int, stage: int) -> tuple[int, ...]:
    """The positions, in the residual stream of `stage`, of the channels that the stage `origin` added."""
    shift = (widths[stage] - widths[origin]) // 2
    before = widths[origin - 1] if origin else 0
    edge = (widths[origin] - before) // 2
    own = [c for c in range(widths[origin]) if not edge <= c < edge + before]
    return tuple(c + shift for c in own)
