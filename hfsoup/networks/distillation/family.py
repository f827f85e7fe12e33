"""One network trained to match a family's ingredients, as a weight file in hfsoup's cache."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from hfsoup.averaging.averager import Averager
from hfsoup.averaging.mix import Mix
from hfsoup.checkpoints.types import Ingredient, Source
from hfsoup.data.tasks import task_of
from hfsoup.evaluation.candidate import Candidate
from hfsoup.evaluation.journal import hash_mix
from hfsoup.ingredients.family import Family
from hfsoup.networks.distillation.augmentation import AugmentedImages
from hfsoup.networks.distillation.batch_norm import Forward
from hfsoup.networks.distillation.training import match_logits
from hfsoup.networks.ingredient_tensors import StoredTensors, cache_tensors, from_torch, load_network
from hfsoup.networks.network import Network
from hfsoup.utils.errors import SoupError
from hfsoup.utils.progress import Advance
from hfsoup.utils.text import join_names
from hfsoup.utils.threads import single_threaded

if TYPE_CHECKING:
    from accelerate import Accelerator

    from hfsoup.data.dataset_split import Split

NAME = "the distilled network"
Statistics = Mapping[str, NDArray[np.float32]]


def distill_family(
    averager: Averager,
    members: tuple[int, ...],
    start: Mix,
    statistics: Statistics,
    split: Split,
    accelerator: Accelerator,
    *,
    epochs: int,
    seed: int,
    fresh: bool = False,
    advance: Advance = lambda _: None,
) -> Ingredient:
    """Train a network to match the mean of the members' logits; an ingredient of one file in the soup's dtypes.

    Args:
        averager: averages the weights of members and start.
        members: the ingredients to match, each with its own batch-norm statistics.
        start: the mix that the training starts from.
        statistics: batch-norm tensors of the start by name, in place of the averaged ones.
        split: the images; labels are not used.
        accelerator: where to train.
        epochs: how often every image is seen.
        seed: of the order of the images and of their augmentation.
        fresh: train again, whatever the cache has.
        advance: called with a number of images after they were forwarded.

    Raises:
        SoupError: the model's tensors are not those of its files, or the training fails.
    """
    family = averager.family
    device = torch.device("cpu") if accelerator.device.type == "cpu" else accelerator.device

    def build() -> StoredTensors:
        with single_threaded():
            candidate = Candidate(averager, device)
            candidate.load(start)
            weights = {name: tensor.clone() for name, tensor in candidate.tensors.items()}
            weights.update({name: torch.from_numpy(found.copy()) for name, found in statistics.items()})
            student = _load_student(family, weights, accelerator)
            weights.clear()  # The student has weights of its own; a second copy would stay while it trains.

            def load_member(i: int) -> Forward:
                member = candidate.load(Mix.of((i,), len(family)))
                return lambda images: member(images).logits

            match_logits(
                student.model,
                student.forward,
                [partial(load_member, i) for i in members],
                AugmentedImages(split.pixels, epochs, seed),
                accelerator,
                task=task_of(family.config),
                advance=advance,
            )
        accelerator.free_memory()
        return from_torch(student.state_dict(), {spec.name: averager.stored_as(spec) for spec in family.tensors})

    alone = [Mix.of((i,), len(family)) for i in members]
    mixes = [hash_mix(family, mix, made=averager.list_mix_facts(mix)) for mix in (*alone, start)]
    hashes = {name: hashlib.sha256(found.tobytes()).hexdigest() for name, found in statistics.items()}
    facts = [
        mixes, epochs, seed, str(device), hashes, split.fingerprint, split.pixels.name,
    ]  # fmt: skip
    file, like = cache_tensors("distilled", family, facts, build, fresh=fresh), family.reference
    return Ingredient(Source(NAME, None, file.path.parent), like.folder, (file,), like.run)


def _load_student(family: Family, weights: Mapping[str, torch.Tensor], accelerator: Accelerator) -> Network:
    """The network to train, in float32.

    Raises:
        SoupError: the model joins or splits tensors of the files, so it cannot be written under their names.
    """
    floats = {name: t.float() if t.is_floating_point() else t for name, t in weights.items()}
    network = load_network(family, floats, NAME, place=partial(accelerator.prepare_model, evaluation_mode=True))
    if lacking := sorted(weights.keys() - network.names.keys()):
        what = f"not supported with --distill: the model joins or splits tensors of its files: {join_names(lacking, 3)}"
        raise SoupError(what, where=str(family.config.get("model_type")), hint="without --distill")
    return network
