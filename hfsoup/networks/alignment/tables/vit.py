"""ViT as transformers names it, before and after version 5."""

from __future__ import annotations

from typing import Any

from hfsoup.networks.alignment.groups import Group, Member, Shapes, axes
from hfsoup.networks.alignment.tables import permutations

NAMES = (
    {
        "layer": "vit.encoder.layer.{}",
        "query": "attention.attention.query",
        "key": "attention.attention.key",
        "value": "attention.attention.value",
        "out": "attention.output.dense",
        "up": "intermediate.dense",
        "down": "output.dense",
    },
    {
        "layer": "vit.layers.{}",
        "query": "attention.q_proj",
        "key": "attention.k_proj",
        "value": "attention.v_proj",
        "out": "attention.o_proj",
        "up": "mlp.fc1",
        "down": "mlp.fc2",
    },
)


@permutations("vit", paper="arXiv:2010.11929")
def groups(shapes: Shapes, config: dict[str, Any]) -> tuple[Group, ...]:
    """One group of the hidden size and, for each layer, groups of its heads, of the units inside each head (query with
    key, value with output) and of the units of the MLP."""
    embedding, heads = "vit.embeddings", config["num_attention_heads"]
    patch = f"{embedding}.patch_embeddings.projection"
    size = shapes[f"{patch}.weight"][0]
    hidden = list(axes(f"{embedding}.cls_token", f"{embedding}.position_embeddings", axis=2))
    hidden += [*axes(f"{patch}.weight", f"{patch}.bias", *_name_both("vit.layernorm")), Member("classifier.weight", 1)]
    found: list[Group] = []
    for layer, part in _find_layers(shapes):
        query, key, value, out, up, down = (
            f"{layer}.{part[name]}" for name in ("query", "key", "value", "out", "up", "down")
        )
        hidden += axes(*(f"{name}.weight" for name in (query, key, value, up)), axis=1)
        hidden += axes(*_name_both(out), *_name_both(down))
        hidden += axes(*_name_both(f"{layer}.layernorm_before"), *_name_both(f"{layer}.layernorm_after"))
        width = shapes[f"{query}.weight"][0] // heads
        found += _group_heads(
            layer, heads, width, (*_name_both(query), *_name_both(key)), _name_both(value), f"{out}.weight"
        )
        mlp = (*axes(*_name_both(up)), Member(f"{down}.weight", 1))
        found.append(Group(f"{layer}.mlp", shapes[f"{up}.weight"][0], mlp))
    return (Group("hidden", size, tuple(hidden)), *found)


def _group_heads(
    layer: str, heads: int, width: int, compared: tuple[str, ...], values: tuple[str, ...], out: str
) -> list[Group]:
    """A group of the heads of a layer and two groups inside each head: query with key, value with output."""
    whole = (
        *(Member(name, 0, None, width, "compared") for name in compared),
        *(Member(name, 0, None, width, "value") for name in values),
        Member(out, 1, None, width, "value"),
    )
    found = [Group(f"{layer}.heads", heads, whole)]
    for head in range(heads):
        at = tuple(range(head * width, (head + 1) * width))
        found.append(Group(f"{layer}.head {head} compared", width, tuple(axes(*compared, at=at))))
        found.append(Group(f"{layer}.head {head} value", width, (*axes(*values, at=at), Member(out, 1, at))))
    return found


def _find_layers(shapes: Shapes) -> list[tuple[str, dict[str, str]]]:
    """The names of all layers from front to back, each with the names of its parts."""
    for part in NAMES:
        found: list[tuple[str, dict[str, str]]] = []
        while f"{(layer := part['layer'].format(len(found)))}.{part['query']}.weight" in shapes:
            found.append((layer, part))
        if found:
            return found
    return []


def _name_both(name: str) -> tuple[str, str]:
    return f"{name}.weight", f"{name}.bias"
