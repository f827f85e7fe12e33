"""The network that is trained on what a family's ingredients say, as a file in hfsoup's cache."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from hfsoup.averaging.averager import Averager
from hfsoup.averaging.mix import Mix
from hfsoup.checkpoints.architecture import build_config, map_to_model_names
from hfsoup.checkpoints.classifier import Classifier, build_model
from hfsoup.checkpoints.processor import load_image_processor
from hfsoup.checkpoints.safetensors_io import FLOATS, STORED, to_stored, write_tensors
from hfsoup.checkpoints.timm_config import list_libraries
from hfsoup.checkpoints.types import Ingredient, Source, describe_file
from hfsoup.data.tasks import task_of
from hfsoup.evaluation.candidate import Candidate
from hfsoup.evaluation.journal import hash_mix
from hfsoup.ingredients.family import Family
from hfsoup.networks.distillation.augmentation import AugmentedImages
from hfsoup.networks.distillation.batch_norm import Forward
from hfsoup.networks.distillation.training import Advance, match_logits
from hfsoup.networks.network import Network
from hfsoup.utils.cache import cached_folder
from hfsoup.utils.errors import SoupError
from hfsoup.utils.hashing import hash_json
from hfsoup.utils.text import join_names
from hfsoup.utils.threads import single_threaded
from hfsoup.utils.version import __version__

if TYPE_CHECKING:
    from accelerate import Accelerator

    from hfsoup.data.dataset_split import Split

NAME = "the distilled network"
WEIGHTS = "model.safetensors"
LIBRARIES = ("torch", "numpy", "transformers", "accelerate")
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
    """Train a network to match the mean of the members' logits; one ingredient of one file, in the family's types.

    Args:
        averager: forms the weights of members and start.
        members: the ingredients to match, each with its own batch-norm statistics.
        start: the mix to begin with.
        statistics: batch-norm tensors of the start by name that take the place of the averaged ones.
        split: the images; labels are not looked at.
        accelerator: where to train.
        epochs: how often all images are seen.
        seed: of the order of the images and of how they are altered.
        fresh: train again, whatever the cache holds.
        advance: told of images as they are forwarded.

    Raises:
        SoupError: the model's tensors are not those of its files, or the training fails.
    """
    family = averager.family
    device = torch.device("cpu") if accelerator.device.type == "cpu" else accelerator.device

    def build(folder: Path) -> None:
        with single_threaded():
            candidate = Candidate(averager, device)
            candidate.load(start)
            begun = {name: tensor.clone() for name, tensor in candidate.tensors.items()}
            begun.update({name: torch.from_numpy(found.copy()) for name, found in statistics.items()})
            student = _make_student(family, begun, accelerator)
            begun.clear()  # The student has weights of its own; no second copy stays while it trains.

            def ready(i: int) -> Forward:
                member = candidate.load(Mix.of((i,), len(family)))
                return lambda images: _compute_logits(member, images)

            lessons = AugmentedImages(np.load(split.pixels, mmap_mode="r"), epochs, seed)
            asked = [partial(ready, i) for i in members]
            match_logits(
                student.model,
                student.forward,
                asked,
                lessons,
                accelerator,
                task=task_of(family.config),
                advance=advance,
            )
        _write_student(averager, student, folder / WEIGHTS)
        accelerator.free_memory()

    facts = [
        [hash_mix(family, Mix.of((i,), len(family))) for i in members],
        hash_mix(family, start),
        averager.merge.name,
    ]
    told = [averager.parameters, averager.dtype, epochs, seed, str(device)]
    sums = {name: hashlib.sha256(found.tobytes()).hexdigest() for name, found in statistics.items()}
    versions = [__version__, *(version(name) for name in (*LIBRARIES, *list_libraries(family.config)))]
    key = hash_json(facts, told, sums, split.fingerprint, split.pixels.name, versions)
    folder, like = cached_folder("distilled", key, build, fresh=fresh), family.reference
    return Ingredient(Source(NAME, None, folder), like.folder, (describe_file(folder / WEIGHTS),), like.run)


def _make_student(family: Family, begun: dict[str, torch.Tensor], accelerator: Accelerator) -> Network:
    """The family's model with the weights to begin with, in float32, where it is trained."""
    config = build_config(family.config)
    floats = {name: t.float() if t.is_floating_point() else t for name, t in begun.items()}
    model = build_model(config, floats, torch.float32, NAME)
    names = map_to_model_names(model, begun)
    if lacking := sorted(begun.keys() - names.keys()):
        what = f"not supported with --distill: the model joins or splits what its files hold: {join_names(lacking, 3)}"
        raise SoupError(what, where=str(family.config.get("model_type")), hint="without --distill")
    model = accelerator.prepare_model(model, evaluation_mode=True).eval()
    processor = load_image_processor(family.processor_ingredient.processor_folder)
    classify = Classifier(model, processor, torch.float32, NAME)
    return Network(model, names, lambda images: classify(images).logits)


def _compute_logits(member: Any, images: torch.Tensor) -> torch.Tensor:
    found: torch.Tensor = member(images).logits
    return found


def _write_student(averager: Averager, network: Network, path: Path) -> None:
    """The network's tensors under the names of the family's files, in the types that a soup is written in."""
    found, tensors = network.state(), {}
    for spec in averager.family.tensors:
        dtype, array = averager.stored_as(spec), found[spec.name].detach().cpu().numpy()
        stored = to_stored(array.astype(np.float64), dtype) if dtype in FLOATS else array.astype(STORED[dtype])
        tensors[spec.name] = dtype, stored
    write_tensors(path, tensors)
