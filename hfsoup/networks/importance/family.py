"""What a merge asks of every ingredient beyond its weights, estimated on images once and kept in hfsoup's cache."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from hfsoup.checkpoints.architecture import build_config, map_to_model_names
from hfsoup.checkpoints.classifier import Classifier, build_model
from hfsoup.checkpoints.processor import load_image_processor
from hfsoup.checkpoints.safetensors_io import write_tensors
from hfsoup.checkpoints.timm_config import list_libraries, read_model_config
from hfsoup.checkpoints.types import WeightFile, describe_file
from hfsoup.data.tasks import task_of
from hfsoup.evaluation.journal import LIBRARIES, SILENT
from hfsoup.ingredients.family import Family, Importance
from hfsoup.networks.importance import KINDS, Estimates, Pixels, Subject, estimate_importance
from hfsoup.networks.ingredient_tensors import read_reordered, to_torch
from hfsoup.utils.cache import cached_folder
from hfsoup.utils.hashing import hash_json
from hfsoup.utils.threads import single_threaded
from hfsoup.utils.version import __version__

if TYPE_CHECKING:
    from hfsoup.data.dataset_split import Split

ESTIMATES = "importance.safetensors"
Advance = Callable[[int], None]


@dataclass(frozen=True)
class Look:
    """How all ingredients of a family are looked at: arguments as for `weighed`."""

    family: Family
    kind: str
    seed: int
    images: Split
    device: torch.device
    advance: Advance


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
    """A family with what `kind` tells of each of its ingredients.

    An ingredient is looked at as it is: with its own batch-norm statistics, and its own head where that is kept out of
    the average; its classes in the reference's order. torch works on one thread, so that sums are in one order.

    Args:
        family: the ingredients, aligned ones as the copies that they are.
        kind: the name of a kind of importance.
        seed: of what it draws.
        images: what it looks at; labels are not.
        device: where the networks run, in float32.
        fresh: make everything again, whatever the cache holds.
        advance: told of images, once for each ingredient.

    Raises:
        SoupError: an ingredient's weights or activations are not finite, or its model cannot run.
    """
    look = Look(family, kind, seed, images, device, advance)
    files = tuple(_cache_estimate(look, i, fresh=fresh) for i in range(len(family)))
    return replace(family, importance=Importance(kind, seed, images, files))


def find_differences(family: Family, recorded: Sequence[str]) -> Iterator[str]:
    """What is estimated otherwise than recorded, by the sha256 of every ingredient's file."""
    files = family.importance.files if family.importance else ()
    if len(recorded) != len(files):
        yield f"the importance of {len(files)} ingredients was estimated again, {len(recorded)} are recorded"
        return
    for ingredient, file, expected in zip(family.ingredients, files, recorded, strict=True):
        if file.sha256 != expected:
            yield f"ingredient {ingredient.id}: estimated again, its importance is not what was baked with"


def _cache_estimate(look: Look, i: int, *, fresh: bool) -> WeightFile:
    """The file of one ingredient, in the cache under all that its content depends on."""
    family, images, entry = look.family, look.images, KINDS.get(look.kind)
    ingredient = family.ingredients[i]
    config = {key: value for key, value in _read_config(family, i).items() if key not in SILENT}
    key = hash_json(
        entry.name, entry.origin, ingredient.content, family.orders[i], config, look.seed,
        images.fingerprint, images.pixels.name, [(s.name, s.name in family.reference_only) for s in family.tensors],
        str(look.device), __version__, *(version(name) for name in (*LIBRARIES, *list_libraries(family.config))),
    )  # fmt: skip

    def build(folder: Path) -> None:
        found = _estimate_ingredient(look, i)
        shared = [spec.name for spec in family.tensors if spec.name in found and spec.name not in family.reference_only]
        write_tensors(folder / ESTIMATES, {name: ("F32", found[name]) for name in shared})

    return describe_file(cached_folder("importance", key, build, fresh=fresh) / ESTIMATES)


def _estimate_ingredient(look: Look, i: int) -> Estimates:
    """What the kind tells of one ingredient, by the file's names of its tensors."""
    family, where = look.family, str(look.family.ingredients[i])
    tensors = to_torch(read_reordered(family, i))
    model = (
        build_model(build_config(_read_config(family, i)), dict(tensors), torch.float32, where).to(look.device).eval()
    )
    classify = Classifier(
        model, load_image_processor(family.processor_ingredient.processor_folder), torch.float32, where
    )

    def forward(pixels: Pixels) -> torch.Tensor:
        logits: torch.Tensor = classify(torch.from_numpy(np.array(pixels)).to(look.device)).logits
        look.advance(len(pixels))
        return logits

    subject = Subject(model, map_to_model_names(model, tensors), forward, task_of(look.family.config))
    with single_threaded():
        return estimate_importance(
            look.kind, subject, np.load(look.images.pixels, mmap_mode="r"), look.seed, where=where
        )


def _read_config(family: Family, i: int) -> dict[str, Any]:
    """An ingredient's own config where heads differ, else the family's."""
    ingredient = family.ingredients[i]
    if not family.reference_only:
        return family.config
    return read_model_config(ingredient.folder / "config.json", where=f"{ingredient}, config.json")
