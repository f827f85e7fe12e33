"""EfficientNet as transformers names it, with squeeze and excitation inside every block."""

from __future__ import annotations

import re
from math import ceil
from typing import Any

from hfsoup.networks.alignment.groups import Group, Member, Shapes, axes, norm
from hfsoup.networks.alignment.tables import permutations

BLOCK = re.compile(r"efficientnet\.encoder\.blocks\.(\d+)\.projection\.project_conv\.weight")
STEM, TOP = "efficientnet.embeddings", "efficientnet.encoder.top"


@permutations("efficientnet", paper="arXiv:1905.11946")
def groups(shapes: Shapes, config: dict[str, Any]) -> tuple[Group, ...]:
    """One group for every stage's residual stream, for every expansion, for every squeeze, and for the features."""
    name, size = "stem", shapes[f"{STEM}.convolution.weight"][0]
    stream, found = [*axes(f"{STEM}.convolution.weight"), *norm(f"{STEM}.batchnorm")], []
    firsts = _find_first_blocks(config)
    for n in range(sum(BLOCK.fullmatch(key) is not None for key in shapes)):
        block = f"efficientnet.encoder.blocks.{n}"
        expand, reduce = f"{block}.expansion.expand_conv.weight", f"{block}.squeeze_excite.reduce"
        within = _list_inner_axes(block)
        if expand in shapes:
            stream += axes(expand, axis=1)
            wide = (*axes(expand), *norm(f"{block}.expansion.expand_bn"), *within)
            found.append(Group(f"{block}.expansion", shapes[expand][0], wide))
        else:
            stream += within
        squeeze = (*axes(f"{reduce}.weight", f"{reduce}.bias"), Member(f"{block}.squeeze_excite.expand.weight", 1))
        found.append(Group(reduce, shapes[f"{reduce}.weight"][0], squeeze))
        project = f"{block}.projection.project_conv.weight"
        if n in firsts:
            found.append(Group(name, size, tuple(stream)))
            name, size, stream = block, shapes[project][0], []
        stream += [*axes(project), *norm(f"{block}.projection.project_bn")]
    found.append(Group(name, size, (*stream, Member(f"{TOP}_conv.weight", 1))))
    top = (*axes(f"{TOP}_conv.weight"), *norm(f"{TOP}_bn"), Member("classifier.weight", 1))
    return (*found, Group("features", shapes[f"{TOP}_conv.weight"][0], top))


def _list_inner_axes(block: str) -> tuple[Member, ...]:
    """The axes that follow the channels between expansion and projection; depthwise filters have one input."""
    excite = f"{block}.squeeze_excite"
    return (
        *axes(f"{block}.depthwise_conv.depthwise_conv.weight"),
        *norm(f"{block}.depthwise_conv.depthwise_norm"),
        *axes(f"{excite}.expand.weight", f"{excite}.expand.bias"),
        *axes(f"{excite}.reduce.weight", f"{block}.projection.project_conv.weight", axis=1),
    )


def _find_first_blocks(config: dict[str, Any]) -> set[int]:
    """The blocks that begin a stage and so have no residual connection."""
    depths = [ceil(config["depth_coefficient"] * repeats) for repeats in config["num_block_repeats"]]
    return {sum(depths[:stage]) for stage in range(len(depths))}
