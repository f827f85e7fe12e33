"""The importance of every ingredient's weights, as a merge needs it, in one file of hfsoup's cache for each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from hfsoup.checkpoints.timm_config import read_model_config
from hfsoup.checkpoints.types import WeightFile
from hfsoup.data.tasks import task_of
from hfsoup.evaluation.journal import SILENT
from hfsoup.ingredients.family import Family, Importance
from hfsoup.networks.importance import KINDS, Pixels, Subject, estimate_importance
from hfsoup.networks.ingredient_tensors import StoredTensors, cache_tensors, load_network, read_reordered, to_torch
from hfsoup.utils.progress import Advance
from hfsoup.utils.threads import single_threaded

if TYPE_CHECKING:
    from hfsoup.data.dataset_split import Split


def estimate_family(
    family: Family,
    kind: str,
    *,
    seed: int,
    images: Split,
    device: torch.device,
    fresh: bool = False,
    advance: Advance = lambda _: None,
) -> Family:
    """The family with the importance of the weights of each of its ingredients.

    An ingredient runs with its own batch-norm statistics, with its own head where heads are not averaged, and with its
    classes in the reference's order. torch uses one thread, so that the order of sums is always the same.

    Args:
        family: the ingredients; aligned ones as the copies that they are.
        kind: the name of a kind of importance.
        seed: of the random signs.
        images: what the networks see; labels are not used.
        device: where the networks run, in float32.
        fresh: estimate again, whatever the cache has.
        advance: called with a number of images after they were forwarded.

    Raises:
        SoupError: an ingredient's weights or activations are not finite, or its model cannot run.
    """

    def estimate(i: int) -> WeightFile:
        config = _read_config(family, i)

        def build() -> StoredTensors:
            where = str(family.ingredients[i])
            tensors = to_torch(read_reordered(family, i))
            network = load_network(family, tensors, where, place=lambda model: model.to(device), config=config)

            def forward(pixels: Pixels) -> torch.Tensor:
                logits = network.forward(torch.from_numpy(pixels).to(device))
                advance(len(pixels))
                return logits

            subject = Subject(network.model, network.names, forward, task_of(family.config))
            with single_threaded():
                found = estimate_importance(kind, subject, images.pixels, seed, where=where)
            averaged = [spec.name for spec in family.tensors if spec.name not in family.reference_only]
            return {name: ("F32", found[name]) for name in averaged if name in found}

        entry, shown = KINDS.get(kind), {key: value for key, value in config.items() if key not in SILENT}
        facts = [
            entry.name, *entry.identity, family.ingredients[i].content, family.orders[i], shown, seed,
            images.fingerprint, images.pixels.name, sorted(family.reference_only), str(device),
        ]  # fmt: skip
        return cache_tensors("importance", family, facts, build, name="importance.safetensors", fresh=fresh)

    files = tuple(estimate(i) for i in range(len(family)))
    return replace(family, importance=Importance(kind, seed, images, files))


def find_differences(family: Family, recorded: Sequence[str]) -> Iterator[str]:
    """A sentence for every ingredient whose importance is not the recorded one, by the sha256 of its file."""
    files = family.importance.files if family.importance else ()
    if len(recorded) != len(files):
        yield f"expected the importance of {len(recorded)} ingredients as recorded, found that of {len(files)}"
        return
    for ingredient, file, expected in zip(family.ingredients, files, recorded, strict=True):
        if file.sha256 != expected:
            yield f"ingredient {ingredient.id}: its importance, estimated again, is not the one of the bake"


def _read_config(family: Family, i: int) -> dict[str, Any]:
    """An ingredient's own config where heads differ, else the family's."""
    ingredient = family.ingredients[i]
    if not family.reference_only:
        return family.config
    return read_model_config(ingredient.folder / "config.json", where=f"{ingredient}, config.json")
